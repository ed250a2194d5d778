//! Runs: which rows are present, and values that stay for a while.

use crate::bytes::{ByteReader, FormatError, Result, write_varint, write_zigzag};

/// Appends the lengths of alternating runs of present and missing, beginning with present,
/// after their number.
pub(crate) fn put_presence(out: &mut Vec<u8>, present: impl Iterator<Item = bool>) {
    let mut lengths = vec![0u64];
    let mut now = true;
    for is in present {
        if is != now {
            now = is;
            lengths.push(0);
        }
        if let Some(last) = lengths.last_mut() {
            *last += 1;
        }
    }
    write_varint(out, lengths.len() as u64);
    lengths.iter().for_each(|&length| write_varint(out, length));
}

/// The stretches of present rows, from and to, of `rows`.
///
/// # Errors
/// Runs that are not as long as `rows` together.
pub(crate) fn read_presence(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<(usize, usize)>> {
    let count = reader.read_len(rows + 1)?;
    let mut stretches = Vec::new();
    let mut at = 0;
    for run in 0..count {
        let to = at + reader.read_len(rows - at)?;
        if run % 2 == 0 && to > at {
            stretches.push((at, to));
        }
        at = to;
    }
    if at == rows { Ok(stretches) } else { Err(FormatError::Invalid("runs end before the rows do")) }
}

/// Length and change of each run; none if there are too many to be worth it.
pub(super) fn encode(values: &[i64]) -> Option<Vec<u8>> {
    let runs = values.chunk_by(|a, b| a == b);
    let mut out = Vec::new();
    let mut before = 0i64;
    for run in runs {
        write_varint(&mut out, run.len() as u64);
        write_zigzag(&mut out, run[0].wrapping_sub(before));
        before = run[0];
        if out.len() > values.len() * 2 {
            return None;
        }
    }
    Some(out)
}

pub(super) fn decode(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<i64>> {
    let mut values = Vec::with_capacity(rows);
    let mut value = 0i64;
    while values.len() < rows {
        let length = reader.read_len(rows - values.len())?;
        if length == 0 {
            return Err(FormatError::Invalid("an empty run"));
        }
        value = value.wrapping_add(reader.int()?);
        values.resize(values.len() + length, value);
    }
    Ok(values)
}
