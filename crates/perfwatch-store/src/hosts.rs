//! Hosts that sent snapshots.

use crate::sql::SqlStatement;
use crate::transaction::Transaction;
use perfwatch_model::{HostFacts, HostId, limits};
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
    /// Account or token that created the host by sending for it; `None` for hosts of agents and of SSH
    /// collection.
    pub created_by: Option<Arc<str>>,
}

/// Principal whose share of the hub the data of a host counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SharePrincipal {
    /// The host itself.
    Host(HostId),
    /// Account or token that created the host within [`limits::NEW_HOST_PERIOD_MS`]. All such hosts together
    /// have the share of one, so that a sender does not gain by inventing hosts.
    Sender(Arc<str>),
}

impl HostRecord {
    /// Principal whose share the data of the host counts for.
    pub fn share_principal(&self, now_ms: i64) -> SharePrincipal {
        let is_new = now_ms.saturating_sub(self.first_seen_ms) < limits::NEW_HOST_PERIOD_MS;
        match &self.created_by {
            Some(sender) if is_new => SharePrincipal::Sender(sender.clone()),
            _ => SharePrincipal::Host(self.id),
        }
    }
}

/// Writes of hosts, added to a [`Transaction`].
#[derive(Debug)]
pub struct HostRepository<'a>(&'a mut Transaction);

impl HostRepository<'_> {
    /// Deletes the host with its availability. Its history stays until retention deletes it.
    pub fn delete(&mut self, id: HostId) {
        self.0.push(SqlStatement::new("DELETE FROM availability_day WHERE host = $1", [id.0.into()]));
        self.0.push(SqlStatement::new("DELETE FROM host WHERE id = $1", [id.0.into()]).require_row());
    }
}

impl Transaction {
    /// Repository of hosts.
    pub fn hosts(&mut self) -> HostRepository<'_> {
        HostRepository(self)
    }
}
