//! Block codec. A block is an immutable set of columns of a single host over a time range. A directory
//! in front lets a query read only the columns that it needs. `docs/BLOCK-FORMAT.md` specifies the
//! layout.
//!
//! The codec does no I/O. A reader fetches the header (its length is stored beside the block), gets
//! the bytes of a column from [`BlockHeader::byte_range`], and decodes them with
//! [`BlockHeader::decode_column`].

use crate::bytes::{ByteReader, FormatError, Result, write_varint};
use crate::column::{self, CompressionLevel, KIND_CONSTANT, KIND_EMPTY};
use crate::rollup::{BUCKET_STATS_LEN, Buckets};
use crate::section;
use crate::table::{MAX_ROWS, Table};
use perfwatch_model::{BootId, ShapeId, limits};
use std::ops::Range;

const MAGIC: &[u8; 4] = b"PWB\x1a";
/// Format version that this build writes, and the newest that it reads.
pub const VERSION: u8 = 1;
/// Bytes of the fixed header, in front of the directory.
pub const FIXED_HEADER_BYTES: usize = 44;
const CHECKSUM_BYTES: usize = 4;

/// Kind of the rows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Raw rows: one per snapshot.
    Raw,
    /// Rolled-up rows: statistics per bucket.
    Buckets,
}

