//! Current definitions and incidents, shared by the services of alerting.

use crate::active_incidents::ActiveIncidents;
use crate::definitions::AlertDefinitions;
use perfwatch_store::Transaction;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// Definitions and incidents at one point in time.
#[derive(Default)]
pub struct AlertingSnapshot {
    /// Rules, channels and silences.
    pub definitions: AlertDefinitions,
    /// Open and recently resolved incidents.
    pub incidents: ActiveIncidents,
}

/// Change of the state with the writes that persist it in one commit.
#[derive(Default)]
pub struct StateChange {
    /// New definitions; unchanged if `None`.
    pub definitions: Option<AlertDefinitions>,
    /// New incidents; unchanged if `None`.
    pub incidents: Option<ActiveIncidents>,
    /// Writes of the commit. Without writes, nothing is committed or published.
    pub tx: Transaction,
}

/// Holder of the current [`AlertingSnapshot`]. Only the incident service publishes a new snapshot.
pub(crate) struct AlertingState {
    snapshot: RwLock<Arc<AlertingSnapshot>>,
    /// Increases with each published snapshot.
    changes_tx: watch::Sender<u64>,
}

impl Default for AlertingState {
    fn default() -> Self {
        Self { snapshot: RwLock::default(), changes_tx: watch::Sender::new(0) }
    }
}

impl AlertingState {
    pub(crate) fn snapshot(&self) -> Arc<AlertingSnapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes_tx.subscribe()
    }

    pub(crate) fn publish(&self, snapshot: AlertingSnapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.changes_tx.send_modify(|revision| *revision += 1);
    }
}
