//! Hosts without an agent: each server as people asked for it and as it was found, and each look
//! at one. What is inside a record or sealed is the hub's.

use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::{Store, StoreError};
use uuid::Uuid;

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// For ever; its host has the same.
    pub id: Uuid,
    /// As people asked for it, as a record.
    pub body: String,
    /// Whether it is looked at.
    pub enabled: bool,
    /// How often, milliseconds.
    pub interval_ms: i64,
    /// What opens its door, sealed.
    pub encrypted_credentials: Option<Vec<u8>>,
    /// Rises with each change that people make.
    pub version: i64,
    /// The key that it must show.
    pub host_key: Option<String>,
    /// The other one that it showed.
    pub offered_host_key: Option<String>,
    /// Why it is not tried any more, until somebody acts.
    pub blocked_reason: Option<String>,
    /// When it was looked at last, milliseconds since 1970.
    pub last_run_ms: Option<i64>,
    /// How long that took.
    pub last_duration_ms: Option<i64>,
    /// Why it came to nothing.
    pub last_cause: Option<String>,
    /// The same in words.
    pub last_error: Option<String>,
    /// When a look last brought something.
    pub last_success_ms: Option<i64>,
    /// When it is looked at next; none while nobody will.
    pub next_run_ms: Option<i64>,
}

/// How a look went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionRow {
    /// Its number; given when it is written.
    pub id: i64,
    /// Of which server.
    pub server: Uuid,
    /// When it ended, milliseconds since 1970.
    pub finished_ms: i64,
    /// `scheduled`, `asked`, `live`, `test`.
    pub trigger: String,
    /// Which try, from 1 on.
    pub attempt: i64,
    /// How long it took.
    pub duration_ms: i64,
    /// Why it came to nothing.
    pub cause: Option<String>,
    /// The same in words.
    pub error: Option<String>,
    /// What was done, as a record.
    pub steps: String,
}

/// What is read of servers, as [`ServerRow::read`] takes it.
macro_rules! server_columns {
    () => {
        "SELECT s.id, s.body, s.enabled, s.interval_ms, s.secret, s.version, s.host_key, s.shown_key, s.refused, \
         s.last_ms, s.last_took_ms, s.last_cause, s.last_error, s.last_ok_ms, j.run_ms \
         FROM server s LEFT JOIN job j ON j.live_key = s.id"
    };
}

impl ServerRow {
    /// One that nobody looked at yet: switched off, of the first version.
    pub fn new(id: Uuid, body: String, encrypted_credentials: Option<Vec<u8>>) -> Self {
        Self {
            id,
            body,
            enabled: false,
            interval_ms: 0,
            encrypted_credentials,
            version: 1,
            host_key: None,
            offered_host_key: None,
            blocked_reason: None,
            last_run_ms: None,
            last_duration_ms: None,
            last_cause: None,
            last_error: None,
            last_success_ms: None,
            next_run_ms: None,
        }
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut cells = RowReader::new(row);
        Ok(Self {
            id: cells.id()?,
            body: cells.text()?,
            enabled: cells.int()? != 0,
            interval_ms: cells.int()?,
            encrypted_credentials: cells.opt_bytes()?,
            version: cells.int()?,
            host_key: cells.opt_text()?,
            offered_host_key: cells.opt_text()?,
            blocked_reason: cells.opt_text()?,
            last_run_ms: cells.opt_int()?,
            last_duration_ms: cells.opt_int()?,
            last_cause: cells.opt_text()?,
            last_error: cells.opt_text()?,
            last_success_ms: cells.opt_int()?,
            next_run_ms: cells.opt_int()?,
        })
    }

