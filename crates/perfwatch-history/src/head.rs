//! The rows of one host that are in no block yet, and which of its ticks were ever taken in.

use perfwatch_model::{BootId, HostId, Snapshot};
use perfwatch_store::{RangeSet, SequenceRanges};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{
    Mutex as TurnMutex, OwnedMutexGuard, RwLock as ViewLock, RwLockReadGuard, RwLockWriteGuard,
};

/// Rows that make a block.
const SEAL_ROWS: usize = 150;
/// Rows that wait this long are sealed however few they are.
pub(super) const SEAL_AFTER: Duration = Duration::from_secs(900);
/// Boots of a host that are told apart; of older ones, repeats are not noticed.
const MAX_TRACKED_BOOTS: usize = 64;

#[derive(Default)]
pub(super) struct HostHead {
    /// Held while rows are taken in: one call after another.
    append_lock: Arc<TurnMutex<()>>,
    /// Held by readers while they look, by sealing while rows move into blocks: nobody sees a
    /// row twice or not at all.
    read_lock: ViewLock<()>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    boots: Vec<BootSequences>,
    unsealed: Vec<(i64, Arc<Snapshot>)>,
    /// When the first of them came.
    since: Duration,
    /// Rows that make the next block: the first one is smaller by chance, so that a fleet that
    /// started together does not seal together.
    rows: usize,
}

struct BootSequences {
    boot: BootId,
    seqs: RangeSet,
    newest_ms: i64,
}

impl Inner {
    fn boot(&mut self, boot: BootId) -> &mut BootSequences {
        let at = self.boots.iter().position(|seen| seen.boot == boot).unwrap_or_else(|| {
            if self.boots.len() >= MAX_TRACKED_BOOTS
                && let Some(oldest) = (0..self.boots.len()).min_by_key(|&at| self.boots[at].newest_ms)
            {
                self.boots.remove(oldest);
            }
            self.boots.push(BootSequences { boot, seqs: RangeSet::default(), newest_ms: i64::MIN });
            self.boots.len() - 1
        });
        &mut self.boots[at]
    }
}

impl HostHead {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn append_lock(&self) -> OwnedMutexGuard<()> {
        self.append_lock.clone().lock_owned().await
    }

    pub(super) async fn lock_read(&self) -> RwLockReadGuard<'_, ()> {
        self.read_lock.read().await
    }

    pub(super) async fn lock_seal(&self) -> RwLockWriteGuard<'_, ()> {
        self.read_lock.write().await
    }

    /// Notes ticks that are in blocks.
    pub(super) fn record_sealed(&self, boot: BootId, seqs: &RangeSet, newest_ms: i64) {
        let mut inner = self.lock();
        let seen = inner.boot(boot);
        seen.seqs.extend(seqs);
        seen.newest_ms = seen.newest_ms.max(newest_ms);
    }

    pub(super) fn contains(&self, boot: BootId, seq: u64) -> bool {
        self.lock().boots.iter().any(|seen| seen.boot == boot && seen.seqs.contains(seq))
    }

    /// Adds the rows of one commit that are not there yet, all at once: sealing goes by the
    /// commit, and must not find half of one.
    pub(super) fn append(
        &self,
        arrival: i64,
        snapshots: impl IntoIterator<Item = Arc<Snapshot>>,
        now: Duration,
    ) {
        let mut inner = self.lock();
        for snapshot in snapshots {
            let seen = inner.boot(snapshot.boot);
            if !seen.seqs.insert(snapshot.seq) {
                continue;
            }
            seen.newest_ms = seen.newest_ms.max(snapshot.at_ms);
            if inner.unsealed.is_empty() {
                inner.since = now;
            }
            if inner.rows == 0 {
                inner.rows = SEAL_ROWS / 2 + fastrand::usize(..SEAL_ROWS / 2);
            }
            inner.unsealed.push((arrival, snapshot));
        }
    }

    pub(super) fn should_seal(&self, now: Duration) -> bool {
        let inner = self.lock();
        !inner.unsealed.is_empty()
            && (inner.unsealed.len() >= inner.rows || now.saturating_sub(inner.since) >= SEAL_AFTER)
    }

    /// The rows, in the order of their arrival.
    pub(super) fn rows(&self) -> Vec<Arc<Snapshot>> {
        self.lock().unsealed.iter().map(|(_, snapshot)| snapshot.clone()).collect()
    }

    /// The rows and the arrival of the last, for a block.
    pub(super) fn rows_to_seal(&self) -> Option<(Vec<Arc<Snapshot>>, i64)> {
        let inner = self.lock();
        let (last, _) = inner.unsealed.last()?;
        Some((inner.unsealed.iter().map(|(_, snapshot)| snapshot.clone()).collect(), *last))
    }

    /// Lets go of rows that are in blocks.
    pub(super) fn remove_sealed(&self, until: i64, now: Duration) {
        let mut inner = self.lock();
        inner.unsealed.retain(|(arrival, _)| *arrival > until);
        inner.since = now;
        inner.rows = SEAL_ROWS;
    }

    /// Arrival of the oldest row that is in no block.
    pub(super) fn oldest_arrival(&self) -> Option<i64> {
        self.lock().unsealed.first().map(|(arrival, _)| *arrival)
    }
}

