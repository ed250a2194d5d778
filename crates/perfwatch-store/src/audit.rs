//! Audit log: each change with its actor, address, object and the values before and after.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, escape_like, like_pattern};
use crate::store::Store;
use crate::transaction::Transaction;

/// Maximum size of the values before or after a change; larger ones are replaced by their size. Definitions and
/// servers take less than 2 KiB.
pub const MAX_AUDIT_VALUE_BYTES: usize = 4 << 10;
/// Principal of all enrollment tokens: their names are chosen by the users who create them.
const ENROLLMENT_TOKENS: &str = "enrollment token";

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditEntry {
    /// Number of the entry, assigned by the database.
    pub id: i64,
    /// Time of the change, Unix milliseconds.
    pub at_ms: i64,
    /// Actor: `user alice`, `token deploy of alice`, `agent …`, `command line`.
    pub actor: String,
    /// Client address of the actor.
    pub address: String,
    /// Action, for example `user.create` or `login.failed`.
    pub action: String,
    /// Changed object: `user bob`.
    pub object: String,
    /// Changed values before the change, as JSON without secrets.
    pub before: Option<String>,
    /// Changed values after the change, as JSON without secrets.
    pub after: Option<String>,
}

/// Filter and page of [`list_audit_entries`].
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Limits the page to entries with a lower number.
    pub before_id: Option<i64>,
    /// Text contained in actor, action, object or address, regardless of case.
    pub text: Option<String>,
    /// Maximum number of entries.
    pub limit: i64,
}

/// Writes of the audit log, added to a [`Transaction`].
#[derive(Debug)]
pub struct AuditRepository<'a>(&'a mut Transaction);

impl AuditRepository<'_> {
    /// Inserts the entry. Belongs into the commit of the change that it records.
    pub fn insert(&mut self, entry: &AuditEntry) {
        let sql = "INSERT INTO audit (at_ms, actor, address, action, object, before, after) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            entry.at_ms.into(),
            entry.actor.as_str().into(),
            entry.address.as_str().into(),
            entry.action.as_str().into(),
            entry.object.as_str().into(),
            bounded_value(entry.before.as_deref()).as_deref().into(),
            bounded_value(entry.after.as_deref()).as_deref().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Deletes entries older than a time.
    pub fn delete_before(&mut self, before_ms: i64) {
        self.0.push(SqlStatement::new("DELETE FROM audit WHERE at_ms < $1", [before_ms.into()]));
    }

    /// Deletes the entries of a principal with one action, except the newest ones.
    pub fn keep_newest(&mut self, principal: &str, action: &str, entries: i64) {
        let sql = "DELETE FROM audit WHERE action = $1 AND (actor = $2 OR actor LIKE $3 ESCAPE '!') AND id <= \
             (SELECT id FROM audit WHERE action = $1 AND (actor = $2 OR actor LIKE $3 ESCAPE '!') \
             ORDER BY id DESC LIMIT 1 OFFSET $4)";
        let others = match principal {
            ENROLLMENT_TOKENS => format!("{ENROLLMENT_TOKENS} %"),
            _ => format!("token % ({})", escape_like(principal)),
        };
        let values = [action.into(), principal.into(), others.as_str().into(), entries.into()];
        self.0.push(SqlStatement::new(sql, values));
    }
}

/// Principal whose share an actor belongs to: tokens share with their user. Names of users contain neither spaces
/// nor parentheses, so that no label of a token can imitate one.
pub fn principal_of_actor(actor: &str) -> &str {
    if actor.starts_with(ENROLLMENT_TOKENS) {
        return ENROLLMENT_TOKENS;
    }
    let user =
        actor.strip_prefix("token ").and_then(|token| Some(token.strip_suffix(')')?.rsplit_once(" (")?.1));
    user.filter(|user| user.starts_with("user ")).unwrap_or(actor)
}

/// Value of an entry within the size limit.
fn bounded_value(value: Option<&str>) -> Option<String> {
    value.map(|value| match value.len() > MAX_AUDIT_VALUE_BYTES {
        true => format!("{{\"omitted_bytes\":{}}}", value.len()),
        false => value.to_owned(),
    })
}

impl Transaction {
    /// Repository of the audit log.
    pub fn audit(&mut self) -> AuditRepository<'_> {
        AuditRepository(self)
    }
}

/// Lists audit entries that match a filter, newest first.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn list_audit_entries(
    store: &dyn Store,
    filter: AuditFilter,
) -> Result<Vec<AuditEntry>, StoreError> {
    let sql = "SELECT id, at_ms, actor, address, action, object, before, after FROM audit \
         WHERE id < $1 AND (lower(actor) LIKE $2 ESCAPE '!' OR lower(action) LIKE $2 ESCAPE '!' \
         OR lower(object) LIKE $2 ESCAPE '!' OR lower(address) LIKE $2 ESCAPE '!') ORDER BY id DESC LIMIT $3";
    let text = filter.text.unwrap_or_default();
    let values = vec![filter.before_id.unwrap_or(i64::MAX).into(), like_pattern(&text), filter.limit.into()];
    let read = |row| {
        let mut row = RowReader::new(row);
        Ok(AuditEntry {
            id: row.int()?,
            at_ms: row.int()?,
            actor: row.text()?,
            address: row.text()?,
            action: row.text()?,
            object: row.text()?,
            before: row.opt_text()?,
            after: row.opt_text()?,
        })
    };
    store.query(sql, values).await?.into_iter().map(read).collect()
}

/// Number of the newest entry; 0 if there is none.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn newest_audit_id(store: &dyn Store) -> Result<i64, StoreError> {
    let rows = store.query("SELECT coalesce(max(id), 0) FROM audit", Vec::new()).await?;
    rows.into_iter().next().map_or(Ok(0), |row| RowReader::new(row).int())
}

/// Login of a user from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAddress {
    /// Actor of the login: `user alice`.
    pub actor: String,
    /// Client address of the login.
    pub address: String,
    /// Time of the last login from the address, Unix milliseconds.
    pub at_ms: i64,
}

/// Lists the addresses of logins since a time, latest first.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn list_login_addresses(
    store: &dyn Store,
    since_ms: i64,
    limit: i64,
) -> Result<Vec<LoginAddress>, StoreError> {
    let sql = "SELECT actor, address, max(at_ms) AS last_ms FROM audit WHERE at_ms >= $1 \
         AND action IN ('login', 'token.sign') AND actor LIKE 'user %' \
         GROUP BY actor, address ORDER BY last_ms DESC LIMIT $2";
    let read = |row| {
        let mut row = RowReader::new(row);
        Ok(LoginAddress { actor: row.text()?, address: row.text()?, at_ms: row.int()? })
    };
    store.query(sql, vec![since_ms.into(), limit.into()]).await?.into_iter().map(read).collect()
}

/// Entries of an actor with this action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCount {
    /// Actor of the entries.
    pub actor: String,
    /// Action of the entries.
    pub action: String,
    /// Number of entries.
    pub entries: i64,
}

/// Counts the entries by actor and action.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn count_audit_entries(store: &dyn Store) -> Result<Vec<AuditCount>, StoreError> {
    let sql = "SELECT actor, action, count(*) FROM audit GROUP BY actor, action";
    let read = |row| {
        let mut row = RowReader::new(row);
        Ok(AuditCount { actor: row.text()?, action: row.text()?, entries: row.int()? })
    };
    store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
}
