//! Segmented log of the spool. The newest segment is written; the oldest is read, and deleted when
//! all its snapshots are acknowledged. Acknowledgments are records of the same log, so that no second
//! file can contradict it.

use super::frame::{FrameReader, MAGIC, Record, SpoolEntry};
use bytes::Bytes;
use perfwatch_files::Directory;
use perfwatch_model::{BootId, ShapeId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// Size at which a new segment is started.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Size from which a fully acknowledged segment is replaced by a new segment.
const ROTATE_ACKED_BYTES: u64 = 128 << 10;

/// Position between two records of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    segment: u64,
    offset: u64,
}

struct Segment {
    id: u64,
    bytes: u64,
    /// End offsets of the snapshots that are not acknowledged.
    unacked_ends: VecDeque<u64>,
}

pub(super) struct SegmentLog {
    directory: Arc<Directory>,
    max_bytes: u64,
    segments: VecDeque<Segment>,
    writer: File,
    /// Shapes that the segment being written contains.
    shapes: HashSet<ShapeId>,
    acked: Position,
    last_sequence: Option<(BootId, u64)>,
    dropped: u64,
    /// True if the last append failed.
    failed: bool,
}

/// Name of the file that exists while the segments contain every snapshot appended.
const COMPLETE_MARKER: &str = "complete";

/// Segments to read, collected under the lock and read without it.
pub(crate) struct ReadPlan {
    from: Position,
    directory: Arc<Directory>,
    /// Ids and lengths of the segments, oldest first.
    segments: Vec<(u64, u64)>,
}

fn segment_name(id: u64) -> String {
    format!("{id:020}.seg")
}

fn create_segment(
    directory: &Directory,
    id: u64,
    last_sequence: Option<(BootId, u64)>,
) -> io::Result<(File, u64)> {
    let name = segment_name(id);
    let mut header = MAGIC.to_vec();
    if let Some((boot, seq)) = last_sequence {
        header.extend(Record::LastSequence { boot, seq }.encode());
    }
    let file = directory.create_new(&name)?;
    if let Err(error) = file.write_all_at(&header, 0) {
        let _ = directory.remove(&name);
        return Err(error);
    }
    Ok((file, header.len() as u64))
}

