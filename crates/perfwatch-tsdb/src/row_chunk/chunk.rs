//! Contents of a chunk, open or full.

use crate::process_values::PROCESS_ROW_LEN;
use perfwatch_model::{BootId, CollectorError, HostFacts, MISSING, ProcessRow};
use std::sync::Arc;

/// Changing values of a process, and its parent.
pub(super) type ProcessValues = [i64; PROCESS_ROW_LEN + 1];
/// Values of a process before its first row.
pub(super) const NO_VALUES: ProcessValues = [MISSING; PROCESS_ROW_LEN + 1];

/// Rows of a chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkRows {
    pub(super) count: usize,
    /// What each row has once, and its processes by their index.
    pub(super) headers: Vec<u8>,
    /// Values by row, while the chunk is open; then headers and values by column, compressed.
    pub(super) values: Vec<u8>,
    /// Size before the compression, if the chunk is full.
    pub(super) uncompressed_len: Option<usize>,
    /// Boots in the order of their first row.
    pub(super) boots: Vec<BootId>,
    /// Processes in the order of their first row; only the parts that never change. Shared with the next chunk.
    pub(super) processes: Arc<Vec<ProcessRow>>,
    /// Lists of errors in the order of their first row.
    pub(super) errors: Vec<Arc<[CollectorError]>>,
    pub(super) facts: Vec<Arc<HostFacts>>,
}

/// Values of rows, read in the order of the rows. `None` where the bytes end, which no encoder writes.
pub(super) trait ValueReader {
    /// Values of the columns of the next row.
    fn row(&mut self) -> Option<Vec<i64>>;

    /// Values of the next occurrence of a process.
    fn process(&mut self, index: usize) -> Option<ProcessValues>;
}
