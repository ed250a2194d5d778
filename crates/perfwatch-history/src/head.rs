//! Unsealed rows of a host and its accepted sequence numbers.

use super::share::{ShapeShare, row_bytes};
use perfwatch_model::{BootId, HostId, RangeSet, Snapshot};
use perfwatch_store::SequenceRanges;
use perfwatch_tsdb::{EncodedRow, RowEncoder, RowKey};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Rows of a full block.
const SEAL_ROWS: usize = 150;
/// Rows for which a head grows at once: doubling would leave half of the space of every host unused.
const ADDED_CAPACITY: usize = 32;
/// Maximum age of an unsealed row. Older rows are sealed even if the block is small.
const MAX_UNSEALED_AGE: Duration = Duration::from_secs(900);
/// Maximum number of unsealed rows of other hubs: those of [`MAX_UNSEALED_AGE`] at a row per second. The oldest rows
/// are missing until they are in a block.
const MAX_MIRRORED_ROWS: usize = 900;
/// Maximum number of boots per host for which duplicates are detected. The oldest boots are evicted.
const MAX_TRACKED_BOOTS: usize = 64;

/// Head of a host: its unsealed rows in memory, and the locks that order appends, reads and seals.
pub(super) struct HostHead {
    /// Serializes the appends of the host.
    append_lock: Arc<tokio::sync::Mutex<()>>,
    /// Shared by readers, exclusive while rows move into blocks: a read never misses a row and never
    /// returns a row twice.
    read_lock: tokio::sync::RwLock<()>,
    inner: Mutex<HostHeadInner>,
    share: Mutex<ShapeShare>,
}

#[derive(Default)]
struct HostHeadInner {
    boots: Vec<BootSequences>,
    encoder: RowEncoder,
    /// Rows in the order of arrival.
    unsealed: Vec<UnsealedRow>,
    /// Time at which the oldest unsealed row arrived, monotonic clock.
    since: Duration,
    /// Rows of the next block. The first block of a host has a random size, so that hosts that
    /// started together are not sealed together.
    target_rows: usize,
    /// Approximate size of the unsealed rows.
    unsealed_bytes: u64,
    /// Rows that other hubs accepted and have not sealed yet, in the order in which they came here.
    mirrored: VecDeque<MirroredRow>,
}

/// Row that is not in a block yet.
struct UnsealedRow {
    /// Number of its commit.
    arrival: i64,
    row: EncodedRow,
    /// Approximate size in the store.
    stored_bytes: u64,
}

/// Unsealed row of another hub.
#[derive(Clone)]
pub(super) struct MirroredRow {
    pub(super) row: EncodedRow,
    boot: BootId,
    seq: u64,
}

impl MirroredRow {
    /// Returns whether the row is in a block.
    pub(super) fn is_sealed(&self, ranges: &[SequenceRanges]) -> bool {
        ranges.iter().any(|ranges| ranges.boot == self.boot && ranges.seqs.contains(self.seq))
    }
}

/// Accepted sequence numbers of a boot.
struct BootSequences {
    boot: BootId,
    seqs: RangeSet,
    newest_ms: i64,
}

impl HostHeadInner {
    /// Encodes a row and records its sequence number; `None` for a row that the head has already.
    fn encode_new(&mut self, snapshot: &Snapshot) -> Option<EncodedRow> {
        let sequences = self.boot(snapshot.boot);
        if !sequences.seqs.insert(snapshot.seq) {
            return None;
        }
        sequences.newest_ms = sequences.newest_ms.max(snapshot.at_ms);
        Some(self.encoder.encode(snapshot))
    }

    /// Unsealed rows in the order of arrival.
    fn unsealed_rows(&self) -> Vec<EncodedRow> {
        self.unsealed.iter().map(|unsealed| unsealed.row.clone()).collect()
    }

    /// Releases memory that a head without rows does not need: its host may send no more.
    fn release_if_empty(&mut self) {
        if self.unsealed.is_empty() && self.mirrored.is_empty() {
            self.encoder.close();
            self.unsealed = Vec::new();
            self.mirrored.shrink_to_fit();
        }
    }

    fn boot(&mut self, boot: BootId) -> &mut BootSequences {
        let index = self.boots.iter().position(|sequences| sequences.boot == boot).unwrap_or_else(|| {
            if self.boots.len() >= MAX_TRACKED_BOOTS
                && let Some(oldest) = (0..self.boots.len()).min_by_key(|&index| self.boots[index].newest_ms)
            {
                self.boots.remove(oldest);
            }
            self.boots.push(BootSequences { boot, seqs: RangeSet::default(), newest_ms: i64::MIN });
            self.boots.len() - 1
        });
        &mut self.boots[index]
    }
}

