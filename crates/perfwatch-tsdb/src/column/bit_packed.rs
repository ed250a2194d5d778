//! Bit-packed encoding. Each chunk stores the distances of its values from the chunk's minimum, in
//! as few bits as the largest distance needs. The values are divided by their greatest common
//! divisor first (memory sizes are multiples of the page size).

use crate::bytes::{ByteReader, FormatError, Result, write_varint, write_zigzag};

/// Number of values that share a bit width. Small, so that a spike widens few other values.
const CHUNK_LEN: usize = 32;

/// Differences between neighboring values; one element fewer than `values`.
pub(super) fn delta_encode(values: &[i64]) -> Vec<i64> {
    values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

/// Reverses [`delta_encode`] in place: prepends `first` and accumulates the deltas.
pub(super) fn delta_decode(first: i64, deltas: &mut Vec<i64>) {
    let mut value = first;
    for delta in deltas.iter_mut() {
        value = value.wrapping_add(*delta);
        *delta = value;
    }
    deltas.insert(0, first);
}

/// Greatest common divisor of the distances from `base`; 1 if it does not fit into `i64`.
fn common_divisor(values: &[i64], base: i64) -> u64 {
    let mut common = 0u64;
    for value in values {
        let (mut a, mut b) = (value.wrapping_sub(base).unsigned_abs(), common);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        common = a;
        if common == 1 {
            break;
        }
    }
    // The decoder multiplies steps by the divisor as i64.
    if i64::try_from(common).is_ok() { common.max(1) } else { 1 }
}

/// Encodes the divisor and the first value, then per chunk: bit width, minimum, distances.
pub(super) fn encode(values: &[i64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len());
    let Some(&base) = values.first() else {
        return out;
    };
    let divisor = common_divisor(values, base);
    write_varint(&mut out, divisor);
    write_zigzag(&mut out, base);
    let steps: Vec<i64> = match i64::try_from(divisor) {
        // Most columns have divisor 1 and need no division.
        Ok(1) | Err(_) => values.iter().map(|value| value.wrapping_sub(base)).collect(),
        Ok(divisor) => values.iter().map(|value| value.wrapping_sub(base) / divisor).collect(),
    };
    let mut previous = 0i64;
    for chunk in steps.chunks(CHUNK_LEN) {
        let min = chunk.iter().copied().min().unwrap_or_default();
        let max_distance = chunk.iter().map(|value| distance(*value, min)).max().unwrap_or_default();
        let width = u8::try_from(64 - max_distance.leading_zeros()).unwrap_or(64);
        out.push(width);
        write_zigzag(&mut out, min.wrapping_sub(previous));
        previous = min;
        pack(&mut out, chunk, min, u32::from(width));
    }
    out
}

fn distance(value: i64, min: i64) -> u64 {
    value.wrapping_sub(min).cast_unsigned()
}

fn pack(out: &mut Vec<u8>, chunk: &[i64], min: i64, width: u32) {
    if width == 0 {
        return;
    }
    let (mut bits, mut filled) = (0u128, 0);
    for &value in chunk {
        bits |= u128::from(distance(value, min)) << filled;
        filled += width;
        while filled >= 8 {
            out.push((bits & 0xff) as u8);
            bits >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push((bits & 0xff) as u8);
    }
}

pub(super) fn decode(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<i64>> {
    let mut values = Vec::with_capacity(rows);
    if rows == 0 {
        return Ok(values);
    }
    let divisor = reader.uint()?.cast_signed();
    let base = reader.int()?;
    let mut min = 0i64;
    while values.len() < rows {
        let count = CHUNK_LEN.min(rows - values.len());
        let width = u32::from(reader.byte()?);
        if width > 64 {
            return Err(FormatError::Invalid("bit width exceeds 64"));
        }
        min = min.wrapping_add(reader.int()?);
        let packed = reader.read_exact((count * width as usize).div_ceil(8))?;
        unpack(&mut values, packed, count, width, |distance| {
            let step = min.wrapping_add(distance.cast_signed());
            base.wrapping_add(step.wrapping_mul(divisor))
        });
    }
    Ok(values)
}

fn unpack(values: &mut Vec<i64>, packed: &[u8], count: usize, width: u32, value: impl Fn(u64) -> i64) {
    if width == 0 {
        values.resize(values.len() + count, value(0));
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let (mut bits, mut filled) = (0u128, 0);
    let mut bytes = packed.iter();
    for _ in 0..count {
        while filled < width {
            bits |= u128::from(bytes.next().copied().unwrap_or_default()) << filled;
            filled += 8;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the mask keeps at most 64 bits")]
        values.push(value((bits as u64) & mask));
        bits >>= width;
        filled -= width;
    }
}
