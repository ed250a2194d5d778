//! Rows of a full chunk by column: values of a column resemble each other more than those of a row, so that they take
//! fewer bytes, and compress better.
//!
//! Layout: length and bytes of the headers, the columns, then the columns of each process that occurs.

use super::chunk::{ChunkRows, ProcessValues, ValueReader};
use super::rows::{Headers, RowValues, read_value, write_value};
use crate::bytes::{ByteReader, write_bytes, write_varint, write_zigzag};
use crate::process_values::PROCESS_ROW_LEN;
use perfwatch_model::MISSING;
use std::vec::IntoIter;

/// All values are equal.
const KIND_CONSTANT: u64 = 0;
/// Each value as its difference from the value before: counters, and values that seldom change.
const KIND_DIFFERENCES: u64 = 1;
/// Each value as its distance from the smallest: values that vary around a mean.
const KIND_DISTANCES: u64 = 2;

/// Something for each value of a process.
type ProcessColumns<T> = [T; PROCESS_ROW_LEN + 1];

/// Rewrites the rows of an open chunk.
pub(super) fn write(rows: &ChunkRows, columns: usize) -> Option<Vec<u8>> {
    let mut values = RowValues::new(rows, columns);
    let mut by_column: Vec<Vec<i64>> = vec![Vec::with_capacity(rows.count); columns];
    let mut by_process: Vec<ProcessColumns<Vec<i64>>> = vec![Default::default(); rows.processes.len()];
    let mut headers = Headers::new(rows, &rows.headers);
    for _ in 0..rows.count {
        let row = values.row()?;
        by_column.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        for index in headers.next_header()?.processes {
            let values = values.process(index)?;
            by_process.get_mut(index)?.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
    }
    let mut bytes = Vec::with_capacity(rows.headers.len() + rows.values.len());
    write_bytes(&mut bytes, &rows.headers);
    let occurring = by_process.iter().filter(|columns| !columns[0].is_empty());
    by_column.iter().chain(occurring.flatten()).for_each(|column| write_column(&mut bytes, column));
    Some(bytes)
}

/// Reads what [`write`] has written: the headers, and the values.
pub(super) fn read<'a>(
    rows: &ChunkRows,
    bytes: &'a [u8],
    columns: usize,
) -> Option<(&'a [u8], ColumnValues)> {
    let mut reader = ByteReader(bytes);
    let header_bytes = reader.bytes().ok()?;
    let mut headers = Headers::new(rows, header_bytes);
    let mut occurrences = vec![0; rows.processes.len()];
    for _ in 0..rows.count {
        for index in headers.next_header()?.processes {
            *occurrences.get_mut(index)? += 1;
        }
    }
    let mut column = |count: usize| Some(read_column(&mut reader, count)?.into_iter());
    let columns = (0..columns).map(|_| column(rows.count)).collect::<Option<_>>()?;
    let mut processes: Vec<ProcessColumns<IntoIter<i64>>> = vec![Default::default(); occurrences.len()];
    for (process, count) in processes.iter_mut().zip(occurrences).filter(|(_, count)| *count > 0) {
        for values in process {
            *values = column(count)?;
        }
    }
    Some((header_bytes, ColumnValues { columns, processes }))
}

/// Values of a full chunk.
pub(super) struct ColumnValues {
    columns: Vec<IntoIter<i64>>,
    processes: Vec<ProcessColumns<IntoIter<i64>>>,
}

impl ValueReader for ColumnValues {
    fn row(&mut self) -> Option<Vec<i64>> {
        self.columns.iter_mut().map(Iterator::next).collect()
    }

    fn process(&mut self, index: usize) -> Option<ProcessValues> {
        let mut values = ProcessValues::default();
        for (value, column) in values.iter_mut().zip(self.processes.get_mut(index)?) {
            *value = column.next()?;
        }
        Some(values)
    }
}

/// Code of a value as a distance; `None` if there is none.
fn distance_code(value: i64, smallest: i64) -> Option<u64> {
    match value {
        MISSING => Some(0),
        value => value.wrapping_sub(smallest).cast_unsigned().checked_add(1),
    }
}

/// Number of bytes of a varint.
fn varint_len(value: u64) -> u32 {
    (64 - (value | 1).leading_zeros()).div_ceil(7)
}

fn write_column(bytes: &mut Vec<u8>, values: &[i64]) {
    let first = values.first().copied().unwrap_or_default();
    if values.iter().all(|value| *value == first) {
        write_varint(bytes, KIND_CONSTANT);
        write_zigzag(bytes, first);
        return;
    }
    let start = bytes.len();
    write_varint(bytes, KIND_DIFFERENCES);
    let mut before = MISSING;
    for &value in values {
        write_value(bytes, before, value);
        before = value;
    }
    let smallest = values.iter().copied().filter(|value| *value != MISSING).min().unwrap_or_default();
    let distances: Option<Vec<u64>> = values.iter().map(|value| distance_code(*value, smallest)).collect();
    let Some(distances) = distances else { return };
    let length: u32 = distances.iter().map(|code| varint_len(*code)).sum();
    // A first difference is as long as the smallest value.
    if (length as usize) < bytes.len() - start - 1 {
        bytes.truncate(start);
        write_varint(bytes, KIND_DISTANCES);
        write_zigzag(bytes, smallest);
        distances.into_iter().for_each(|code| write_varint(bytes, code));
    }
}

fn read_column(reader: &mut ByteReader<'_>, count: usize) -> Option<Vec<i64>> {
    match reader.uint().ok()? {
        KIND_CONSTANT => Some(vec![reader.int().ok()?; count]),
        KIND_DIFFERENCES => {
            let mut before = MISSING;
            let mut value = || {
                before = read_value(reader, before)?;
                Some(before)
            };
            (0..count).map(|_| value()).collect()
        }
        KIND_DISTANCES => {
            let smallest = reader.int().ok()?;
            let value = |code: u64| match code.checked_sub(1) {
                None => MISSING,
                Some(distance) => smallest.wrapping_add(distance.cast_signed()),
            };
            (0..count).map(|_| reader.uint().ok().map(value)).collect()
        }
        _ => None,
    }
}
