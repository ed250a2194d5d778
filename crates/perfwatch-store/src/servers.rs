//! Agentless hosts: configuration, encrypted credentials, host key and last result.
//!
//! The agentless module defines the JSON documents and encrypts the credentials.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// Server as the database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// Stable identifier (UUIDv7), also the id of the host.
    pub id: Uuid,
    /// Configuration of the server, as JSON.
    pub body: String,
    /// True if the server is collected on its schedule.
    pub enabled: bool,
    /// Collection interval in milliseconds.
    pub interval_ms: i64,
    /// Credentials, encrypted with the key of the hub.
    pub encrypted_credentials: Option<Vec<u8>>,
    /// Version of the configuration; incremented by every change.
    pub version: i64,
    /// Pinned host key. The server must present it.
    pub host_key: Option<String>,
    /// Host key that the server presented instead of the pinned key.
    pub offered_host_key: Option<String>,
    /// Failure cause for which collections stopped until the server is changed.
    pub blocked_reason: Option<String>,
    /// Time of the last collection, Unix milliseconds.
    pub last_run_ms: Option<i64>,
    /// Duration of the last collection in milliseconds.
    pub last_duration_ms: Option<i64>,
    /// Failure cause of the last collection; `None` after a success.
    pub last_cause: Option<String>,
    /// Failure message of the last collection; `None` after a success.
    pub last_error: Option<String>,
    /// Time of the last successful collection, Unix milliseconds.
    pub last_success_ms: Option<i64>,
    /// Time of the next scheduled collection, Unix milliseconds; `None` without a pending job.
    pub next_run_ms: Option<i64>,
}

/// Statement that reads servers, with the columns in the order of [`ServerRow::read`].
macro_rules! select_servers {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.body, s.enabled, s.interval_ms, s.encrypted_credentials, s.version, s.host_key, \
             s.offered_host_key, s.blocked_reason, s.last_run_ms, s.last_duration_ms, s.last_cause, \
             s.last_error, s.last_success_ms, j.run_at_ms \
             FROM server s LEFT JOIN collection_job j ON j.pending_key = s.id ",
            $rest
        )
    };
}

impl ServerRow {
    /// A new server of the first version: disabled, never collected.
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
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.id()?,
            body: row.text()?,
            enabled: row.flag()?,
            interval_ms: row.int()?,
            encrypted_credentials: row.opt_bytes()?,
            version: row.int()?,
            host_key: row.opt_text()?,
            offered_host_key: row.opt_text()?,
            blocked_reason: row.opt_text()?,
            last_run_ms: row.opt_int()?,
            last_duration_ms: row.opt_int()?,
            last_cause: row.opt_text()?,
            last_error: row.opt_text()?,
            last_success_ms: row.opt_int()?,
            next_run_ms: row.opt_int()?,
        })
    }

    /// Lists all servers, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = select_servers!("ORDER BY s.id");
        store.query(sql, Vec::new()).await?.into_iter().map(Self::read).collect()
    }

    /// Reads one server; `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn get(store: &dyn Store, id: Uuid) -> Result<Option<Self>, StoreError> {
        let sql = select_servers!("WHERE s.id = $1");
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(Self::read).transpose()
    }

    /// Reads the counters from which the next collection derives rates.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn counter_state(store: &dyn Store, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = store.query("SELECT counter_state FROM server WHERE id = $1", vec![id.into()]).await?;
        rows.into_iter().next().map_or(Ok(None), |row| RowReader::new(row).opt_bytes())
    }

    /// Lists the ids of disabled servers.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list_disabled(store: &dyn Store) -> Result<Vec<Uuid>, StoreError> {
        let rows = store.query("SELECT id FROM server WHERE enabled = 0", Vec::new()).await?;
        rows.into_iter().map(|row| RowReader::new(row).id()).collect()
    }
}

/// Writes of servers, added to a [`Transaction`].
#[derive(Debug)]
pub struct ServerRepository<'a>(&'a mut Transaction);

