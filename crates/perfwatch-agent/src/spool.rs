//! What was read and not yet acked: on disk, so that neither an outage of the hub nor a crash
//! of the agent loses a tick.
//!
//! Design constraints:
//! - Snapshots leave in the order they came, oldest first, and stay until they are acked.
//! - Every record carries a CRC-32; a torn tail is cut off at start, a damaged segment costs
//!   its rest. Nothing is believed that has no valid checksum, acks included.
//! - Survives the end of the process at any instruction. Power loss costs what the kernel had
//!   not written yet; while the hub can't be reached, the log is synced every few seconds.
//! - The size is capped: the oldest segment goes first, and what it held is counted.
//! - Where the disk refuses (full, read-only), the newest minutes are kept in memory: a host
//!   with a full disk is the one people want to see.

mod frame;
mod segment_log;

use bytes::Bytes;
use perfwatch_model::{BootId, ShapeId, Snapshot, wire};
use segment_log::{ReadPlan, SegmentLog};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use segment_log::Position;

/// Snapshots kept in memory while the disk refuses: 10 minutes at 2 s.
const MAX_MEMORY_SNAPSHOTS: usize = 300;
/// A disk that refused is tried again after so many ticks.
const APPENDS_BEFORE_RETRY: u32 = 5;

/// One encoded snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpoolEntry {
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
    pub(crate) shape: ShapeId,
    pub(crate) bytes: Bytes,
}

/// Snapshots in the order to send, and what to say once they are acked.
pub(crate) struct SpoolBatch {
    pub(crate) entries: Vec<SpoolEntry>,
    origin: BatchOrigin,
}

enum BatchOrigin {
    Disk(ReadPlan, Position),
    /// The shapes of the entries, and a number that counts all that ever went through memory.
    Memory(HashMap<ShapeId, Bytes>, u64),
}

impl SpoolBatch {
    /// Whether acking this gets the queue on: not when the disk could not be read just now.
    pub(crate) fn makes_progress(&self) -> bool {
        match &self.origin {
            BatchOrigin::Disk(plan, end) => plan.advanced(*end),
            BatchOrigin::Memory(..) => !self.entries.is_empty(),
        }
    }

    /// The columns of its shapes.
    pub(crate) fn shapes(&self) -> Vec<Bytes> {
        let wanted = self.entries.iter().map(|entry| entry.shape).collect();
        match &self.origin {
            BatchOrigin::Disk(plan, end) => plan.shapes(*end, &wanted).into_values().collect(),
            BatchOrigin::Memory(shapes, _) => shapes.values().cloned().collect(),
        }
    }
}

/// The queue.
pub(crate) struct Spool {
    folder: PathBuf,
    max_bytes: u64,
    log: Option<SegmentLog>,
    /// Appends until the disk is tried again.
    appends_until_retry: u32,
    memory: VecDeque<(SpoolEntry, Bytes)>,
    memory_total: u64,
    /// The last shape as it is written.
    shape: Option<(ShapeId, Bytes)>,
    dropped: u64,
    error_logged: bool,
}

/// What may be read without holding the spool.
pub(crate) enum PendingBatch {
    Disk(ReadPlan),
    Memory(SpoolBatch),
}

impl Spool {
    /// Opens the folder; keeps to memory while that fails.
    pub(crate) fn open(folder: &Path, max_bytes: u64) -> Self {
        let mut spool = Self {
            folder: folder.to_owned(),
            max_bytes,
            log: None,
            appends_until_retry: 0,
            memory: VecDeque::new(),
            memory_total: 0,
            shape: None,
            dropped: 0,
            error_logged: false,
        };
        spool.open_log();
        spool
    }

    fn open_log(&mut self) {
        match SegmentLog::open(&self.folder, self.max_bytes) {
            Ok(log) => self.log = Some(log),
            Err(error) => {
                self.appends_until_retry = APPENDS_BEFORE_RETRY;
                if !std::mem::replace(&mut self.error_logged, true) {
                    tracing::warn!(folder = %self.folder.display(), %error, "failed to open the spool; buffering snapshots in memory");
                }
            }
        }
    }

    /// The newest snapshot that was ever appended here, where that is known.
    pub(crate) fn last_sequence(&self) -> Option<(BootId, u64)> {
        self.log.as_ref()?.last_sequence()
    }

