//! Bit-packing: within chunks, each value is its distance from the chunk's least, in as few
//! bits as the largest distance needs. What all values share as a divisor is taken out first
//! (memory comes in pages).

use crate::bytes::{ByteReader, FormatError, Result, write_varint, write_zigzag};

/// Values that share a width: few enough that one spike widens only its surroundings.
const CHUNK_VALUES: usize = 32;

/// Differences of neighbours; one fewer than values.
pub(super) fn delta_encode(values: &[i64]) -> Vec<i64> {
    values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

/// Puts `first` before the deltas and sums them up.
pub(super) fn delta_decode(first: i64, deltas: &mut Vec<i64>) {
    let mut value = first;
    for delta in deltas.iter_mut() {
        value = value.wrapping_add(*delta);
        *delta = value;
    }
    deltas.insert(0, first);
}

fn divisor(values: &[i64], base: i64) -> u64 {
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
    // Steps must fit into an i64 again.
    if i64::try_from(common).is_ok() { common.max(1) } else { 1 }
}

/// Divisor, first value, then each chunk: width, least, distances.
pub(super) fn encode(values: &[i64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len());
    let Some(&base) = values.first() else {
        return out;
    };
    let divisor = divisor(values, base);
    write_varint(&mut out, divisor);
    write_zigzag(&mut out, base);
    let steps: Vec<i64> = match i64::try_from(divisor) {
        // The common case has no division.
        Ok(1) | Err(_) => values.iter().map(|value| value.wrapping_sub(base)).collect(),
        Ok(divisor) => values.iter().map(|value| value.wrapping_sub(base) / divisor).collect(),
    };
    let mut before = 0i64;
    for chunk in steps.chunks(CHUNK_VALUES) {
        let least = chunk.iter().copied().min().unwrap_or_default();
        let reach = chunk.iter().map(|value| distance(*value, least)).max().unwrap_or_default();
        let width = u8::try_from(64 - reach.leading_zeros()).unwrap_or(64);
        out.push(width);
        write_zigzag(&mut out, least.wrapping_sub(before));
        before = least;
        pack(&mut out, chunk, least, u32::from(width));
    }
    out
}

fn distance(value: i64, least: i64) -> u64 {
    value.wrapping_sub(least).cast_unsigned()
}

fn pack(out: &mut Vec<u8>, chunk: &[i64], least: i64, width: u32) {
    if width == 0 {
        return;
    }
    let (mut bits, mut filled) = (0u128, 0);
    for &value in chunk {
        bits |= u128::from(distance(value, least)) << filled;
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
    let mut least = 0i64;
    while values.len() < rows {
        let count = CHUNK_VALUES.min(rows - values.len());
        let width = u32::from(reader.byte()?);
        if width > 64 {
            return Err(FormatError::Invalid("more than 64 bits a value"));
        }
        least = least.wrapping_add(reader.int()?);
        let packed = reader.read_exact((count * width as usize).div_ceil(8))?;
        unpack(&mut values, packed, count, width, |distance| {
            let step = least.wrapping_add(distance.cast_signed());
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
        #[expect(clippy::cast_possible_truncation, reason = "masked to 64 bits at most")]
        values.push(value((bits as u64) & mask));
        bits >>= width;
        filled -= width;
    }
}
