//! Disk spool of unacknowledged snapshots (a write-ahead queue): neither an outage of the hub nor a
//! crash of the agent loses a tick.
//!
//! Design constraints:
//! - Snapshots are sent in the order of collection, oldest first, and stored until acknowledged.
//! - Every record has a CRC-32, acknowledgments included. At start an incomplete record at the end is
//!   truncated; a corrupt record loses the remainder of its segment. Records without a valid
//!   checksum are never used.
//! - The log survives the end of the process at any instruction. A power loss costs what the kernel
//!   had not written yet; while the hub is unreachable, the log is synced every few seconds.
//! - The size is limited: the oldest segment is dropped first, and its snapshots are counted.
//! - If the disk is not writable (full, read-only), the newest minutes are buffered in memory: a host
//!   with a full disk is the host that most needs monitoring.

mod frame;
mod segment_log;

use bytes::Bytes;
use perfwatch_model::{BootId, ShapeId, Snapshot, wire};
use segment_log::{ReadPlan, SegmentLog};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use frame::SpoolEntry;
pub(crate) use segment_log::Position;

/// Maximum number of snapshots in memory while the disk is not writable: 10 minutes at 2 s.
const MAX_MEMORY_SNAPSHOTS: usize = 300;
/// Number of appends after a failure before the disk is tried again.
const MIN_APPENDS_BEFORE_RETRY: u32 = 5;

/// Snapshots to send, oldest first, with the position to acknowledge.
pub(crate) struct SpoolBatch {
    pub(crate) entries: Vec<SpoolEntry>,
    origin: BatchOrigin,
}

enum BatchOrigin {
    /// Plan of the read and the position after the last entry.
    Disk(ReadPlan, Position),
    /// Shapes of the entries and the value of `Spool::memory_total` after the last entry.
    Memory(HashMap<ShapeId, Bytes>, u64),
}

impl SpoolBatch {
    /// Returns false if acknowledging would not advance the queue because the disk could not be read.
    pub(crate) fn makes_progress(&self) -> bool {
        match &self.origin {
            BatchOrigin::Disk(plan, end) => plan.advanced(*end),
            BatchOrigin::Memory(..) => !self.entries.is_empty(),
        }
    }

    /// Encoded shapes of the batch's entries.
    pub(crate) fn shapes(&self) -> Vec<Bytes> {
        let ids = self.entries.iter().map(|entry| entry.shape).collect();
        match &self.origin {
            BatchOrigin::Disk(plan, end) => plan.shapes(*end, &ids).into_values().collect(),
            BatchOrigin::Memory(shapes, _) => shapes.values().cloned().collect(),
        }
    }
}

/// Queue of unacknowledged snapshots, on disk with memory as the fallback.
pub(crate) struct Spool {
    directory: PathBuf,
    max_bytes: u64,
    log: Option<SegmentLog>,
    /// Number of appends until the disk is tried again.
    appends_until_retry: u32,
    memory: VecDeque<(SpoolEntry, Bytes)>,
    /// Number of entries that ever left the memory queue.
    memory_total: u64,
    /// Last shape in encoded form.
    shape: Option<(ShapeId, Bytes)>,
    dropped: u64,
    /// True while the disk is not writable and the failure was logged.
    error_logged: bool,
}

/// Batch to read with [`read_batch`] without holding the spool's lock.
pub(crate) enum PendingBatch {
    Disk(ReadPlan),
    Memory(SpoolBatch),
}

