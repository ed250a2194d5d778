//! Rows of an open chunk: a header, and the values that differ from those of the row before.

use super::chunk::{ChunkRows, NO_VALUES, ProcessValues, ValueReader};
use crate::bytes::{ByteReader, unzigzag, write_varint, write_zigzag, zigzag};
use crate::process_values::{PROCESS_ROW_LEN, process_values};
use perfwatch_model::{BootId, CollectorError, HostFacts, MISSING, ProcessRow, Snapshot};
use std::slice::Iter;
use std::sync::Arc;

/// Value that is missing.
const KIND_MISSING: u64 = 0;
/// Value that follows as eight bytes, because its difference has no shorter form.
const KIND_PLAIN: u64 = 1;
/// First code of a difference from the value before.
const KIND_DIFFERENCE: u64 = 2;

/// Parts of a row that differ from the row before.
const KIND_BOOT: u64 = 1;
const KIND_INTERVAL: u64 = 2;
const KIND_ERRORS: u64 = 4;
const KIND_FACTS: u64 = 8;

/// State of the row that the next row is compared with.
#[derive(Debug)]
pub(super) struct PreviousRow {
    at_ms: i64,
    interval_ms: u32,
    boot: Option<BootId>,
    seq: u64,
    errors: Arc<[CollectorError]>,
    values: Vec<i64>,
    /// Values of each process of the chunk, by its index.
    processes: Vec<ProcessValues>,
}

impl PreviousRow {
    /// State before the first row of a chunk, which has the processes of another chunk.
    pub(super) fn start(columns: usize, processes: usize) -> Self {
        Self {
            at_ms: 0,
            interval_ms: 0,
            boot: None,
            seq: 0,
            errors: Arc::default(),
            values: vec![MISSING; columns],
            processes: vec![NO_VALUES; processes],
        }
    }

    /// Appends what a row has once. Returns the size of what is in neither buffer.
    pub(super) fn write_header(&mut self, rows: &mut ChunkRows, snapshot: &Snapshot) -> usize {
        let (mut side_bytes, mut parts) = (0, 0);
        if self.boot != Some(snapshot.boot) {
            parts |= KIND_BOOT;
            rows.boots.push(snapshot.boot);
            side_bytes += size_of::<BootId>();
        }
        if self.interval_ms != snapshot.interval_ms {
            parts |= KIND_INTERVAL;
        }
        if *self.errors != *snapshot.errors {
            parts |= KIND_ERRORS;
            let size = |error: &CollectorError| {
                size_of::<CollectorError>() + error.collector.len() + error.message.len()
            };
            side_bytes += snapshot.errors.iter().map(size).sum::<usize>();
            self.errors = snapshot.errors.as_slice().into();
            rows.errors.push(self.errors.clone());
        }
        if let Some(facts) = &snapshot.facts {
            parts |= KIND_FACTS;
            side_bytes += size_of::<HostFacts>();
            rows.facts.push(facts.clone());
        }
        write_varint(&mut rows.headers, parts);
        write_zigzag(&mut rows.headers, snapshot.at_ms.wrapping_sub(self.at_ms));
        write_zigzag(&mut rows.headers, snapshot.seq.wrapping_sub(self.seq).cast_signed());
        if parts & KIND_INTERVAL != 0 {
            write_varint(&mut rows.headers, u64::from(snapshot.interval_ms));
        }
        write_varint(&mut rows.headers, snapshot.processes.len() as u64);
        (self.at_ms, self.seq) = (snapshot.at_ms, snapshot.seq);
        (self.interval_ms, self.boot) = (snapshot.interval_ms, Some(snapshot.boot));
        side_bytes
    }

    /// Appends the values of the columns.
    pub(super) fn write_values(&mut self, rows: &mut ChunkRows, values: &[i64]) {
        write_changes(&mut rows.values, &mut self.values, values);
    }

    /// Appends a process by its index in the chunk, to the header and the values.
    pub(super) fn write_process(&mut self, rows: &mut ChunkRows, index: usize, process: &ProcessRow) {
        write_varint(&mut rows.headers, index as u64);
        let mut values = NO_VALUES;
        values[..PROCESS_ROW_LEN].copy_from_slice(&process_values(process));
        values[PROCESS_ROW_LEN] = process.parent_pid.map_or(MISSING, i64::from);
        if index >= self.processes.len() {
            self.processes.resize(index + 1, NO_VALUES);
        }
        write_changes(&mut rows.values, &mut self.processes[index], &values);
    }
}

/// Appends a bit per value that is set if the value changed, then the values that changed.
fn write_changes(bytes: &mut Vec<u8>, previous: &mut [i64], values: &[i64]) {
    let bits = bytes.len();
    bytes.resize(bits + values.len().div_ceil(8), 0);
    for (index, (before, &value)) in previous.iter_mut().zip(values).enumerate() {
        if *before != value {
            bytes[bits + index / 8] |= 1 << (index % 8);
            write_value(bytes, *before, value);
            *before = value;
        }
    }
}