impl SegmentLog {
    /// Recovers the existing segments and starts a new segment.
    pub(super) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let directory = Arc::new(Directory::create_private(path)?);
        let names = directory.names()?;
        directory.restrict_files(names.iter().map(String::as_str));
        let id_of = |name: &String| name.strip_suffix(".seg")?.parse::<u64>().ok();
        let mut ids: Vec<u64> = names.iter().filter_map(id_of).collect();
        ids.sort_unstable();
        let (mut segments, mut last_sequence) = (VecDeque::new(), None);
        let mut acked = Position { segment: 0, offset: 0 };
        for &id in &ids {
            let segment = recover(&directory, id, &mut last_sequence, &mut acked).unwrap_or_else(|error| {
                tracing::warn!(error = %error, segment = id, "failed to read spool segment; skipping it");
                Segment { id, bytes: 0, unacked_ends: VecDeque::new() }
            });
            segments.push_back(segment);
        }
        if !directory.contains(COMPLETE_MARKER) {
            // An earlier run continued in memory: its last sequence number is unknown.
            last_sequence = None;
        }
        let next = ids.last().map_or(1, |id| id + 1);
        let (writer, bytes) = create_segment(&directory, next, last_sequence)?;
        segments.push_back(Segment { id: next, bytes, unacked_ends: VecDeque::new() });
        directory.open_or_create(COMPLETE_MARKER)?;
        let mut log = Self {
            directory,
            max_bytes,
            segments,
            writer,
            shapes: HashSet::new(),
            acked,
            last_sequence,
            dropped: 0,
            failed: false,
        };
        log.delete_acked();
        if log.pending() > 0 {
            tracing::info!(
                snapshots = log.pending(),
                "spool contains snapshots of a previous run; sending them first"
            );
        }
        Ok(log)
    }

    /// Appends a snapshot, and its shape if the current segment does not contain it.
    pub(super) fn append(&mut self, entry: &SpoolEntry, shape: &Bytes) -> io::Result<()> {
        let result = self.try_append(entry, shape);
        if result.is_err() {
            // Deleting works on a full disk. From now on the log does not contain the newest number.
            let _ = self.directory.remove(COMPLETE_MARKER);
        } else if self.failed {
            self.directory.open_or_create(COMPLETE_MARKER)?;
        }
        self.failed = result.is_err();
        result
    }

    fn try_append(&mut self, entry: &SpoolEntry, shape: &Bytes) -> io::Result<()> {
        let current = self.segments.back().map(|segment| segment_name(segment.id));
        if current.is_some_and(|name| !self.directory.contains(&name)) {
            // The directory was deleted from outside: earlier snapshots are lost, later snapshots are stored.
            self.directory = Arc::new(Directory::create_private(self.directory.path())?);
            self.rotate()?;
        }
        if self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES) {
            self.rotate()?;
        }
        let mut bytes = Vec::new();
        if !self.shapes.contains(&entry.shape) {
            bytes = Record::Shape(entry.shape, shape.clone()).encode();
        }
        bytes.extend(Record::Snapshot(entry.clone()).encode());
        self.enforce_max_bytes(bytes.len() as u64);
        let end = self.write(&bytes)?;
        self.shapes.insert(entry.shape);
        self.last_sequence = Some((entry.boot, entry.seq));
        if let Some(segment) = self.segments.back_mut() {
            segment.unacked_ends.push_back(end);
        }
        Ok(())
    }

    /// Records that everything before `end` is acknowledged, and deletes segments without pending
    /// snapshots.
    pub(super) fn ack(&mut self, end: Position) -> io::Result<()> {
        self.acked = self.acked.max(end);
        self.delete_acked();
        let result =
            self.write(&Record::Acked { segment: self.acked.segment, offset: self.acked.offset }.encode());
        if self.pending() == 0
            && self.segments.back().is_some_and(|segment| segment.bytes >= ROTATE_ACKED_BYTES)
        {
            self.rotate()?;
            self.acked =
                Position { segment: self.segments.back().map_or(0, |segment| segment.id), offset: 0 };
            self.delete_acked();
        }
        result.map(|_| ())
    }

    pub(super) fn read_plan(&self) -> ReadPlan {
        let segments = self.segments.iter().map(|segment| (segment.id, segment.bytes)).collect();
        ReadPlan { from: self.acked, directory: self.directory.clone(), segments }
    }

    pub(super) fn pending(&self) -> u64 {
        self.segments.iter().map(|segment| segment.unacked_ends.len() as u64).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn last_sequence(&self) -> Option<(BootId, u64)> {
        self.last_sequence
    }

    pub(super) fn sync_handle(&self) -> Option<File> {
        self.writer.try_clone().ok()
    }

    /// Writes at the recorded end of the segment, so that remains of a failed write are overwritten.
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let Some(segment) = self.segments.back_mut() else {
            return Err(io::Error::other("no segment"));
        };
        if let Err(error) = self.writer.write_all_at(bytes, segment.bytes) {
            let _ = self.writer.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        Ok(segment.bytes)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = self.segments.back().map_or(1, |segment| segment.id + 1);
        let (writer, bytes) = create_segment(&self.directory, next, self.last_sequence)?;
        self.writer = writer;
        self.shapes.clear();
        self.segments.push_back(Segment { id: next, bytes, unacked_ends: VecDeque::new() });
        Ok(())
    }

    /// Drops the oldest segments until `added` bytes fit, but never the segment being written.
    fn enforce_max_bytes(&mut self, added: u64) {
        while self.bytes() + added > self.max_bytes && self.segments.len() > 1 {
            if let Some(segment) = self.segments.pop_front() {
                if self.dropped == 0 && !segment.unacked_ends.is_empty() {
                    tracing::warn!(
                        max_bytes = self.max_bytes,
                        "spool is full; dropping the oldest snapshots"
                    );
                }
                self.dropped += segment.unacked_ends.len() as u64;
                self.remove(segment.id);
                self.acked = self.acked.max(Position { segment: segment.id + 1, offset: 0 });
            }
        }
    }

    fn delete_acked(&mut self) {
        let acked = self.acked;
        for segment in &mut self.segments {
            if segment.id < acked.segment {
                segment.unacked_ends.clear();
            } else if segment.id == acked.segment {
                segment.unacked_ends.retain(|&end| end > acked.offset);
            }
        }
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|segment| segment.unacked_ends.is_empty())
        {
            if let Some(segment) = self.segments.pop_front() {
                self.remove(segment.id);
            }
        }
    }

    fn remove(&self, id: u64) {
        if let Err(error) = self.directory.remove(&segment_name(id)) {
            tracing::warn!(error = %error, segment = id, "failed to delete spool segment");
        }
    }
}

