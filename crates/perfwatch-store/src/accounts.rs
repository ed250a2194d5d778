//! Who may enter: accounts, their browsers and tokens; agents and what lets them in; what was
//! changed by whom. Every change of who may do what carries [`crate::settings::Counted::changed`] along in its commit, so
//! that each hub sees that there was one.

mod agents;
mod audit;

pub use agents::{Agent, EnrollmentToken, HostTags};
pub use audit::{AuditEntry, AuditFilter, list_audit_entries};

use crate::sql::{RowReader, SqlStatement, SqlValue, json_list};
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// SHA-256 of a secret: what is kept of it.
pub type SecretHash = [u8; 32];

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Runs the fleet: hosts, agents, rules.
    Operator,
    /// Runs the hub: accounts, settings, audit.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A person.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// For ever.
    pub id: Uuid,
    /// What they log in with; lower case.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// argon2id in PHC form; none where an issuer vouches for them.
    pub password: Option<String>,
    /// Secret of the second factor (RFC 6238).
    pub totp_secret: Option<Vec<u8>>,
    /// The last time step whose code was used.
    pub totp_step: i64,
    /// Hashes, in hexadecimal, of codes for who lost the second factor.
    pub recovery_codes: Vec<String>,
    /// `issuer subject` at an OpenID Connect issuer.
    pub oidc_subject: Option<String>,
    /// Sees hosts with one of these tags only; empty for all.
    pub host_tags: Vec<String>,
    /// May enter.
    pub enabled: bool,
    /// Sessions and signed tokens of an earlier number are void.
    pub token_epoch: i64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// When they last logged in.
    pub last_login_ms: Option<i64>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without its secrets.
        f.debug_struct("Account").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

const ACCOUNT_COLUMNS: &str = "SELECT id, name, role, password, totp, totp_step, recovery, subject, host_tags, enabled, epoch, \
     created_ms, login_ms FROM account ORDER BY name";

impl Account {
    /// Someone who may enter, without a password yet.
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

    /// All, by name.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        store.query(ACCOUNT_COLUMNS, Vec::new()).await?.into_iter().map(Self::read).collect()
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut cells = RowReader::new(row);
        Ok(Self {
            id: cells.id()?,
            name: cells.text()?,
            // Unknown ones, of a later version, may do the least.
            role: Role::parse(&cells.text()?).unwrap_or(Role::Viewer),
            password: cells.opt_text()?,
            totp_secret: cells.opt_bytes()?,
            totp_step: cells.int()?,
            recovery_codes: cells.list()?,
            oidc_subject: cells.opt_text()?,
            host_tags: cells.list()?,
            enabled: cells.int()? != 0,
            token_epoch: cells.int()?,
            created_ms: cells.int()?,
            last_login_ms: cells.opt_int()?,
        })
    }

    fn values(&self) -> [SqlValue; 13] {
        [
            self.id.into(),
            self.name.as_str().into(),
            self.role.name().into(),
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

    /// A new one; a conflict where the name is taken.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO account (id, name, role, password, totp, totp_step, recovery, subject, host_tags, enabled, \
             epoch, created_ms, login_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        SqlStatement::new(sql, self.values())
    }

    /// All of it as it is here; a conflict where it is gone or its name is taken.
    pub fn update(&self) -> SqlStatement {
        let sql = "UPDATE account SET name = $2, role = $3, password = $4, totp = $5, totp_step = $6, recovery = $7, \
             subject = $8, host_tags = $9, enabled = $10, epoch = $11, created_ms = $12, login_ms = $13 WHERE id = $1";
        SqlStatement::new(sql, self.values()).require_row()
    }

    /// Gone, with its sessions and tokens.
    pub fn delete(id: Uuid) -> [SqlStatement; 3] {
        [
            Session::delete_for_account(id),
            SqlStatement::new("DELETE FROM token WHERE account = $1", [id.into()]),
            SqlStatement::new("DELETE FROM account WHERE id = $1", [id.into()]).require_row(),
        ]
    }
}

