//! Recent rows in memory: snapshots of a host, encoded one by one as differences from the row before.
//!
//! A row takes about a tenth of the size of its snapshot. In contrast to a block, a row is encoded at once when it
//! arrives, without waiting for others, and rows have no checksum: they never leave memory. Rows that follow each
//! other share a chunk. The chunk lives as long as any of its rows is referenced; decoding a row decodes the chunk.

use crate::bytes::{ByteReader, unzigzag, write_varint, write_zigzag, zigzag};
use perfwatch_model::{BootId, CollectorError, HostFacts, MISSING, ProcessRow, Shape, Snapshot};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of rows of a chunk. The first row of a chunk is complete.
const MAX_CHUNK_ROWS: usize = 32;
/// Maximum size of the rows of a chunk, which bounds the work of decoding a row of a large host.
const MAX_CHUNK_BYTES: usize = 256 << 10;

/// Column value that is missing.
const KIND_MISSING: u64 = 0;
/// Column value that follows as eight bytes, because its difference has no shorter form.
const KIND_PLAIN: u64 = 1;
/// First code of a difference from the value before.
const KIND_DIFFERENCE: u64 = 2;

/// Parts of a row that differ from the row before.
const KIND_BOOT: u64 = 1;
const KIND_INTERVAL: u64 = 2;
const KIND_ERRORS: u64 = 4;
const KIND_FACTS: u64 = 8;

/// Number of changing values of a process.
const PROCESS_VALUES_LEN: usize = 8;
type ProcessValues = [i64; PROCESS_VALUES_LEN];

/// Reference to an encoded row.
#[derive(Clone, Debug)]
pub struct EncodedRow {
    chunk: Arc<RowChunk>,
    at_ms: i64,
    index: u32,
    bytes: u32,
}

impl EncodedRow {
    /// Collection time of the row, Unix milliseconds.
    pub fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// Approximate size of the row in memory, without its shape.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Shape of the row.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.chunk.shape
    }
}

/// Rows of a shape.
#[derive(Debug)]
struct RowChunk {
    shape: Arc<Shape>,
    /// Number of values of a row.
    columns: usize,
    rows: Mutex<ChunkRows>,
}

#[derive(Debug, Default)]
struct ChunkRows {
    count: usize,
    bytes: Vec<u8>,
    /// Boots in the order of their first row.
    boots: Vec<BootId>,
    /// Processes in the order of their first row; only the parts that never change.
    processes: Vec<ProcessRow>,
    /// Lists of errors in the order of their first row.
    errors: Vec<Arc<[CollectorError]>>,
    facts: Vec<Arc<HostFacts>>,
}

impl RowChunk {
    fn lock(&self) -> MutexGuard<'_, ChunkRows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of the row that the next row is compared with.
#[derive(Debug)]
struct PreviousRow {
    at_ms: i64,
    interval_ms: u32,
    boot: Option<BootId>,
    seq: u64,
    values: Vec<i64>,
    errors: Arc<[CollectorError]>,
    /// Values of each process of the chunk, by its index.
    processes: Vec<ProcessValues>,
}

impl PreviousRow {
    /// State before the first row of a chunk.
    fn start(columns: usize) -> Self {
        Self {
            at_ms: 0,
            interval_ms: 0,
            boot: None,
            seq: 0,
            values: vec![MISSING; columns],
            errors: Arc::default(),
            processes: Vec::new(),
        }
    }
}

/// Encodes the rows of a host in the order of their arrival.
#[derive(Debug, Default)]
pub struct RowEncoder {
    open: Option<OpenChunk>,
}

#[derive(Debug)]
struct OpenChunk {
    chunk: Arc<RowChunk>,
    previous: PreviousRow,
    /// Index of each process by pid and start time.
    process_indices: HashMap<(u32, i64), usize>,
}

impl RowEncoder {
    /// Encodes a row.
    pub fn encode(&mut self, snapshot: &Snapshot) -> EncodedRow {
        let mut open = match self.open.take() {
            Some(open) if open.has_columns_of(snapshot) => open,
            _ => OpenChunk::new(snapshot),
        };
        let row = open.encode(snapshot);
        if open.is_full() {
            open.chunk.lock().bytes.shrink_to_fit();
        } else {
            self.open = Some(open);
        }
        row
    }
}

impl OpenChunk {
    fn new(snapshot: &Snapshot) -> Self {
        let columns = snapshot.values.len();
        Self {
            chunk: Arc::new(RowChunk { shape: snapshot.shape.clone(), columns, rows: Mutex::default() }),
            previous: PreviousRow::start(columns),
            process_indices: HashMap::new(),
        }
    }

    /// Returns whether the row has the columns of the chunk.
    fn has_columns_of(&self, snapshot: &Snapshot) -> bool {
        let shape = &self.chunk.shape;
        let has_shape = Arc::ptr_eq(shape, &snapshot.shape) || shape.id() == snapshot.shape.id();
        has_shape && self.chunk.columns == snapshot.values.len()
    }