/// Reads one segment and truncates an incomplete record at its end.
fn recover(
    directory: &Directory,
    id: u64,
    last_sequence: &mut Option<(BootId, u64)>,
    acked: &mut Position,
) -> io::Result<Segment> {
    let name = segment_name(id);
    let bytes = directory.read(&name)?;
    let length = bytes.len() as u64;
    let mut unacked_ends = VecDeque::new();
    if !bytes.starts_with(MAGIC) {
        tracing::warn!(segment = id, "unsupported spool segment version; skipping it");
        return Ok(Segment { id, bytes: length, unacked_ends });
    }
    let mut frames = FrameReader::new(bytes.into(), MAGIC.len());
    for (record, end) in frames.by_ref() {
        match record {
            Record::Snapshot(entry) => {
                *last_sequence = Some((entry.boot, entry.seq));
                unacked_ends.push_back(end);
            }
            Record::Acked { segment, offset } => *acked = (*acked).max(Position { segment, offset }),
            Record::LastSequence { boot, seq } => *last_sequence = Some((boot, seq)),
            Record::Shape(..) => {}
        }
    }
    let valid_length = frames.offset as u64;
    if !frames.at_end() {
        tracing::info!(
            segment = id,
            truncated_bytes = length - valid_length,
            "truncated an incomplete record at the end of the spool"
        );
        directory.open_write(&name)?.set_len(valid_length)?;
    }
    Ok(Segment { id, bytes: valid_length, unacked_ends })
}

impl ReadPlan {
    /// Reads up to `max_entries` snapshots of about `max_bytes`; returns the position after them. A
    /// segment that was dropped since or is corrupt is skipped. A segment that cannot be opened for
    /// another reason ends the read, and is retried by the next read.
    pub(super) fn read(&self, max_entries: usize, max_bytes: usize) -> (Vec<SpoolEntry>, Position) {
        let (mut entries, mut end, mut size) = (Vec::new(), self.from, 0);
        let newest = self.segments.last().map(|(id, ..)| *id);
        for (id, length) in self.segments.iter().filter(|(id, ..)| *id >= self.from.segment) {
            let magic = MAGIC.len() as u64;
            let start = if *id == self.from.segment { self.from.offset.max(magic) } else { magic };
            let segment_end = Position { segment: *id, offset: *length };
            let bytes = match read_range(&self.directory, *id, (start, *length)) {
                Ok(bytes) => bytes,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
                    // The segment being written is not skipped: the next append replaces it.
                    if Some(*id) != newest {
                        tracing::warn!(segment = id, error = %error, "spool segment is missing; skipping it");
                        end = segment_end;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(segment = id, error = %error, "failed to read the spool; retrying");
                    break;
                }
            };
            let mut frames = FrameReader::new(bytes, 0);
            for (record, record_end) in frames.by_ref() {
                if let Record::Snapshot(entry) = record {
                    size += entry.bytes.len();
                    entries.push(entry);
                    end = Position { segment: *id, offset: start + record_end };
                    if entries.len() >= max_entries || size >= max_bytes {
                        return (entries, end);
                    }
                }
            }
            if !frames.at_end() {
                tracing::warn!(segment = id, "spool segment is corrupt; skipping the rest of it");
                end = segment_end;
            }
        }
        (entries, end)
    }

    /// Returns true if a read that ended at `end` advanced the queue.
    pub(super) fn advanced(&self, end: Position) -> bool {
        end > self.from
    }

    /// Encoded shapes with these ids from the segments up to `end`; each segment contains the shapes
    /// of its snapshots. Needed only if the hub requests shapes.
    pub(super) fn shapes(&self, end: Position, ids: &HashSet<ShapeId>) -> HashMap<ShapeId, Bytes> {
        let mut shapes = HashMap::new();
        for (id, _) in self.segments.iter().filter(|(id, ..)| (self.from.segment..=end.segment).contains(id))
        {
            let Ok(bytes) = self.directory.read(&segment_name(*id)) else { continue };
            for (record, _) in FrameReader::new(bytes.into(), MAGIC.len()) {
                if let Record::Shape(id, bytes) = record
                    && ids.contains(&id)
                {
                    shapes.insert(id, bytes);
                }
            }
        }
        shapes
    }
}

fn read_range(directory: &Directory, id: u64, (start, end): (u64, u64)) -> io::Result<Bytes> {
    let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    directory.open_read(&segment_name(id))?.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}
