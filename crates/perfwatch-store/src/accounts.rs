//! Accounts, sessions and API tokens.
//!
//! Every change of access is committed together with [`crate::revision::RevisionRepository::bump`], so that
//! other hubs notice the change and reload.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, SqlValue, json_list, text_enum};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// SHA-256 of a secret; the secret itself is not stored.
pub type SecretHash = [u8; 32];

text_enum! {
    /// Role of an account, lowest rights first.
    pub enum Role {
        /// Reads hosts, history and incidents.
        Viewer = "viewer",
        /// Manages the fleet: hosts, agents, rules.
        Operator = "operator",
        /// Manages the hub: accounts, settings, audit log.
        Admin = "admin",
    }
}

/// Account of a user who can log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Stable identifier of the account (UUIDv7).
    pub id: Uuid,
    /// Login name in lower case, unique.
    pub name: String,
    /// Role of the account.
    pub role: Role,
    /// argon2id in PHC form; `None` for accounts that log in through OpenID Connect only.
    pub password: Option<String>,
    /// Encrypted TOTP secret (RFC 6238).
    pub totp_secret: Option<Vec<u8>>,
    /// Last time step whose code was accepted.
    pub totp_step: i64,
    /// Hexadecimal hashes of the unused recovery codes.
    pub recovery_codes: Vec<String>,
    /// Issuer and subject at an OpenID Connect issuer, separated by a space.
    pub oidc_subject: Option<String>,
    /// Limits access to hosts with any of these tags; empty for all hosts.
    pub host_tags: Vec<String>,
    /// False if the account cannot log in.
    pub enabled: bool,
    /// Sessions and signed tokens of an earlier epoch are invalid.
    pub token_epoch: i64,
    /// Time of creation, Unix milliseconds.
    pub created_ms: i64,
    /// Time of the last login, Unix milliseconds.
    pub last_login_ms: Option<i64>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets are omitted.
        f.debug_struct("Account").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Account {
    /// A new enabled account without a password.
    pub fn new(name: String, role: Role, now_ms: i64) -> Self {
        Self {
            id: Uuid::now_v7(),
            name,
            role,
            password: None,
            totp_secret: None,
            totp_step: 0,
            recovery_codes: Vec::new(),
            oidc_subject: None,
            host_tags: Vec::new(),
            enabled: true,
            token_epoch: 0,
            created_ms: now_ms,
            last_login_ms: None,
        }
    }

    /// Lists all accounts by name.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, name, role, password, totp_secret, totp_step, recovery_codes, oidc_subject, \
             host_tags, enabled, token_epoch, created_ms, last_login_ms FROM account ORDER BY name";
        store.query(sql, Vec::new()).await?.into_iter().map(Self::read).collect()
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.id()?,
            name: row.text()?,
            // A role that a later version added gets the lowest rights.
            role: Role::parse(&row.text()?).unwrap_or(Role::Viewer),
            password: row.opt_text()?,
            totp_secret: row.opt_bytes()?,
            totp_step: row.int()?,
            recovery_codes: row.list()?,
            oidc_subject: row.opt_text()?,
            host_tags: row.list()?,
            enabled: row.flag()?,
            token_epoch: row.int()?,
            created_ms: row.int()?,
            last_login_ms: row.opt_int()?,
        })
    }

    fn values(&self) -> [SqlValue; 13] {
        [
            self.id.into(),
            self.name.as_str().into(),
            self.role.into(),
            self.password.as_deref().into(),
            self.totp_secret.as_deref().into(),
            self.totp_step.into(),
            json_list(&self.recovery_codes),
            self.oidc_subject.as_deref().into(),
            json_list(&self.host_tags),
            self.enabled.into(),
            self.token_epoch.into(),
            self.created_ms.into(),
            self.last_login_ms.into(),
        ]
    }
}

/// Writes of accounts, added to a [`Transaction`].
#[derive(Debug)]
pub struct AccountRepository<'a>(&'a mut Transaction);

impl AccountRepository<'_> {
    /// Inserts the account; a conflict if the name is taken.
    pub fn insert(&mut self, account: &Account) {
        let sql = "INSERT INTO account (id, name, role, password, totp_secret, totp_step, recovery_codes, \
             oidc_subject, host_tags, enabled, token_epoch, created_ms, last_login_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        self.0.push(SqlStatement::new(sql, account.values()));
    }

    /// Updates all columns; a conflict if the account was deleted or its name is taken.
    pub fn update(&mut self, account: &Account) {
        let sql = "UPDATE account SET name = $2, role = $3, password = $4, totp_secret = $5, totp_step = $6, \
             recovery_codes = $7, oidc_subject = $8, host_tags = $9, enabled = $10, token_epoch = $11, \
             created_ms = $12, last_login_ms = $13 WHERE id = $1";
        self.0.push(SqlStatement::new(sql, account.values()).require_row());
    }

    /// Deletes the account with its sessions, tokens and saved views.
    pub fn delete(&mut self, id: Uuid) {
        self.0.sessions().delete_for_account(id);
        self.0.saved_views().delete_for_account(id);
        self.0.push_all([
            SqlStatement::new("DELETE FROM token WHERE account = $1", [id.into()]),
            SqlStatement::new("DELETE FROM setting WHERE name = $1", [preferences_key(id).as_str().into()]),
            SqlStatement::new("DELETE FROM account WHERE id = $1", [id.into()]).require_row(),
        ]);
    }
}

/// Name of the setting with the preferences of an account.
pub fn preferences_key(account: Uuid) -> String {
    format!("preferences/{account}")
}

