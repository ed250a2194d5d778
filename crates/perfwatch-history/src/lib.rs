//! What the hub remembers, between the way in and the store: rows that are durable but not yet
//! in blocks stand here in memory too; tasks seal, roll up and let go; readers join it all.
//!
//! The walk of a row: [`History::append`] (durable in the head, acked) → [`seal`] (a block) →
//! [`rollup`] (minutes, hours) → [`retention`] (gone). [`read`] is the way back.

pub mod export;
mod head;
mod metrics;
pub mod read;
mod retention;
mod rollup;
mod seal;
mod tasks;
#[cfg(test)]
mod tests;

use head::{HostHead, InFlightAppends};
pub use metrics::HistoryMetrics;
use perfwatch_model::{Clock, HostId, Snapshot};
use perfwatch_store::{BlockContent, SnapshotRow, Store, StoreError};
use perfwatch_tsdb::{Projection, Tier};
pub use seal::run_blocking;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard};

/// How long history is kept, and in how much space.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Ticks.
    pub raw_retention: Duration,
    /// Minutes.
    pub minute_retention: Duration,
    /// Hours.
    pub hour_retention: Duration,
    /// What the store may take on disk.
    pub budget_bytes: u64,
    /// With less than this free on its file system, nothing more is taken in.
    pub min_free_bytes: u64,
}

impl HistoryConfig {
    /// Below this, the store could not hold what is on its way.
    pub const LEAST_BUDGET: u64 = 16 << 20;
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

/// The hub's memory.
pub struct History {
    backend: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: HistoryConfig,
    heads: RwLock<HashMap<HostId, Arc<HostHead>>>,
    in_flight: InFlightAppends,
    /// Why nothing is taken in, while that is so.
    ingest_blocked: Mutex<Option<String>>,
    /// There may be head rows that blocks hold by now: looked for at a start too.
    truncate_pending: AtomicBool,
    /// What each task fails at, while it does.
    task_errors: Mutex<HashMap<&'static str, String>>,
    /// Somebody has enough rows for a block.
    seal_due: Notify,
    pub counts: HistoryMetrics,
}

/// What became of rows, and the host's turn: until it is let go, no other rows of this host are
/// taken in, so that what is published is in order.
pub struct AppendOutcome {
    /// Whether each row is new.
    pub is_new: Vec<bool>,
    _append_lock: OwnedMutexGuard<()>,
}

impl History {
    /// Reads what the store has: which ticks were taken in, and the rows that are in no block.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: HistoryConfig,
        counts: HistoryMetrics,
    ) -> Result<Arc<Self>, StoreError> {
        let history = Self {
            backend: store,
            clock,
            config,
            heads: RwLock::default(),
            in_flight: InFlightAppends::default(),
            ingest_blocked: Mutex::default(),
            truncate_pending: AtomicBool::new(true),
            task_errors: Mutex::default(),
            seal_due: Notify::new(),
            counts,
        };
        for seen in history.backend.sequence_ranges().await? {
            history.head(seen.host).record_sealed(seen.boot, &seen.seqs, seen.newest_ms);
        }
        let sealed: HashMap<HostId, i64> = history
            .backend
            .seal_watermarks()
            .await?
            .into_iter()
            .map(|sealed| (sealed.host, sealed.arrival))
            .collect();
        let (mut after, mut rows) = (0, 0);
        loop {
            let head = history.backend.read_head(after, 5_000).await?;
            let Some(last) = head.last() else {
                break;
            };
            after = last.arrival;
            for row in head {
                let host = row.row.host;
                if sealed.get(&host).is_none_or(|sealed| row.arrival > *sealed) {
                    let (log, snapshot) = (history.head(host), row.row.snapshot);
                    rows += usize::from(!log.contains(snapshot.boot, snapshot.seq));
                    log.append(row.arrival, [snapshot], history.clock.monotonic());
                }
            }
        }
        history.in_flight.finish(after);
        if rows > 0 {
            tracing::info!(rows, "loaded unsealed rows from the head");
        }
        Ok(Arc::new(history))
    }

    fn head(&self, host: HostId) -> Arc<HostHead> {
        if let Some(log) = self.heads.read().unwrap_or_else(PoisonError::into_inner).get(&host) {
            return log.clone();
        }
        self.heads.write().unwrap_or_else(PoisonError::into_inner).entry(host).or_default().clone()
    }

    fn heads(&self) -> Vec<(HostId, Arc<HostHead>)> {
        let hosts = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().map(|(host, log)| (*host, log.clone())).collect()
    }

    /// The rows of a host since a time, for the live window after a start, before any more come.
    pub async fn recent(
        &self,
        host: HostId,
        sealed_until_ms: Option<i64>,
        since_ms: i64,
    ) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let open = self.head(host).rows();
        if open.is_empty() && sealed_until_ms.is_none_or(|last| last < since_ms) {
            return Ok(open);
        }
        let wanted = Arc::new(Projection::full());
        let joined = self.read(host, Tier::Raw, (since_ms, i64::MAX), &wanted).await?;
        let in_blocks = joined.sealed.slices.iter().filter_map(|piece| match &piece.content {
            Ok(BlockContent::Raw(table)) => Some(table.snapshots()),
            _ => None,
        });
        let mut rows: Vec<Arc<Snapshot>> = in_blocks.flatten().collect();
        rows.extend(open);
        rows.retain(|row| row.at_ms >= since_ms);
        Ok(rows)
    }

    /// Why nothing is taken in, while that is so.
    pub fn ingest_blocked(&self) -> Option<String> {
        self.low_disk_space().or_else(|| {
            let troubles = self.task_errors.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.get(tasks::WRITE_CHECK).cloned()
        })
    }

    fn low_disk_space(&self) -> Option<String> {
        self.ingest_blocked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The store's name.
    pub fn backend(&self) -> &dyn Store {
        &*self.backend
    }

    /// How it is kept.
    pub fn config(&self) -> &HistoryConfig {
        &self.config
    }

    /// Takes in rows of one host. When this returns, the new ones are durable. To be run to its
    /// end: a caller that gave up between would leave rows that are durable and not in memory.
    pub async fn append(
        &self,
        host: HostId,
        snapshots: Vec<Arc<Snapshot>>,
    ) -> Result<AppendOutcome, StoreError> {
        if let Some(why) = self.low_disk_space() {
            return Err(StoreError::Unavailable(why));
        }
        let log = self.head(host);
        let turn = log.append_lock().await;
        let mut within = HashSet::new();
        let new: Vec<bool> = snapshots
            .iter()
            .map(|s| !log.contains(s.boot, s.seq) && within.insert((s.boot, s.seq)))
            .collect();
        let fresh = || snapshots.iter().zip(&new).filter(|(_, new)| **new).map(|(snapshot, _)| snapshot);
        let rows: Vec<SnapshotRow> =
            fresh().map(|snapshot| SnapshotRow { host, snapshot: snapshot.clone() }).collect();
        if !rows.is_empty() {
            let ticket = self.in_flight.begin();
            // What is refused for want of room may find some when rows are sealed.
            let arrival = self.backend.append(rows).await.inspect_err(|_| self.seal_due.notify_one())?;
            self.in_flight.finish(arrival);
            let now = self.clock.monotonic();
            log.append(arrival, fresh().cloned(), now);
            drop(ticket);
            if log.should_seal(now) {
                self.seal_due.notify_one();
            }
        }
        Ok(AppendOutcome { is_new: new, _append_lock: turn })
    }
}
