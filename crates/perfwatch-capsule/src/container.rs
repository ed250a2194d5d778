//! Container of a capsule: a header, a table of sections with checksums, and compressed sections.

use crate::CapsuleError;
use crate::limits::{MAX_CONTENT_BYTES, MAX_FILE_BYTES, MAX_HOSTS, MAX_SECTION_BYTES};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};

/// Signature. Its line ends reveal a transfer that converted text.
const MAGIC: [u8; 8] = *b"PWCAP\r\n\x1a";
/// Version of the format that this build writes.
pub const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 4;
const ENTRY_BYTES: usize = 8 + HASH_BYTES;
const HASH_BYTES: usize = 32;
/// Maximum number of sections: the document, then series and processes of each host.
const MAX_SECTIONS: usize = 1 + 2 * MAX_HOSTS;

/// Compressed section of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    stored: Vec<u8>,
    len: usize,
}

impl Section {
    /// Size in the file.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.stored.len()
    }
}

/// Section that is written in parts.
pub(crate) struct SectionWriter {
    encoder: ZlibEncoder<Vec<u8>>,
    len: usize,
}

impl SectionWriter {
    pub(crate) fn new() -> Self {
        Self { encoder: ZlibEncoder::new(Vec::new(), Compression::new(6)), len: 0 }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Returns [`CapsuleError::TooLarge`] above the maximum size of a section.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CapsuleError> {
        self.len += bytes.len();
        if self.len > MAX_SECTION_BYTES || self.encoder.get_ref().len() > MAX_FILE_BYTES {
            return Err(CapsuleError::TooLarge("bytes"));
        }
        // Writes to memory do not fail.
        self.encoder.write_all(bytes).map_err(|_| CapsuleError::TooLarge("bytes"))
    }

    pub(crate) fn finish(self) -> Result<Section, CapsuleError> {
        let stored = self.encoder.finish().map_err(|_| CapsuleError::TooLarge("bytes"))?;
        Ok(Section { stored, len: self.len })
    }
}

/// Writes a file.
///
/// # Errors
/// Returns [`CapsuleError::TooLarge`] above the maximum size of a file or of its content.
pub(crate) fn encode(sections: &[Section]) -> Result<Vec<u8>, CapsuleError> {
    let table_bytes = HEADER_BYTES + sections.len() * ENTRY_BYTES + HASH_BYTES;
    let file_bytes = table_bytes + sections.iter().map(Section::stored_bytes).sum::<usize>();
    let content_bytes: usize = sections.iter().map(|section| section.len).sum();
    if sections.len() > MAX_SECTIONS || file_bytes > MAX_FILE_BYTES || content_bytes > MAX_CONTENT_BYTES {
        return Err(CapsuleError::TooLarge("bytes"));
    }
    let mut out = Vec::with_capacity(file_bytes);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&u16::try_from(sections.len()).unwrap_or_default().to_le_bytes());
    for section in sections {
        for len in [section.stored.len(), section.len] {
            out.extend_from_slice(&u32::try_from(len).unwrap_or_default().to_le_bytes());
        }
        out.extend_from_slice(&Sha256::digest(&section.stored));
    }
    let table_hash = Sha256::digest(&out);
    out.extend_from_slice(&table_hash);
    for section in sections {
        out.extend_from_slice(&section.stored);
    }
    Ok(out)
}

/// Section of a file that was checked, and is not decompressed yet.
pub(crate) struct StoredSection<'a> {
    stored: &'a [u8],
    len: usize,
}

impl StoredSection<'_> {
    /// Decompresses the section; never more than its declared size.
    ///
    /// # Errors
    /// Returns [`CapsuleError::Invalid`] if the content has another size.
    pub(crate) fn content(&self, max_bytes: usize) -> Result<Vec<u8>, CapsuleError> {
        if self.len > max_bytes {
            return Err(CapsuleError::TooLarge("bytes"));
        }
        let mut content = Vec::new();
        let mut decoder = ZlibDecoder::new(self.stored).take(self.len as u64 + 1);
        let read = decoder.read_to_end(&mut content);
        let rest = decoder.into_inner().total_in();
        if read.is_err() || content.len() != self.len || rest != self.stored.len() as u64 {
            return Err(CapsuleError::Invalid("compressed section"));
        }
        Ok(content)
    }
}

fn number<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CapsuleError> {
    let (front, remaining) = bytes.split_first_chunk::<N>().ok_or(CapsuleError::Truncated)?;
    *bytes = remaining;
    Ok(*front)
}

/// Splits a file into its sections and verifies sizes and checksums before anything is decompressed.
///
/// # Errors
/// Returns the reason for which the bytes are no valid capsule.
pub(crate) fn decode(file: &[u8]) -> Result<Vec<StoredSection<'_>>, CapsuleError> {
    if file.len() > MAX_FILE_BYTES {
        return Err(CapsuleError::TooLarge("bytes"));
    }
    let mut bytes = file.strip_prefix(&MAGIC).ok_or(CapsuleError::NotACapsule)?;
    let version = u16::from_le_bytes(number(&mut bytes)?);
    if version != FORMAT_VERSION {
        return Err(CapsuleError::UnsupportedVersion(version));
    }
    let count = usize::from(u16::from_le_bytes(number(&mut bytes)?));
    if count == 0 || count > MAX_SECTIONS {
        return Err(CapsuleError::Invalid("number of sections"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let stored_len = u32::from_le_bytes(number(&mut bytes)?) as usize;
        let len = u32::from_le_bytes(number(&mut bytes)?) as usize;
        entries.push((stored_len, len, number::<HASH_BYTES>(&mut bytes)?));
    }
    let table_len = HEADER_BYTES + count * ENTRY_BYTES;
    if Sha256::digest(&file[..table_len])[..] != number::<HASH_BYTES>(&mut bytes)? {
        return Err(CapsuleError::Checksum);
    }
    let stored_bytes: usize = entries.iter().map(|(stored_len, _, _)| stored_len).sum();
    let content_bytes: usize = entries.iter().map(|(_, len, _)| len).sum();
    if stored_bytes != bytes.len() {
        return Err(CapsuleError::Truncated);
    }
    if content_bytes > MAX_CONTENT_BYTES || entries.iter().any(|(_, len, _)| *len > MAX_SECTION_BYTES) {
        return Err(CapsuleError::TooLarge("bytes"));
    }
    let mut sections = Vec::with_capacity(count);
    for (stored_len, len, hash) in entries {
        let (stored, remaining) = bytes.split_at(stored_len);
        bytes = remaining;
        if Sha256::digest(stored)[..] != hash {
            return Err(CapsuleError::Checksum);
        }
        sections.push(StoredSection { stored, len });
    }
    Ok(sections)
}
