//! Payload of a head row: the snapshots of a group commit in wire format, compressed.

use crate::error::StoreError;
use crate::store::{HeadSnapshot, SnapshotRow};
use bytes::Bytes;
use perfwatch_model::wire::{self, WireError};
use perfwatch_model::{HostId, Shape, ShapeId, StringInterner, compression};
use std::sync::Arc;

/// Version of the encoding. Later versions must read it, too.
const VERSION: u8 = 1;
/// Maximum decompressed size. A group commit has some thousand snapshots at most.
const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// Encodes snapshots with their hosts for the payload of a group commit.
pub(crate) fn encode_rows(rows: &[SnapshotRow]) -> Vec<u8> {
    let encode =
        |row: &SnapshotRow| row.encoded.clone().unwrap_or_else(|| wire::encode_snapshot(&row.snapshot));
    let encoded: Vec<Bytes> = rows.iter().map(encode).collect();
    let mut out = Vec::with_capacity(encoded.iter().map(|bytes| bytes.len() + 20).sum());
    for (row, bytes) in rows.iter().zip(encoded) {
        out.extend_from_slice(&row.host.to_bytes());
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

/// Payload of rows that [`encode_rows`] encoded.
pub(crate) fn compress_payload(rows: &[u8]) -> Vec<u8> {
    let mut payload = vec![VERSION];
    payload.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
    // Fast, because a payload is written once and read only after a restart. Compression into memory cannot fail.
    payload.extend_from_slice(&compression::compress(rows).unwrap_or_default());
    payload
}

/// Decodes a payload into its rows, and the shapes that `shapes` does not know: their rows are left out.
///
/// # Errors
/// Returns [`StoreError::Rejected`] for bytes that [`compress_payload`] did not write.
pub(crate) fn decode_payload(
    arrival: i64,
    payload: &[u8],
    shapes: &dyn Fn(ShapeId) -> Option<Arc<Shape>>,
    texts: &StringInterner,
) -> Result<(Vec<HeadSnapshot>, Vec<ShapeId>), StoreError> {
    let unreadable =
        |reason: &str| StoreError::Rejected(format!("head row {arrival} is unreadable: {reason}"));
    let (Some(&VERSION), Some(length)) = (payload.first(), payload.get(1..5)) else {
        return Err(unreadable("unknown version"));
    };
    let length = length.try_into().map(u32::from_le_bytes).map_or(usize::MAX, |length| length as usize);
    if length > MAX_PAYLOAD_BYTES {
        return Err(unreadable("too long"));
    }
    let bytes =
        compression::decompress(&payload[5..], length).map_err(|error| unreadable(&error.to_string()))?;
    let mut remaining = bytes.as_slice();
    let (mut rows, mut unknown) = (Vec::new(), Vec::new());
    while !remaining.is_empty() {
        let (Some(host), Some(length)) =
            (remaining.get(..16).and_then(HostId::from_bytes), remaining.get(16..20))
        else {
            return Err(unreadable("truncated"));
        };
        let length = length.try_into().map(u32::from_le_bytes).map_or(usize::MAX, |length| length as usize);
        let end = length.saturating_add(20);
        let Some(encoded) = remaining.get(20..end) else {
            return Err(unreadable("truncated"));
        };
        match wire::decode_snapshot(encoded.to_vec().into(), shapes, &|text| texts.intern(text)) {
            Ok(snapshot) => {
                rows.push(HeadSnapshot {
                    arrival,
                    row: SnapshotRow { host, snapshot: Arc::new(snapshot), encoded: None },
                });
            }
            Err(WireError::UnknownShape(id)) => unknown.push(id),
            Err(error) => return Err(unreadable(&error.to_string())),
        }
        remaining = &remaining[end..];
    }
    Ok((rows, unknown))
}

/// Logs rows whose shapes the database does not have: they cannot be read.
pub(crate) fn log_unknown_shapes(arrival: i64, unknown: &[ShapeId]) {
    for shape in unknown {
        tracing::error!(%shape, arrival, "head row has an unknown shape; skipping it");
    }
}
