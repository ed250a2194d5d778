//! Contents of a chunk, open or full.

use crate::process_values::{PROCESS_ROW_LEN, with_values};
use perfwatch_model::{BootId, CollectorError, HostFacts, MISSING, ProcessRow};
use std::sync::Arc;

/// Changing values of a process, and its parent.
pub(super) type ProcessValues = [i64; PROCESS_ROW_LEN + 1];
/// Values of a process before its first row.
pub(super) const NO_VALUES: ProcessValues = [MISSING; PROCESS_ROW_LEN + 1];

/// Parts of a process that do not change during its lifetime.
#[derive(Debug)]
pub(super) struct ProcessIdentity {
    pub(super) pid: u32,
    /// Start time of the process, milliseconds since 1970.
    pub(super) started_ms: i64,
    pub(super) name: Arc<str>,
    pub(super) user: Arc<str>,
    pub(super) command: Arc<str>,
}

impl ProcessIdentity {
    /// Process with the values of a row.
    pub(super) fn row(&self, [values @ .., parent_pid]: ProcessValues) -> ProcessRow {
        let [name, user, command] = [&self.name, &self.user, &self.command].map(Arc::clone);
        let Self { pid, started_ms, .. } = *self;
        let parent_pid = u32::try_from(parent_pid).ok();
        let identity =
            ProcessRow { pid, started_ms, name, user, command, parent_pid, ..ProcessRow::default() };
        with_values(identity, values)
    }
}

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
    /// Processes in the order of their first row. Shared with the next chunk.
    pub(super) processes: Arc<Vec<Arc<ProcessIdentity>>>,
    /// Lists of errors in the order of their first row.
    pub(super) errors: Vec<Arc<[CollectorError]>>,
    pub(super) facts: Vec<Arc<HostFacts>>,
}

/// Values of rows, read in the order of the rows. `None` where the bytes end, which no encoder writes.
pub(super) trait ValueReader {
    /// Reads the columns of the next row.
    fn read_row(&mut self) -> Option<()>;

    /// Values of the next occurrence of a process.
    fn process(&mut self, index: usize) -> Option<ProcessValues>;

    /// Values of the rows that were read, by column.
    fn into_columns(self) -> Vec<Vec<i64>>;
}
