//! Group commit into the head, the same for both engines: rows are encoded by the caller, and many calls
//! share a commit.

use crate::error::StoreError;
use crate::head_payload;
use crate::store::SnapshotRow;
use perfwatch_model::Shape;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Minimum time between two commits. Calls that arrive in between share the next commit; a single call is
/// committed immediately.
pub(crate) const GROUP_COMMIT_DELAY: Duration = Duration::from_millis(15);
/// Number of rows after which a commit accepts no further calls.
pub(crate) const MAX_COMMIT_ROWS: usize = 1_000;
/// Maximum number of calls that wait for their commit.
pub(crate) const APPEND_QUEUE_CAPACITY: usize = 4_096;

/// Arrival number of the commit that contains the rows.
pub(crate) type AppendResult = Result<i64, StoreError>;

/// Encoded rows of a call.
pub(crate) struct Append {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) shapes: Vec<Arc<Shape>>,
    pub(crate) reply: oneshot::Sender<AppendResult>,
}

impl Append {
    pub(crate) fn new(rows: &[SnapshotRow], reply: oneshot::Sender<AppendResult>) -> Self {
        let bytes = head_payload::encode_rows(rows);
        let mut shapes: Vec<Arc<Shape>> = rows.iter().map(|row| row.snapshot.shape.clone()).collect();
        shapes.dedup_by_key(|shape| shape.id());
        Self { bytes, rows: rows.len(), shapes, reply }
    }
}

/// Error of calls after the store was closed.
pub(crate) fn store_closed() -> StoreError {
    StoreError::Unavailable("store is closed".to_owned())
}

/// Error of appends that exceed the disk budget. The remaining space is reserved for sealing and roll-up.
pub(crate) fn disk_budget_exhausted() -> StoreError {
    StoreError::Unavailable("disk budget exhausted; old data is being deleted".to_owned())
}

/// Remembers whether the last commit failed. Logs changes only, not every failed retry.
#[derive(Default)]
pub(crate) struct ErrorLatch(bool);

impl ErrorLatch {
    pub(crate) fn record(&mut self, result: &AppendResult) {
        match result {
            Err(error) if !self.0 => tracing::warn!(%error, "append failed; retrying"),
            Ok(_) if self.0 => tracing::info!("append recovered"),
            _ => {}
        }
        self.0 = result.is_err();
    }
}