/// Directory entries in front of the value columns. Raw: time, interval, boot, sequence number, boot
/// ids, processes, annotations. Buckets: time.
fn leading_entries(row_kind: RowKind) -> usize {
    match row_kind {
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
/// Entry kind of a section: bytes, not a column.
const KIND_BYTES: u8 = 0x40;

/// Encoded block with the metadata that a store keeps beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Id of the column schema.
    pub shape: ShapeId,
    /// Number of rows in the block.
    pub rows: usize,
    /// Time of the first row, or start of the first bucket, in milliseconds since 1970.
    pub first_ms: i64,
    /// Time of the last row, or start of the last bucket, in milliseconds since 1970.
    pub last_ms: i64,
    /// Length of the fixed header and the directory, in bytes.
    pub header_len: usize,
    /// Complete block: header, directory and body.
    pub bytes: Vec<u8>,
}

struct BlockWriter {
    directory: Vec<u8>,
    body: Vec<u8>,
}

impl BlockWriter {
    fn write_column(&mut self, values: &[i64], level: CompressionLevel) {
        let start = self.body.len();
        let kind = column::encode(&mut self.body, values, level);
        self.directory.push(kind);
        match kind {
            KIND_EMPTY => {}
            // The directory contains the value; the body has no bytes for it.
            KIND_CONSTANT => self.directory.extend(self.body.drain(start..)),
            _ => self.finish_entry(start),
        }
    }

    fn write_section(&mut self, bytes: &[u8]) {
        self.directory.push(if bytes.is_empty() { KIND_EMPTY } else { KIND_BYTES });
        if !bytes.is_empty() {
            let start = self.body.len();
            self.body.extend_from_slice(bytes);
            self.finish_entry(start);
        }
    }

    /// Appends the checksum of the entry that starts here in the body, and its length to the directory.
    fn finish_entry(&mut self, start: usize) {
        let checksum = crc32fast::hash(&self.body[start..]);
        self.body.extend_from_slice(&checksum.to_le_bytes());
        write_varint(&mut self.directory, (self.body.len() - start) as u64);
    }

    fn finish(self, row_kind: RowKind, shape: ShapeId, times: &[i64]) -> Block {
        let (first_ms, last_ms) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        let mut bytes =
            Vec::with_capacity(FIXED_HEADER_BYTES + self.directory.len() + CHECKSUM_BYTES + self.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(match row_kind {
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
        let header_len = bytes.len();
        bytes.extend_from_slice(&self.body);
        Block { shape, rows: times.len(), first_ms, last_ms, header_len, bytes }
    }
}

/// Encodes raw rows as a block.
pub fn encode(table: &Table, level: CompressionLevel) -> Block {
    let mut writer = BlockWriter { directory: Vec::new(), body: Vec::new() };
    writer.write_column(&table.at_ms, level);
    writer.write_column(&table.interval_ms, level);
    let mut boots: Vec<BootId> = Vec::new();
    let boot_indices: Vec<i64> = table.boots.iter().map(|boot| boot_index(&mut boots, *boot)).collect();
    writer.write_column(&boot_indices, level);
    let seqs: Vec<i64> = table.seqs.iter().map(|seq| seq.cast_signed()).collect();
    writer.write_column(&seqs, level);
    writer.write_section(&boots.iter().flat_map(|boot| boot.to_bytes()).collect::<Vec<u8>>());
    writer.write_section(&section::write_processes(&table.processes, level));
    writer.write_section(&section::write_annotations(&table.errors, &table.facts));
    table.columns.iter().for_each(|column| writer.write_column(column, level));
    writer.finish(RowKind::Raw, table.shape.id(), &table.at_ms)
}

/// Index of a boot in the list of boots of the block; appends the boot if it is new.
fn boot_index(boots: &mut Vec<BootId>, boot: BootId) -> i64 {
    let index = boots.iter().rposition(|existing| *existing == boot).unwrap_or_else(|| {
        boots.push(boot);
        boots.len() - 1
    });
    i64::try_from(index).unwrap_or_default()
}

/// Encodes buckets as a block.
pub fn encode_buckets(buckets: &Buckets, level: CompressionLevel) -> Block {
    let mut writer = BlockWriter { directory: Vec::new(), body: Vec::new() };
    writer.write_column(&buckets.start_ms, level);
    for column in &buckets.columns {
        column.encode().iter().for_each(|stat| writer.write_column(stat, level));
    }
    writer.finish(RowKind::Buckets, buckets.shape.id(), &buckets.start_ms)
}

#[derive(Clone, Debug)]
enum DirectoryEntry {
    Inline(i64),
    Missing,
    Stored(u8, Range<usize>),
}

/// Parsed header and directory of a block.
#[derive(Clone, Debug)]
pub struct BlockHeader {
    row_kind: RowKind,
    shape: ShapeId,
    rows: usize,
    first_ms: i64,
    last_ms: i64,
    entries: Vec<DirectoryEntry>,
}

/// Part of a block that can be fetched separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockPart {
    /// Timestamps of the rows.
    Time,
    /// Collection interval of each raw row.
    Interval,
    /// Index into `Boots` of each raw row.
    Boot,
    /// Boot ids of the block.
    Boots,
    /// Sequence number within the boot.
    Seq,
    /// Top processes of each raw row.
    Processes,
    /// Collector errors and host facts.
    Annotations,
    /// Raw column, by its index in the shape.
    Column(usize),
    /// Bucket column, by its index in the shape and the index of the statistic.
    Stat(usize, usize),
}

impl BlockHeader {
    /// Parses header and directory, which are the first `header_len` bytes of a block.
    ///
    /// # Errors
    /// Returns a [`FormatError`] if the checksum does not match, the version is not supported, or
    /// [`encode`] cannot have written the bytes.
    pub fn parse(header: &[u8]) -> Result<Self> {
        let Some(checked_len) =
            header.len().checked_sub(CHECKSUM_BYTES).filter(|&len| len >= FIXED_HEADER_BYTES)
        else {
            return Err(FormatError::Truncated);
        };
        let mut reader = ByteReader(&header[..checked_len]);
        if reader.read_exact(4)? != MAGIC {
            return Err(FormatError::Invalid("not a block"));
        }
        let version = reader.byte()?;
        if version > VERSION {
            return Err(FormatError::UnsupportedVersion(version));
        }
        if crc32fast::hash(&header[..checked_len]).to_le_bytes() != header[checked_len..] {
            return Err(FormatError::Checksum("directory"));
        }
        let row_kind = match reader.byte()? {
            0 => RowKind::Raw,
            1 => RowKind::Buckets,
            _ => return Err(FormatError::Invalid("unknown row kind")),
        };
        reader.read_exact(2)?;
        let shape = ShapeId(reader.array()?);
        let rows = u32::from_le_bytes(reader.array()?) as usize;
        if rows == 0 || rows > MAX_ROWS {
            return Err(FormatError::Invalid("row count out of range"));
        }
        let (first_ms, last_ms) = (i64::from_le_bytes(reader.array()?), i64::from_le_bytes(reader.array()?));
        let mut entries = Vec::new();
        let mut offset = header.len();
        while !reader.0.is_empty() {
            if entries.len() > leading_entries(row_kind) + limits::MAX_COLUMNS * BUCKET_STATS_LEN {
                return Err(FormatError::Invalid("too many columns"));
            }
            entries.push(match reader.byte()? {
                KIND_EMPTY => DirectoryEntry::Missing,
                KIND_CONSTANT => DirectoryEntry::Inline(reader.int()?),
                kind => {
                    let length = reader.read_len(u32::MAX as usize)?;
                    offset += length;
                    DirectoryEntry::Stored(kind, offset - length..offset)
                }
            });
        }
        if entries.len() < leading_entries(row_kind) {
            return Err(FormatError::Invalid("directory is incomplete"));
        }
        Ok(Self { row_kind, shape, rows, first_ms, last_ms, entries })
    }

    /// Number of rows, from the first [`FIXED_HEADER_BYTES`] of a block; `None` if they are no header. It
    /// serves to estimate the size of a read, and is verified when the block is decoded.
    pub fn peek_rows(fixed_header: &[u8]) -> Option<usize> {
        let rows = u32::from_le_bytes(fixed_header.get(24..28)?.try_into().ok()?);
        fixed_header.starts_with(MAGIC).then_some(rows as usize)
    }

    /// Kind of the rows: raw or buckets.
    pub fn row_kind(&self) -> RowKind {
        self.row_kind
    }

    /// Id of the column schema.
    pub fn shape(&self) -> ShapeId {
        self.shape
    }

    /// Number of rows in the block.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// First and last time, in milliseconds since 1970.
    pub fn time_range_ms(&self) -> (i64, i64) {
        (self.first_ms, self.last_ms)
    }

    /// Number of columns of the shape.
    pub fn columns(&self) -> usize {
        let values = self.entries.len() - leading_entries(self.row_kind);
        if self.row_kind == RowKind::Raw { values } else { values / BUCKET_STATS_LEN }
    }

    fn entry(&self, part: BlockPart) -> Result<&DirectoryEntry> {
        let index = match (part, self.row_kind) {
            (BlockPart::Time, _) => ENTRY_TIME,
            (BlockPart::Interval, RowKind::Raw) => ENTRY_INTERVAL,
            (BlockPart::Boot, RowKind::Raw) => ENTRY_BOOT,
            (BlockPart::Boots, RowKind::Raw) => ENTRY_BOOTS,
            (BlockPart::Seq, RowKind::Raw) => ENTRY_SEQ,
            (BlockPart::Processes, RowKind::Raw) => ENTRY_PROCESSES,
            (BlockPart::Annotations, RowKind::Raw) => ENTRY_ANNOTATIONS,
            (BlockPart::Column(column), RowKind::Raw) => leading_entries(RowKind::Raw) + column,
            (BlockPart::Stat(column, stat), RowKind::Buckets) => {
                leading_entries(RowKind::Buckets) + column * BUCKET_STATS_LEN + stat
            }
            _ => return Err(FormatError::Invalid("block kind does not have this part")),
        };
        self.entries.get(index).ok_or(FormatError::Invalid("block has fewer columns than its shape"))
    }

    /// Byte range of a part within the block; `None` if the directory contains the complete part.
    ///
    /// # Errors
    /// Returns [`FormatError::Invalid`] if the block does not have the part.
    pub fn byte_range(&self, part: BlockPart) -> Result<Option<Range<usize>>> {
        Ok(match self.entry(part)? {
            DirectoryEntry::Stored(_, range) => Some(range.clone()),
            DirectoryEntry::Inline(_) | DirectoryEntry::Missing => None,
        })
    }

    /// Decodes a column from the bytes of its range. The bytes are ignored if it has no range.
    ///
    /// # Errors
    /// Returns a [`FormatError`] if the checksum does not match or the bytes do not decode.
    pub fn decode_column(&self, part: BlockPart, bytes: &[u8]) -> Result<Vec<i64>> {
        match self.entry(part)? {
            DirectoryEntry::Missing => Ok(vec![perfwatch_model::MISSING; self.rows]),
            DirectoryEntry::Inline(value) => Ok(vec![*value; self.rows]),
            DirectoryEntry::Stored(kind, range) => {
                column::decode(*kind, verify_checksum(bytes, range)?, self.rows)
            }
        }
    }

    /// Bytes of a section with a verified checksum; empty if the section is missing.
    fn section<'a>(&self, part: BlockPart, bytes: &'a [u8]) -> Result<&'a [u8]> {
        match self.entry(part)? {
            DirectoryEntry::Stored(KIND_BYTES, range) => verify_checksum(bytes, range),
            DirectoryEntry::Missing => Ok(&[]),
            _ => Err(FormatError::Invalid("unknown section kind")),
        }
    }

    /// Decodes the boot id of each row from the parts [`BlockPart::Boot`] and [`BlockPart::Boots`].
    ///
    /// # Errors
    /// Returns a [`FormatError`] if a checksum does not match, the bytes do not decode, or a row refers
    /// to a boot that is not in the list.
    pub fn decode_boots(&self, indices: &[u8], ids: &[u8]) -> Result<Vec<BootId>> {
        let ids: Vec<BootId> =
            self.section(BlockPart::Boots, ids)?.chunks_exact(16).filter_map(BootId::from_bytes).collect();
        let id = |index: i64| usize::try_from(index).ok().and_then(|index| ids.get(index).copied());
        let indices = self.decode_column(BlockPart::Boot, indices)?;
        indices
            .into_iter()
            .map(|index| id(index).ok_or(FormatError::Invalid("boot index out of range")))
            .collect()
    }

    /// Decodes the processes of each row from [`BlockPart::Processes`].
    ///
    /// # Errors
    /// Returns a [`FormatError`] if the checksum does not match or the bytes do not decode.
    pub fn decode_processes(&self, bytes: &[u8]) -> Result<Vec<Vec<perfwatch_model::ProcessRow>>> {
        section::read_processes(self.section(BlockPart::Processes, bytes)?, self.rows)
    }

    /// Decodes collector errors and host facts from [`BlockPart::Annotations`].
    ///
    /// # Errors
    /// Returns a [`FormatError`] if the checksum does not match or the bytes do not decode.
    pub fn decode_annotations(&self, bytes: &[u8]) -> Result<section::Annotations> {
        section::read_annotations(self.section(BlockPart::Annotations, bytes)?, self.rows)
    }
}

/// Returns the bytes without their checksum after verifying it.
fn verify_checksum<'a>(bytes: &'a [u8], range: &Range<usize>) -> Result<&'a [u8]> {
    if bytes.len() != range.len() || bytes.len() < CHECKSUM_BYTES {
        return Err(FormatError::Truncated);
    }
    let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if crc32fast::hash(body).to_le_bytes() == *checksum {
        Ok(body)
    } else {
        Err(FormatError::Checksum("column"))
    }
}
