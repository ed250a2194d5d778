//! The spool on disk: numbered segments of records. The newest is written, the oldest read
//! and deleted once all it holds is acked. Acks are records too, so there is no second file
//! whose word could differ from the log's.

use super::SpoolEntry;
use super::frame::{FrameReader, MAGIC, Record};
use bytes::Bytes;
use perfwatch_model::{BootId, ShapeId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A segment ends when it has grown to this.
const SEGMENT_BYTES: u64 = 1 << 20;
/// A segment of which all is acked is left behind from this size on.
const ROTATE_ACKED_BYTES: u64 = 128 << 10;

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    segment: u64,
    offset: u64,
}

struct Segment {
    id: u64,
    bytes: u64,
    /// Ends of its snapshots that are not acked yet.
    unacked_ends: VecDeque<u64>,
}

pub(super) struct SegmentLog {
    folder: PathBuf,
    max_bytes: u64,
    segments: VecDeque<Segment>,
    writer: File,
    /// Shapes that the segment being written holds.
    shapes: HashSet<ShapeId>,
    acked: Position,
    last_sequence: Option<(BootId, u64)>,
    dropped: u64,
    failed: bool,
}

/// Stands beside the segments while they hold all that was taken in.
const COMPLETE_MARKER: &str = "complete";

/// What is to be read, by whoever has the time.
pub(crate) struct ReadPlan {
    from: Position,
    /// Segments with their paths and lengths, oldest first.
    segments: Vec<(u64, PathBuf, u64)>,
}

fn path_of(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id:020}.seg"))
}