impl Spool {
    /// Opens the spool directory; buffers in memory while that fails.
    pub(crate) fn open(directory: &Path, max_bytes: u64) -> Self {
        let mut spool = Self {
            directory: directory.to_owned(),
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
        match SegmentLog::open(&self.directory, self.max_bytes) {
            Ok(log) => self.log = Some(log),
            Err(error) => {
                self.appends_until_retry = MIN_APPENDS_BEFORE_RETRY;
                if !std::mem::replace(&mut self.error_logged, true) {
                    tracing::warn!(
                        path = %self.directory.display(), error = %error,
                        "failed to open the spool; buffering snapshots in memory"
                    );
                }
            }
        }
    }

    /// Boot id and sequence number of the newest snapshot ever appended, if known.
    pub(crate) fn last_sequence(&self) -> Option<(BootId, u64)> {
        self.log.as_ref()?.last_sequence()
    }

    /// Appends a snapshot. Never fails: without a disk the newest snapshots are buffered in memory.
    pub(crate) fn append(&mut self, snapshot: &Snapshot) {
        let id = snapshot.shape.id();
        let shape = match &self.shape {
            Some((last_id, bytes)) if *last_id == id => bytes.clone(),
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
                tracing::warn!(error = %error, "failed to write to the spool; buffering snapshots in memory");
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

    /// Moves the buffered snapshots to disk, oldest first.
    fn flush_memory(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        while let Some((entry, shape)) = self.memory.front() {
            log.append(entry, shape)?;
            self.memory.pop_front();
            self.memory_total += 1;
        }
        Ok(())
    }

    /// Locates the oldest snapshots. Read them with [`read_batch`] after releasing the lock.
    pub(crate) fn pending_batch(&self, max_entries: usize) -> Option<PendingBatch> {
        if let Some(plan) = self.log.as_ref().filter(|log| log.pending() > 0).map(SegmentLog::read_plan) {
            return Some(PendingBatch::Disk(plan));
        }
        let oldest = || self.memory.iter().take(max_entries);
        let entries: Vec<SpoolEntry> = oldest().map(|(entry, _)| entry.clone()).collect();
        let shapes = oldest().map(|(entry, shape)| (entry.shape, shape.clone())).collect();
        let end = self.memory_total + entries.len() as u64;
        (!entries.is_empty())
            .then_some(PendingBatch::Memory(SpoolBatch { entries, origin: BatchOrigin::Memory(shapes, end) }))
    }

    /// Records that the hub acknowledged a batch, and deletes its snapshots.
    pub(crate) fn ack(&mut self, batch: &SpoolBatch) {
        match batch.origin {
            BatchOrigin::Disk(_, end) => {
                if let Some(log) = &mut self.log
                    && let Err(error) = log.ack(end)
                {
                    // Not fatal: after a restart they are sent again, and the hub drops duplicates.
                    if !std::mem::replace(&mut self.error_logged, true) {
                        tracing::warn!(error = %error, "failed to record an acknowledgment in the spool");
                    }
                }
            }
            BatchOrigin::Memory(_, end) => {
                while self.memory_total < end && self.memory.pop_front().is_some() {
                    self.memory_total += 1;
                }
            }
        }
    }

    /// Number of unacknowledged snapshots on disk and in memory.
    pub(crate) fn pending(&self) -> u64 {
        self.log.as_ref().map_or(0, SegmentLog::pending) + self.memory.len() as u64
    }

    /// Size of the spool on disk in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, SegmentLog::bytes)
    }

    /// Number of snapshots dropped from a full spool since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.log.as_ref().map_or(0, SegmentLog::dropped)
    }

    /// File handle for syncing the written records to disk.
    pub(crate) fn sync_handle(&self) -> Option<std::fs::File> {
        self.log.as_ref()?.sync_handle()
    }
}

/// Reads up to `max_entries` snapshots of about `max_bytes`, oldest first, without the spool's lock.
pub(crate) fn read_batch(pending: PendingBatch, max_entries: usize, max_bytes: usize) -> SpoolBatch {
    match pending {
        PendingBatch::Memory(batch) => batch,
        PendingBatch::Disk(plan) => {
            let (entries, end) = plan.read(max_entries, max_bytes);
            SpoolBatch { entries, origin: BatchOrigin::Disk(plan, end) }
        }
    }
}

#[cfg(test)]
#[path = "spool/tests.rs"]
mod tests;
