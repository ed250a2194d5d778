//! Varints of sections: little-endian base 128, signed integers in zigzag form.

use crate::CapsuleError;
use perfwatch_tsdb::write_varint;

/// Maximum length of a varint: 64 bits in groups of 7.
const MAX_VARINT_BYTES: usize = 10;

/// Appends a text with its length in bytes.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a section from its start.
pub(crate) struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], CapsuleError> {
        let (front, remaining) = self.0.split_at_checked(len).ok_or(CapsuleError::Truncated)?;
        self.0 = remaining;
        Ok(front)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, CapsuleError> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn varint(&mut self) -> Result<u64, CapsuleError> {
        let mut value = 0_u64;
        for index in 0..MAX_VARINT_BYTES {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if index == MAX_VARINT_BYTES - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CapsuleError::Invalid("varint above 64 bits"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, CapsuleError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Count of at most `max`.
    pub(crate) fn count(&mut self, max: usize) -> Result<usize, CapsuleError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > max { Err(CapsuleError::Invalid("count above its limit")) } else { Ok(count) }
    }

    pub(crate) fn int32(&mut self) -> Result<u32, CapsuleError> {
        u32::try_from(self.varint()?).map_err(|_| CapsuleError::Invalid("integer above 32 bits"))
    }

    pub(crate) fn text(&mut self, max_bytes: usize) -> Result<&'a str, CapsuleError> {
        let len = self.count(max_bytes)?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| CapsuleError::Invalid("text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_tsdb::write_zigzag;

    #[test]
    fn varints_have_fixed_bytes() {
        for (value, expected) in [
            (0_i64, vec![0]),
            (-1, vec![1]),
            (1, vec![2]),
            (-64, vec![127]),
            (64, vec![0x80, 1]),
            (i64::MAX, vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut bytes = Vec::new();
            write_zigzag(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
            assert_eq!(ByteReader::new(&bytes).zigzag(), Ok(value));
        }
    }

    #[test]
    fn invalid_bytes_are_refused() {
        let too_long = [0xff; 11];
        for bytes in [&too_long[..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert!(matches!(ByteReader::new(bytes).varint(), Err(CapsuleError::Invalid(_))));
        }
        assert_eq!(ByteReader::new(&[0x80]).varint(), Err(CapsuleError::Truncated));
        assert_eq!(ByteReader::new(&[3, b'a']).text(10), Err(CapsuleError::Truncated));
        assert!(matches!(ByteReader::new(&[2, 0xff, 0xff]).text(10), Err(CapsuleError::Invalid(_))));
        assert!(matches!(ByteReader::new(&[5]).text(4), Err(CapsuleError::Invalid(_))));
    }
}
