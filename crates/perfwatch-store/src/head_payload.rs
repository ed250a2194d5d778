//! The payload of one head row: the snapshots of one commit, as they travelled, packed.

use crate::store::{HeadRow, SnapshotRow, StoreError};
use perfwatch_model::wire::{self, WireError};
use perfwatch_model::{HostId, Shape, ShapeId, StringInterner};
use std::sync::Arc;

/// Whatever is written here is read by later versions too.
const VERSION: u8 = 1;
/// Fast: this is written once and read after a crash only.
const ZSTD_LEVEL: i32 = 1;
/// A group commit holds some thousand snapshots at most.
const MAX_BYTES: usize = 1 << 30;

/// One row before it is packed.
pub(crate) fn write_row(out: &mut Vec<u8>, row: &SnapshotRow) {
    let encoded = wire::encode_snapshot(&row.snapshot);
    out.extend_from_slice(&row.host.to_bytes());
    out.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&encoded);
}

/// Packs rows that [`put`] wrote.
pub(crate) fn compress_rows(rows: &[u8]) -> Vec<u8> {
    let mut packed = vec![VERSION];
    packed.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
    // Compressing into memory has no way to fail.
    packed.extend_from_slice(&zstd::bulk::compress(rows, ZSTD_LEVEL).unwrap_or_default());
    packed
}

/// Reads a payload back. Rows of a shape that nobody knows any more are left out and told.
///
/// # Errors
/// Bytes that [`pack`] did not write.
pub(crate) fn decompress_rows(
    arrival: i64,
    payload: &[u8],
    shapes: &dyn Fn(ShapeId) -> Option<Arc<Shape>>,
    texts: &StringInterner,
) -> Result<Vec<HeadRow>, StoreError> {
    let broken = |what: &str| StoreError::Rejected(format!("head row {arrival} can't be read: {what}"));
    let (Some(&VERSION), Some(length)) = (payload.first(), payload.get(1..5)) else {
        return Err(broken("unknown version"));
    };
    let length = length.try_into().map(u32::from_le_bytes).map_or(usize::MAX, |length| length as usize);
    if length > MAX_BYTES {
        return Err(broken("too long"));
    }
    let plain = zstd::bulk::decompress(&payload[5..], length).map_err(|error| broken(&error.to_string()))?;
    let mut rest = plain.as_slice();
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let (Some(host), Some(length)) = (rest.get(..16).and_then(HostId::from_bytes), rest.get(16..20))
        else {
            return Err(broken("cut off"));
        };
        let length = length.try_into().map(u32::from_le_bytes).map_or(usize::MAX, |length| length as usize);
        let end = length.saturating_add(20);
        let Some(encoded) = rest.get(20..end) else {
            return Err(broken("cut off"));
        };
        match wire::decode_snapshot(encoded.to_vec().into(), shapes, &|text| texts.intern(text)) {
            Ok(snapshot) => {
                rows.push(HeadRow { arrival, row: SnapshotRow { host, snapshot: Arc::new(snapshot) } })
            }
            Err(error @ WireError::UnknownShape(_)) => {
                tracing::error!(%error, arrival, "head row is unreadable; skipping it")
            }
            Err(error) => return Err(broken(&error.to_string())),
        }
        rest = &rest[end..];
    }
    Ok(rows)
}
