//! Last-seen time of each host, shared between hubs.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// Time at which any hub last received a snapshot of a host. Hubs write it every few seconds, so it is
/// inexact.
#[derive(Debug)]
pub struct HostLastSeen;

impl HostLastSeen {
    /// Lists the last-seen times of all hosts, Unix milliseconds.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok((row.id()?, row.int()?))
        };
        let sql = "SELECT host, last_seen_ms FROM host_last_seen";
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of last-seen times of hosts, added to a [`Transaction`].
#[derive(Debug)]
pub struct HostLastSeenRepository<'a>(&'a mut Transaction);

impl HostLastSeenRepository<'_> {
    /// Writes the last-seen time of a host, Unix milliseconds.
    pub fn upsert(&mut self, host: Uuid, last_seen_ms: i64) {
        let sql = "INSERT INTO host_last_seen (host, last_seen_ms) VALUES ($1, $2) \
             ON CONFLICT (host) DO UPDATE SET last_seen_ms = excluded.last_seen_ms";
        self.0.push(SqlStatement::new(sql, [host.into(), last_seen_ms.into()]));
    }

    /// Deletes the last-seen time of a deleted host.
    pub fn delete(&mut self, host: Uuid) {
        self.0.push(SqlStatement::new("DELETE FROM host_last_seen WHERE host = $1", [host.into()]));
    }
}

impl Transaction {
    /// Repository of the last-seen times of hosts.
    pub fn host_last_seen(&mut self) -> HostLastSeenRepository<'_> {
        HostLastSeenRepository(self)
    }
}