fn create(folder: &Path, id: u64, last: Option<(BootId, u64)>) -> io::Result<(File, u64)> {
    let path = path_of(folder, id);
    let mut head = MAGIC.to_vec();
    if let Some((boot, seq)) = last {
        head.extend(Record::LastSequence { boot, seq }.encode());
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    if let Err(error) = file.write_all_at(&head, 0) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok((file, head.len() as u64))
}

impl SegmentLog {
    /// Reads what is there and begins a new segment.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let complete = folder.join(COMPLETE_MARKER);
        let mut ids: Vec<u64> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        let (mut segments, mut last) = (VecDeque::new(), None);
        let mut acked = Position { segment: 0, offset: 0 };
        for &id in &ids {
            let segment = recover(folder, id, &mut last, &mut acked).unwrap_or_else(|error| {
                tracing::warn!(%error, segment = id, "failed to read spool segment; skipping it");
                Segment { id, bytes: 0, unacked_ends: VecDeque::new() }
            });
            segments.push_back(segment);
        }
        if !complete.exists() {
            // An earlier run went on in memory: nobody knows how far it counted.
            last = None;
        }
        let next = ids.last().map_or(1, |id| id + 1);
        let (writer, bytes) = create(folder, next, last)?;
        segments.push_back(Segment { id: next, bytes, unacked_ends: VecDeque::new() });
        File::create(&complete)?;
        let mut log = Self {
            folder: folder.to_owned(),
            max_bytes,
            segments,
            writer,
            shapes: HashSet::new(),
            acked,
            last_sequence: last,
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

    pub(super) fn append(&mut self, entry: &SpoolEntry, shape: &Bytes) -> io::Result<()> {
        let result = self.try_append(entry, shape);
        let complete = self.folder.join(COMPLETE_MARKER);
        if result.is_err() {
            // Deleting works on a full disk. From now on the log does not know the newest number.
            let _ = std::fs::remove_file(complete);
        } else if self.failed {
            File::create(complete)?;
        }
        self.failed = result.is_err();
        result
    }

    fn try_append(&mut self, entry: &SpoolEntry, shape: &Bytes) -> io::Result<()> {
        let written_to = self.segments.back().map(|segment| path_of(&self.folder, segment.id));
        if written_to.is_some_and(|path| !path.exists()) {
            // Somebody cleaned up under us: what is gone is gone, the next tick is kept.
            std::fs::create_dir_all(&self.folder)?;
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

    /// Notes that all before `end` is acked, and deletes what that empties.
    pub(super) fn ack(&mut self, end: Position) -> io::Result<()> {
        self.acked = self.acked.max(end);
        self.delete_acked();
        let written =
            self.write(&Record::Acked { segment: self.acked.segment, offset: self.acked.offset }.encode());
        if self.pending() == 0
            && self.segments.back().is_some_and(|segment| segment.bytes >= ROTATE_ACKED_BYTES)
        {
            self.rotate()?;
            self.acked =
                Position { segment: self.segments.back().map_or(0, |segment| segment.id), offset: 0 };
            self.delete_acked();
        }
        written.map(|_| ())
    }

    pub(super) fn read_plan(&self) -> ReadPlan {
        let segments = self.segments.iter().map(|s| (s.id, path_of(&self.folder, s.id), s.bytes)).collect();
        ReadPlan { from: self.acked, segments }
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

    /// Writes at the known end, so that what a failed write left is written over.
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
        let (writer, bytes) = create(&self.folder, next, self.last_sequence)?;
        self.writer = writer;
        self.shapes.clear();
        self.segments.push_back(Segment { id: next, bytes, unacked_ends: VecDeque::new() });
        Ok(())
    }

    /// Keeps the cap: the oldest segments go, never the one being written.
    fn enforce_max_bytes(&mut self, more: u64) {
        while self.bytes() + more > self.max_bytes && self.segments.len() > 1 {
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
        if let Err(error) = std::fs::remove_file(path_of(&self.folder, id)) {
            tracing::warn!(%error, segment = id, "failed to delete spool segment");
        }
    }
}

/// Reads one segment; cuts off what is not whole.
fn recover(
    folder: &Path,
    id: u64,
    last: &mut Option<(BootId, u64)>,
    acked: &mut Position,
) -> io::Result<Segment> {
    let path = path_of(folder, id);
    let bytes = std::fs::read(&path)?;
    let length = bytes.len() as u64;
    let mut waiting = VecDeque::new();
    if !bytes.starts_with(MAGIC) {
        tracing::warn!(path = %path.display(), "unsupported spool segment version; skipping it");
        return Ok(Segment { id, bytes: length, unacked_ends: waiting });
    }
    let mut walk = FrameReader::new(bytes.into(), MAGIC.len());
    for (record, end) in walk.by_ref() {
        match record {
            Record::Snapshot(entry) => {
                *last = Some((entry.boot, entry.seq));
                waiting.push_back(end);
            }
            Record::Acked { segment, offset } => *acked = (*acked).max(Position { segment, offset }),
            Record::LastSequence { boot, seq } => *last = Some((boot, seq)),
            Record::Shape(..) => {}
        }
    }
    if !walk.at_end() {
        tracing::info!(path = %path.display(), bytes = length - walk.offset as u64, "truncated an incomplete record at the end of the spool");
        OpenOptions::new().write(true).open(&path)?.set_len(walk.offset as u64)?;
    }
    Ok(Segment { id, bytes: walk.offset as u64, unacked_ends: waiting })
}

impl ReadPlan {
    /// Up to `most` snapshots of about `most_bytes`, and the place after them. A segment that
    /// was evicted or damaged meanwhile is passed over; one that can't be opened just now ends
    /// the reading, and is tried again.
    pub(super) fn read(&self, most: usize, most_bytes: usize) -> (Vec<SpoolEntry>, Position) {
        let (mut entries, mut end, mut size) = (Vec::new(), self.from, 0);
        let newest = self.segments.last().map(|(id, ..)| *id);
        for (id, path, length) in self.segments.iter().filter(|(id, ..)| *id >= self.from.segment) {
            let magic = MAGIC.len() as u64;
            let start = if *id == self.from.segment { self.from.offset.max(magic) } else { magic };
            let passed = Position { segment: *id, offset: *length };
            let bytes = match read_range(path, start, *length) {
                Ok(bytes) => bytes,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
                    // Not the one being written: it is only about to be replaced.
                    if Some(*id) != newest {
                        tracing::warn!(path = %path.display(), %error, "spool segment is missing; skipping it");
                        end = passed;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "failed to read the spool; retrying");
                    break;
                }
            };
            let mut walk = FrameReader::new(bytes, 0);
            for (record, after) in walk.by_ref() {
                if let Record::Snapshot(entry) = record {
                    size += entry.bytes.len();
                    entries.push(entry);
                    end = Position { segment: *id, offset: start + after };
                    if entries.len() >= most || size >= most_bytes {
                        return (entries, end);
                    }
                }
            }
            if !walk.at_end() {
                tracing::warn!(path = %path.display(), "spool segment is corrupt; skipping the rest of it");
                end = passed;
            }
        }
        (entries, end)
    }

    /// Whether reading got anywhere.
    pub(super) fn advanced(&self, end: Position) -> bool {
        end > self.from
    }

    /// The columns of these shapes, from the segments up to `end`: each holds those of its own
    /// snapshots. Only for a hub that asks.
    pub(super) fn shapes(&self, end: Position, wanted: &HashSet<ShapeId>) -> HashMap<ShapeId, Bytes> {
        let mut found = HashMap::new();
        for (_, path, _) in
            self.segments.iter().filter(|(id, ..)| (self.from.segment..=end.segment).contains(id))
        {
            let Ok(bytes) = std::fs::read(path) else { continue };
            for (record, _) in FrameReader::new(bytes.into(), MAGIC.len()) {
                if let Record::Shape(id, bytes) = record
                    && wanted.contains(&id)
                {
                    found.insert(id, bytes);
                }
            }
        }
        found
    }
}

fn read_range(path: &Path, start: u64, end: u64) -> io::Result<Bytes> {
    let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    File::open(path)?.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}
