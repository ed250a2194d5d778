//! What is done to accounts by hand, beside a hub that runs or not: `perfwatch user …`. A hub
//! sees it within a second.

use super::config::SessionLifetimes;
use super::directory::AuthDirectory;
use super::{identity, password, secret};
use crate::encryption::Keyring;
use crate::error::AuthError;
use perfwatch_model::Clock;
use perfwatch_store::accounts::{Account, Role, Session, Token};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::{CommitError, SqlStatement, Store, StoreError};
use std::sync::Arc;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It can't be done.
    #[error("{0}")]
    Rejected(String),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AuthError> for AdminError {
    fn from(error: AuthError) -> Self {
        Self::Rejected(error.to_string())
    }
}

/// The accounts of a store.
pub struct AdminCli(Arc<AuthDirectory>);

impl AdminCli {
    /// Reads them.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, AdminError> {
        // Second factors are switched off here, never on or asked for.
        let keyring = Arc::new(Keyring::new(&[]));
        Ok(Self(AuthDirectory::open(store, clock, keyring, SessionLifetimes::default()).await?))
    }

    /// All, by name.
    pub fn list(&self) -> Vec<Account> {
        let mut all: Vec<Account> = self.0.snapshot().accounts.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn find(&self, name: &str) -> Result<Account, AdminError> {
        let found = self.0.snapshot().account_by_name(name).cloned();
        found.ok_or_else(|| AdminError::Rejected(format!("there is no user {name:?}")))
    }

    /// What is changed is decided on what is there under the turn, not on what was there when a
    /// person began to type.
    async fn commit(
        &self,
        action: &str,
        name: &str,
        changes: impl FnOnce(&Self) -> Result<Vec<SqlStatement>, AdminError>,
    ) -> Result<(), AdminError> {
        let entry = AuditEntry {
            actor: "cli".to_owned(),
            action: action.to_owned(),
            object: format!("user {name}"),
            ..AuditEntry::default()
        };
        let turn = self.0.begin_write().await?;
        match turn.commit(changes(self)?, Some(entry)).await {
            Ok(()) => Ok(()),
            Err(CommitError::Conflict) => Err(AdminError::Rejected(
                "user name is taken, or the account changed concurrently; retry".to_owned(),
            )),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Create a user.
    ///
    /// # Errors
    /// A name or password that can't be, a name that is taken.
    pub async fn add(&self, name: &str, role: Role, password: String) -> Result<(), AdminError> {
        let account = self.0.new_account(name, role, password).await?;
        self.commit("user.create", &account.name, |_| Ok(vec![account.insert()])).await
    }

    /// A new password; their browsers are logged out, and the second factor is off: who can run
    /// this has lost both.
    ///
    /// # Errors
    /// No such user, a password that can't be.
    pub async fn set_password(&self, name: &str, new: String) -> Result<(), AdminError> {
        if let Some(why) = password::validate(&new, &self.find(name)?.name) {
            return Err(AdminError::Rejected(why));
        }
        let password = Some(password::hash(new).await?);
        let changes = |users: &Self| {
            let account = users.find(name)?;
            let epoch = account.token_epoch + 1;
            let after = Account {
                password,
                totp_secret: None,
                recovery_codes: Vec::new(),
                enabled: true,
                token_epoch: epoch,
                ..account
            };
            Ok(vec![after.update(), Session::delete_for_account(after.id)])
        };
        self.commit("user.change_password", name, changes).await
    }

    /// Removes someone, with their tokens. Also the last administrator: the next start of the hub
    /// offers to make one.
    ///
    /// # Errors
    /// No such user.
    pub async fn remove(&self, name: &str) -> Result<(), AdminError> {
        let changes = |users: &Self| Ok(Account::delete(users.find(name)?.id).into());
        self.commit("user.delete", name, changes).await
    }

    /// A token for a script of theirs.
    ///
    /// # Errors
    /// No such user, a scope that is none.
    pub async fn create_token(&self, name: &str, scope: &str, what: &str) -> Result<String, AdminError> {
        let text = secret::generate(secret::SecretKind::Token);
        let changes = |users: &Self| {
            let account = users.find(name)?;
            if let Some(why) = identity::validate_scope(scope, account.role) {
                return Err(AdminError::Rejected(why));
            }
            let (hash, now_ms) = (secret::hash_secret(&text), users.0.now_ms());
            Ok(vec![Token::new(hash, account.id, what.to_owned(), scope.to_owned(), now_ms).insert()])
        };
        self.commit("token.create", name, changes).await?;
        Ok(text)
    }
}
