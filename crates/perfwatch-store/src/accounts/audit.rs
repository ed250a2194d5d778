//! Who changed what, from where, and what it was before.

use crate::sql::{RowReader, SqlStatement, like_pattern};
use crate::store::{Store, StoreError};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditEntry {
    /// Its number; given when it is written.
    pub id: i64,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Who: `user alice`, `token deploy of alice`, `agent …`, `command line`.
    pub actor: String,
    /// From where.
    pub address: String,
    /// What: `user.create`, `login.failed`.
    pub action: String,
    /// To what: `user bob`.
    pub object: String,
    /// What changed of it, as JSON, without secrets.
    pub before: Option<String>,
    /// The same afterwards.
    pub after: Option<String>,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only those with a smaller number: the next page.
    pub before_id: Option<i64>,
    /// Part of actor, action, object or address, in any case.
    pub text: Option<String>,
    /// How many.
    pub limit: i64,
}

impl AuditEntry {
    /// Written down, in the commit of what it tells.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO audit (at_ms, actor, address, action, object, before, after) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let cells = [
            self.at_ms.into(),
            self.actor.as_str().into(),
            self.address.as_str().into(),
            self.action.as_str().into(),
            self.object.as_str().into(),
            self.before.as_deref().into(),
            self.after.as_deref().into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// Those from before a time are let go, and those beyond the newest so many.
    pub fn purge(before_ms: i64, most: i64) -> [SqlStatement; 2] {
        let beyond = "DELETE FROM audit WHERE id <= (SELECT coalesce(max(id), 0) FROM audit) - $1";
        [
            SqlStatement::new("DELETE FROM audit WHERE at_ms < $1", [before_ms.into()]),
            SqlStatement::new(beyond, [most.into()]),
        ]
    }
}

/// Entries, newest first.
///
/// # Errors
/// A store that does not answer.
pub async fn list_audit_entries(
    store: &dyn Store,
    filter: AuditFilter,
) -> Result<Vec<AuditEntry>, StoreError> {
    let sql = "SELECT id, at_ms, actor, address, action, object, before, after FROM audit \
         WHERE id < $1 AND (lower(actor) LIKE $2 ESCAPE '!' OR lower(action) LIKE $2 ESCAPE '!' \
         OR lower(object) LIKE $2 ESCAPE '!' OR lower(address) LIKE $2 ESCAPE '!') ORDER BY id DESC LIMIT $3";
    let text = filter.text.unwrap_or_default();
    let cells = vec![filter.before_id.unwrap_or(i64::MAX).into(), like_pattern(&text), filter.limit.into()];
    let read = |row| {
        let mut cells = RowReader::new(row);
        Ok(AuditEntry {
            id: cells.int()?,
            at_ms: cells.int()?,
            actor: cells.text()?,
            address: cells.text()?,
            action: cells.text()?,
            object: cells.text()?,
            before: cells.opt_text()?,
            after: cells.opt_text()?,
        })
    };
    store.query(sql, cells).await?.into_iter().map(read).collect()
}
