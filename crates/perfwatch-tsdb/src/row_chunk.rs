//! Recent rows in memory: snapshots of a host, in chunks of rows that follow each other.
//!
//! A row is encoded at once when it arrives, as the differences from the row before. The rows of a full chunk are
//! rewritten by column and compressed, which takes a third of that. In contrast to a block, rows in memory have no
//! checksums. The chunk lives as long as any of its rows is referenced; decoding a row decodes the chunk.

mod chunk;
mod columns;
mod decoded_rows;
mod rows;

use crate::table::Table;
use chunk::{ChunkRows, ProcessIdentity, ValueReader};
pub use decoded_rows::{DecodedRows, RowKey, decode_rows};
use perfwatch_model::{ProcessRow, Shape, Snapshot, compression};
use rows::{Headers, PreviousRow, RowValues};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of rows of a chunk. The first row of a chunk is complete.
const MAX_CHUNK_ROWS: usize = 32;
/// Minimum expected size of the values of a row. The buffer of an open chunk grows by two rows: doubling would leave up
/// to half of the space of every host unused.
const MIN_ROW_BYTES: usize = 512;
/// Maximum size of the rows of a chunk, which bounds the work of decoding a row of a large host.
const MAX_CHUNK_BYTES: usize = 256 << 10;

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

    /// Approximate size of the row in memory before the compression, without its shape.
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

impl RowChunk {
    fn lock(&self) -> MutexGuard<'_, ChunkRows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes all rows, in the order of their arrival.
    fn decode(&self) -> Table {
        let rows = self.lock();
        let decoded = match rows.uncompressed_len {
            None => rows.decode(&self.shape, &rows.headers, RowValues::new(&rows, self.columns)),
            Some(length) => compression::decompress(&rows.values, length).ok().and_then(|bytes| {
                let (headers, values) = columns::read(&rows, &bytes, self.columns)?;
                rows.decode(&self.shape, headers, values)
            }),
        };
        // Only bytes that no encoder writes cannot be decoded.
        decoded.unwrap_or_else(|| Table::empty(self.shape.clone()))
    }
}

impl ChunkRows {
    /// Rewrites the rows by column and compresses them; no row is added any more.
    fn close(&mut self, columns: usize) {
        let Some(bytes) = columns::write(self, columns) else { return };
        if let Ok(compressed) = compression::compress(&bytes) {
            self.uncompressed_len = Some(bytes.len());
            self.values = compressed;
            self.headers = Vec::new();
        }
        self.values.shrink_to_fit();
    }

    fn decode(&self, shape: &Arc<Shape>, headers: &[u8], mut values: impl ValueReader) -> Option<Table> {
        let mut headers = Headers::new(self, headers);
        let mut table = Table::with_capacity(shape.clone(), self.count);
        for row in 0..self.count {
            let header = headers.next_header()?;
            values.read_row()?;
            let mut processes = Vec::with_capacity(header.processes.len());
            for index in header.processes {
                processes.push(self.processes.get(index)?.row(values.process(index)?));
            }
            table.boots.push(header.boot);
            table.seqs.push(header.seq);
            table.at_ms.push(header.at_ms);
            table.interval_ms.push(i64::from(header.interval_ms));
            table.processes.push(processes);
            table.errors.push(header.errors.to_vec());
            table.facts.extend(header.facts.map(|facts| (row, facts)));
        }
        table.columns = values.into_columns();
        Some(table)
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
    rows: Arc<Vec<Arc<ProcessIdentity>>>,
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

    /// Closes the open chunk and releases what only further rows need.
    pub fn close(&mut self) {
        if let Some(open) = std::mem::take(self).open {
            open.close();
        }
    }
}

impl OpenChunk {
    /// Chunk that begins with a row. It continues the processes of the chunk before, unless most of them ended.
    fn new(snapshot: &Snapshot, processes: ProcessTable) -> Self {
        let columns = snapshot.values.len();
        let is_current = processes.rows.len() <= 2 * snapshot.processes.len();
        let ProcessTable { rows, indices } = if is_current { processes } else { ProcessTable::default() };
        let previous = PreviousRow::start(columns, rows.len());
        let rows = Mutex::new(ChunkRows { processes: rows, ..ChunkRows::default() });
        Self {
            chunk: Arc::new(RowChunk { shape: snapshot.shape.clone(), columns, rows }),
            previous,
            process_indices: indices,
        }
    }

    /// Closes the chunk. Returns its processes for the next chunk.
    fn close(self) -> ProcessTable {
        let mut rows = self.chunk.lock();
        rows.close(self.chunk.columns);
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
        rows.count >= MAX_CHUNK_ROWS || rows.headers.len() + rows.values.len() >= MAX_CHUNK_BYTES
    }

    fn encode(&mut self, snapshot: &Snapshot) -> EncodedRow {
        let mut rows = self.chunk.lock();
        let before = rows.headers.len() + rows.values.len();
        let row_bytes = (rows.values.len() / rows.count.max(1)).max(MIN_ROW_BYTES);
        if rows.values.capacity() - rows.values.len() < row_bytes {
            rows.values.reserve_exact(2 * row_bytes);
        }
        let mut side_bytes = size_of::<EncodedRow>();
        side_bytes += self.previous.write_header(&mut rows, snapshot);
        self.previous.write_values(&mut rows, &snapshot.values);
        for process in &snapshot.processes {
            let (index, added_bytes) = process_index(&mut rows, &mut self.process_indices, process);
            self.previous.write_process(&mut rows, index, process);
            side_bytes += added_bytes;
        }
        rows.count += 1;
        let bytes = rows.headers.len() + rows.values.len() - before + side_bytes;
        EncodedRow {
            chunk: self.chunk.clone(),
            at_ms: snapshot.at_ms,
            index: u32::try_from(rows.count - 1).unwrap_or_default(),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
}

/// Index of a process in the chunk, which is added if it is new, and the size of what is added.
fn process_index(
    rows: &mut ChunkRows,
    indices: &mut HashMap<(u32, i64), usize>,
    process: &ProcessRow,
) -> (usize, usize) {
    let is_same = |index: &usize| {
        let other = &rows.processes[*index];
        other.name == process.name && other.user == process.user && other.command == process.command
    };
    let key = (process.pid, process.started_ms);
    if let Some(index) = indices.get(&key).copied().filter(is_same) {
        return (index, 0);
    }
    let ProcessRow { pid, started_ms, .. } = *process;
    let [name, user, command] = [&process.name, &process.user, &process.command].map(Arc::clone);
    // Texts count even if others share them: those may be snapshots of the same batch, which end soon.
    let text_bytes = |text: &Arc<str>| text.len() + 64;
    let mut added_bytes =
        size_of::<ProcessIdentity>() + [&name, &user, &command].map(text_bytes).iter().sum::<usize>();
    if Arc::strong_count(&rows.processes) > 1 {
        added_bytes += size_of_val(&rows.processes[..]);
    }
    let processes = Arc::make_mut(&mut rows.processes);
    processes.push(Arc::new(ProcessIdentity { pid, started_ms, name, user, command }));
    let index = processes.len() - 1;
    indices.insert(key, index);
    (index, added_bytes)
}
