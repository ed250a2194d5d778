//! Statistics of the collection queue.

use perfwatch_store::collection_jobs::{CollectionJobs, JobCounts, JobState, MAX_LISTED_JOBS};
use perfwatch_store::{Store, StoreError};
use serde::Serialize;
use uuid::Uuid;

/// Window of the queue's rates and durations.
const STATS_WINDOW_MS: i64 = 3_600_000;

/// Statistics of the collection queue.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = QueueStatsResponse))]
pub struct QueueStats {
    paused: bool,
    /// Jobs that are due.
    waiting: i64,
    /// Jobs that are not due yet.
    delayed: i64,
    active: i64,
    completed: i64,
    failed: i64,
    /// Maximum number of concurrent collections of this hub.
    workers: usize,
    /// SSH connections that this hub keeps open between collections.
    open_connections: usize,
    /// Jobs that finished within the last hour.
    finished_last_hour: i64,
    /// Jobs that failed within the last hour.
    failed_last_hour: i64,
    /// Mean duration of the jobs of the last hour, milliseconds.
    mean_duration_ms: Option<i64>,
    /// Maximum duration of the jobs of the last hour, milliseconds.
    max_duration_ms: i64,
    /// Maximum delay of the jobs that are due, milliseconds.
    max_delay_ms: i64,
    now_ms: i64,
}

impl QueueStats {
    /// Reads the statistics of all jobs, or of the jobs of visible servers.
    pub(crate) async fn read(
        store: &dyn Store,
        now_ms: i64,
        is_visible: Option<&(dyn Fn(Uuid) -> bool + Sync)>,
        (workers, open_connections): (usize, usize),
    ) -> Result<Self, StoreError> {
        let since_ms = now_ms - STATS_WINDOW_MS;
        let counts = match is_visible {
            None => CollectionJobs::stats(store, now_ms, since_ms).await?,
            Some(is_visible) => {
                let mut rows = Vec::new();
                for state in JobState::ALL {
                    rows.extend(CollectionJobs::list(store, state, MAX_LISTED_JOBS).await?);
                }
                rows.retain(|row| is_visible(row.server));
                JobCounts::from_rows(&rows, now_ms, since_ms)
            }
        };
        let paused = CollectionJobs::is_paused(store).await?;
        Ok(Self {
            paused,
            waiting: counts.waiting,
            delayed: counts.delayed,
            active: counts.active,
            completed: counts.completed,
            failed: counts.failed,
            workers,
            open_connections,
            finished_last_hour: counts.finished_recently,
            failed_last_hour: counts.failed_recently,
            mean_duration_ms: (counts.finished_recently > 0)
                .then(|| counts.duration_ms / counts.finished_recently),
            max_duration_ms: counts.max_duration_ms,
            max_delay_ms: counts.max_delay_ms,
            now_ms,
        })
    }
}
