//! Bit-packed encoding. Each chunk stores the distances of its values from the chunk's minimum, in
//! as few bits as the largest distance needs. The values are divided by their greatest common
//! divisor first (memory sizes are multiples of the page size).

use crate::bytes::{ByteReader, FormatError, Result, varint_len, write_varint, write_zigzag, zigzag};

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

/// Encoding of values, before they are packed.
pub(super) struct Plan<'a> {
    values: &'a [i64],
    divisor: u64,
    /// Size of the encoded values in bytes.
    pub(super) len: usize,
}

/// Steps from the first value to the values of a chunk, divided by the common divisor.
struct ChunkSteps {
    min: i64,
    /// Bits of the largest distance from the minimum.
    width: u32,
}

impl<'a> Plan<'a> {
    /// Plans the encoding of values.
    pub(super) fn new(values: &'a [i64]) -> Self {
        let Some(&base) = values.first() else { return Self { values, divisor: 1, len: 0 } };
        let mut plan = Self { values, divisor: common_divisor(values, base), len: 0 };
        let mut len = varint_len(plan.divisor) + varint_len(zigzag(base));
        let mut previous = 0i64;
        for chunk in values.chunks(CHUNK_LEN) {
            let ChunkSteps { min, width } = plan.chunk_steps(chunk, base);
            len += 1 + varint_len(zigzag(min.wrapping_sub(previous)));
            previous = min;
            plan.len += (chunk.len() * width as usize).div_ceil(8);
        }
        plan.len += len as usize;
        plan
    }

    fn chunk_steps(&self, chunk: &[i64], base: i64) -> ChunkSteps {
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for value in chunk {
            let step = value.wrapping_sub(base);
            (min, max) = (min.min(step), max.max(step));
        }
        let (min, max) = (self.divide(min), self.divide(max));
        ChunkSteps { min, width: u64::BITS - distance(max, min).leading_zeros() }
    }

    fn divide(&self, step: i64) -> i64 {
        match self.divisor.cast_signed() {
            // Most columns need no division.
            1 => step,
            divisor => step / divisor,
        }
    }

    /// Appends the divisor and the first value, then per chunk: bit width, minimum, distances.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Some(&base) = self.values.first() else { return };
        out.reserve(self.len);
        write_varint(out, self.divisor);
        write_zigzag(out, base);
        let mut previous = 0i64;
        for chunk in self.values.chunks(CHUNK_LEN) {
            let ChunkSteps { min, width } = self.chunk_steps(chunk, base);
            out.push(u8::try_from(width).unwrap_or(64));
            write_zigzag(out, min.wrapping_sub(previous));
            previous = min;
            let distances = chunk.iter().map(|value| distance(self.divide(value.wrapping_sub(base)), min));
            pack(out, distances, width);
        }
    }
}

fn distance(value: i64, min: i64) -> u64 {
    value.wrapping_sub(min).cast_unsigned()
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest 64 bits are appended")]
fn pack(out: &mut Vec<u8>, distances: impl Iterator<Item = u64>, width: u32) {
    if width == 0 {
        return;
    }
    let (mut bits, mut filled) = (0u128, 0);
    for distance in distances {
        bits |= u128::from(distance) << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&(bits as u64).to_le_bytes());
            bits >>= u64::BITS;
            filled -= u64::BITS;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..filled.div_ceil(8) as usize]);
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
    let mut words = packed.chunks(8).map(|bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    });
    for _ in 0..count {
        if filled < width {
            bits |= u128::from(words.next().unwrap_or_default()) << filled;
            filled += u64::BITS;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the mask keeps at most 64 bits")]
        values.push(value((bits as u64) & mask));
        bits >>= width;
        filled -= width;
    }
}
