//! A block: some columns of one host over some time, immutable, with a directory in front so
//! that a query reads only the columns it asks for. `docs/BLOCK-FORMAT.md` draws it.
//!
//! The codec knows nothing of where blocks stand: a reader takes the head (whose length is
//! kept beside the block), asks [`Head::range`] where a column is, fetches just that, and
//! hands it to [`Head::column`].

use crate::bytes::{ByteReader, FormatError, Result, write_varint};
use crate::column::{self, CompressionLevel, KIND_CONSTANT, KIND_EMPTY};
use crate::rollup::{Buckets, STAT_COLUMNS};
use crate::section;
use crate::table::{MAX_ROWS, Table};
use perfwatch_model::{BootId, ShapeId, limits};
use std::ops::Range;

const MAGIC: &[u8; 4] = b"PWB\x1a";
/// What this build writes, and the newest it reads.
pub const VERSION: u8 = 1;
/// Bytes before the directory.
const FIXED_HEADER_BYTES: usize = 44;
const CHECKSUM_BYTES: usize = 4;

/// What a block's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Ticks as they came.
    Raw,
    /// Buckets: figures of the ticks within.
    Buckets,
}

/// Entries before the values' own: of ticks, time, interval, boot, seq, the boots, processes,
/// notes; of buckets, time.
fn leading_entries(rows: RowKind) -> usize {
    match rows {
        RowKind::Raw => 7,
        RowKind::Buckets => 1,
    }
}

const ENTRY_TIME: usize = 0;
const ENTRY_INTERVAL: usize = 1;
const ENTRY_BOOT: usize = 2;
const ENTRY_SEQ: usize = 3;
const ENTRY_BOOTS: usize = 4;
const ENTRY_PROCESSES: usize = 5;
const ENTRY_ANNOTATIONS: usize = 6;
/// Kind of an entry that is bytes, not a column.
const KIND_BYTES: u8 = 0x40;

/// A coded block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What the columns are.
    pub shape: ShapeId,
    /// Rows.
    pub rows: usize,
    /// Time of the first row, or start of the first bucket, milliseconds since 1970.
    pub first_ms: i64,
    /// Time of the last row, or start of the last bucket.
    pub last_ms: i64,
    /// Bytes of header and directory.
    pub header_len: usize,
    /// The whole.
    pub bytes: Vec<u8>,
}

struct BlockWriter {
    directory: Vec<u8>,
    body: Vec<u8>,
}

