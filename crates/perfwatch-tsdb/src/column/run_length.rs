//! Run-length encoding: presence of rows, and values that repeat.

use crate::bytes::{ByteReader, FormatError, Result, varint_len, write_varint, write_zigzag, zigzag};

/// Appends the number of runs, then the lengths of alternating runs of present and missing rows. The
/// first run is present and may be empty.
pub(crate) fn write_presence(out: &mut Vec<u8>, present: impl Iterator<Item = bool>) {
    let mut lengths = vec![0u64];
    let mut current = true;
    for is_present in present {
        if is_present != current {
            current = is_present;
            lengths.push(0);
        }
        if let Some(last) = lengths.last_mut() {
            *last += 1;
        }
    }
    write_varint(out, lengths.len() as u64);
    lengths.iter().for_each(|&length| write_varint(out, length));
}

/// Reads the ranges of present rows, as start and exclusive end.
///
/// # Errors
/// Returns [`FormatError::Invalid`] if the lengths of the runs do not add up to `rows`.
pub(crate) fn read_presence(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<(usize, usize)>> {
    let count = reader.read_len(rows + 1)?;
    let mut ranges = Vec::new();
    let mut from = 0;
    for run in 0..count {
        let to = from + reader.read_len(rows - from)?;
        if run % 2 == 0 && to > from {
            ranges.push((from, to));
        }
        from = to;
    }
    if from == rows { Ok(ranges) } else { Err(FormatError::Invalid("runs are shorter than the rows")) }
}

/// Size of the encoded runs in bytes; `None` if it is not less than `max`.
pub(super) fn encoded_len(values: &[i64], max: usize) -> Option<usize> {
    let (mut len, mut previous) = (0, 0i64);
    for run in values.chunk_by(|a, b| a == b) {
        len += varint_len(run.len() as u64) + varint_len(zigzag(run[0].wrapping_sub(previous)));
        previous = run[0];
        if len as usize >= max {
            return None;
        }
    }
    Some(len as usize)
}

/// Appends length and difference of each run.
pub(super) fn encode(out: &mut Vec<u8>, values: &[i64]) {
    let mut previous = 0i64;
    for run in values.chunk_by(|a, b| a == b) {
        write_varint(out, run.len() as u64);
        write_zigzag(out, run[0].wrapping_sub(previous));
        previous = run[0];
    }
}

pub(super) fn decode(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<i64>> {
    let mut values = Vec::with_capacity(rows);
    let mut value = 0i64;
    while values.len() < rows {
        let length = reader.read_len(rows - values.len())?;
        if length == 0 {
            return Err(FormatError::Invalid("empty run"));
        }
        value = value.wrapping_add(reader.int()?);
        values.resize(values.len() + length, value);
    }
    Ok(values)
}
