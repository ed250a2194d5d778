//! Rows of a full chunk by column: values of a column resemble each other more than those of a row, so that they take
//! fewer bytes, and compress better.
//!
//! Layout: length and bytes of the headers, the columns, then the columns of each process that occurs.

use super::chunk::{ChunkRows, NO_VALUES, ProcessValues, ValueReader};
use super::rows::{Headers, RowValues, read_value, value_len, write_value};
use crate::bytes::{ByteReader, varint_len, write_bytes, write_varint, write_zigzag};
use perfwatch_model::MISSING;
use std::vec::IntoIter;

/// All values are equal.
const KIND_CONSTANT: u64 = 0;
/// Each value as its difference from the value before: counters, and values that seldom change.
const KIND_DIFFERENCES: u64 = 1;
/// Each value as its distance from the smallest: values that vary around a mean.
const KIND_DISTANCES: u64 = 2;

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
    by_column.chunks(rows.count.max(1)).for_each(|column| write_column(&mut bytes, column));
    let mut remaining = by_process.as_slice();
    for &count in occurrences.by_process.iter().filter(|count| **count > 0) {
        let (process, others) = remaining.split_at(count * PROCESS_VALUES_LEN);
        process.chunks(count).for_each(|column| write_column(&mut bytes, column));
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
    let mut column = |count: usize| Some(read_column(&mut reader, count)?.into_iter());
    let columns = (0..columns).map(|_| column(rows.count)).collect::<Option<_>>()?;
    let mut processes: Vec<[IntoIter<i64>; PROCESS_VALUES_LEN]> = vec![Default::default(); occurrences.len()];
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
    processes: Vec<[IntoIter<i64>; PROCESS_VALUES_LEN]>,
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

fn write_column(bytes: &mut Vec<u8>, values: &[i64]) {
    let first = values.first().copied().unwrap_or_default();
    if values.iter().all(|value| *value == first) {
        write_varint(bytes, KIND_CONSTANT);
        write_zigzag(bytes, first);
        return;
    }
    let before = || std::iter::once(MISSING).chain(values.iter().copied());
    let differences_len: u32 = before().zip(values).map(|(before, &value)| value_len(before, value)).sum();
    let smallest = values.iter().copied().filter(|value| *value != MISSING).min().unwrap_or_default();
    let distances = || values.iter().map(|value| distance_code(*value, smallest));
    let distances_len = distances().try_fold(0, |length, code| Some(length + varint_len(code?)));
    // A first difference is as long as the smallest value.
    if distances_len.is_some_and(|length| length < differences_len) {
        write_varint(bytes, KIND_DISTANCES);
        write_zigzag(bytes, smallest);
        distances().flatten().for_each(|code| write_varint(bytes, code));
    } else {
        write_varint(bytes, KIND_DIFFERENCES);
        before().zip(values).for_each(|(before, &value)| write_value(bytes, before, value));
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
