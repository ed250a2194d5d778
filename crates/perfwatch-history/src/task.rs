//! Names of the background tasks, and the thread pool for work that takes processor time.

use perfwatch_store::{ReadBounds, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Maximum number of values in memory at the same time, give or take uneven groups.
pub(crate) const MAX_PART_CELLS: usize = 2 << 20;

/// Background task of the history. Its name is a label of metrics and a field of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HistoryTask {
    /// Sealing of head rows into blocks.
    Seal,
    /// Reading the disk usage of the store.
    DiskUsage,
    /// Renewal of the leases. They are written, so that a failure means that the store rejects writes.
    WriteCheck,
    /// Deletion of old data when the disk budget is almost used up.
    DiskBudget,
    /// Roll-up of windows that are over.
    Rollup,
    /// Deletion of data that is older than its retention.
    Retention,
    /// Maintenance of the database files.
    Vacuum,
}

impl HistoryTask {
    pub(crate) const ALL: [Self; 7] = [
        Self::Seal,
        Self::DiskUsage,
        Self::WriteCheck,
        Self::DiskBudget,
        Self::Rollup,
        Self::Retention,
        Self::Vacuum,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::DiskUsage => "disk_usage",
            Self::WriteCheck => "write_check",
            Self::DiskBudget => "disk_budget",
            Self::Rollup => "rollup",
            Self::Retention => "retention",
            Self::Vacuum => "vacuum",
        }
    }
}

/// Sets a flag when it is dropped, so that a read ends with the request that waits for it.
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs work that takes processor time on the blocking thread pool.
///
/// # Errors
/// Returns [`StoreError::Unavailable`] if the work panics or the runtime shuts down.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// Runs work of a read, which holds the permits of its request until it ends.
pub(crate) async fn run_held<T: Send + 'static>(
    bounds: &ReadBounds,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    let held = bounds.held.clone();
    let work = move || {
        let result = work();
        drop(held);
        result
    };
    run_blocking(work).await
}