impl ServerRepository<'_> {
    /// Inserts the server as a new row.
    pub fn insert(&mut self, server: &ServerRow) {
        let sql = "INSERT INTO server \
             (id, body, enabled, interval_ms, encrypted_credentials, version, host_key) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            server.id.into(),
            server.body.as_str().into(),
            server.enabled.into(),
            server.interval_ms.into(),
            server.encrypted_credentials.as_deref().into(),
            server.version.into(),
            server.host_key.as_deref().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Updates the configuration and unblocks the server; a conflict unless it has the expected version.
    pub fn update(&mut self, server: &ServerRow, expected_version: i64) {
        let sql = "UPDATE server SET body = $2, enabled = $3, interval_ms = $4, encrypted_credentials = $5, \
             version = version + 1, offered_host_key = NULL, blocked_reason = NULL \
             WHERE id = $1 AND version = $6";
        let values = [
            server.id.into(),
            server.body.as_str().into(),
            server.enabled.into(),
            server.interval_ms.into(),
            server.encrypted_credentials.as_deref().into(),
            expected_version.into(),
        ];
        self.0.push(SqlStatement::new(sql, values).require_row());
    }

    /// Deletes host key and counter state, because the address now leads to another host.
    pub fn reset_host_state(&mut self, id: Uuid) {
        let sql = "UPDATE server SET host_key = NULL, counter_state = NULL WHERE id = $1";
        self.0.push(SqlStatement::new(sql, [id.into()]));
    }

    /// Pins a host key that a user accepted.
    pub fn accept_host_key(&mut self, id: Uuid, key: &str) {
        self.0.push(SqlStatement::new(
            "UPDATE server SET host_key = $2 WHERE id = $1",
            [id.into(), key.into()],
        ));
    }

    /// Replaces credentials by the same credentials encrypted with another key. The version stays.
    pub fn reencrypt(&mut self, id: Uuid, before: &[u8], after: &[u8]) {
        let sql = "UPDATE server SET encrypted_credentials = $3 WHERE id = $1 AND encrypted_credentials = $2";
        self.0.push(SqlStatement::new(sql, [id.into(), before.into(), after.into()]));
    }

    /// Replaces credentials after a change of the path to the server. A new version: collections that run
    /// with the former path have no effect. No effect if the credentials were changed concurrently.
    pub fn replace_credentials(&mut self, id: Uuid, before: &[u8], after: &[u8]) {
        let sql = "UPDATE server SET encrypted_credentials = $3, version = version + 1 \
             WHERE id = $1 AND encrypted_credentials = $2";
        self.0.push(SqlStatement::new(sql, [id.into(), before.into(), after.into()]));
    }

    /// Deletes credentials and blocks the server until they are entered again. No effect if the credentials
    /// were changed concurrently.
    pub fn drop_credentials(&mut self, id: Uuid, before: &[u8], cause: &str) {
        let sql = "UPDATE server SET encrypted_credentials = NULL, version = version + 1, \
             blocked_reason = $3, offered_host_key = NULL WHERE id = $1 AND encrypted_credentials = $2";
        self.0.push(SqlStatement::new(sql, [id.into(), before.into(), cause.into()]));
    }

    /// Blocks a server that was changed in the same transaction, until its credentials are entered again.
    pub fn require_credentials(&mut self, id: Uuid, cause: &str) {
        let sql = "UPDATE server SET blocked_reason = $2 WHERE id = $1 AND encrypted_credentials IS NULL";
        self.0.push(SqlStatement::new(sql, [id.into(), cause.into()]));
    }

    /// Pins the host key presented at first use. No effect on another version or a server with a pinned key.
    pub fn pin_host_key(&mut self, id: Uuid, version: i64, key: &str) {
        let sql = "UPDATE server SET host_key = $2 WHERE id = $1 AND version = $3 AND host_key IS NULL";
        self.0.push(SqlStatement::new(sql, [id.into(), key.into(), version.into()]));
    }

    /// Blocks further collections of this version, and stores the host key that was presented.
    pub fn block(&mut self, id: Uuid, version: i64, cause: &str, offered_host_key: Option<&str>) {
        let sql =
            "UPDATE server SET blocked_reason = $3, offered_host_key = $4 WHERE id = $1 AND version = $2";
        self.0
            .push(SqlStatement::new(sql, [id.into(), version.into(), cause.into(), offered_host_key.into()]));
    }

    /// Deletes the server with its collections and jobs; a conflict if it was deleted already.
    pub fn delete(&mut self, id: Uuid) {
        self.0.push_all([
            SqlStatement::new("DELETE FROM server WHERE id = $1", [id.into()]).require_row(),
            SqlStatement::new("DELETE FROM collection WHERE server = $1", [id.into()]),
            SqlStatement::new("DELETE FROM collection_job WHERE server = $1", [id.into()]),
        ]);
    }
}

impl Transaction {
    /// Repository of servers.
    pub fn servers(&mut self) -> ServerRepository<'_> {
        ServerRepository(self)
    }
}