    /// Takes a snapshot in. Never fails: without a disk the memory holds the newest.
    pub(crate) fn append(&mut self, snapshot: &Snapshot) {
        let id = snapshot.shape.id();
        let shape = match &self.shape {
            Some((known, bytes)) if *known == id => bytes.clone(),
            _ => wire::encode_shape(&snapshot.shape),
        };
        self.shape = Some((id, shape.clone()));
        let bytes = wire::encode_snapshot(snapshot);
        self.memory
            .push_back((SpoolEntry { boot: snapshot.boot, seq: snapshot.seq, shape: id, bytes }, shape));
        if self.log.is_none() {
            self.appends_until_retry = self.appends_until_retry.saturating_sub(1);
            if self.appends_until_retry == 0 {
                self.open_log();
            }
        }
        if let Err(error) = self.flush_memory() {
            if !std::mem::replace(&mut self.error_logged, true) {
                tracing::warn!(%error, "failed to write to the spool; buffering snapshots in memory");
            }
        } else if self.log.is_some() && std::mem::take(&mut self.error_logged) {
            tracing::info!("spool is writable again");
        }
        if self.memory.len() > MAX_MEMORY_SNAPSHOTS {
            self.memory.pop_front();
            self.memory_total += 1;
            self.dropped += 1;
        }
    }

    /// Moves what waits in memory to disk, oldest first.
    fn flush_memory(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        while let Some((entry, shape)) = self.memory.front() {
            log.append(entry, shape)?;
            self.memory.pop_front();
            self.memory_total += 1;
        }
        Ok(())
    }

    /// Where the oldest snapshots stand; read them with [`take`] once the lock is released.
    pub(crate) fn pending_batch(&self, most: usize) -> Option<PendingBatch> {
        if let Some(plan) = self.log.as_ref().filter(|log| log.pending() > 0).map(SegmentLog::read_plan) {
            return Some(PendingBatch::Disk(plan));
        }
        let waiting = || self.memory.iter().take(most);
        let entries: Vec<SpoolEntry> = waiting().map(|(entry, _)| entry.clone()).collect();
        let shapes = waiting().map(|(entry, shape)| (entry.shape, shape.clone())).collect();
        let end = self.memory_total + entries.len() as u64;
        (!entries.is_empty())
            .then_some(PendingBatch::Memory(SpoolBatch { entries, origin: BatchOrigin::Memory(shapes, end) }))
    }

    /// Forgets what was taken.
    pub(crate) fn ack(&mut self, take: &SpoolBatch) {
        match take.origin {
            BatchOrigin::Disk(_, end) => {
                if let Some(log) = &mut self.log
                    && let Err(error) = log.ack(end)
                {
                    // Not fatal: after a restart they are sent again, and the hub drops repeats.
                    tracing::debug!(%error, "failed to record an acknowledgment in the spool");
                }
            }
            BatchOrigin::Memory(_, end) => {
                while self.memory_total < end && self.memory.pop_front().is_some() {
                    self.memory_total += 1;
                }
            }
        }
    }

    /// Snapshots that wait.
    pub(crate) fn pending(&self) -> u64 {
        self.log.as_ref().map_or(0, SegmentLog::pending) + self.memory.len() as u64
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, SegmentLog::bytes)
    }

    /// Snapshots lost to the cap since start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.log.as_ref().map_or(0, SegmentLog::dropped)
    }

    /// A handle to make what was written so far survive a power loss.
    pub(crate) fn sync_handle(&self) -> Option<std::fs::File> {
        self.log.as_ref()?.sync_handle()
    }
}

/// Reads up to `most` snapshots and about `most_bytes`, oldest first, without the spool's lock.
pub(crate) fn read_batch(source: PendingBatch, most: usize, most_bytes: usize) -> SpoolBatch {
    match source {
        PendingBatch::Memory(take) => take,
        PendingBatch::Disk(plan) => {
            let (entries, end) = plan.read(most, most_bytes);
            SpoolBatch { entries, origin: BatchOrigin::Disk(plan, end) }
        }
    }
}

#[cfg(test)]
#[path = "spool/tests.rs"]
mod tests;