    /// All, those made first come first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = concat!(server_columns!(), " ORDER BY s.id");
        store.query(sql, Vec::new()).await?.into_iter().map(Self::read).collect()
    }

    /// One.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn get(store: &dyn Store, id: Uuid) -> Result<Option<Self>, StoreError> {
        let sql = concat!(server_columns!(), " WHERE s.id = $1");
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(Self::read).transpose()
    }

    /// What the last look carried over.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn counter_state(store: &dyn Store, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = store.query("SELECT carried FROM server WHERE id = $1", vec![id.into()]).await?;
        rows.into_iter().next().map_or(Ok(None), |row| RowReader::new(row).opt_bytes())
    }

    /// Those that are not looked at, for want of being wished for.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list_disabled(store: &dyn Store) -> Result<Vec<Uuid>, StoreError> {
        let rows = store.query("SELECT id FROM server WHERE enabled = 0", Vec::new()).await?;
        rows.into_iter().map(|row| RowReader::new(row).id()).collect()
    }

    /// A new one.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO server (id, body, enabled, interval_ms, secret, version, host_key) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let cells = [
            self.id.into(),
            self.body.as_str().into(),
            self.enabled.into(),
            self.interval_ms.into(),
            self.encrypted_credentials.as_deref().into(),
            self.version.into(),
            self.host_key.as_deref().into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// As it stands now, tried again whatever it was refused for; a conflict unless it was of this
    /// version.
    pub fn update(&self, version: i64) -> SqlStatement {
        let sql = "UPDATE server SET body = $2, enabled = $3, interval_ms = $4, secret = $5, version = version + 1, \
             shown_key = NULL, refused = NULL WHERE id = $1 AND version = $6";
        let cells = [
            self.id.into(),
            self.body.as_str().into(),
            self.enabled.into(),
            self.interval_ms.into(),
            self.encrypted_credentials.as_deref().into(),
            version.into(),
        ];
        SqlStatement::new(sql, cells).require_row()
    }

    /// It stands at another place: its key is another one, and its counters.
    pub fn reset_host_state(id: Uuid) -> SqlStatement {
        SqlStatement::new("UPDATE server SET host_key = NULL, carried = NULL WHERE id = $1", [id.into()])
    }

    /// This key is its own from now on.
    pub fn accept_host_key(id: Uuid, key: &str) -> SqlStatement {
        SqlStatement::new("UPDATE server SET host_key = $2 WHERE id = $1", [id.into(), key.into()])
    }

    /// The same secret sealed by another key; its version stays.
    pub fn reencrypt(id: Uuid, before: &[u8], after: &[u8]) -> SqlStatement {
        let sql = "UPDATE server SET secret = $3 WHERE id = $1 AND secret = $2";
        SqlStatement::new(sql, [id.into(), before.into(), after.into()])
    }

    /// The first key that it showed, as it stood in this version.
    pub fn pin_host_key(id: Uuid, version: i64, key: &str) -> SqlStatement {
        let sql = "UPDATE server SET host_key = $2 WHERE id = $1 AND version = $3 AND host_key IS NULL";
        SqlStatement::new(sql, [id.into(), key.into(), version.into()])
    }

    /// Not tried any more as it stands, of this version; the key is the one that it showed.
    pub fn block(id: Uuid, version: i64, cause: &str, shown_key: Option<&str>) -> SqlStatement {
        let sql = "UPDATE server SET refused = $3, shown_key = $4 WHERE id = $1 AND version = $2";
        SqlStatement::new(sql, [id.into(), version.into(), cause.into(), shown_key.into()])
    }

    /// Gone, with all that was written of it.
    pub fn delete(id: Uuid) -> [SqlStatement; 3] {
        [
            SqlStatement::new("DELETE FROM server WHERE id = $1", [id.into()]).require_row(),
            SqlStatement::new("DELETE FROM look WHERE server = $1", [id.into()]),
            SqlStatement::new("DELETE FROM job WHERE server = $1", [id.into()]),
        ]
    }
}

impl CollectionRow {
    /// Into its server's history.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO look (server, at_ms, kind, tries, took_ms, cause, error, steps) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let cells = [
            self.server.into(),
            self.finished_ms.into(),
            self.trigger.as_str().into(),
            self.attempt.into(),
            self.duration_ms.into(),
            self.cause.as_deref().into(),
            self.error.as_deref().into(),
            self.steps.as_str().into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// The last that is known of its server; with what it carried over where it brought something.
    ///
    /// Of another version than it was looked at, it says nothing.
    pub fn update_server(&self, version: i64, carried: Option<&[u8]>) -> SqlStatement {
        let sql = "UPDATE server SET last_ms = $2, last_took_ms = $3, last_cause = $4, last_error = $5, \
             last_ok_ms = COALESCE($6, last_ok_ms), carried = COALESCE($7, carried) WHERE id = $1 AND version = $8";
        let ok_ms = self.cause.is_none().then_some(self.finished_ms);
        let cells = [
            self.server.into(),
            self.finished_ms.into(),
            self.duration_ms.into(),
            self.cause.as_deref().into(),
            self.error.as_deref().into(),
            ok_ms.into(),
            carried.into(),
            version.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// Those of a server, newest first; before a number.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(
        store: &dyn Store,
        server: Uuid,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, server, at_ms, kind, tries, took_ms, cause, error, steps FROM look \
             WHERE server = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
        let cells = vec![server.into(), before.unwrap_or(i64::MAX).into(), limit.into()];
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok(Self {
                id: cells.int()?,
                server: cells.id()?,
                finished_ms: cells.int()?,
                trigger: cells.text()?,
                attempt: cells.int()?,
                duration_ms: cells.int()?,
                cause: cells.opt_text()?,
                error: cells.opt_text()?,
                steps: cells.text()?,
            })
        };
        store.query(sql, cells).await?.into_iter().map(read).collect()
    }

    /// Lets go of those that went well before one time, and of all before another.
    pub fn purge(ok_before_ms: i64, before_ms: i64) -> SqlStatement {
        let sql = "DELETE FROM look WHERE at_ms < $2 OR (at_ms < $1 AND cause IS NULL)";
        SqlStatement::new(sql, [ok_before_ms.into(), before_ms.into()])
    }
}
