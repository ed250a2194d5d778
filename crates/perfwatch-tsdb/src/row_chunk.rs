//! Recent rows in memory: snapshots of a host, encoded one by one as differences from the row before.
//!
//! A row takes about a tenth of the size of its snapshot. In contrast to a block, a row is encoded at once when it
//! arrives, without waiting for others, and rows have no checksum: they never leave memory. Rows that follow each
//! other share a chunk, which is compressed when it is full. The chunk lives as long as any of its rows is referenced;
//! decoding a row decodes the chunk.

use crate::bytes::{ByteReader, unzigzag, write_varint, write_zigzag, zigzag};
use crate::process_values::{PROCESS_ROW_LEN, process_values, with_values};
use perfwatch_model::{BootId, CollectorError, HostFacts, MISSING, ProcessRow, Shape, Snapshot};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of rows of a chunk. The first row of a chunk is complete.
const MAX_CHUNK_ROWS: usize = 32;
/// Maximum size of the rows of a chunk, which bounds the work of decoding a row of a large host.
const MAX_CHUNK_BYTES: usize = 256 << 10;

/// Level at which a full chunk is compressed: about a microsecond per row of a usual host.
const ZSTD_LEVEL: i32 = 1;

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

/// Changing values of a process, and its parent.
type ProcessValues = [i64; PROCESS_ROW_LEN + 1];
/// Values of a process before its first row.
const NO_VALUES: ProcessValues = [MISSING; PROCESS_ROW_LEN + 1];

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
    /// Rows, compressed if `uncompressed_len` is set.
    bytes: Vec<u8>,
    /// Size of compressed rows before the compression.
    uncompressed_len: Option<usize>,
    /// Boots in the order of their first row.
    boots: Vec<BootId>,
    /// Processes in the order of their first row; only the parts that never change. Shared with the next chunk.
    processes: Arc<Vec<ProcessRow>>,
    /// Lists of errors in the order of their first row.
    errors: Vec<Arc<[CollectorError]>>,
    facts: Vec<Arc<HostFacts>>,
}

impl RowChunk {
    fn lock(&self) -> MutexGuard<'_, ChunkRows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkRows {
    /// Compresses the rows, to which no row is added any more.
    fn compress(&mut self) {
        match zstd::bulk::compress(&self.bytes, ZSTD_LEVEL) {
            Ok(compressed) if compressed.len() < self.bytes.len() => {
                self.uncompressed_len = Some(self.bytes.len());
                self.bytes = compressed;
            }
            _ => {}
        }
        self.bytes.shrink_to_fit();
    }

    /// Rows without compression.
    fn uncompressed(&self) -> Cow<'_, [u8]> {
        match self.uncompressed_len {
            Some(length) => Cow::Owned(zstd::bulk::decompress(&self.bytes, length).unwrap_or_default()),
            None => Cow::Borrowed(&self.bytes),
        }
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
    /// Processes of the last full chunk.
    processes: ProcessTable,
}

/// Processes of a chunk, with the index of each by pid and start time.
#[derive(Debug, Default)]
struct ProcessTable {
    rows: Arc<Vec<ProcessRow>>,
    indices: HashMap<(u32, i64), usize>,
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
            previous => {
                let processes =
                    previous.map_or_else(|| std::mem::take(&mut self.processes), OpenChunk::close);
                OpenChunk::new(snapshot, processes)
            }
        };
        let row = open.encode(snapshot);
        if open.is_full() {
            self.processes = open.close();
        } else {
            self.open = Some(open);
        }
        row
    }
}

impl OpenChunk {
    /// Chunk that begins with a row. It continues the processes of the chunk before, unless most of them ended.
    fn new(snapshot: &Snapshot, processes: ProcessTable) -> Self {
        let columns = snapshot.values.len();
        let is_current = processes.rows.len() <= 2 * snapshot.processes.len();
        let ProcessTable { rows, indices } = if is_current { processes } else { ProcessTable::default() };
        let mut previous = PreviousRow::start(columns);
        previous.processes.resize(rows.len(), NO_VALUES);
        let rows = Mutex::new(ChunkRows { processes: rows, ..ChunkRows::default() });
        Self {
            chunk: Arc::new(RowChunk { shape: snapshot.shape.clone(), columns, rows }),
            previous,
            process_indices: indices,
        }
    }

    /// Compresses the chunk. Returns its processes for the next chunk.
    fn close(self) -> ProcessTable {
        let mut rows = self.chunk.lock();
        rows.compress();
        ProcessTable { rows: rows.processes.clone(), indices: self.process_indices }
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
        if Arc::strong_count(&rows.processes) > 1 {
            side_bytes += rows.processes.len() * size_of::<ProcessRow>();
        }
        let processes = Arc::make_mut(&mut rows.processes);
        processes.push(ProcessRow { pid, started_ms, name, user, command, ..ProcessRow::default() });
        previous.push(NO_VALUES);
        indices.insert(key, previous.len() - 1);
        previous.len() - 1
    });
    write_varint(&mut rows.bytes, index as u64);
    let mut values = NO_VALUES;
    values[..PROCESS_ROW_LEN].copy_from_slice(&process_values(process));
    values[PROCESS_ROW_LEN] = process.parent_pid.map_or(MISSING, i64::from);
    write_values(&mut rows.bytes, &mut previous[index], &values);
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
    let bytes = rows.uncompressed();
    let mut decoder = RowDecoder {
        reader: ByteReader(&bytes),
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
        previous.processes.resize(self.processes.len(), NO_VALUES);
        let mut processes = Vec::with_capacity(count);
        for _ in 0..count {
            let index = usize::try_from(self.reader.uint().ok()?).ok()?;
            let values = previous.processes.get_mut(index)?;
            read_values(&mut self.reader, values)?;
            let [values @ .., parent_pid] = *values;
            let parent_pid = u32::try_from(parent_pid).ok();
            processes
                .push(with_values(ProcessRow { parent_pid, ..self.processes.get(index)?.clone() }, values));
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
