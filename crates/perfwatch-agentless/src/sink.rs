//! Port through which collected snapshots enter the hub's ingestion.

use perfwatch_model::{HostRef, Snapshot};
use perfwatch_store::BoxFuture;

/// Snapshot of an SSH collection.
#[derive(Debug, Clone)]
pub struct CollectedSnapshot {
    /// Host that the snapshot belongs to.
    pub host: HostRef,
    /// Snapshot as the collectors derived it.
    pub snapshot: Snapshot,
    /// Clock of the host minus clock of the hub, milliseconds.
    pub clock_skew_ms: i64,
}

/// Reason why a collected snapshot was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The snapshot is invalid; collecting again gives the same result.
    #[error("{0}")]
    Rejected(String),
    /// The snapshot could not be stored now.
    #[error("failed to store the snapshot: {0}")]
    Unavailable(String),
}

/// Accepts collected snapshots. Implemented by the hub's ingestion pipeline.
pub trait SnapshotSink: Send + Sync {
    /// Validates, stores and publishes a snapshot.
    ///
    /// # Errors
    /// Returns [`SinkError::Rejected`] for an invalid snapshot, [`SinkError::Unavailable`] if the
    /// store fails.
    fn submit(&self, collected: CollectedSnapshot) -> BoxFuture<'_, Result<(), SinkError>>;
}
