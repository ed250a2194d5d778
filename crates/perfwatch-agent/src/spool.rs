//! What was read and not yet acked: on disk, so that neither an outage of the hub nor a crash
//! of the agent loses a tick.
//!
//! Design constraints:
//! - Snapshots leave in the order they came, oldest first, and stay until they are acked.
//! - Every record carries a CRC-32; a torn tail is cut off at start, a damaged segment costs
//!   its rest. Nothing is believed that has no valid checksum, acks included.
//! - Survives the end of the process at any instruction; power loss costs what the kernel had
//!   not written yet (while the hub can't be reached, that is at most 5 seconds).
//! - The size is capped: the oldest segment goes first, and what it held is counted.
//! - Where the disk refuses (full, read-only), the newest minutes are kept in memory: a host
//!   with a full disk is the one people want to see.

mod frame;
mod log;

use log::{Log, Plan};
use perfwatch_model::{BootId, ShapeId, Snapshot, wire};
use std::collections::VecDeque;
use std::io;
use std::path::Path;

use bytes::Bytes;

pub(crate) use log::Position;

/// Snapshots kept in memory while the disk refuses: 10 minutes at 2 s.
const MEMORY_SNAPSHOTS: usize = 300;

/// One encoded snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
    pub(crate) shape: ShapeId,
    pub(crate) bytes: Bytes,
}

/// Snapshots in the order to send, and what to say once they are acked.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) entries: Vec<Entry>,
    token: Token,
}

#[derive(Debug)]
enum Token {
    Disk(Position),
    /// Counts all that ever went through memory.
    Memory(u64),
}

/// The queue.
pub(crate) struct Spool {
    log: Option<Log>,
    memory: VecDeque<(Entry, Bytes)>,
    memory_taken: u64,
    dropped: u64,
    complained: bool,
}

/// What may be read without holding the spool.
pub(crate) enum Source {
    Disk(Plan),
    Memory(Take),
}

impl Spool {
    /// Opens the folder, or keeps to memory where that fails.
    pub(crate) fn open(folder: &Path, max_bytes: u64) -> Self {
        let log = match Log::open(folder, max_bytes) {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "no spool on disk: snapshots wait in memory only");
                None
            }
        };
        Self { log, memory: VecDeque::new(), memory_taken: 0, dropped: 0, complained: false }
    }

    /// The newest snapshot that was ever appended here.
    pub(crate) fn last(&self) -> Option<(BootId, u64)> {
        self.log.as_ref()?.last()
    }

    /// Takes a snapshot in. Never fails: without a disk the memory holds the newest.
    pub(crate) fn append(&mut self, snapshot: &Snapshot) {
        let bytes = wire::encode_snapshot(snapshot);
        let entry = Entry { boot: snapshot.boot, seq: snapshot.seq, shape: snapshot.shape.id(), bytes };
        let shape = wire::encode_shape(&snapshot.shape);
        self.memory.push_back((entry, shape));
        if let Err(error) = self.spill() {
            if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(%error, "the spool can't write: snapshots wait in memory");
            }
        } else if self.log.is_some() && std::mem::take(&mut self.complained) {
            tracing::info!("the spool writes again");
        }
        if self.memory.len() > MEMORY_SNAPSHOTS {
            self.memory.pop_front();
            self.memory_taken += 1;
            self.dropped += 1;
        }
    }

    /// Moves what waits in memory to disk, oldest first.
    fn spill(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        while let Some((entry, shape)) = self.memory.front() {
            log.append(entry, shape)?;
            self.memory.pop_front();
            self.memory_taken += 1;
        }
        Ok(())
    }

    /// Where the oldest snapshots stand; read them with [`take`] once the lock is released.
    pub(crate) fn source(&self, most: usize) -> Option<Source> {
        if let Some(plan) = self.log.as_ref().filter(|log| log.pending() > 0).map(Log::plan) {
            return Some(Source::Disk(plan));
        }
        let entries: Vec<Entry> = self.memory.iter().take(most).map(|(entry, _)| entry.clone()).collect();
        let end = self.memory_taken + entries.len() as u64;
        (!entries.is_empty()).then_some(Source::Memory(Take { entries, token: Token::Memory(end) }))
    }

    /// The columns of shapes of what was taken.
    pub(crate) fn shapes(&self, take: &Take) -> Vec<Bytes> {
        let wanted: std::collections::HashSet<ShapeId> =
            take.entries.iter().map(|entry| entry.shape).collect();
        let mut shapes = self.log.as_ref().map(|log| log.shapes(&wanted)).unwrap_or_default();
        let in_memory = self.memory.iter().filter(|(entry, _)| wanted.contains(&entry.shape));
        shapes.extend(in_memory.map(|(entry, shape)| (entry.shape, shape.clone())));
        shapes.into_values().collect()
    }

    /// Forgets what was taken.
    pub(crate) fn ack(&mut self, take: &Take) {
        match take.token {
            Token::Disk(end) => {
                if let Some(log) = &mut self.log
                    && let Err(error) = log.ack(end)
                {
                    // Not fatal: after a restart they are sent again, and the hub drops repeats.
                    tracing::debug!(%error, "the spool can't note an ack");
                }
            }
            Token::Memory(end) => {
                while self.memory_taken < end && self.memory.pop_front().is_some() {
                    self.memory_taken += 1;
                }
            }
        }
    }

    /// Snapshots that wait.
    pub(crate) fn pending(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::pending) + self.memory.len() as u64
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }

    /// Snapshots lost to the cap since start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.log.as_ref().map_or(0, Log::dropped)
    }

    /// A handle to make what was written so far survive a power loss.
    pub(crate) fn sync_handle(&self) -> Option<std::fs::File> {
        self.log.as_ref()?.sync_handle()
    }
}

/// Reads up to `most` snapshots and about `most_bytes`, oldest first, without the spool's lock.
pub(crate) fn take(source: Source, most: usize, most_bytes: usize) -> Take {
    match source {
        Source::Memory(take) => take,
        Source::Disk(plan) => {
            let (entries, end) = plan.read(most, most_bytes);
            Take { entries, token: Token::Disk(end) }
        }
    }
}

#[cfg(test)]
#[path = "spool/tests.rs"]
mod tests;
