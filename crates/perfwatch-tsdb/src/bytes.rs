//! Reader and writer of varints, byte strings and text. Every length from a block is bounded.

use prost::encoding::{decode_varint, encode_varint};

/// Reason why bytes are not a valid block. The block is skipped; the query continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Input ends before it is complete.
    #[error("truncated")]
    Truncated,
    /// Input that the encoder cannot have written.
    #[error("{0}")]
    Invalid(&'static str),
    /// Bytes changed since they were written.
    #[error("{0} checksum mismatch")]
    Checksum(&'static str),
    /// Format version of a newer PerfWatch.
    #[error("unsupported block format version {0}; upgrade PerfWatch")]
    UnsupportedVersion(u8),
}

pub(crate) type Result<T> = std::result::Result<T, FormatError>;

/// Appends an unsigned LEB128 varint.
pub fn write_varint(out: &mut Vec<u8>, value: u64) {
    // Most are a byte.
    match u8::try_from(value) {
        Ok(byte) if byte < 0x80 => out.push(byte),
        _ => encode_varint(value, out),
    }
}

/// Number of bytes of a varint.
pub(crate) fn varint_len(value: u64) -> u32 {
    (64 - (value | 1).leading_zeros()).div_ceil(7)
}

/// Appends a signed zigzag varint.
pub fn write_zigzag(out: &mut Vec<u8>, value: i64) {
    write_varint(out, zigzag(value));
}

/// Maps signed integers to unsigned integers: small magnitudes of both signs stay small.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends the length, then the bytes.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reader that consumes a byte slice from the front.
#[derive(Clone)]
pub(crate) struct ByteReader<'a>(pub(crate) &'a [u8]);

impl<'a> ByteReader<'a> {
    pub(crate) fn read_exact(&mut self, count: usize) -> Result<&'a [u8]> {
        let (front, remaining) = self.0.split_at_checked(count).ok_or(FormatError::Truncated)?;
        self.0 = remaining;
        Ok(front)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.read_exact(1)?[0])
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.read_exact(N)?);
        Ok(array)
    }

    pub(crate) fn uint(&mut self) -> Result<u64> {
        if let [byte @ ..0x80, remaining @ ..] = self.0 {
            self.0 = remaining;
            return Ok(u64::from(*byte));
        }
        decode_varint(&mut self.0).map_err(|_| FormatError::Truncated)
    }

    /// Reads a count or a length; an error if it exceeds `max`.
    pub(crate) fn read_len(&mut self, max: usize) -> Result<usize> {
        let count = usize::try_from(self.uint()?).unwrap_or(usize::MAX);
        if count > max { Err(FormatError::Invalid("count exceeds its limit")) } else { Ok(count) }
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        Ok(unzigzag(self.uint()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.read_len(self.0.len())?;
        self.read_exact(count)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| FormatError::Invalid("text is not UTF-8"))
    }
}
