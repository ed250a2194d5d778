//! Audit log: each change with its actor, address, object and the values before and after.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, like_pattern};
use crate::store::Store;
use crate::transaction::Transaction;

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
            entry.before.as_deref().into(),
            entry.after.as_deref().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Deletes entries older than a time, and all but the newest `max_entries`.
    pub fn purge(&mut self, before_ms: i64, max_entries: i64) {
        let excess = "DELETE FROM audit WHERE id <= (SELECT coalesce(max(id), 0) FROM audit) - $1";
        self.0.push_all([
            SqlStatement::new("DELETE FROM audit WHERE at_ms < $1", [before_ms.into()]),
            SqlStatement::new(excess, [max_entries.into()]),
        ]);
    }
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
