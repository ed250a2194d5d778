//! Records of the spool: `length u32 | crc32 u32 | kind u8 | body`, little-endian; the checksum
//! covers kind and body. The number of a kind is never reused.

use bytes::Bytes;
use perfwatch_model::{BootId, ShapeId};

/// Magic bytes at the start of a segment, format version 1.
pub(super) const MAGIC: &[u8; 8] = b"PWSPOOL1";
/// Length of the frame header: length, checksum, kind.
const FRAME_HEADER_BYTES: usize = 9;
/// Maximum length of a record body. A snapshot at its limits is smaller.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Encoded snapshot with its identity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpoolEntry {
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
    pub(crate) shape: ShapeId,
    pub(crate) bytes: Bytes,
}

/// Decoded record of a segment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// Snapshot: boot id, sequence number, shape id, encoded snapshot.
    Snapshot(SpoolEntry),
    /// Encoded shape, written before its first snapshot in each segment.
    Shape(ShapeId, Bytes),
    /// Acknowledgment of everything before this position.
    Acked { segment: u64, offset: u64 },
    /// Newest snapshot appended before this segment was created.
    LastSequence { boot: BootId, seq: u64 },
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl Record {
    /// Encodes the record with its frame header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; FRAME_HEADER_BYTES - 1];
        match self {
            Self::Snapshot(entry) => {
                body.push(1);
                body.extend_from_slice(&entry.boot.to_bytes());
                body.extend_from_slice(&entry.seq.to_le_bytes());
                body.extend_from_slice(&entry.shape.0);
                body.extend_from_slice(&entry.bytes);
            }
            Self::Shape(id, bytes) => {
                body.push(2);
                body.extend_from_slice(&id.0);
                body.extend_from_slice(bytes);
            }
            Self::Acked { segment, offset } => {
                body.push(3);
                body.extend_from_slice(&segment.to_le_bytes());
                body.extend_from_slice(&offset.to_le_bytes());
            }
            Self::LastSequence { boot, seq } => {
                body.push(4);
                body.extend_from_slice(&boot.to_bytes());
                body.extend_from_slice(&seq.to_le_bytes());
            }
        }
        let length = u32::try_from(body.len() - FRAME_HEADER_BYTES).unwrap_or(u32::MAX);
        let crc = crc32fast::hash(&body[FRAME_HEADER_BYTES - 1..]);
        body[..4].copy_from_slice(&length.to_le_bytes());
        body[4..8].copy_from_slice(&crc.to_le_bytes());
        body
    }

    fn decode(kind: u8, body: &Bytes) -> Option<Self> {
        let shape_at = |offset: usize| Some(ShapeId(*body.get(offset..)?.first_chunk()?));
        match kind {
            1 => Some(Self::Snapshot(SpoolEntry {
                boot: BootId::from_bytes(body.get(..16)?)?,
                seq: u64_at(body, 16)?,
                shape: shape_at(24)?,
                bytes: body.slice(40..),
            })),
            2 => Some(Self::Shape(shape_at(0)?, body.slice(16..))),
            3 => Some(Self::Acked { segment: u64_at(body, 0)?, offset: u64_at(body, 8)? }),
            4 => Some(Self::LastSequence {
                boot: BootId::from_bytes(body.get(..16)?)?,
                seq: u64_at(body, 16)?,
            }),
            _ => None,
        }
    }
}

/// Iterates over the records of a segment from `offset`, each with the offset after it. Stops at the
/// first record that is incomplete or corrupt; skips unknown kinds.
pub(super) struct FrameReader {
    bytes: Bytes,
    pub(super) offset: usize,
}

impl FrameReader {
    pub(super) fn new(bytes: Bytes, offset: usize) -> Self {
        Self { bytes, offset }
    }

    /// Returns true if iteration stopped at the end of the bytes, not at a corrupt record.
    pub(super) fn at_end(&self) -> bool {
        self.offset == self.bytes.len()
    }
}

impl Iterator for FrameReader {
    type Item = (Record, u64);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let length = usize::try_from(u32_at(&self.bytes, self.offset)?)
                .ok()
                .filter(|&length| length <= MAX_BODY_BYTES)?;
            let crc = u32_at(&self.bytes, self.offset + 4)?;
            let end = self.offset + FRAME_HEADER_BYTES + length;
            let checked = self.bytes.get(self.offset + 8..end)?;
            if crc32fast::hash(checked) != crc {
                return None;
            }
            let record = Record::decode(checked[0], &self.bytes.slice(self.offset + FRAME_HEADER_BYTES..end));
            self.offset = end;
            if let Some(record) = record {
                return Some((record, end as u64));
            }
        }
    }
}
