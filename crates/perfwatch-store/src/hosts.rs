//! Hosts that sent snapshots.

use crate::sql::SqlStatement;
use crate::transaction::Transaction;
use perfwatch_model::{HostFacts, HostId};
use std::sync::Arc;

/// Host as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRecord {
    /// Stable identifier of the host.
    pub id: HostId,
    /// Display name of the host.
    pub name: String,
    /// Facts of the newest snapshot that contained them.
    pub facts: Option<Arc<HostFacts>>,
    /// Time of the first snapshot, Unix milliseconds.
    pub first_seen_ms: i64,
    /// Time of the newest sealed snapshot, Unix milliseconds.
    pub last_snapshot_ms: Option<i64>,
    /// Collection interval in milliseconds.
    pub interval_ms: u32,
}

/// Writes of hosts, added to a [`Transaction`].
#[derive(Debug)]
pub struct HostRepository<'a>(&'a mut Transaction);

impl HostRepository<'_> {
    /// Deletes the host. Its history stays until retention deletes it.
    pub fn delete(&mut self, id: HostId) {
        self.0.push(SqlStatement::new("DELETE FROM host WHERE id = $1", [id.0.into()]).require_row());
    }
}

impl Transaction {
    /// Repository of hosts.
    pub fn hosts(&mut self) -> HostRepository<'_> {
        HostRepository(self)
    }
}
