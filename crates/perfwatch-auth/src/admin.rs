//! Account management from the command line (`perfwatch user …`), with or without a running hub. A
//! running hub notices the change within a second.

use super::config::SessionLifetimes;
use super::directory::AuthDirectory;
use super::{identity, password, secret};
use crate::encryption::Keyring;
use crate::error::AuthError;
use crate::revocation::{revoke_derived, revoke_enrollment_tokens};
use perfwatch_model::Clock;
use perfwatch_store::accounts::{Account, Role, Token};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use std::sync::Arc;

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The command is invalid.
    #[error("{0}")]
    Rejected(String),
    /// The store failed or is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AuthError> for AdminError {
    fn from(error: AuthError) -> Self {
        Self::Rejected(error.to_string())
    }
}

/// Commands on the accounts of a store.
pub struct AdminCli(Arc<AuthDirectory>);

impl AdminCli {
    /// Loads the accounts of a store.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, AdminError> {
        // The commands only disable two-factor authentication, which needs no encryption key.
        let keyring = Arc::new(Keyring::new(&[]));
        Ok(Self(AuthDirectory::open(store, clock, keyring, SessionLifetimes::default()).await?))
    }

    /// All accounts, sorted by name.
    pub fn list(&self) -> Vec<Account> {
        let mut all: Vec<Account> = self.0.snapshot().accounts.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn find(&self, name: &str) -> Result<Account, AdminError> {
        let found = self.0.snapshot().account_by_name(name).cloned();
        found.ok_or_else(|| AdminError::Rejected(format!("unknown user {name:?}")))
    }

    /// Commits a change. `add_writes` runs under the write lock, so that it sees the current accounts.
    async fn commit(
        &self,
        action: &str,
        name: &str,
        add_writes: impl FnOnce(&Self, &mut Transaction) -> Result<(), AdminError>,
    ) -> Result<(), AdminError> {
        let entry = AuditEntry {
            actor: "cli".to_owned(),
            action: action.to_owned(),
            object: format!("user {name}"),
            ..AuditEntry::default()
        };
        let guard = self.0.begin_unattended_write().await?;
        let mut tx = Transaction::default();
        add_writes(self, &mut tx)?;
        match guard.commit(tx, Some(entry)).await {
            Ok(()) => Ok(()),
            Err(CommitError::Conflict) => Err(AdminError::Rejected(
                "user name is taken, or the account changed concurrently; retry".to_owned(),
            )),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Creates a user with a password.
    ///
    /// # Errors
    /// Rejects an invalid name or password, and a name that is taken.
    pub async fn add(&self, name: &str, role: Role, password: String) -> Result<(), AdminError> {
        let account = self.0.new_account(name, role, password).await?;
        let insert = |_: &Self, tx: &mut Transaction| {
            tx.accounts().insert(&account);
            Ok(())
        };
        self.commit("user.create", &account.name, insert).await
    }

    /// Sets a password. Ends the sessions and tokens of the user, disables two-factor authentication and
    /// enables the account: the command is the way back for a user who lost both factors.
    ///
    /// # Errors
    /// Rejects an unknown user and an invalid password.
    pub async fn set_password(&self, name: &str, new: String) -> Result<(), AdminError> {
        if let Some(reason) = self.0.validate_password(&new, &self.find(name)?.name) {
            return Err(AdminError::Rejected(reason));
        }
        let password = Some(password::hash(new).await?);
        let update = |users: &Self, tx: &mut Transaction| {
            let account = users.find(name)?;
            let mut updated =
                Account { password, totp_secret: None, recovery_codes: Vec::new(), enabled: true, ..account };
            revoke_derived(&users.0.snapshot(), &mut updated, tx);
            tx.accounts().update(&updated);
            Ok(())
        };
        self.commit("user.change_password", name, update).await
    }

    /// Deletes a user with their tokens. The last administrator can be deleted: the hub then prints a
    /// setup link at its next start.
    ///
    /// # Errors
    /// Rejects an unknown user.
    pub async fn remove(&self, name: &str) -> Result<(), AdminError> {
        let delete = |users: &Self, tx: &mut Transaction| {
            let account = users.find(name)?;
            revoke_enrollment_tokens(&users.0.snapshot(), &account, tx);
            tx.accounts().delete(account.id);
            Ok(())
        };
        self.commit("user.delete", name, delete).await
    }

    /// Creates an API token of a user, and returns its secret.
    ///
    /// # Errors
    /// Rejects an unknown user and a scope that exceeds their role.
    pub async fn create_token(&self, name: &str, scope: &str, label: &str) -> Result<String, AdminError> {
        let text = secret::generate(secret::SecretKind::Token);
        let insert = |users: &Self, tx: &mut Transaction| {
            let account = users.find(name)?;
            if let Some(reason) = identity::validate_scope(scope, account.role) {
                return Err(AdminError::Rejected(reason));
            }
            let (hash, now_ms) = (secret::hash_secret(&text), users.0.now_ms());
            let token = Token::new(hash, account.id, label.to_owned(), scope.to_owned(), now_ms);
            tx.tokens().insert(&token);
            Ok(())
        };
        self.commit("token.create", name, insert).await?;
        Ok(text)
    }
}
