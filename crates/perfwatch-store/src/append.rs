//! Rows on their way into the head, the same for both databases: framed where they come in, many
//! calls to a commit.

use crate::head_payload;
use crate::store::{SnapshotRow, StoreError};
use perfwatch_model::Shape;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Commits that follow one another are at least this far apart: what comes meanwhile shares the
/// next one. One that comes alone does not wait.
pub(crate) const GROUP_COMMIT_DELAY: Duration = Duration::from_millis(15);
/// Rows of one commit.
pub(crate) const MAX_COMMIT_ROWS: usize = 1_000;
/// Calls that wait for their commit.
pub(crate) const APPEND_QUEUE_CAPACITY: usize = 4_096;

/// The number of the commit that rows came with.
pub(crate) type AppendResult = Result<i64, StoreError>;

/// Rows of one call, framed.
pub(crate) struct Append {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) shapes: Vec<Arc<Shape>>,
    pub(crate) reply: oneshot::Sender<AppendResult>,
}

impl Append {
    pub(crate) fn new(rows: &[SnapshotRow], reply: oneshot::Sender<AppendResult>) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * 1_024);
        rows.iter().for_each(|row| head_payload::write_row(&mut bytes, row));
        let mut shapes: Vec<Arc<Shape>> = rows.iter().map(|row| row.snapshot.shape.clone()).collect();
        shapes.dedup_by_key(|shape| shape.id());
        Self { bytes, rows: rows.len(), shapes, reply }
    }
}

/// Who asks is told to come again.
pub(crate) fn store_closed() -> StoreError {
    StoreError::Unavailable("store is closed".to_owned())
}

/// What is left of the budget belongs to sealing and roll-up.
pub(crate) fn disk_budget_exhausted() -> StoreError {
    StoreError::Unavailable("disk budget exhausted; old data is being deleted".to_owned())
}

/// Whether the last commit failed: said when that changes, not at every try.
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