    fn is_full(&self) -> bool {
        let rows = self.chunk.lock();
        rows.count >= MAX_CHUNK_ROWS || rows.bytes.len() >= MAX_CHUNK_BYTES
    }

    fn encode(&mut self, snapshot: &Snapshot) -> EncodedRow {
        let mut rows = self.chunk.lock();
        let before = rows.bytes.len();
        let mut side_bytes = size_of::<EncodedRow>();
        side_bytes += write_header(&mut rows, &mut self.previous, snapshot);
        write_values(&mut rows.bytes, &mut self.previous.values, &snapshot.values);
        write_varint(&mut rows.bytes, snapshot.processes.len() as u64);
        for process in &snapshot.processes {
            side_bytes +=
                write_process(&mut rows, &mut self.previous.processes, &mut self.process_indices, process);
        }
        rows.count += 1;
        let bytes = rows.bytes.len() - before + side_bytes;
        EncodedRow {
            chunk: self.chunk.clone(),
            at_ms: snapshot.at_ms,
            index: u32::try_from(rows.count - 1).unwrap_or_default(),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
}

/// Appends what a row has once. Returns the size of what is not in the bytes of the chunk.
fn write_header(rows: &mut ChunkRows, previous: &mut PreviousRow, snapshot: &Snapshot) -> usize {
    let mut side_bytes = 0;
    let mut parts = 0;
    if previous.boot != Some(snapshot.boot) {
        parts |= KIND_BOOT;
        rows.boots.push(snapshot.boot);
        side_bytes += size_of::<BootId>();
    }
    if previous.interval_ms != snapshot.interval_ms {
        parts |= KIND_INTERVAL;
    }
    if *previous.errors != *snapshot.errors {
        parts |= KIND_ERRORS;
        let size = |error: &CollectorError| {
            size_of::<CollectorError>() + error.collector.len() + error.message.len()
        };
        side_bytes += snapshot.errors.iter().map(size).sum::<usize>();
        previous.errors = snapshot.errors.as_slice().into();
        rows.errors.push(previous.errors.clone());
    }
    if let Some(facts) = &snapshot.facts {
        parts |= KIND_FACTS;
        side_bytes += size_of::<HostFacts>();
        rows.facts.push(facts.clone());
    }
    write_varint(&mut rows.bytes, parts);
    write_zigzag(&mut rows.bytes, snapshot.at_ms.wrapping_sub(previous.at_ms));
    write_zigzag(&mut rows.bytes, snapshot.seq.wrapping_sub(previous.seq).cast_signed());
    if parts & KIND_INTERVAL != 0 {
        write_varint(&mut rows.bytes, u64::from(snapshot.interval_ms));
    }
    (previous.at_ms, previous.seq) = (snapshot.at_ms, snapshot.seq);
    (previous.interval_ms, previous.boot) = (snapshot.interval_ms, Some(snapshot.boot));
    side_bytes
}

/// Appends a bit per value that is set if the value changed, then the values that changed.
fn write_values(bytes: &mut Vec<u8>, previous: &mut [i64], values: &[i64]) {
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

/// Appends a value that differs from the value before.
fn write_value(bytes: &mut Vec<u8>, before: i64, value: i64) {
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

/// Values of a process that change during its lifetime.
fn process_values(process: &ProcessRow) -> ProcessValues {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let optional = |value: Option<u64>| value.map_or(MISSING, signed);
    [
        i64::from(process.cpu_tenths),
        signed(process.memory_bytes),
        i64::from(process.threads),
        optional(process.open_files.map(u64::from)),
        optional(process.read_bytes),
        optional(process.write_bytes),
        i64::from(u32::from(process.state)),
        optional(process.parent_pid.map(u64::from)),
    ]
}

/// Appends a process. Returns the size of what is not in the bytes of the chunk.
fn write_process(
    rows: &mut ChunkRows,
    previous: &mut Vec<ProcessValues>,
    indices: &mut HashMap<(u32, i64), usize>,
    process: &ProcessRow,
) -> usize {
    let is_same = |index: &usize| {
        let other = &rows.processes[*index];
        other.name == process.name && other.user == process.user && other.command == process.command
    };
    let key = (process.pid, process.started_ms);
    let mut side_bytes = 0;
    let index = indices.get(&key).copied().filter(is_same).unwrap_or_else(|| {
        let ProcessRow { pid, started_ms, .. } = *process;
        let [name, user, command] = [&process.name, &process.user, &process.command].map(Arc::clone);
        // Texts that only this process and the interner have; others are shared.
        let text_bytes = |text: &Arc<str>| if Arc::strong_count(text) <= 3 { text.len() + 64 } else { 0 };
        side_bytes = size_of::<ProcessRow>() + [&name, &user, &command].map(text_bytes).iter().sum::<usize>();
        rows.processes.push(ProcessRow { pid, started_ms, name, user, command, ..ProcessRow::default() });
        previous.push([MISSING; PROCESS_VALUES_LEN]);
        indices.insert(key, previous.len() - 1);
        previous.len() - 1
    });
    write_varint(&mut rows.bytes, index as u64);
    write_values(&mut rows.bytes, &mut previous[index], &process_values(process));
    side_bytes
}

/// Decodes rows, in their order. Each chunk is decoded once.
pub fn decode_rows<'a>(rows: impl IntoIterator<Item = &'a EncodedRow>) -> Vec<Arc<Snapshot>> {
    let mut chunks: HashMap<*const RowChunk, Vec<Arc<Snapshot>>> = HashMap::new();
    let decode = |row: &EncodedRow| {
        let decoded = chunks.entry(Arc::as_ptr(&row.chunk)).or_insert_with(|| decode_chunk(&row.chunk));
        decoded.get(row.index as usize).cloned()
    };
    rows.into_iter().filter_map(decode).collect()
}

/// Decodes all rows of a chunk.
fn decode_chunk(chunk: &RowChunk) -> Vec<Arc<Snapshot>> {
    let rows = chunk.lock();
    let mut decoder = RowDecoder {
        reader: ByteReader(&rows.bytes),
        previous: PreviousRow::start(chunk.columns),
        boots: rows.boots.iter(),
        errors: rows.errors.iter(),
        facts: rows.facts.iter(),
        processes: &rows.processes,
    };
    (0..rows.count).map_while(|_| Some(Arc::new(decoder.row(&chunk.shape)?))).collect()
}

/// Reader of a chunk. Its methods return `None` where the bytes end, which no encoder writes.
struct RowDecoder<'a> {
    reader: ByteReader<'a>,
    previous: PreviousRow,
    boots: std::slice::Iter<'a, BootId>,
    errors: std::slice::Iter<'a, Arc<[CollectorError]>>,
    facts: std::slice::Iter<'a, Arc<HostFacts>>,
    processes: &'a [ProcessRow],
}

impl RowDecoder<'_> {
    fn row(&mut self, shape: &Arc<Shape>) -> Option<Snapshot> {
        let parts = self.reader.uint().ok()?;
        let previous = &mut self.previous;
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
        read_values(&mut self.reader, &mut previous.values)?;
        let count = usize::try_from(self.reader.uint().ok()?).ok()?;
        previous.processes.resize(self.processes.len(), [MISSING; PROCESS_VALUES_LEN]);
        let mut processes = Vec::with_capacity(count);
        for _ in 0..count {
            let index = usize::try_from(self.reader.uint().ok()?).ok()?;
            let values = previous.processes.get_mut(index)?;
            read_values(&mut self.reader, values)?;
            processes.push(process_row(self.processes.get(index)?, values)?);
        }
        Some(Snapshot {
            boot: previous.boot?,
            seq: previous.seq,
            at_ms: previous.at_ms,
            interval_ms: previous.interval_ms,
            shape: shape.clone(),
            values: previous.values.clone(),
            processes,
            facts,
            errors: previous.errors.to_vec(),
        })
    }
}

/// Reads values, as written by [`write_values`].
fn read_values(reader: &mut ByteReader<'_>, values: &mut [i64]) -> Option<()> {
    let bits = reader.read_exact(values.len().div_ceil(8)).ok()?;
    for (index, value) in values.iter_mut().enumerate() {
        if bits[index / 8] & (1 << (index % 8)) != 0 {
            *value = read_value(reader, *value)?;
        }
    }
    Some(())
}

fn read_value(reader: &mut ByteReader<'_>, before: i64) -> Option<i64> {
    let base = if before == MISSING { 0 } else { before };
    Some(match reader.uint().ok()? {
        KIND_MISSING => MISSING,
        KIND_PLAIN => i64::from_le_bytes(reader.array().ok()?),
        code => base.wrapping_add(unzigzag(code - KIND_DIFFERENCE)),
    })
}

/// Process with its values at a row.
fn process_row(identity: &ProcessRow, values: &ProcessValues) -> Option<ProcessRow> {
    let [cpu_tenths, memory_bytes, threads, open_files, read_bytes, write_bytes, state, parent_pid] = *values;
    let optional = |value: i64| u64::try_from(value).ok();
    let optional_u32 = |value: i64| u32::try_from(value).ok();
    Some(ProcessRow {
        cpu_tenths: optional_u32(cpu_tenths)?,
        memory_bytes: optional(memory_bytes)?,
        threads: optional_u32(threads)?,
        open_files: optional_u32(open_files),
        read_bytes: optional(read_bytes),
        write_bytes: optional(write_bytes),
        state: char::from_u32(optional_u32(state)?)?,
        parent_pid: optional_u32(parent_pid),
        ..identity.clone()
    })
}