impl BlockWriter {
    fn column(&mut self, values: &[i64], effort: CompressionLevel) {
        let (kind, coded) = column::encode(values, effort);
        self.directory.push(kind);
        match kind {
            KIND_EMPTY => {}
            // The value itself stands in the directory.
            KIND_CONSTANT => self.directory.extend_from_slice(&coded),
            _ => self.entry(&coded),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.directory.push(if bytes.is_empty() { KIND_EMPTY } else { KIND_BYTES });
        if !bytes.is_empty() {
            self.entry(bytes);
        }
    }

    fn entry(&mut self, bytes: &[u8]) {
        write_varint(&mut self.directory, (bytes.len() + CHECKSUM_BYTES) as u64);
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    }

    fn finish(self, rows: RowKind, shape: ShapeId, times: &[i64]) -> Block {
        let (first_ms, last_ms) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        let mut bytes =
            Vec::with_capacity(FIXED_HEADER_BYTES + self.directory.len() + CHECKSUM_BYTES + self.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(match rows {
            RowKind::Raw => 0,
            RowKind::Buckets => 1,
        });
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&shape.0);
        bytes.extend_from_slice(&u32::try_from(times.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&first_ms.to_le_bytes());
        bytes.extend_from_slice(&last_ms.to_le_bytes());
        bytes.extend_from_slice(&self.directory);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let head = bytes.len();
        bytes.extend_from_slice(&self.body);
        Block { shape, rows: times.len(), first_ms, last_ms, header_len: head, bytes }
    }
}

/// Codes ticks.
pub fn encode(table: &Table, effort: CompressionLevel) -> Block {
    let mut writer = BlockWriter { directory: Vec::new(), body: Vec::new() };
    writer.column(&table.at_ms, effort);
    writer.column(&table.interval_ms, effort);
    let mut boots: Vec<BootId> = Vec::new();
    let numbers: Vec<i64> = table.boots.iter().map(|boot| boot_index(&mut boots, *boot)).collect();
    writer.column(&numbers, effort);
    let seqs: Vec<i64> = table.seqs.iter().map(|seq| seq.cast_signed()).collect();
    writer.column(&seqs, effort);
    writer.bytes(&boots.iter().flat_map(|boot| boot.to_bytes()).collect::<Vec<u8>>());
    writer.bytes(&section::write_processes(&table.processes, effort));
    writer.bytes(&section::write_annotations(&table.errors, &table.facts));
    table.columns.iter().for_each(|column| writer.column(column, effort));
    writer.finish(RowKind::Raw, table.shape.id(), &table.at_ms)
}

fn boot_index(boots: &mut Vec<BootId>, boot: BootId) -> i64 {
    let at = boots.iter().rposition(|known| *known == boot).unwrap_or_else(|| {
        boots.push(boot);
        boots.len() - 1
    });
    i64::try_from(at).unwrap_or_default()
}

/// Codes buckets.
pub fn encode_buckets(buckets: &Buckets, effort: CompressionLevel) -> Block {
    let mut writer = BlockWriter { directory: Vec::new(), body: Vec::new() };
    writer.column(&buckets.start_ms, effort);
    for column in &buckets.columns {
        column.encode().iter().for_each(|figure| writer.column(figure, effort));
    }
    writer.finish(RowKind::Buckets, buckets.shape.id(), &buckets.start_ms)
}

#[derive(Clone, Debug)]
enum DirectoryEntry {
    Inline(i64),
    Missing,
    Stored(u8, Range<usize>),
}

/// Header and directory of a block.
#[derive(Clone, Debug)]
pub struct BlockHeader {
    row_kind: RowKind,
    shape: ShapeId,
    rows: usize,
    first_ms: i64,
    last_ms: i64,
    entries: Vec<DirectoryEntry>,
}

/// A part of a block that can be fetched alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockPart {
    /// When rows were taken.
    Time,
    /// The time they stand for.
    Interval,
    /// Number of the boot, within the block.
    Boot,
    /// The boots by number.
    Boots,
    /// Ticks of the boot.
    Seq,
    /// The largest processes.
    Processes,
    /// Errors and facts.
    Annotations,
    /// A column of ticks, by its place in the shape.
    Column(usize),
    /// A figure of a column of buckets.
    Stat(usize, usize),
}

impl BlockHeader {
    /// Reads header and directory from the first bytes of a block.
    ///
    /// # Errors
    /// Anything that [`encode`] does not write, also where a byte changed.
    pub fn parse(head: &[u8]) -> Result<Self> {
        let Some(checked) =
            head.len().checked_sub(CHECKSUM_BYTES).filter(|&checked| checked >= FIXED_HEADER_BYTES)
        else {
            return Err(FormatError::Truncated);
        };
        let mut reader = ByteReader(&head[..checked]);
        if reader.read_exact(4)? != MAGIC {
            return Err(FormatError::Invalid("not a block"));
        }
        let version = reader.byte()?;
        if version > VERSION {
            return Err(FormatError::UnsupportedVersion(version));
        }
        if crc32fast::hash(&head[..checked]).to_le_bytes() != head[checked..] {
            return Err(FormatError::Checksum("the directory"));
        }
        let kind = match reader.byte()? {
            0 => RowKind::Raw,
            1 => RowKind::Buckets,
            _ => return Err(FormatError::Invalid("a block of unknown kind")),
        };
        reader.read_exact(2)?;
        let shape = ShapeId(reader.array()?);
        let rows = u32::from_le_bytes(reader.array()?) as usize;
        if rows == 0 || rows > MAX_ROWS {
            return Err(FormatError::Invalid("a block of no rows, or of too many"));
        }
        let (first_ms, last_ms) = (i64::from_le_bytes(reader.array()?), i64::from_le_bytes(reader.array()?));
        let mut entries = Vec::new();
        let mut at = head.len();
        while !reader.0.is_empty() {
            if entries.len() > leading_entries(kind) + limits::MAX_COLUMNS * STAT_COLUMNS {
                return Err(FormatError::Invalid("too many columns"));
            }
            entries.push(match reader.byte()? {
                KIND_EMPTY => DirectoryEntry::Missing,
                KIND_CONSTANT => DirectoryEntry::Inline(reader.int()?),
                kind => {
                    let length = reader.read_len(u32::MAX as usize)?;
                    at += length;
                    DirectoryEntry::Stored(kind, at - length..at)
                }
            });
        }
        if entries.len() < leading_entries(kind) {
            return Err(FormatError::Invalid("the directory ends too soon"));
        }
        Ok(Self { row_kind: kind, shape, rows, first_ms, last_ms, entries })
    }

    /// What the rows are.
    pub fn row_kind(&self) -> RowKind {
        self.row_kind
    }