/// Session of a logged-in browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Hash of the session cookie.
    pub hash: SecretHash,
    /// Account that logged in.
    pub account: Uuid,
    /// Time of the login, Unix milliseconds.
    pub created_ms: i64,
    /// Time of the last request, Unix milliseconds.
    pub last_used_ms: i64,
    /// Client address at login.
    pub address: String,
    /// `User-Agent` header at login.
    pub user_agent: String,
}

impl Session {
    /// Lists all sessions, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT hash, account, created_ms, last_used_ms, address, user_agent FROM session \
             ORDER BY created_ms";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                hash: row.array()?,
                account: row.id()?,
                created_ms: row.int()?,
                last_used_ms: row.int()?,
                address: row.text()?,
                user_agent: row.text()?,
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of sessions, added to a [`Transaction`].
#[derive(Debug)]
pub struct SessionRepository<'a>(&'a mut Transaction);

impl SessionRepository<'_> {
    /// Inserts the session after a login.
    pub fn insert(&mut self, session: &Session) {
        let sql = "INSERT INTO session (hash, account, created_ms, last_used_ms, address, user_agent) \
             VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            session.hash[..].into(),
            session.account.into(),
            session.created_ms.into(),
            session.last_used_ms.into(),
            session.address.as_str().into(),
            session.user_agent.as_str().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Advances the time of the last request.
    pub fn touch(&mut self, hash: &SecretHash, last_used_ms: i64) {
        self.0.push(SqlStatement::new(
            "UPDATE session SET last_used_ms = $2 WHERE hash = $1 AND last_used_ms < $2",
            [hash[..].into(), last_used_ms.into()],
        ));
    }

    /// Deletes the session at logout.
    pub fn delete(&mut self, hash: &SecretHash) {
        self.0.push(SqlStatement::new("DELETE FROM session WHERE hash = $1", [hash[..].into()]));
    }

    /// Deletes all sessions of an account.
    pub fn delete_for_account(&mut self, account: Uuid) {
        self.0.push(SqlStatement::new("DELETE FROM session WHERE account = $1", [account.into()]));
    }

    /// Deletes sessions that were last used, or created, before a time.
    pub fn delete_expired(&mut self, used_before_ms: i64, created_before_ms: i64) {
        let sql = "DELETE FROM session WHERE last_used_ms < $1 OR created_ms < $2";
        self.0.push(SqlStatement::new(sql, [used_before_ms.into(), created_before_ms.into()]));
    }
}

/// API token of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Stable identifier of the token (UUIDv7).
    pub id: Uuid,
    /// Hash of the token.
    pub hash: SecretHash,
    /// Account of the token. Its rights limit the rights of the token.
    pub account: Uuid,
    /// Purpose of the token, as text.
    pub name: String,
    /// Scope that limits the rights of the token.
    pub scope: String,
    /// Time of creation, Unix milliseconds.
    pub created_ms: i64,
    /// Time of expiry, Unix milliseconds; `None` for tokens that do not expire.
    pub expires_ms: Option<i64>,
    /// Time of the last use, Unix milliseconds, exact to the minute.
    pub last_used_ms: Option<i64>,
}

impl Token {
    /// Lists all tokens, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, account, name, scope, created_ms, expires_ms, last_used_ms FROM token \
             ORDER BY created_ms";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                id: row.id()?,
                hash: row.array()?,
                account: row.id()?,
                name: row.text()?,
                scope: row.text()?,
                created_ms: row.int()?,
                expires_ms: row.opt_int()?,
                last_used_ms: row.opt_int()?,
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// A new token that does not expire.
    pub fn new(hash: SecretHash, account: Uuid, name: String, scope: String, now_ms: i64) -> Self {
        let id = Uuid::now_v7();
        Self { id, hash, account, name, scope, created_ms: now_ms, expires_ms: None, last_used_ms: None }
    }

    /// Returns whether the token has not expired yet.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|at_ms| at_ms > now_ms)
    }
}

/// Writes of API tokens, added to a [`Transaction`].
#[derive(Debug)]
pub struct TokenRepository<'a>(&'a mut Transaction);

impl TokenRepository<'_> {
    /// Inserts the token as a new row.
    pub fn insert(&mut self, token: &Token) {
        let sql = "INSERT INTO token (id, hash, account, name, scope, created_ms, expires_ms, last_used_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = [
            token.id.into(),
            token.hash[..].into(),
            token.account.into(),
            token.name.as_str().into(),
            token.scope.as_str().into(),
            token.created_ms.into(),
            token.expires_ms.into(),
            token.last_used_ms.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Deletes the token; a conflict if it was deleted already.
    pub fn delete(&mut self, id: Uuid) {
        self.0.push(SqlStatement::new("DELETE FROM token WHERE id = $1", [id.into()]).require_row());
    }

    /// Updates the time of the last use.
    pub fn touch(&mut self, id: Uuid, last_used_ms: i64) {
        let sql = "UPDATE token SET last_used_ms = $2 WHERE id = $1";
        self.0.push(SqlStatement::new(sql, [id.into(), last_used_ms.into()]));
    }
}

impl Transaction {
    /// Repository of accounts.
    pub fn accounts(&mut self) -> AccountRepository<'_> {
        AccountRepository(self)
    }

    /// Repository of sessions.
    pub fn sessions(&mut self) -> SessionRepository<'_> {
        SessionRepository(self)
    }

    /// Repository of API tokens.
    pub fn tokens(&mut self) -> TokenRepository<'_> {
        TokenRepository(self)
    }
}