impl HostHead {
    /// Head without rows, in a store with this disk budget.
    pub(super) fn new(budget_bytes: u64) -> Self {
        Self {
            append_lock: Arc::default(),
            read_lock: tokio::sync::RwLock::default(),
            inner: Mutex::default(),
            share: Mutex::new(ShapeShare::new(budget_bytes)),
        }
    }

    /// Share of the host in new shapes.
    pub(super) fn share(&self) -> MutexGuard<'_, ShapeShare> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Approximate size of the unsealed rows.
    pub(super) fn unsealed_bytes(&self) -> u64 {
        self.lock().unsealed_bytes
    }

    fn lock(&self) -> MutexGuard<'_, HostHeadInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the host has no other append; see [`AppendOutcome`](crate::AppendOutcome).
    pub(super) async fn lock_append(&self) -> OwnedMutexGuard<()> {
        self.append_lock.clone().lock_owned().await
    }

    pub(super) async fn lock_read(&self) -> RwLockReadGuard<'_, ()> {
        self.read_lock.read().await
    }

    pub(super) async fn lock_seal(&self) -> RwLockWriteGuard<'_, ()> {
        self.read_lock.write().await
    }

    /// Adds the sequence numbers of rows that are in blocks.
    pub(super) fn record_sealed(&self, boot: BootId, seqs: &RangeSet, newest_ms: i64) {
        let mut inner = self.lock();
        let sequences = inner.boot(boot);
        sequences.seqs.extend(seqs);
        sequences.newest_ms = sequences.newest_ms.max(newest_ms);
    }

    pub(super) fn contains(&self, boot: BootId, seq: u64) -> bool {
        self.lock().boots.iter().any(|sequences| sequences.boot == boot && sequences.seqs.contains(seq))
    }

    /// Adds the new rows of a commit under one lock. Sealing removes whole commits, and must never find
    /// a part of a commit. Returns the rows in memory; `None` for rows that the head has already.
    pub(super) fn append<'a>(
        &self,
        arrival: i64,
        snapshots: impl IntoIterator<Item = &'a Snapshot>,
        now: Duration,
    ) -> Vec<Option<EncodedRow>> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let add = |snapshot: &Snapshot| {
            let row = inner.encode_new(snapshot)?;
            if inner.unsealed.is_empty() {
                inner.since = now;
            }
            if inner.target_rows == 0 {
                inner.target_rows = SEAL_ROWS / 2 + fastrand::usize(..SEAL_ROWS / 2);
            }
            let stored_bytes = row_bytes(snapshot);
            inner.unsealed_bytes += stored_bytes;
            if inner.unsealed.len() == inner.unsealed.capacity() {
                inner.unsealed.reserve_exact(ADDED_CAPACITY);
            }
            inner.unsealed.push(UnsealedRow { arrival, row: row.clone(), stored_bytes });
            Some(row)
        };
        snapshots.into_iter().map(add).collect()
    }

    /// Adds a row that another hub accepted and made durable. Returns the row in memory; `None` for a row that the
    /// head has already.
    pub(super) fn mirror(&self, snapshot: &Snapshot) -> Option<EncodedRow> {
        let mut inner = self.lock();
        let row = inner.encode_new(snapshot)?;
        if inner.mirrored.len() >= MAX_MIRRORED_ROWS {
            inner.mirrored.pop_front();
        }
        inner.mirrored.push_back(MirroredRow { row: row.clone(), boot: snapshot.boot, seq: snapshot.seq });
        Some(row)
    }

    /// Unsealed rows of other hubs within a range.
    pub(super) fn mirrored_rows(&self, (from_ms, to_ms): (i64, i64)) -> Vec<MirroredRow> {
        let inner = self.lock();
        let is_within = |mirrored: &&MirroredRow| (from_ms..to_ms).contains(&mirrored.row.at_ms());
        inner.mirrored.iter().filter(is_within).cloned().collect()
    }

    /// Removes the rows of other hubs that are in blocks.
    pub(super) fn remove_sealed_mirrored(&self, ranges: &[SequenceRanges]) {
        let mut inner = self.lock();
        inner.mirrored.retain(|mirrored| !mirrored.is_sealed(ranges));
        inner.release_if_empty();
    }

    /// Returns whether there are unsealed rows of other hubs.
    pub(super) fn has_mirrored_rows(&self) -> bool {
        !self.lock().mirrored.is_empty()
    }

    pub(super) fn should_seal(&self, now: Duration) -> bool {
        let inner = self.lock();
        !inner.unsealed.is_empty()
            && (inner.unsealed.len() >= inner.target_rows
                || now.saturating_sub(inner.since) >= MAX_UNSEALED_AGE)
    }

    /// Unsealed rows in the order of arrival.
    pub(super) fn rows(&self) -> Vec<EncodedRow> {
        self.lock().unsealed_rows()
    }

    /// Unsealed rows and the arrival number of the last row; `None` if there are none.
    pub(super) fn rows_to_seal(&self) -> Option<(Vec<EncodedRow>, i64)> {
        let inner = self.lock();
        Some((inner.unsealed_rows(), inner.unsealed.last()?.arrival))
    }

    /// Removes the rows of all commits up to `until`, which are in blocks.
    pub(super) fn remove_sealed(&self, until: i64, now: Duration) {
        let mut inner = self.lock();
        inner.unsealed.retain(|unsealed| unsealed.arrival > until);
        let remaining = inner.unsealed.len();
        inner.unsealed.shrink_to(remaining + ADDED_CAPACITY);
        inner.unsealed_bytes = inner.unsealed.iter().map(|unsealed| unsealed.stored_bytes).sum();
        inner.release_if_empty();
        inner.since = now;
        inner.target_rows = SEAL_ROWS;
    }

    /// Arrival number of the oldest unsealed row.
    pub(super) fn oldest_arrival(&self) -> Option<i64> {
        self.lock().unsealed.first().map(|unsealed| unsealed.arrival)
    }
}

