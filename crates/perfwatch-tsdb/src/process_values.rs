//! Values of a process that change during its lifetime, as integers of columns.

use perfwatch_model::{MISSING, ProcessRow};

/// Number of values.
pub(crate) const PROCESS_ROW_LEN: usize = 7;

/// Values of a process, in storage order.
pub(crate) fn process_values(row: &ProcessRow) -> [i64; PROCESS_ROW_LEN] {
    let to_i64 = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let optional = |value: Option<u64>| value.map_or(MISSING, to_i64);
    [
        i64::from(row.cpu_tenths),
        to_i64(row.memory_bytes),
        i64::from(row.threads),
        optional(row.open_files.map(u64::from)),
        optional(row.read_bytes),
        optional(row.write_bytes),
        i64::from(u32::from(row.state)),
    ]
}

/// Adds values to the parts of a process that do not change.
pub(crate) fn with_values(identity: ProcessRow, values: [i64; PROCESS_ROW_LEN]) -> ProcessRow {
    let [cpu_tenths, memory_bytes, threads, open_files, read_bytes, write_bytes, state] = values;
    let number = |value: i64| u32::try_from(value).unwrap_or_default();
    let optional = |value: i64| u64::try_from(value).ok();
    ProcessRow {
        state: char::from_u32(number(state)).unwrap_or('?'),
        cpu_tenths: number(cpu_tenths),
        memory_bytes: optional(memory_bytes).unwrap_or_default(),
        threads: number(threads),
        open_files: optional(open_files).and_then(|count| u32::try_from(count).ok()),
        read_bytes: optional(read_bytes),
        write_bytes: optional(write_bytes),
        ..identity
    }
}
