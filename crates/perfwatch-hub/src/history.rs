//! What the hub remembers, between the way in and the store: rows that are durable but not yet
//! in blocks stand here in memory too; tasks seal, roll up and let go; readers join it all.
//!
//! The walk of a row: [`History::append`] (durable in the head, acked) → [`seal`] (a block) →
//! [`rollup`] (minutes, hours) → [`retention`] (gone). [`read`] is the way back.

mod counts;
pub(crate) mod export;
mod open;
pub(crate) mod read;
mod retention;
mod rollup;
mod seal;
mod tasks;
#[cfg(test)]
mod tests;

pub(crate) use counts::Counts;
use open::{HostLog, InFlight};
use perfwatch_model::{Clock, HostId, Snapshot};
use perfwatch_series::{Tier, Wanted};
use perfwatch_store::{Content, Row, Store, StoreError};
pub(crate) use seal::blocking;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard};

/// How long history is kept, and in how much space.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Ticks.
    pub raw: Duration,
    /// Minutes.
    pub minutes: Duration,
    /// Hours.
    pub hours: Duration,
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
            raw: days(14),
            minutes: days(90),
            hours: days(730),
            budget_bytes: 10 << 30,
            min_free_bytes: 256 << 20,
        }
    }
}

/// The hub's memory.
pub(crate) struct History {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: HistoryConfig,
    hosts: RwLock<HashMap<HostId, Arc<HostLog>>>,
    in_flight: InFlight,
    /// Why nothing is taken in, while that is so.
    refusing: Mutex<Option<String>>,
    /// There may be head rows that blocks hold by now: looked for at a start too.
    to_cut: AtomicBool,
    /// What each task fails at, while it does.
    troubles: Mutex<HashMap<&'static str, String>>,
    /// Somebody has enough rows for a block.
    due: Notify,
    pub(crate) counts: Counts,
}

/// What became of rows, and the host's turn: until it is let go, no other rows of this host are
/// taken in, so that what is published is in order.
pub(crate) struct Taken {
    /// Whether each row is new.
    pub(crate) new: Vec<bool>,
    _turn: OwnedMutexGuard<()>,
}

impl History {
    /// Reads what the store has: which ticks were taken in, and the rows that are in no block.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: HistoryConfig,
        counts: Counts,
    ) -> Result<Arc<Self>, StoreError> {
        let history = Self {
            store,
            clock,
            config,
            hosts: RwLock::default(),
            in_flight: InFlight::default(),
            refusing: Mutex::default(),
            to_cut: AtomicBool::new(true),
            troubles: Mutex::default(),
            due: Notify::new(),
            counts,
        };
        for seen in history.store.seen().await? {
            history.log(seen.host).remember(seen.boot, &seen.seqs, seen.newest_ms);
        }
        let sealed: HashMap<HostId, i64> =
            history.store.sealed().await?.into_iter().map(|sealed| (sealed.host, sealed.arrival)).collect();
        let (mut after, mut rows) = (0, 0);
        loop {
            let head = history.store.head(after, 5_000).await?;
            let Some(last) = head.last() else {
                break;
            };
            after = last.arrival;
            for row in head {
                let host = row.row.host;
                if sealed.get(&host).is_none_or(|sealed| row.arrival > *sealed) {
                    let (log, snapshot) = (history.log(host), row.row.snapshot);
                    rows += usize::from(!log.has(snapshot.boot, snapshot.seq));
                    log.take(row.arrival, [snapshot], history.clock.monotonic());
                }
            }
        }
        history.in_flight.arrived(after);
        if rows > 0 {
            tracing::info!(rows, "history: rows that are in no block yet were read back");
        }
        Ok(Arc::new(history))
    }

    fn log(&self, host: HostId) -> Arc<HostLog> {
        if let Some(log) = self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(&host) {
            return log.clone();
        }
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).entry(host).or_default().clone()
    }

    fn logs(&self) -> Vec<(HostId, Arc<HostLog>)> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().map(|(host, log)| (*host, log.clone())).collect()
    }

    /// The rows of a host since a time, for the live window after a start, before any more come.
    pub(crate) async fn recent(
        &self,
        host: HostId,
        sealed_until_ms: Option<i64>,
        since_ms: i64,
    ) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let open = self.log(host).rows();
        if open.is_empty() && sealed_until_ms.is_none_or(|last| last < since_ms) {
            return Ok(open);
        }
        let wanted = Arc::new(Wanted::everything());
        let joined = self.join(host, Tier::Raw, (since_ms, i64::MAX), &wanted).await?;
        let in_blocks = joined.reading.pieces.iter().filter_map(|piece| match &piece.content {
            Ok(Content::Ticks(table)) => Some(table.snapshots()),
            _ => None,
        });
        let mut rows: Vec<Arc<Snapshot>> = in_blocks.flatten().collect();
        rows.extend(open);
        rows.retain(|row| row.at_ms >= since_ms);
        Ok(rows)
    }

    /// Why nothing is taken in, while that is so.
    pub(crate) fn refusing(&self) -> Option<String> {
        self.short_of_space().or_else(|| {
            let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.get(tasks::WRITING).cloned()
        })
    }

    fn short_of_space(&self) -> Option<String> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The store's name.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// How it is kept.
    pub(crate) fn config(&self) -> &HistoryConfig {
        &self.config
    }

    /// Takes in rows of one host. When this returns, the new ones are durable. To be run to its
    /// end: a caller that gave up between would leave rows that are durable and not in memory.
    pub(crate) async fn append(
        &self,
        host: HostId,
        snapshots: Vec<Arc<Snapshot>>,
    ) -> Result<Taken, StoreError> {
        if let Some(why) = self.short_of_space() {
            return Err(StoreError::Unavailable(why));
        }
        let log = self.log(host);
        let turn = log.turn().await;
        let mut within = HashSet::new();
        let new: Vec<bool> =
            snapshots.iter().map(|s| !log.has(s.boot, s.seq) && within.insert((s.boot, s.seq))).collect();
        let fresh = || snapshots.iter().zip(&new).filter(|(_, new)| **new).map(|(snapshot, _)| snapshot);
        let rows: Vec<Row> = fresh().map(|snapshot| Row { host, snapshot: snapshot.clone() }).collect();
        if !rows.is_empty() {
            let ticket = self.in_flight.begin();
            // What is refused for want of room may find some when rows are sealed.
            let arrival = self.store.append(rows).await.inspect_err(|_| self.due.notify_one())?;
            self.in_flight.arrived(arrival);
            let now = self.clock.monotonic();
            log.take(arrival, fresh().cloned(), now);
            drop(ticket);
            if log.is_due(now) {
                self.due.notify_one();
            }
        }
        Ok(Taken { new, _turn: turn })
    }
}
