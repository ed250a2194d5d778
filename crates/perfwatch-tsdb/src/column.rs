//! Column codec: one column of scaled integers to bytes and back. Columns are encoded independently,
//! so a query decodes only the columns that it needs. The encoder tries several encodings and uses
//! the smallest result.
//!
//! An encoded column is a kind and a body. If values are missing, the body starts with the runs of
//! present and missing rows, and only present values are encoded. `docs/BLOCK-FORMAT.md` specifies
//! the layout.

mod bit_packed;
pub(crate) mod run_length;

use crate::bytes::{ByteReader, FormatError, Result, varint_len, write_varint, write_zigzag, zigzag};
use perfwatch_model::MISSING;

/// Trade-off between encoding time and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionLevel {
    /// Fast encodings only, for blocks that are merged within the hour.
    Fast,
    /// All encodings, for blocks that are retained.
    Best,
}

/// All values are missing; the body is empty.
pub(crate) const KIND_EMPTY: u8 = 0;
/// All values are equal; the value is stored in the directory.
pub(crate) const KIND_CONSTANT: u8 = 1;
const KIND_BIT_PACKED: u8 = 2;
const KIND_DELTA: u8 = 3;
const KIND_RUN_LENGTH: u8 = 4;
const KIND_PCO: u8 = 5;
/// First value and constant step.
const KIND_LINEAR: u8 = 6;
/// Flag: the body starts with the runs of present and missing values.
const HAS_MISSING: u8 = 0x80;

/// Minimum number of values for pco; with fewer values its header outweighs the savings.
const MIN_PCO_VALUES: usize = 60;
const PCO_LEVEL: usize = 8;

/// Appends the body of a column; returns its kind.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[i64], level: CompressionLevel) -> u8 {
    let present = values.iter().filter(|&&value| value != MISSING).count();
    if present == 0 {
        return KIND_EMPTY;
    }
    if present == values.len() {
        return encode_present(out, values, level);
    }
    run_length::write_presence(out, values.iter().map(|&value| value != MISSING));
    let present_values: Vec<i64> = values.iter().copied().filter(|&value| value != MISSING).collect();
    encode_present(out, &present_values, level) | HAS_MISSING
}

fn encode_present(out: &mut Vec<u8>, values: &[i64], level: CompressionLevel) -> u8 {
    if values.iter().all(|value| *value == values[0]) {
        write_zigzag(out, values[0]);
        return KIND_CONSTANT;
    }
    let deltas = bit_packed::delta_encode(values);
    if deltas.iter().all(|delta| *delta == deltas[0]) {
        write_zigzag(out, values[0]);
        write_zigzag(out, deltas[0]);
        return KIND_LINEAR;
    }
    let (plain, delta) = (bit_packed::Plan::new(values), bit_packed::Plan::new(&deltas));
    let delta_len = varint_len(zigzag(values[0])) as usize + delta.len;
    let is_smooth = delta_len < plain.len;
    let packed_len = plain.len.min(delta_len);
    let run_length_len = run_length::encoded_len(values, packed_len.min(2 * values.len() + 1));
    if level == CompressionLevel::Best && values.len() >= MIN_PCO_VALUES {
        // The automatic choice of pco's delta order would take most of the encoding time.
        let delta_spec = pco::DeltaSpec::TryConsecutive(usize::from(is_smooth));
        let config =
            pco::ChunkConfig::default().with_compression_level(PCO_LEVEL).with_delta_spec(delta_spec);
        if let Ok(body) = pco::standalone::simple_compress(values, &config)
            && body.len() < run_length_len.unwrap_or(packed_len)
        {
            out.extend_from_slice(&body);
            return KIND_PCO;
        }
    }
    let start = out.len();
    let kind = if run_length_len.is_some() {
        run_length::encode(out, values);
        KIND_RUN_LENGTH
    } else if is_smooth {
        write_zigzag(out, values[0]);
        delta.encode(out);
        KIND_DELTA
    } else {
        plain.encode(out);
        KIND_BIT_PACKED
    };
    debug_assert_eq!(out.len() - start, run_length_len.unwrap_or(packed_len), "planned size");
    kind
}

