//! Decoded rows in columns: a table of each chunk, so that a block is built without a snapshot of each row.

use super::{EncodedRow, RowChunk};
use crate::projection::{Projection, Projector};
use crate::table::Table;
use perfwatch_model::{BootId, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows of a host, each chunk decoded once.
#[derive(Debug)]
pub struct DecodedRows {
    /// Rows of each chunk, also those that were not asked for.
    tables: Vec<Table>,
    /// Table of each row, and its index there.
    positions: Vec<(usize, usize)>,
}

/// Identity and times of a row.
#[derive(Debug, Clone, Copy)]
pub struct RowKey {
    /// Boot of the host during the row.
    pub boot: BootId,
    /// Sequence number within the boot.
    pub seq: u64,
    /// Collection time, in milliseconds since 1970.
    pub at_ms: i64,
    /// Collection interval, in milliseconds.
    pub interval_ms: i64,
}

impl DecodedRows {
    /// Decodes rows.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a EncodedRow>) -> Self {
        Self::decode(rows, |table| table)
    }

    /// Decodes the selected columns and parts of rows.
    pub fn projected<'a>(
        rows: impl IntoIterator<Item = &'a EncodedRow>,
        projection: &Projection,
        projector: &mut Projector<'_>,
    ) -> Self {
        Self::decode(rows, |table| table.project(projection, projector))
    }

    fn decode<'a>(
        rows: impl IntoIterator<Item = &'a EncodedRow>,
        mut reduce: impl FnMut(Table) -> Table,
    ) -> Self {
        let mut indices: HashMap<*const RowChunk, usize> = HashMap::new();
        let (mut tables, mut positions) = (Vec::new(), Vec::new());
        for row in rows {
            let index = *indices.entry(Arc::as_ptr(&row.chunk)).or_insert_with(|| {
                tables.push(reduce(row.chunk.decode()));
                tables.len() - 1
            });
            // Only bytes that no encoder writes cannot be decoded.
            if (row.index as usize) < tables[index].len() {
                positions.push((index, row.index as usize));
            }
        }
        Self { tables, positions }
    }

    /// Identity and times of each row, in the order of the rows.
    pub fn keys(&self) -> impl Iterator<Item = RowKey> {
        self.positions.iter().map(|&(table, row)| {
            let table = &self.tables[table];
            let (at_ms, interval_ms) = (table.at_ms[row], table.interval_ms[row]);
            RowKey { boot: table.boots[row], seq: table.seqs[row], at_ms, interval_ms }
        })
    }

    /// Removes the rows whose time is selected. Returns them as [`Table::merge`] does.
    pub fn take_tables(&mut self, is_selected: impl Fn(i64) -> bool) -> Vec<Table> {
        let (taken, remaining) = std::mem::take(&mut self.positions)
            .into_iter()
            .partition(|&(table, row)| is_selected(self.tables[table].at_ms[row]));
        self.positions = remaining;
        Table::merge_rows(&mut self.tables, taken)
    }
}

/// Decodes rows to snapshots, in their order. A table takes several times more memory than the snapshots of its rows
/// if it has few, so there is only one at a time.
pub fn decode_rows<'a>(rows: impl IntoIterator<Item = &'a EncodedRow>) -> Vec<Arc<Snapshot>> {
    let mut chunks: HashMap<*const RowChunk, Vec<Arc<Snapshot>>> = HashMap::new();
    let decode = |row: &EncodedRow| {
        let snapshots =
            chunks.entry(Arc::as_ptr(&row.chunk)).or_insert_with(|| row.chunk.decode().into_snapshots());
        snapshots.get(row.index as usize).cloned()
    };
    rows.into_iter().filter_map(decode).collect()
}