/// Sequence numbers of rows, by boot.
pub(super) fn sequence_ranges_of(host: HostId, rows: impl Iterator<Item = RowKey>) -> Vec<SequenceRanges> {
    let mut boots: BTreeMap<BootId, SequenceRanges> = BTreeMap::new();
    for row in rows {
        let ranges = boots.entry(row.boot).or_insert_with(|| SequenceRanges {
            host,
            boot: row.boot,
            seqs: RangeSet::default(),
            newest_ms: row.at_ms,
        });
        ranges.seqs.insert(row.seq);
        ranges.newest_ms = ranges.newest_ms.max(row.at_ms);
    }
    boots.into_values().collect()
}

/// Appends that are being written. The head is not truncated past the start of the oldest of them: their
/// rows are durable before they are in memory.
#[derive(Default)]
pub(super) struct InFlightAppends {
    /// Largest known arrival number.
    newest: AtomicI64,
    /// Lowest possible arrival number of each append.
    started: Mutex<BTreeMap<u64, i64>>,
    next_id: AtomicU64,
}

/// Append in progress, until it is dropped.
pub(super) struct InFlightGuard<'a> {
    appends: &'a InFlightAppends,
    id: u64,
}

impl InFlightAppends {
    pub(super) fn begin(&self) -> InFlightGuard<'_> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.insert(id, self.newest.load(Ordering::Acquire) + 1);
        InFlightGuard { appends: self, id }
    }

    pub(super) fn finish(&self, arrival: i64) {
        self.newest.fetch_max(arrival, Ordering::AcqRel);
    }

    /// Arrival number below which no append is in progress.
    pub(super) fn oldest_arrival(&self) -> i64 {
        let newest = self.newest.load(Ordering::Acquire) + 1;
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.values().copied().min().unwrap_or(newest).min(newest)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.appends.started.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
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
        let head = HostHead::new(1 << 30);
        let row = |seq: u64| Snapshot {
            boot: BootId::default(),
            seq,
            at_ms: 0,
            interval_ms: 0,
            shape: Arc::new(Shape::new(vec![])),
            values: vec![],
            processes: vec![],
            facts: None,
            errors: vec![],
        };
        let mut sealed = 0;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for arrival in 0..COMMITS {
                    let first = arrival.cast_unsigned() * ROWS;
                    let rows: Vec<Snapshot> = (first..first + ROWS).map(row).collect();
                    head.append(arrival, &rows, Duration::ZERO);
                }
            });
            while !writer.is_finished() || head.oldest_arrival().is_some() {
                if let Some((rows, until)) = head.rows_to_seal() {
                    assert_eq!(rows.len() as u64 % ROWS, 0, "whole commits");
                    sealed += rows.len();
                    head.remove_sealed(until, Duration::ZERO);
                }
            }
        });
        assert_eq!(sealed as u64, COMMITS.cast_unsigned() * ROWS, "each removed row was sealed");
    }
}
