//! Last-seen time of each host, shared between hubs.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
use uuid::Uuid;

/// Time at which any hub last received a snapshot of a host. Hubs write it every few seconds, so it is
/// inexact.
#[derive(Debug)]
pub struct HostLastSeen;

impl HostLastSeen {
    /// Writes the last-seen time of a host, Unix milliseconds.
    pub fn upsert(host: Uuid, last_seen_ms: i64) -> SqlStatement {
        let sql = "INSERT INTO host_last_seen (host, last_seen_ms) VALUES ($1, $2) \
             ON CONFLICT (host) DO UPDATE SET last_seen_ms = excluded.last_seen_ms";
        SqlStatement::new(sql, [host.into(), last_seen_ms.into()])
    }

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

    /// Deletes the last-seen time of a deleted host.
    pub fn delete(host: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM host_last_seen WHERE host = $1", [host.into()])
    }
}
