//! A block: some columns of one host over some time, immutable, with a directory in front so
//! that a query reads only the columns it asks for. `docs/BLOCK-FORMAT.md` draws it.
//!
//! The codec knows nothing of where blocks stand: a reader takes the head (whose length is
//! kept beside the block), asks [`Head::range`] where a column is, fetches just that, and
//! hands it to [`Head::column`].

use crate::bytes::{FormatError, Reader, Result, put_uint};
use crate::column::{self, CONSTANT, EMPTY, Effort};
use crate::rollup::{Buckets, FIGURES};
use crate::section;
use crate::table::{MAX_ROWS, Table};
use perfwatch_model::{BootId, ShapeId, limits};
use std::ops::Range;

const MAGIC: &[u8; 4] = b"PWB\x1a";
/// What this build writes, and the newest it reads.
pub const VERSION: u8 = 1;
/// Bytes before the directory.
const FIXED: usize = 44;
const CHECKSUM: usize = 4;

/// What a block's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Ticks as they came.
    Ticks,
    /// Buckets: figures of the ticks within.
    Buckets,
}

/// Entries before the values' own: of ticks, time, interval, boot, seq, the boots, processes,
/// notes; of buckets, time.
fn lead(rows: Rows) -> usize {
    match rows {
        Rows::Ticks => 7,
        Rows::Buckets => 1,
    }
}

const TIME: usize = 0;
const INTERVAL: usize = 1;
const BOOT: usize = 2;
const SEQ: usize = 3;
const BOOTS: usize = 4;
const PROCESSES: usize = 5;
const NOTES: usize = 6;
/// Kind of an entry that is bytes, not a column.
const BYTES: u8 = 0x40;

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
    pub head: usize,
    /// The whole.
    pub bytes: Vec<u8>,
}

struct Writer {
    directory: Vec<u8>,
    body: Vec<u8>,
}