/// A browser that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Of what its cookie holds.
    pub hash: SecretHash,
    /// Whose.
    pub account: Uuid,
    /// Since when, milliseconds since 1970.
    pub created_ms: i64,
    /// When it last asked for something.
    pub last_used_ms: i64,
    /// Where it came from at login.
    pub address: String,
    /// What it said it is.
    pub user_agent: String,
}

impl Session {
    /// All.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql =
            "SELECT hash, account, created_ms, seen_ms, address, browser FROM session ORDER BY created_ms";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok(Self {
                hash: cells.array()?,
                account: cells.id()?,
                created_ms: cells.int()?,
                last_used_ms: cells.int()?,
                address: cells.text()?,
                user_agent: cells.text()?,
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// Logged in.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO session (hash, account, created_ms, seen_ms, address, browser) VALUES ($1, $2, $3, $4, $5, $6)";
        let cells = [
            self.hash[..].into(),
            self.account.into(),
            self.created_ms.into(),
            self.last_used_ms.into(),
            self.address.as_str().into(),
            self.user_agent.as_str().into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// It asked for something.
    pub fn touch(hash: &SecretHash, seen_ms: i64) -> SqlStatement {
        SqlStatement::new(
            "UPDATE session SET seen_ms = $2 WHERE hash = $1 AND seen_ms < $2",
            [hash[..].into(), seen_ms.into()],
        )
    }

    /// Logged out.
    pub fn delete(hash: &SecretHash) -> SqlStatement {
        SqlStatement::new("DELETE FROM session WHERE hash = $1", [hash[..].into()])
    }

    /// Logged out everywhere.
    pub fn delete_for_account(account: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM session WHERE account = $1", [account.into()])
    }

    /// Those that nobody used since a time, or that are from before another.
    pub fn delete_expired(seen_before_ms: i64, created_before_ms: i64) -> SqlStatement {
        let sql = "DELETE FROM session WHERE seen_ms < $1 OR created_ms < $2";
        SqlStatement::new(sql, [seen_before_ms.into(), created_before_ms.into()])
    }
}

/// A token of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// For ever.
    pub id: Uuid,
    /// Of the token.
    pub hash: SecretHash,
    /// Whose: it never may more than they.
    pub account: Uuid,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scope: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ends.
    pub expires_ms: Option<i64>,
    /// When it was last used, to the minute.
    pub last_used_ms: Option<i64>,
}

impl Token {
    /// All.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, account, name, scope, created_ms, expires_ms, used_ms FROM token ORDER BY created_ms";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok(Self {
                id: cells.id()?,
                hash: cells.array()?,
                account: cells.id()?,
                name: cells.text()?,
                scope: cells.text()?,
                created_ms: cells.int()?,
                expires_ms: cells.opt_int()?,
                last_used_ms: cells.opt_int()?,
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// One that does not end by itself.
    pub fn new(hash: SecretHash, account: Uuid, name: String, scope: String, now_ms: i64) -> Self {
        let id = Uuid::now_v7();
        Self { id, hash, account, name, scope, created_ms: now_ms, expires_ms: None, last_used_ms: None }
    }

    /// Whether it has not ended yet.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|at_ms| at_ms > now_ms)
    }

    /// A new one.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO token (id, hash, account, name, scope, created_ms, expires_ms, used_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let cells = [
            self.id.into(),
            self.hash[..].into(),
            self.account.into(),
            self.name.as_str().into(),
            self.scope.as_str().into(),
            self.created_ms.into(),
            self.expires_ms.into(),
            self.last_used_ms.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// Void from now on.
    pub fn delete(id: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM token WHERE id = $1", [id.into()]).require_row()
    }

    /// It was used.
    pub fn touch(id: Uuid, used_ms: i64) -> SqlStatement {
        SqlStatement::new("UPDATE token SET used_ms = $2 WHERE id = $1", [id.into(), used_ms.into()])
    }
}