/// Appends a value as its difference from the value before.
pub(super) fn write_value(bytes: &mut Vec<u8>, before: i64, value: i64) {
    let base = if before == MISSING { 0 } else { before };
    if value == MISSING {
        write_varint(bytes, KIND_MISSING);
    } else if let Some(code) = zigzag(value.wrapping_sub(base)).checked_add(KIND_DIFFERENCE) {
        write_varint(bytes, code);
    } else {
        write_varint(bytes, KIND_PLAIN);
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

/// Reads a value, as written by [`write_value`].
pub(super) fn read_value(reader: &mut ByteReader<'_>, before: i64) -> Option<i64> {
    let base = if before == MISSING { 0 } else { before };
    Some(match reader.uint().ok()? {
        KIND_MISSING => MISSING,
        KIND_PLAIN => i64::from_le_bytes(reader.array().ok()?),
        code => base.wrapping_add(unzigzag(code - KIND_DIFFERENCE)),
    })
}

/// What a row has once, and its processes by their index in the chunk.
pub(super) struct Header {
    pub(super) boot: BootId,
    pub(super) seq: u64,
    pub(super) at_ms: i64,
    pub(super) interval_ms: u32,
    pub(super) errors: Arc<[CollectorError]>,
    pub(super) facts: Option<Arc<HostFacts>>,
    pub(super) processes: Vec<usize>,
}

/// Reader of the headers of a chunk.
pub(super) struct Headers<'a> {
    reader: ByteReader<'a>,
    previous: PreviousRow,
    boots: Iter<'a, BootId>,
    errors: Iter<'a, Arc<[CollectorError]>>,
    facts: Iter<'a, Arc<HostFacts>>,
}

impl<'a> Headers<'a> {
    pub(super) fn new(rows: &'a ChunkRows, bytes: &'a [u8]) -> Self {
        Self {
            reader: ByteReader(bytes),
            previous: PreviousRow::start(0, 0),
            boots: rows.boots.iter(),
            errors: rows.errors.iter(),
            facts: rows.facts.iter(),
        }
    }

    /// Reads the next header; `None` where the bytes end, which no encoder writes.
    pub(super) fn next_header(&mut self) -> Option<Header> {
        let previous = &mut self.previous;
        let parts = self.reader.uint().ok()?;
        previous.at_ms = previous.at_ms.wrapping_add(self.reader.int().ok()?);
        previous.seq = previous.seq.wrapping_add(self.reader.int().ok()?.cast_unsigned());
        if parts & KIND_INTERVAL != 0 {
            previous.interval_ms = u32::try_from(self.reader.uint().ok()?).ok()?;
        }
        if parts & KIND_BOOT != 0 {
            previous.boot = Some(*self.boots.next()?);
        }
        if parts & KIND_ERRORS != 0 {
            previous.errors = self.errors.next()?.clone();
        }
        let facts = if parts & KIND_FACTS != 0 { Some(self.facts.next()?.clone()) } else { None };
        let count = self.reader.read_len(self.reader.0.len()).ok()?;
        let mut processes = Vec::with_capacity(count);
        for _ in 0..count {
            processes.push(usize::try_from(self.reader.uint().ok()?).ok()?);
        }
        Some(Header {
            processes,
            boot: previous.boot?,
            seq: previous.seq,
            at_ms: previous.at_ms,
            interval_ms: previous.interval_ms,
            errors: previous.errors.clone(),
            facts,
        })
    }
}

/// Values of an open chunk.
pub(super) struct RowValues<'a> {
    reader: ByteReader<'a>,
    /// Values of the row that was read last.
    row: Vec<i64>,
    /// Number of rows of the chunk.
    row_count: usize,
    /// Values of the rows that were read for a table.
    columns: Vec<Vec<i64>>,
    processes: Vec<ProcessValues>,
}

impl<'a> RowValues<'a> {
    pub(super) fn new(rows: &'a ChunkRows, columns: usize) -> Self {
        let processes = vec![NO_VALUES; rows.processes.len()];
        let (row, reader) = (vec![MISSING; columns], ByteReader(&rows.values));
        Self { reader, row, row_count: rows.count, columns: Vec::new(), processes }
    }
}

impl RowValues<'_> {
    /// Values of the columns of the next row.
    pub(super) fn next_row(&mut self) -> Option<&[i64]> {
        read_changes(&mut self.reader, &mut self.row)?;
        Some(&self.row)
    }
}

impl ValueReader for RowValues<'_> {
    fn read_row(&mut self) -> Option<()> {
        read_changes(&mut self.reader, &mut self.row)?;
        if self.columns.is_empty() {
            self.columns = self.row.iter().map(|_| Vec::with_capacity(self.row_count)).collect();
        }
        self.columns.iter_mut().zip(&self.row).for_each(|(column, value)| column.push(*value));
        Some(())
    }

    fn process(&mut self, index: usize) -> Option<ProcessValues> {
        let values = self.processes.get_mut(index)?;
        read_changes(&mut self.reader, values)?;
        Some(*values)
    }

    fn into_columns(self) -> Vec<Vec<i64>> {
        self.columns
    }
}

/// Reads values, as written by [`write_changes`].
fn read_changes(reader: &mut ByteReader<'_>, values: &mut [i64]) -> Option<()> {
    let bits = reader.read_exact(values.len().div_ceil(8)).ok()?;
    for (index, value) in values.iter_mut().enumerate() {
        if bits[index / 8] & (1 << (index % 8)) != 0 {
            *value = read_value(reader, *value)?;
        }
    }
    Some(())
}
