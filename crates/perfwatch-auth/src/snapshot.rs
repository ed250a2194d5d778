//! Immutable copy of all credentials, shared by concurrent requests.

use crate::account_name;
use crate::signing_keys::SigningKeys;
use perfwatch_model::HostId;
use perfwatch_store::accounts::{Account, Role, SecretHash, Session, Token};
use perfwatch_store::agents::{Agent, EnrollmentToken, HostTags};
use perfwatch_store::revision::Revision;
use perfwatch_store::status_pages::StatusPage;
use perfwatch_store::{Store, StoreError};
use std::collections::HashMap;
use uuid::Uuid;

/// All accounts, sessions, tokens, agents and host tags at one revision.
#[derive(Default)]
pub struct AuthSnapshot {
    /// Accounts by id, disabled ones included.
    pub accounts: HashMap<Uuid, Account>,
    /// Browser sessions by the hash of their cookie.
    pub sessions: HashMap<SecretHash, Session>,
    /// API tokens by the hash of their secret.
    pub tokens: HashMap<SecretHash, Token>,
    /// Enrollment tokens by the hash of their secret.
    pub enrollment_tokens: HashMap<SecretHash, EnrollmentToken>,
    /// Agents by the hash of their secret, revoked ones included.
    pub agents: HashMap<SecretHash, Agent>,
    /// Public status pages by the hash of the token in their link, ended ones included.
    pub status_pages: HashMap<SecretHash, StatusPage>,
    /// Tags of hosts that have any.
    pub host_tags: HashMap<HostId, Vec<String>>,
    /// Keys that sign tokens.
    pub signing_keys: SigningKeys,
    pub(crate) revision: i64,
}

/// Returns whether a limit by host tags includes a host with these tags. An empty limit includes all hosts.
pub fn limit_includes(limit: &[String], tags: &[String]) -> bool {
    limit.is_empty() || tags.iter().any(|tag| limit.contains(tag))
}

impl AuthSnapshot {
    /// Loads everything from the store.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        // The revision is read first: a change during the load causes another load.
        let revision = Revision::Access.get(store).await?;
        let accounts = Account::list(store).await?.into_iter();
        let sessions = Session::list(store).await?.into_iter();
        let tokens = Token::list(store).await?.into_iter();
        let enrollment_tokens = EnrollmentToken::list(store).await?.into_iter();
        let agents = Agent::list(store).await?.into_iter();
        let status_pages = StatusPage::list(store).await?.into_iter();
        Ok(Self {
            accounts: accounts.map(|account| (account.id, account)).collect(),
            sessions: sessions.map(|session| (session.hash, session)).collect(),
            tokens: tokens.map(|token| (token.hash, token)).collect(),
            enrollment_tokens: enrollment_tokens.map(|token| (token.hash, token)).collect(),
            agents: agents.map(|agent| (agent.hash, agent)).collect(),
            status_pages: status_pages.map(|page| (page.token_hash, page)).collect(),
            host_tags: HostTags::list(store).await?.into_iter().collect(),
            signing_keys: SigningKeys::load(store).await?,
            revision,
        })
    }

    /// Revision of the access data; increases with each change.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Tags of a host; empty if it has none.
    pub fn host_tags(&self, host: HostId) -> &[String] {
        self.host_tags.get(&host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Account by name; case, Unicode composition and surrounding spaces are ignored.
    pub fn account_by_name(&self, name: &str) -> Option<&Account> {
        let key = account_name::comparison_key(name);
        self.accounts.values().find(|account| account_name::comparison_key(&account.name) == key)
    }

    /// Returns whether an enabled administrator exists besides the excepted account.
    pub fn has_admin_except(&self, excepted: Option<Uuid>) -> bool {
        let is_admin = |account: &Account| {
            account.enabled && account.role == Role::Admin && Some(account.id) != excepted
        };
        self.accounts.values().any(is_admin)
    }

    /// Account by id, unless it is disabled.
    pub fn enabled_account(&self, id: Uuid) -> Option<&Account> {
        self.accounts.get(&id).filter(|account| account.enabled)
    }
}
