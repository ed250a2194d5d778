//! What is done to accounts by hand, beside a hub that runs or not: `perfwatch user …`. A hub
//! sees it within a second.

use super::identity::SessionTimes;
use super::people::People;
use super::{identity, password, secret};
use crate::error::ApiError;
use crate::vault::Vault;
use perfwatch_model::Clock;
use perfwatch_store::people::{Account, AuditEntry, Role, Session, Token};
use perfwatch_store::{Change, CommitError, Store, StoreError};
use std::sync::Arc;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// It can't be done.
    #[error("{0}")]
    Refused(String),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ApiError> for UserError {
    fn from(error: ApiError) -> Self {
        Self::Refused(error.message().to_owned())
    }
}

/// The accounts of a store.
pub struct Users(Arc<People>);

impl Users {
    /// Reads them.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, UserError> {
        // Second factors are switched off here, never on or asked for.
        let vault = Arc::new(Vault::new(&[]));
        Ok(Self(People::open(store, clock, vault, SessionTimes::default()).await?))
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Account> {
        let mut all: Vec<Account> = self.0.now().accounts.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn find(&self, name: &str) -> Result<Account, UserError> {
        let found = self.0.now().account(name).cloned();
        found.ok_or_else(|| UserError::Refused(format!("there is no user {name:?}")))
    }

    /// What is changed is decided on what is there under the turn, not on what was there when a
    /// person began to type.
    async fn commit(
        &self,
        action: &str,
        name: &str,
        changes: impl FnOnce(&Self) -> Result<Vec<Change>, UserError>,
    ) -> Result<(), UserError> {
        let entry = AuditEntry {
            actor: "command line".to_owned(),
            action: action.to_owned(),
            object: format!("user {name}"),
            ..AuditEntry::default()
        };
        let turn = self.0.turn().await?;
        match turn.commit(changes(self)?, Some(entry)).await {
            Ok(()) => Ok(()),
            Err(CommitError::Conflict) => {
                Err(UserError::Refused("that name is taken, or it changed just now".to_owned()))
            }
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Lets someone in.
    ///
    /// # Errors
    /// A name or password that can't be, a name that is taken.
    pub async fn add(&self, name: &str, role: Role, password: String) -> Result<(), UserError> {
        let account = self.0.new_account(name, role, password).await?;
        self.commit("user.create", &account.name, |_| Ok(vec![account.add()])).await
    }

    /// A new password; their browsers are logged out, and the second factor is off: who can run
    /// this has lost both.
    ///
    /// # Errors
    /// No such user, a password that can't be.
    pub async fn set_password(&self, name: &str, new: String) -> Result<(), UserError> {
        if let Some(why) = password::problem(&new, &self.find(name)?.name) {
            return Err(UserError::Refused(why));
        }
        let password = Some(password::hash(new).await?);
        let changes = |users: &Self| {
            let account = users.find(name)?;
            let epoch = account.epoch + 1;
            let after =
                Account { password, totp: None, recovery: Vec::new(), enabled: true, epoch, ..account };
            Ok(vec![after.save(), Session::end_all(after.id)])
        };
        self.commit("user.password", name, changes).await
    }

    /// Removes someone, with their tokens. Also the last administrator: the next start of the hub
    /// offers to make one.
    ///
    /// # Errors
    /// No such user.
    pub async fn remove(&self, name: &str) -> Result<(), UserError> {
        let changes = |users: &Self| Ok(Account::remove(users.find(name)?.id).into());
        self.commit("user.remove", name, changes).await
    }

    /// A token for a script of theirs.
    ///
    /// # Errors
    /// No such user, a scope that is none.
    pub async fn token(&self, name: &str, scope: &str, what: &str) -> Result<String, UserError> {
        let text = secret::generate(secret::Kind::Token);
        let changes = |users: &Self| {
            let account = users.find(name)?;
            if let Some(why) = identity::scope_problem(scope, account.role) {
                return Err(UserError::Refused(why));
            }
            let (hash, now_ms) = (secret::hash(&text), users.0.now_ms());
            Ok(vec![Token::new(hash, account.id, what.to_owned(), scope.to_owned(), now_ms).add()])
        };
        self.commit("token.create", name, changes).await?;
        Ok(text)
    }
}
