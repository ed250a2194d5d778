//! History: durable append to the head, sealing into blocks, roll-up, retention, reads.
//!
//! A row passes through [`History::append`] (durable in the head), `seal` (a block), `rollup` (minutes and
//! hours) and `retention` (deleted). The head rows of each host are also in memory until they are sealed;
//! [`read`] joins them with the blocks.

pub mod budget;
mod eviction;
pub mod export;
mod export_text;
pub mod grid;
mod head;
pub mod instant;
mod metrics;
mod mirrored;
pub mod read;
mod retention;
mod rollup;
mod seal;
pub mod series;
pub mod series_json;
pub mod series_points;
mod share;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
mod tier_sizes;
pub mod timeline;

use bytes::Bytes;
use head::{HostHead, InFlightAppends};
pub use metrics::HistoryMetrics;
use perfwatch_model::{Clock, HostId, Snapshot, limit_table, limits};
use perfwatch_store::{BlockContent, SnapshotRow, Store, StoreError, TaskLease, shares};
use perfwatch_tsdb::{EncodedRow, Projection, Tier, decode_rows};
pub use share::ShareExceeded;
use share::{STORAGE_RETRY_DELAY, SpaceShare, row_bytes};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use task::HistoryTask;
pub use task::run_blocking;
use tier_sizes::TierSizes;
use tokio::sync::{Notify, OwnedMutexGuard};

/// Head rows per read when the head is loaded at the start.
const HEAD_PAGE_ROWS: usize = 5_000;

/// Retention of each tier and limits of disk usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Retention of raw rows.
    pub raw_retention: Duration,
    /// Retention of the minute buckets.
    pub minute_retention: Duration,
    /// Retention of the hour buckets.
    pub hour_retention: Duration,
    /// Disk budget of the store in bytes.
    pub budget_bytes: u64,
    /// Free space in bytes on the file system of the store, below which ingestion is blocked.
    pub min_free_bytes: u64,
}

impl HistoryConfig {
    /// Minimum disk budget. A smaller store has no space for the rows that are being appended.
    pub const MIN_BUDGET_BYTES: u64 = 16 << 20;
    /// Minimum retention of raw rows.
    pub const MIN_RAW_RETENTION: Duration = Duration::from_secs(3_600);

    /// Validates the combination of values.
    ///
    /// # Errors
    /// Returns the part of the first invalid value and the reason.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.raw_retention < Self::MIN_RAW_RETENTION
            || self.minute_retention < self.raw_retention
            || self.hour_retention < self.minute_retention
        {
            let message = "each retention must be at least that of the finer tier, and raw at least 1h";
            return Err(("history", message.to_owned()));
        }
        if self.budget_bytes < Self::MIN_BUDGET_BYTES {
            return Err(("history.disk_budget", format!("at least {} MB", Self::MIN_BUDGET_BYTES >> 20)));
        }
        Ok(())
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            raw_retention: days(14),
            minute_retention: days(90),
            hour_retention: days(730),
            budget_bytes: 10 << 30,
            min_free_bytes: 256 << 20,
        }
    }
}

/// History of all hosts: a store and the rows that are not sealed yet.
pub struct History {
    backend: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: RwLock<Arc<HistoryConfig>>,
    heads: RwLock<HashMap<HostId, Arc<HostHead>>>,
    in_flight: InFlightAppends,
    /// Reason why ingestion is blocked by low disk space.
    low_space_error: Mutex<Option<String>>,
    /// Set while the head may contain sealed rows, also at the start.
    truncate_pending: AtomicBool,
    /// Hosts above their share of the storage, while the disk budget is almost used up.
    over_share: RwLock<HashSet<HostId>>,
    /// Space that rows may take until the disk usage is measured again.
    space_share: Mutex<SpaceShare>,
    /// Sizes of the tiers.
    tier_sizes: Mutex<TierSizes>,
    /// Last error of each task that currently fails.
    task_errors: Mutex<HashMap<HistoryTask, String>>,
    /// Lease of the newest run of the tasks that change the shared store; `None` before the first.
    maintenance_lease: Mutex<Option<TaskLease>>,
    /// Notified when retention or the disk budget changed.
    config_changed: Notify,
    /// Notified when a host has enough rows for a block.
    seal_due: Notify,
    /// Prometheus metrics of the history tasks.
    pub metrics: HistoryMetrics,
}

/// Error of an append.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The host exceeds its share; other hosts are not affected.
    #[error(transparent)]
    Share(#[from] ShareExceeded),
    /// Ingestion is blocked, or the store cannot write the rows.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Snapshot to append.
pub struct NewRow {
    /// Snapshot in decoded form.
    pub snapshot: Arc<Snapshot>,
    /// Its encoding in wire format without unknown fields, if it is at hand: the head stores it as it is.
    pub encoded: Option<Bytes>,
}

impl From<Arc<Snapshot>> for NewRow {
    fn from(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, encoded: None }
    }
}

