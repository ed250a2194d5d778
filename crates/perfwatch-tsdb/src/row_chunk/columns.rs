//! Rows of a full chunk by column: values of a column resemble each other more than those of a row, so that they take
//! fewer bytes, and compress better.
//!
//! Layout: length and bytes of the headers, the columns, then the columns of each process that occurs.

use super::chunk::{ChunkRows, NO_VALUES, ProcessValues, ValueReader};
use super::rows::{Headers, RowValues};
use crate::bytes::{ByteReader, write_bytes};
use crate::column::{CompressionLevel, read_column, write_column};
use std::vec::IntoIter;

/// Number of values of a process.
const PROCESS_VALUES_LEN: usize = NO_VALUES.len();

/// Rewrites the rows of an open chunk.
pub(super) fn write(rows: &ChunkRows, columns: usize) -> Option<Vec<u8>> {
    let occurrences = Occurrences::read(rows, &rows.headers)?;
    let mut values = RowValues::new(rows, columns);
    let mut by_column = vec![0; columns * rows.count];
    let mut by_process = vec![0; occurrences.count * PROCESS_VALUES_LEN];
    // Position of the first value of each process in its next row.
    let start =
        |end: &mut usize, count: &usize| Some(std::mem::replace(end, *end + count * PROCESS_VALUES_LEN));
    let mut positions: Vec<usize> = occurrences.by_process.iter().scan(0, start).collect();
    for (row, processes) in occurrences.by_row.iter().enumerate() {
        let targets = by_column.iter_mut().skip(row).step_by(rows.count);
        targets.zip(values.next_row()?).for_each(|(target, value)| *target = *value);
        for &process in processes {
            let values = values.process(process)?;
            let position = positions.get_mut(process)?;
            let targets =
                by_process.iter_mut().skip(*position).step_by(*occurrences.by_process.get(process)?);
            targets.zip(values).for_each(|(target, value)| *target = value);
            *position += 1;
        }
    }
    let mut bytes = Vec::with_capacity(rows.headers.len() + rows.values.len());
    write_bytes(&mut bytes, &rows.headers);
    by_column
        .chunks(rows.count.max(1))
        .for_each(|column| write_column(&mut bytes, column, CompressionLevel::Fast));
    let mut remaining = by_process.as_slice();
    for &count in occurrences.by_process.iter().filter(|count| **count > 0) {
        let (process, others) = remaining.split_at(count * PROCESS_VALUES_LEN);
        process.chunks(count).for_each(|column| write_column(&mut bytes, column, CompressionLevel::Fast));
        remaining = others;
    }
    Some(bytes)
}

/// Processes of the rows of a chunk.
struct Occurrences {
    /// Processes of each row, by their index in the chunk.
    by_row: Vec<Vec<usize>>,
    /// Number of rows of each process.
    by_process: Vec<usize>,
    /// Number of rows of all processes.
    count: usize,
}

impl Occurrences {
    /// Reads them from the headers; `None` if no encoder wrote those.
    fn read(rows: &ChunkRows, headers: &[u8]) -> Option<Self> {
        let mut headers = Headers::new(rows, headers);
        let by_row: Vec<Vec<usize>> =
            (0..rows.count).map(|_| Some(headers.next_header()?.processes)).collect::<Option<_>>()?;
        let mut by_process = vec![0; rows.processes.len()];
        for &process in by_row.iter().flatten() {
            *by_process.get_mut(process)? += 1;
        }
        let count = by_process.iter().sum();
        Some(Self { by_row, by_process, count })
    }
}

/// Reads what [`write`] has written: the headers, and the values.
pub(super) fn read<'a>(
    rows: &ChunkRows,
    bytes: &'a [u8],
    columns: usize,
) -> Option<(&'a [u8], ColumnValues)> {
    let mut reader = ByteReader(bytes);
    let header_bytes = reader.bytes().ok()?;
    let occurrences = Occurrences::read(rows, header_bytes)?.by_process;
    let mut by_column = Vec::with_capacity(columns);
    for _ in 0..columns {
        by_column.push(read_column(&mut reader, rows.count).ok()?);
    }
    let mut processes: Vec<[IntoIter<i64>; PROCESS_VALUES_LEN]> = vec![Default::default(); occurrences.len()];
    for (process, count) in processes.iter_mut().zip(occurrences).filter(|(_, count)| *count > 0) {
        for values in process {
            *values = read_column(&mut reader, count).ok()?.into_iter();
        }
    }
    Some((header_bytes, ColumnValues { columns: by_column, processes }))
}

/// Values of a full chunk.
pub(super) struct ColumnValues {
    columns: Vec<Vec<i64>>,
    processes: Vec<[IntoIter<i64>; PROCESS_VALUES_LEN]>,
}

impl ValueReader for ColumnValues {
    fn read_row(&mut self) -> Option<()> {
        // All rows are read already.
        Some(())
    }

    fn process(&mut self, index: usize) -> Option<ProcessValues> {
        let mut values = ProcessValues::default();
        for (value, column) in values.iter_mut().zip(self.processes.get_mut(index)?) {
            *value = column.next()?;
        }
        Some(values)
    }

    fn into_columns(self) -> Vec<Vec<i64>> {
        self.columns
    }
}