/// Decodes a column of `rows` values.
///
/// # Errors
/// Returns a [`FormatError`] if [`encode`] cannot have written the bytes.
pub(crate) fn decode(kind: u8, body: &[u8], rows: usize) -> Result<Vec<i64>> {
    let mut reader = ByteReader(body);
    if kind == KIND_EMPTY {
        return Ok(vec![MISSING; rows]);
    }
    if kind & HAS_MISSING == 0 {
        return decode_present(kind, &mut reader, rows);
    }
    let presence = run_length::read_presence(&mut reader, rows)?;
    let present = presence.iter().map(|run| run.1 - run.0).sum();
    let decoded = decode_present(kind & !HAS_MISSING, &mut reader, present)?;
    let mut values = vec![MISSING; rows];
    let mut remaining = decoded.as_slice();
    for (from, to) in presence {
        let (run, later) = remaining.split_at(to - from);
        values[from..to].copy_from_slice(run);
        remaining = later;
    }
    Ok(values)
}

fn decode_present(kind: u8, reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<i64>> {
    match kind {
        KIND_CONSTANT => Ok(vec![reader.int()?; rows]),
        KIND_BIT_PACKED => bit_packed::decode(reader, rows),
        KIND_DELTA => {
            let first = reader.int()?;
            let mut values = bit_packed::decode(reader, rows.saturating_sub(1))?;
            bit_packed::delta_decode(first, &mut values);
            values.truncate(rows);
            Ok(values)
        }
        KIND_LINEAR => {
            let (first, step) = (reader.int()?, reader.int()?);
            let mut next = first.wrapping_sub(step);
            let mut advance = || {
                next = next.wrapping_add(step);
                next
            };
            Ok((0..rows).map(|_| advance()).collect())
        }
        KIND_RUN_LENGTH => run_length::decode(reader, rows),
        KIND_PCO => {
            let mut values = vec![0; rows];
            let progress = pco::standalone::simple_decompress_into(reader.0, &mut values)
                .map_err(|_| FormatError::Invalid("pco column does not decode"))?;
            if progress.n_processed != rows || !progress.finished {
                return Err(FormatError::Invalid("pco column has an unexpected number of rows"));
            }
            Ok(values)
        }
        _ => Err(FormatError::Invalid("unknown column kind")),
    }
}

/// Appends kind, length and body of a column.
pub(crate) fn write_column(out: &mut Vec<u8>, values: &[i64], level: CompressionLevel) {
    let mut body = Vec::new();
    out.push(encode(&mut body, values, level));
    write_varint(out, body.len() as u64);
    out.extend_from_slice(&body);
}

/// Reads a column written by [`write_column`].
///
/// # Errors
/// Returns a [`FormatError`] if the bytes do not decode.
pub(crate) fn read_column(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<i64>> {
    let kind = reader.byte()?;
    decode(kind, reader.bytes()?, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![
            5 => 0i64..100,
            3 => Just(7i64),
            2 => (0i64..50).prop_map(|v| v * 4096),
            1 => any::<i64>(),
            1 => Just(MISSING),
        ];
        proptest::collection::vec(value, 1..400)
    }

    proptest! {
        #[test]
        fn column_round_trips(values in column(), best in any::<bool>()) {
            let level = if best { CompressionLevel::Best } else { CompressionLevel::Fast };
            let mut body = Vec::new();
            let kind = encode(&mut body, &values, level);
            prop_assert_eq!(decode(kind, &body, values.len()).unwrap(), values);
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_rows(
            kind in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..200),
            rows in 0usize..2_000,
        ) {
            if let Ok(values) = decode(kind, &body, rows) {
                prop_assert_eq!(values.len(), rows);
            }
        }

        #[test]
        fn changed_byte_does_not_panic(
            values in column(),
            position in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut body = Vec::new();
            let kind = encode(&mut body, &values, CompressionLevel::Best);
            if !body.is_empty() {
                let index = position.index(body.len());
                body[index] = byte;
            }
            let _ = decode(kind, &body, values.len());
        }
    }

    #[test]
    fn constant_columns_are_tiny() {
        let encode_size = |values: &[i64]| {
            let mut body = Vec::new();
            (encode(&mut body, values, CompressionLevel::Fast), body.len())
        };
        assert_eq!(encode_size(&[5; 1_800]), (KIND_CONSTANT, 1));
        assert_eq!(encode_size(&[MISSING; 1_800]), (KIND_EMPTY, 0));
        let steps: Vec<i64> = (0..1_800).map(|n| 1_763_720_000_000 + n * 2_000).collect();
        let (kind, bytes) = encode_size(&steps);
        assert_eq!(kind, KIND_LINEAR);
        assert!(bytes < 10, "{bytes}");
        // A gauge that is sampled every 15th tick repeats its value in between.
        let repeated: Vec<i64> = (0..1_800).map(|n| n / 15 % 7 * 1_000_000).collect();
        let (_, bytes) = encode_size(&repeated);
        assert!(bytes < 700, "{bytes}");
    }
}