impl Writer {
    fn column(&mut self, values: &[i64], effort: Effort) {
        let (kind, coded) = column::encode(values, effort);
        self.directory.push(kind);
        match kind {
            EMPTY => {}
            // The value itself stands in the directory.
            CONSTANT => self.directory.extend_from_slice(&coded),
            _ => self.entry(&coded),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.directory.push(if bytes.is_empty() { EMPTY } else { BYTES });
        if !bytes.is_empty() {
            self.entry(bytes);
        }
    }

    fn entry(&mut self, bytes: &[u8]) {
        put_uint(&mut self.directory, (bytes.len() + CHECKSUM) as u64);
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    }

    fn finish(self, rows: Rows, shape: ShapeId, times: &[i64]) -> Block {
        let (first_ms, last_ms) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        let mut bytes = Vec::with_capacity(FIXED + self.directory.len() + CHECKSUM + self.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(match rows {
            Rows::Ticks => 0,
            Rows::Buckets => 1,
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
        Block { shape, rows: times.len(), first_ms, last_ms, head, bytes }
    }
}

/// Codes ticks.
pub fn encode(table: &Table, effort: Effort) -> Block {
    let mut writer = Writer { directory: Vec::new(), body: Vec::new() };
    writer.column(&table.at_ms, effort);
    writer.column(&table.interval_ms, effort);
    let mut boots: Vec<BootId> = Vec::new();
    let numbers: Vec<i64> = table.boots.iter().map(|boot| boot_number(&mut boots, *boot)).collect();
    writer.column(&numbers, effort);
    let seqs: Vec<i64> = table.seqs.iter().map(|seq| seq.cast_signed()).collect();
    writer.column(&seqs, effort);
    writer.bytes(&boots.iter().flat_map(|boot| boot.to_bytes()).collect::<Vec<u8>>());
    writer.bytes(&section::put_processes(&table.processes, effort));
    writer.bytes(&section::put_notes(&table.errors, &table.facts));
    table.columns.iter().for_each(|column| writer.column(column, effort));
    writer.finish(Rows::Ticks, table.shape.id(), &table.at_ms)
}

fn boot_number(boots: &mut Vec<BootId>, boot: BootId) -> i64 {
    let at = boots.iter().rposition(|known| *known == boot).unwrap_or_else(|| {
        boots.push(boot);
        boots.len() - 1
    });
    i64::try_from(at).unwrap_or_default()
}

/// Codes buckets.
pub fn encode_buckets(buckets: &Buckets, effort: Effort) -> Block {
    let mut writer = Writer { directory: Vec::new(), body: Vec::new() };
    writer.column(&buckets.start_ms, effort);
    for column in &buckets.columns {
        column.coded().iter().for_each(|figure| writer.column(figure, effort));
    }
    writer.finish(Rows::Buckets, buckets.shape.id(), &buckets.start_ms)
}

#[derive(Clone, Debug)]
enum Entry {
    Inline(i64),
    Nothing,
    Stored(u8, Range<usize>),
}

/// Header and directory of a block.
#[derive(Clone, Debug)]
pub struct Head {
    kind: Rows,
    shape: ShapeId,
    rows: usize,
    first_ms: i64,
    last_ms: i64,
    entries: Vec<Entry>,
}

/// A part of a block that can be fetched alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
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
    Notes,
    /// A column of ticks, by its place in the shape.
    Column(usize),
    /// A figure of a column of buckets.
    Figure(usize, usize),
}

impl Head {
    /// Reads header and directory from the first bytes of a block.
    ///
    /// # Errors
    /// Anything that [`encode`] does not write, also where a byte changed.
    pub fn parse(head: &[u8]) -> Result<Self> {
        let Some(checked) = head.len().checked_sub(CHECKSUM).filter(|&checked| checked >= FIXED) else {
            return Err(FormatError::Short);
        };
        let mut reader = Reader(&head[..checked]);
        if reader.take(4)? != MAGIC {
            return Err(FormatError::Invalid("not a block"));
        }
        let version = reader.byte()?;
        if version > VERSION {
            return Err(FormatError::Newer(version));
        }
        if crc32fast::hash(&head[..checked]).to_le_bytes() != head[checked..] {
            return Err(FormatError::Checksum("the directory"));
        }
        let kind = match reader.byte()? {
            0 => Rows::Ticks,
            1 => Rows::Buckets,
            _ => return Err(FormatError::Invalid("a block of unknown kind")),
        };
        reader.take(2)?;
        let shape = ShapeId(reader.array()?);
        let rows = u32::from_le_bytes(reader.array()?) as usize;
        if rows == 0 || rows > MAX_ROWS {
            return Err(FormatError::Invalid("a block of no rows, or of too many"));
        }
        let (first_ms, last_ms) = (i64::from_le_bytes(reader.array()?), i64::from_le_bytes(reader.array()?));
        let mut entries = Vec::new();
        let mut at = head.len();
        while !reader.0.is_empty() {
            if entries.len() > lead(kind) + limits::COLUMNS * FIGURES {
                return Err(FormatError::Invalid("too many columns"));
            }
            entries.push(match reader.byte()? {
                EMPTY => Entry::Nothing,
                CONSTANT => Entry::Inline(reader.int()?),
                kind => {
                    let length = reader.count(u32::MAX as usize)?;
                    at += length;
                    Entry::Stored(kind, at - length..at)
                }
            });
        }
        if entries.len() < lead(kind) {
            return Err(FormatError::Invalid("the directory ends too soon"));
        }
        Ok(Self { kind, shape, rows, first_ms, last_ms, entries })
    }

    /// What the rows are.
    pub fn kind(&self) -> Rows {
        self.kind
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
    pub fn times_ms(&self) -> (i64, i64) {
        (self.first_ms, self.last_ms)
    }

    /// Columns of the shape.
    pub fn columns(&self) -> usize {
        let values = self.entries.len() - lead(self.kind);
        if self.kind == Rows::Ticks { values } else { values / FIGURES }
    }

    fn entry(&self, part: Part) -> Result<&Entry> {
        let ticks = lead(Rows::Ticks);
        let place = match (part, self.kind) {
            (Part::Time, _) => TIME,
            (Part::Interval, Rows::Ticks) => INTERVAL,
            (Part::Boot, Rows::Ticks) => BOOT,
            (Part::Boots, Rows::Ticks) => BOOTS,
            (Part::Seq, Rows::Ticks) => SEQ,
            (Part::Processes, Rows::Ticks) => PROCESSES,
            (Part::Notes, Rows::Ticks) => NOTES,
            (Part::Column(at), Rows::Ticks) => ticks + at,
            (Part::Figure(at, figure), Rows::Buckets) => lead(Rows::Buckets) + at * FIGURES + figure,
            _ => return Err(FormatError::Invalid("this kind of block has no such part")),
        };
        self.entries.get(place).ok_or(FormatError::Invalid("the block has fewer columns than its shape"))
    }

    /// Where a part stands in the block; none if the directory says all there is.
    ///
    /// # Errors
    /// The block has no such part.
    pub fn range(&self, part: Part) -> Result<Option<Range<usize>>> {
        Ok(match self.entry(part)? {
            Entry::Stored(_, range) => Some(range.clone()),
            Entry::Inline(_) | Entry::Nothing => None,
        })
    }

    /// Decodes a column, given the bytes of its range (any, where it has none).
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn column(&self, part: Part, bytes: &[u8]) -> Result<Vec<i64>> {
        match self.entry(part)? {
            Entry::Nothing => Ok(vec![perfwatch_model::MISSING; self.rows]),
            Entry::Inline(value) => Ok(vec![*value; self.rows]),
            Entry::Stored(kind, range) => column::decode(*kind, verified(bytes, range)?, self.rows),
        }
    }

    /// The bytes of a section, verified; nothing if there is none.
    fn section<'a>(&self, part: Part, bytes: &'a [u8]) -> Result<&'a [u8]> {
        match self.entry(part)? {
            Entry::Stored(BYTES, range) => verified(bytes, range),
            Entry::Nothing => Ok(&[]),
            _ => Err(FormatError::Invalid("a section of unknown kind")),
        }
    }

    /// The boots of all rows, from the parts [`Part::Boot`] and [`Part::Boots`].
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn boots(&self, numbers: &[u8], names: &[u8]) -> Result<Vec<BootId>> {
        let names: Vec<BootId> =
            self.section(Part::Boots, names)?.chunks_exact(16).filter_map(BootId::from_bytes).collect();
        let name = |number: i64| usize::try_from(number).ok().and_then(|at| names.get(at).copied());
        let numbers = self.column(Part::Boot, numbers)?;
        numbers
            .into_iter()
            .map(|number| name(number).ok_or(FormatError::Invalid("a boot without name")))
            .collect()
    }

    /// The processes of each row, from [`Part::Processes`].
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn processes(&self, bytes: &[u8]) -> Result<Vec<Vec<perfwatch_model::ProcessRow>>> {
        section::processes(self.section(Part::Processes, bytes)?, self.rows)
    }

    /// Errors and facts of each row, from [`Part::Notes`].
    ///
    /// # Errors
    /// Bytes that changed, or that [`encode`] does not write.
    pub fn notes(&self, bytes: &[u8]) -> Result<section::Notes> {
        section::notes(self.section(Part::Notes, bytes)?, self.rows)
    }
}

fn verified<'a>(bytes: &'a [u8], range: &Range<usize>) -> Result<&'a [u8]> {
    if bytes.len() != range.len() || bytes.len() < CHECKSUM {
        return Err(FormatError::Short);
    }
    let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM);
    if crc32fast::hash(body).to_le_bytes() == *sum {
        Ok(body)
    } else {
        Err(FormatError::Checksum("a column"))
    }
}
