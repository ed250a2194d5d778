//! Types that several services of the crate share: options and report of a collection, versions of
//! the servers on its path, and conflicts that are no errors.

use perfwatch_model::remote_collector::{
    CollectionFailure, CollectionObserver, CollectionStage, CollectionStep, FailureCause,
};
use perfwatch_store::collections::CollectTrigger;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, StoreError, Transaction};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Maximum duration of a collection. Every stage has a shorter timeout.
pub(crate) const MAX_COLLECTION_TIME: Duration = Duration::from_secs(150);

/// Options of a collection.
pub(crate) struct CollectOptions {
    pub(crate) trigger: CollectTrigger,
    /// Number of the attempt, from 1.
    pub(crate) attempt: i64,
    /// Time span that the snapshot covers.
    pub(crate) interval: Duration,
    /// Time for which the connection stays open for the next collection.
    pub(crate) keep_alive: Duration,
    /// Counter state of the previous collection.
    pub(crate) counter_state: Option<Vec<u8>>,
    /// Observer of the stages while the collection runs.
    pub(crate) observer: Option<Arc<dyn CollectionObserver>>,
}

/// Result of a collection, with the writes that record it.
pub struct CollectionReport {
    /// Duration of the collection in milliseconds.
    pub duration_ms: u64,
    /// Completed steps, in order of execution.
    pub steps: Vec<CollectionStep>,
    /// Reason why there is no snapshot; `None` after a success.
    pub failure: Option<CollectionFailure>,
    /// Host key that the server presented.
    pub host_key: Option<String>,
    /// Counter state for the next collection; `None` after a failure.
    pub(crate) counter_state: Option<Vec<u8>>,
    /// Writes that record the collection; not committed yet.
    pub(crate) tx: Transaction,
}

/// Reason why a connection was not tested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionTestError {
    /// The principal has as many running or recent tests as its share allows.
    #[error("too many connection tests; wait until others end")]
    TooManyTests,
    /// The server could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Version of a server's configuration; every change of the server increments it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ServerVersion {
    pub(crate) id: Uuid,
    pub(crate) version: i64,
}

impl ServerVersion {
    pub(crate) fn from_row(row: &ServerRow) -> Self {
        Self { id: row.id, version: row.version }
    }
}

/// Versions of the target and its jump hosts at the start of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerVersions {
    pub(crate) target: ServerVersion,
    /// Jump hosts, beginning with the host that is adjacent to the target.
    pub(crate) jumps: Vec<ServerVersion>,
}

impl ServerVersions {
    /// Versions of a target without jump hosts.
    pub(crate) fn of_target(row: &ServerRow) -> Self {
        Self { target: ServerVersion::from_row(row), jumps: Vec::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ServerVersion> {
        std::iter::once(self.target).chain(self.jumps.iter().copied())
    }

    pub(crate) fn find(&self, server: Uuid) -> Option<ServerVersion> {
        self.iter().find(|version| version.id == server)
    }

    /// Server that caused a failure: the target unless the failure names another server.
    pub(crate) fn find_failed(&self, failure: &CollectionFailure) -> Option<ServerVersion> {
        self.find(failure.server_id.unwrap_or(self.target.id))
    }
}

/// Failure of the target, without an offered host key.
pub(crate) fn collection_failure(
    cause: FailureCause,
    stage: CollectionStage,
    message: impl Into<String>,
) -> CollectionFailure {
    CollectionFailure { server_id: None, stage, cause, message: message.into(), offered_host_key: None }
}

/// Name of a failure cause in the store and the API.
pub(crate) fn cause_name(cause: FailureCause) -> String {
    let name = serde_json::to_value(cause).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Blocks the failed server after a permanent failure.
pub(crate) fn block_server(tx: &mut Transaction, failure: &CollectionFailure, failed: ServerVersion) {
    let cause = cause_name(failure.cause);
    tx.servers().block(failed.id, failed.version, &cause, failure.offered_host_key.as_deref());
}

/// Ignores a conflict: another hub made the same change.
pub(crate) fn ignore_conflict(result: Result<(), CommitError>) -> Result<(), StoreError> {
    match result {
        Ok(()) | Err(CommitError::Conflict) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}