    /// What the columns are.
    pub fn shape(&self) -> ShapeId {
        self.shape
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// First and last time, milliseconds since 1970.
    pub fn time_range_ms(&self) -> (i64, i64) {
        (self.first_ms, self.last_ms)
    }

    /// Columns of the shape.
    pub fn columns(&self) -> usize {
        let values = self.entries.len() - leading_entries(self.row_kind);
        if self.row_kind == RowKind::Raw { values } else { values / STAT_COLUMNS }
    }

    fn entry(&self, part: BlockPart) -> Result<&DirectoryEntry> {
        let ticks = leading_entries(RowKind::Raw);
        let place = match (part, self.row_kind) {
            (BlockPart::Time, _) => ENTRY_TIME,
            (BlockPart::Interval, RowKind::Raw) => ENTRY_INTERVAL,
            (BlockPart::Boot, RowKind::Raw) => ENTRY_BOOT,
            (BlockPart::Boots, RowKind::Raw) => ENTRY_BOOTS,
            (BlockPart::Seq, RowKind::Raw) => ENTRY_SEQ,
            (BlockPart::Processes, RowKind::Raw) => ENTRY_PROCESSES,
            (BlockPart::Annotations, RowKind::Raw) => ENTRY_ANNOTATIONS,
            (BlockPart::Column(at), RowKind::Raw) => ticks + at,
            (BlockPart::Stat(at, figure), RowKind::Buckets) => {
                leading_entries(RowKind::Buckets) + at * STAT_COLUMNS + figure
            }
            _ => return Err(FormatError::Invalid("this kind of block has no such part")),
        };
        self.entries.get(place).ok_or(FormatError::Invalid("the block has fewer columns than its shape"))
    }

    /// Where a part stands in the block; none if the directory says all there is.
    ///
    /// # Errors
    /// The block has no such part.
    pub fn byte_range(&self, part: BlockPart) -> Result<Option<Range<usize>>> {
        Ok(match self.entry(part)? {
            DirectoryEntry::Stored(_, range) => Some(range.clone()),
            DirectoryEntry::Inline(_) | DirectoryEntry::Missing => None,
        })
    }

    /// Decodes a column, given the bytes of its range (any, where it has none).
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn decode_column(&self, part: BlockPart, bytes: &[u8]) -> Result<Vec<i64>> {
        match self.entry(part)? {
            DirectoryEntry::Missing => Ok(vec![perfwatch_model::MISSING; self.rows]),
            DirectoryEntry::Inline(value) => Ok(vec![*value; self.rows]),
            DirectoryEntry::Stored(kind, range) => {
                column::decode(*kind, verify_checksum(bytes, range)?, self.rows)
            }
        }
    }

    /// The bytes of a section, verified; nothing if there is none.
    fn section<'a>(&self, part: BlockPart, bytes: &'a [u8]) -> Result<&'a [u8]> {
        match self.entry(part)? {
            DirectoryEntry::Stored(KIND_BYTES, range) => verify_checksum(bytes, range),
            DirectoryEntry::Missing => Ok(&[]),
            _ => Err(FormatError::Invalid("a section of unknown kind")),
        }
    }

    /// The boots of all rows, from the parts [`Part::Boot`] and [`Part::Boots`].
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn decode_boots(&self, numbers: &[u8], names: &[u8]) -> Result<Vec<BootId>> {
        let names: Vec<BootId> =
            self.section(BlockPart::Boots, names)?.chunks_exact(16).filter_map(BootId::from_bytes).collect();
        let name = |number: i64| usize::try_from(number).ok().and_then(|at| names.get(at).copied());
        let numbers = self.decode_column(BlockPart::Boot, numbers)?;
        numbers
            .into_iter()
            .map(|number| name(number).ok_or(FormatError::Invalid("a boot without name")))
            .collect()
    }

    /// The processes of each row, from [`Part::Processes`].
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn decode_processes(&self, bytes: &[u8]) -> Result<Vec<Vec<perfwatch_model::ProcessRow>>> {
        section::read_processes(self.section(BlockPart::Processes, bytes)?, self.rows)
    }

    /// Errors and facts of each row, from [`Part::Notes`].
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn decode_annotations(&self, bytes: &[u8]) -> Result<section::Annotations> {
        section::read_annotations(self.section(BlockPart::Annotations, bytes)?, self.rows)
    }
}

fn verify_checksum<'a>(bytes: &'a [u8], range: &Range<usize>) -> Result<&'a [u8]> {
    if bytes.len() != range.len() || bytes.len() < CHECKSUM_BYTES {
        return Err(FormatError::Truncated);
    }
    let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if crc32fast::hash(body).to_le_bytes() == *sum {
        Ok(body)
    } else {
        Err(FormatError::Checksum("a column"))
    }
}