/// What the rows of a block add to what is known of a host's ticks.
pub(super) fn sequence_ranges_of(host: HostId, rows: &[Arc<Snapshot>]) -> Vec<SequenceRanges> {
    let mut boots: BTreeMap<BootId, SequenceRanges> = BTreeMap::new();
    for row in rows {
        let seen = boots.entry(row.boot).or_insert_with(|| SequenceRanges {
            host,
            boot: row.boot,
            seqs: RangeSet::default(),
            newest_ms: row.at_ms,
        });
        seen.seqs.insert(row.seq);
        seen.newest_ms = seen.newest_ms.max(row.at_ms);
    }
    boots.into_values().collect()
}

/// Rows on their way into the head: what arrived after one of them began may not be cut off.
#[derive(Default)]
pub(super) struct InFlightAppends {
    /// The largest arrival number known.
    newest: AtomicI64,
    started: Mutex<BTreeMap<u64, i64>>,
    next: std::sync::atomic::AtomicU64,
}

/// Until this is dropped, the rows are on their way.
pub(super) struct InFlightGuard<'a> {
    of: &'a InFlightAppends,
    number: u64,
}

impl InFlightAppends {
    pub(super) fn begin(&self) -> InFlightGuard<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut began = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        began.insert(number, self.newest.load(Ordering::Acquire) + 1);
        InFlightGuard { of: self, number }
    }

    pub(super) fn finish(&self, arrival: i64) {
        self.newest.fetch_max(arrival, Ordering::AcqRel);
    }

    /// Head rows before this number belong to nobody on the way.
    pub(super) fn oldest_arrival(&self) -> i64 {
        let newest = self.newest.load(Ordering::Acquire) + 1;
        let began = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        began.values().copied().min().unwrap_or(newest).min(newest)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.of.started.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::Shape;

    #[test]
    fn seal_sees_whole_commits() {
        const COMMITS: i64 = 400;
        const ROWS: u64 = 50;
        let log = HostHead::default();
        let row = |seq: u64| {
            Arc::new(Snapshot {
                boot: BootId::default(),
                seq,
                at_ms: 0,
                interval_ms: 0,
                shape: Arc::new(Shape::new(vec![])),
                values: vec![],
                processes: vec![],
                facts: None,
                errors: vec![],
            })
        };
        let mut sealed = 0;
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| {
                for arrival in 0..COMMITS {
                    let first = arrival.cast_unsigned() * ROWS;
                    log.append(arrival, (first..first + ROWS).map(row), Duration::ZERO);
                }
            });
            while !taking.is_finished() || log.oldest_arrival().is_some() {
                if let Some((rows, until)) = log.rows_to_seal() {
                    assert_eq!(rows.len() as u64 % ROWS, 0, "whole commits");
                    sealed += rows.len();
                    log.remove_sealed(until, Duration::ZERO);
                }
            }
        });
        assert_eq!(sealed as u64, COMMITS.cast_unsigned() * ROWS, "none is let go unseen");
    }
}