/// Result of an append.
pub struct AppendOutcome {
    /// Each row as it is in memory; `None` for a duplicate.
    pub rows: Vec<Option<EncodedRow>>,
    /// Until it is dropped, no other rows of the host are appended: the caller publishes the rows in the order of
    /// their acceptance.
    pub append_lock: OwnedMutexGuard<()>,
}

impl History {
    /// Opens the history: loads the accepted sequence numbers and the unsealed rows of the head.
    ///
    /// # Errors
    /// Returns the error of the store if a read fails.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: HistoryConfig,
        metrics: HistoryMetrics,
    ) -> Result<Arc<Self>, StoreError> {
        let history = Self {
            backend: store,
            clock,
            config: RwLock::new(Arc::new(config)),
            heads: RwLock::default(),
            in_flight: InFlightAppends::default(),
            low_space_error: Mutex::default(),
            truncate_pending: AtomicBool::new(true),
            over_share: RwLock::default(),
            space_share: Mutex::default(),
            tier_sizes: Mutex::default(),
            task_errors: Mutex::default(),
            maintenance_lease: Mutex::default(),
            config_changed: Notify::new(),
            seal_due: Notify::new(),
            metrics,
        };
        for ranges in history.backend.sequence_ranges(None).await? {
            history.head(ranges.host).record_sealed(ranges.boot, &ranges.seqs, ranges.newest_ms);
        }
        let count = history.load_head().await?;
        if count > 0 {
            tracing::info!(count, "loaded unsealed rows from the head");
        }
        Ok(Arc::new(history))
    }

    /// Loads the unsealed rows of the head. Returns their number.
    async fn load_head(&self) -> Result<usize, StoreError> {
        let sealed_until = self.sealed_until().await?;
        let (mut last_arrival, mut count) = (0, 0);
        loop {
            let page = self.backend.read_head(last_arrival, HEAD_PAGE_ROWS).await?;
            let Some(last) = page.last() else {
                break;
            };
            last_arrival = last.arrival;
            for head_row in page {
                let host = head_row.row.host;
                if sealed_until.get(&host).is_none_or(|sealed| head_row.arrival > *sealed) {
                    let (head, snapshot) = (self.head(host), head_row.row.snapshot);
                    count += usize::from(!head.contains(snapshot.boot, snapshot.seq));
                    head.append(head_row.arrival, [&*snapshot], self.clock.monotonic());
                }
            }
        }
        self.in_flight.finish(last_arrival);
        Ok(count)
    }

    /// Arrival number up to which the head rows of each host are sealed.
    async fn sealed_until(&self) -> Result<HashMap<HostId, i64>, StoreError> {
        let watermarks = self.backend.seal_watermarks().await?;
        Ok(watermarks.into_iter().map(|watermark| (watermark.host, watermark.arrival)).collect())
    }

    fn head(&self, host: HostId) -> Arc<HostHead> {
        if let Some(head) = self.heads.read().unwrap_or_else(PoisonError::into_inner).get(&host) {
            return head.clone();
        }
        self.heads
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(host)
            .or_insert_with(|| Arc::new(HostHead::new(self.config().budget_bytes)))
            .clone()
    }

    fn heads(&self) -> Vec<(HostId, Arc<HostHead>)> {
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        heads.iter().map(|(host, head)| (*host, head.clone())).collect()
    }

    /// Snapshots of a host since `since_ms`, to fill the recent window before new snapshots are accepted.
    /// `sealed_until_ms` is the time of the newest sealed snapshot.
    ///
    /// # Errors
    /// Returns the error of the store if a read fails.
    pub async fn recent(
        &self,
        host: HostId,
        sealed_until_ms: Option<i64>,
        since_ms: i64,
    ) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let unsealed = decode_rows(&self.head(host).rows());
        if unsealed.is_empty() && sealed_until_ms.is_none_or(|last| last < since_ms) {
            return Ok(unsealed);
        }
        let projection = Arc::new(Projection::full());
        let joined = self.read(host, Tier::Raw, (since_ms, i64::MAX), &projection).await?;
        let sealed = joined.sealed.slices.iter().filter_map(|slice| match &slice.content {
            Ok(BlockContent::Raw(table)) => Some(table.snapshots()),
            _ => None,
        });
        let mut rows: Vec<Arc<Snapshot>> = sealed.flatten().collect();
        rows.extend(unsealed);
        rows.retain(|row| row.at_ms >= since_ms);
        Ok(rows)
    }

    /// Time of the newest snapshot of a host that is not sealed, Unix milliseconds.
    pub fn newest_unsealed_ms(&self, host: HostId) -> Option<i64> {
        self.head(host).rows().iter().map(EncodedRow::at_ms).max()
    }

    /// Reason why ingestion is blocked (low disk space, or a store that rejects writes or appends), if it is.
    pub fn ingest_blocked(&self) -> Option<String> {
        self.low_disk_space().or_else(|| {
            let errors = self.task_errors.lock().unwrap_or_else(PoisonError::into_inner);
            let write_error = errors.get(&HistoryTask::WriteCheck).cloned();
            write_error.or_else(|| self.backend.append_rejection().map(|error| error.to_string()))
        })
    }

    fn low_disk_space(&self) -> Option<String> {
        self.low_space_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Store that contains the history.
    pub fn backend(&self) -> &dyn Store {
        &*self.backend
    }

    /// Retention and disk limits in effect.
    pub fn config(&self) -> Arc<HistoryConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces retention and disk limits; the next runs of the background tasks apply them.
    ///
    /// # Errors
    /// Returns the error of the store if it cannot apply the disk budget.
    pub async fn set_config(&self, config: HistoryConfig) -> Result<(), StoreError> {
        self.backend.set_budget(config.budget_bytes).await?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.config_changed.notify_one();
        Ok(())
    }

    /// Checks the shares of a host before its rows are written, and takes their new shapes from them.
    async fn check_share(
        &self,
        host: HostId,
        head: &HostHead,
        rows: &[SnapshotRow],
    ) -> Result<(), AppendError> {
        if self.over_share.read().unwrap_or_else(PoisonError::into_inner).contains(&host) {
            return Err(ShareExceeded::new(&limit_table::STORAGE_REFUSAL, STORAGE_RETRY_DELAY).into());
        }
        let bytes: u64 = rows.iter().map(|row| row_bytes(&row.snapshot)).sum();
        // A host without unsealed rows is never refused: its rows may be a single large batch.
        let unsealed_bytes = head.unsealed_bytes();
        if unsealed_bytes > 0 && unsealed_bytes + bytes > self.max_unsealed_bytes() {
            self.seal_due.notify_one();
            return Err(ShareExceeded::new(&limit_table::HEAD_SHARE, Duration::from_secs(1)).into());
        }
        let (new, should_count) = {
            let share = head.share();
            (share.new_shapes(rows.iter().map(|row| &row.snapshot)), share.should_count_stored())
        };
        if new.is_empty() {
            return self.take_space(host, bytes, rows.len());
        }
        if should_count && shares::count_shapes(&*self.backend, host).await? >= limits::MAX_STORED_SHAPES {
            return Err(ShareExceeded::new(&limit_table::STORED_SHAPES, Duration::from_secs(600)).into());
        }
        head.share().charge(new, self.clock.monotonic())?;
        self.take_space(host, bytes, rows.len())
    }

    fn take_space(&self, host: HostId, bytes: u64, rows: usize) -> Result<(), AppendError> {
        Ok(self.space_share().charge(host, bytes, rows, self.max_unsealed_bytes())?)
    }

    fn space_share(&self) -> MutexGuard<'_, SpaceShare> {
        self.space_share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maximum size of the unsealed rows of one host.
    fn max_unsealed_bytes(&self) -> u64 {
        self.backend.max_head_bytes() / 100 * limits::MAX_HEAD_SHARE_PERCENT
    }

    /// Appends rows of a host and skips duplicates. The new rows are durable when the future is ready.
    ///
    /// The future must be run to its end: otherwise rows can be durable, but missing in memory.
    ///
    /// # Errors
    /// Returns [`AppendError::Share`] if the host is above one of its shares, [`StoreError::Unavailable`] if
    /// ingestion is blocked by low disk space, or the error of the store if the rows cannot be written.
    pub async fn append(
        &self,
        host: HostId,
        rows: Vec<impl Into<NewRow>>,
    ) -> Result<AppendOutcome, AppendError> {
        self.append_rows(host, rows.into_iter().map(Into::into).collect()).await
    }

    async fn append_rows(&self, host: HostId, rows: Vec<NewRow>) -> Result<AppendOutcome, AppendError> {
        if let Some(reason) = self.low_disk_space() {
            return Err(StoreError::Unavailable(reason).into());
        }
        let head = self.head(host);
        let append_lock = head.lock_append().await;
        let mut batch = HashSet::new();
        let mut is_new_row = |row: &NewRow| {
            let key = (row.snapshot.boot, row.snapshot.seq);
            !head.contains(key.0, key.1) && batch.insert(key)
        };
        let is_new: Vec<bool> = rows.iter().map(&mut is_new_row).collect();
        let new_rows = || rows.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(row, _)| row);
        let to_stored =
            |row: &NewRow| SnapshotRow { host, snapshot: row.snapshot.clone(), encoded: row.encoded.clone() };
        let stored: Vec<SnapshotRow> = new_rows().map(to_stored).collect();
        let mut appended = Vec::new();
        if !stored.is_empty() {
            self.check_share(host, &head, &stored).await?;
            let guard = self.in_flight.begin();
            // If the head is full, sealing makes space for the next attempt.
            let arrival = self.backend.append(stored).await.inspect_err(|_| self.seal_due.notify_one())?;
            self.in_flight.finish(arrival);
            let now = self.clock.monotonic();
            appended = head.append(arrival, new_rows().map(|row| &*row.snapshot), now);
            drop(guard);
            if self.is_seal_due(&head, now) {
                self.seal_due.notify_one();
            }
        }
        let mut appended = appended.into_iter();
        let rows =
            is_new.iter().map(|is_new| if *is_new { appended.next().flatten() } else { None }).collect();
        Ok(AppendOutcome { rows, append_lock })
    }
}
