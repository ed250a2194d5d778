//! Small things by name, and counters by which hubs see what another one changed.

use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::{CommitError, Store, StoreError};
use uuid::Uuid;

/// What is read whole by each hub, and counted when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// Who may do what.
    Access,
    /// Rules, channels, silences and incidents.
    Alerting,
}

impl Revision {
    fn name(self) -> &'static str {
        match self {
            Self::Access => "people",
            Self::Alerting => "alerts",
        }
    }

    /// Counts from now on, where nobody did.
    pub fn init(self) -> SqlStatement {
        let sql = "INSERT INTO setting (name, value) VALUES ($1, '0') ON CONFLICT (name) DO NOTHING";
        SqlStatement::new(sql, [self.name().into()])
    }

    /// It was changed, decided on what [`Counted::count`] was before; a conflict where somebody
    /// else changed something meanwhile.
    pub fn bump(self, since: i64) -> SqlStatement {
        let sql = "UPDATE setting SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = $2 AND value = $1";
        SqlStatement::new(sql, [SqlValue::Text(since.to_string()), self.name().into()]).require_row()
    }

    /// How often it was changed: another number, another state.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn get(self, store: &dyn Store) -> Result<i64, StoreError> {
        Ok(get_setting(store, self.name()).await?.and_then(|count| count.parse().ok()).unwrap_or_default())
    }
}

/// A small thing by its name.
///
/// # Errors
/// A store that does not answer.
pub async fn get_setting(store: &dyn Store, name: &str) -> Result<Option<String>, StoreError> {
    let rows = store.query("SELECT value FROM setting WHERE name = $1", vec![name.into()]).await?;
    rows.into_iter().next().map(|row| RowReader::new(row).text()).transpose()
}

/// What tells this store from others, for ever; made by who asks first.
///
/// # Errors
/// A store that does not answer.
pub async fn installation_id(store: &dyn Store) -> Result<String, StoreError> {
    let id = Uuid::new_v4().to_string();
    let sql = "INSERT INTO setting (name, value) VALUES ('site', $1) ON CONFLICT (name) DO NOTHING";
    let made = store.commit(vec![SqlStatement::new(sql, [id.as_str().into()]).into()]).await;
    match made {
        Ok(()) | Err(CommitError::Conflict) => {}
        Err(CommitError::Store(error)) => return Err(error),
    }
    Ok(get_setting(store, "site").await?.unwrap_or(id))
}

/// Keeps a small thing under a name.
pub fn put_setting(name: &str, value: &str) -> SqlStatement {
    let sql = "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    SqlStatement::new(sql, [name.into(), value.into()])
}
