//! Revision counters: hubs that share a store compare them to notice changes of other hubs.

use crate::error::StoreError;
use crate::settings::get_setting;
use crate::sql::{SqlStatement, SqlValue};
use crate::store::Store;
use crate::transaction::Transaction;

/// Part of the store that each hub caches as a whole and reloads when its counter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// Accounts, sessions, tokens, agents and tags.
    Access,
    /// Rules, channels, silences and incidents.
    Alerting,
}

impl Revision {
    fn setting(self) -> &'static str {
        match self {
            Self::Access => "access_revision",
            Self::Alerting => "alerting_revision",
        }
    }

    /// Current value of the counter. A different value means that the state changed.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn get(self, store: &dyn Store) -> Result<i64, StoreError> {
        let value = get_setting(store, self.setting()).await?;
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or_default())
    }
}

/// Writes of a revision counter, added to a [`Transaction`].
#[derive(Debug)]
pub struct RevisionRepository<'a>(&'a mut Transaction, Revision);

impl RevisionRepository<'_> {
    /// Creates the counter if it does not exist.
    pub fn init(&mut self) {
        self.0.settings().put_if_absent(self.1.setting(), "0");
    }

    /// Increments the counter; a conflict unless it still has the expected value, because the change was
    /// decided on that state.
    pub fn bump(&mut self, expected: i64) {
        let sql = "UPDATE setting SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) \
             WHERE name = $2 AND value = $1";
        self.0.push(
            SqlStatement::new(sql, [SqlValue::Text(expected.to_string()), self.1.setting().into()])
                .require_row(),
        );
    }
}

impl Transaction {
    /// Repository of a revision counter.
    pub fn revision(&mut self, revision: Revision) -> RevisionRepository<'_> {
        RevisionRepository(self, revision)
    }
}
