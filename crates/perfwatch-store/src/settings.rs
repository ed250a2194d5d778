//! Key-value settings of the installation.

use crate::error::{CommitError, StoreError};
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// Setting that contains the keys of signed tokens; omitted from backups.
pub const SIGNING_KEYS: &str = "signing_keys";

const INSTALLATION_ID: &str = "installation_id";

/// Reads a setting; `None` if it was never written.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn get_setting(store: &dyn Store, name: &str) -> Result<Option<String>, StoreError> {
    let rows = store.query("SELECT value FROM setting WHERE name = $1", vec![name.into()]).await?;
    rows.into_iter().next().map(|row| RowReader::new(row).text()).transpose()
}

/// Identifier that distinguishes this store from others. The first call creates it.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read or written.
pub async fn installation_id(store: &dyn Store) -> Result<String, StoreError> {
    let id = Uuid::new_v4().to_string();
    let tx = Transaction::build(|tx| tx.settings().put_if_absent(INSTALLATION_ID, &id));
    match store.commit(tx).await {
        Ok(()) | Err(CommitError::Conflict) => {}
        Err(CommitError::Store(error)) => return Err(error),
    }
    Ok(get_setting(store, INSTALLATION_ID).await?.unwrap_or(id))
}

/// Writes of settings, added to a [`Transaction`].
#[derive(Debug)]
pub struct SettingRepository<'a>(&'a mut Transaction);

impl SettingRepository<'_> {
    /// Writes a setting unless it exists.
    pub(crate) fn put_if_absent(&mut self, name: &str, value: &str) {
        let sql = "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        self.0.push(SqlStatement::new(sql, [name.into(), value.into()]));
    }

    /// Replaces the value of a setting; a conflict unless it still has the expected value, or is still absent.
    pub fn replace(&mut self, name: &str, expected: Option<&str>, value: &str) {
        let statement = match expected {
            None => SqlStatement::new(
                "INSERT INTO setting (name, value) VALUES ($1, $2)",
                [name.into(), value.into()],
            ),
            Some(expected) => SqlStatement::new(
                "UPDATE setting SET value = $2 WHERE name = $1 AND value = $3",
                [name.into(), value.into(), expected.into()],
            )
            .require_row(),
        };
        self.0.push(statement);
    }

    /// Writes a setting, replacing its value.
    pub fn put(&mut self, name: &str, value: &str) {
        let sql = "INSERT INTO setting (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.0.push(SqlStatement::new(sql, [name.into(), value.into()]));
    }
}

impl Transaction {
    /// Repository of settings.
    pub fn settings(&mut self) -> SettingRepository<'_> {
        SettingRepository(self)
    }
}
