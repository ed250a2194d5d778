//! Last-seen time and interval of each host, shared between hubs and known after a restart.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// Time at which any hub last received a snapshot of a host, and the interval of its snapshots. Hubs write
/// it from time to time, so it is inexact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLastSeen {
    /// Host, or the nil UUID for the hubs themselves.
    pub host: Uuid,
    /// Time of the last snapshot by the clock of the hub, Unix milliseconds.
    pub last_seen_ms: i64,
    /// Expected interval between arrivals in milliseconds; 0 if unknown.
    pub interval_ms: u32,
}

impl HostLastSeen {
    /// Lists the last-seen times of all hosts.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let read = |row| {
            let mut row = RowReader::new(row);
            let (host, last_seen_ms) = (row.id()?, row.int()?);
            let interval_ms = u32::try_from(row.int()?).unwrap_or_default();
            Ok(Self { host, last_seen_ms, interval_ms })
        };
        let sql = "SELECT host, last_seen_ms, interval_ms FROM host_last_seen";
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of last-seen times of hosts, added to a [`Transaction`].
#[derive(Debug)]
pub struct HostLastSeenRepository<'a>(&'a mut Transaction);

impl HostLastSeenRepository<'_> {
    /// Writes the last-seen time and the interval of a host.
    pub fn upsert(&mut self, row: &HostLastSeen) {
        let sql = "INSERT INTO host_last_seen (host, last_seen_ms, interval_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (host) DO UPDATE SET last_seen_ms = excluded.last_seen_ms, \
             interval_ms = excluded.interval_ms";
        let values = [row.host.into(), row.last_seen_ms.into(), i64::from(row.interval_ms).into()];
        self.0.push(SqlStatement::new(sql, values));
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
