//! Payload of an entry of the live stream: batches as agents send them, each after its length (four bytes, little
//! endian), compressed with zstd.

use bytes::{Buf as _, Bytes};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{HostId, Snapshot, compression};
use std::sync::Arc;

/// Maximum size of a payload after decompression.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// Size above which a payload is encoded and decoded off the serving threads.
const MAX_SERVED_BYTES: usize = 64 << 10;

/// Snapshot of a host.
pub(crate) struct MirroredBatch {
    pub(crate) host: HostId,
    pub(crate) name: Arc<str>,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// Encoded snapshot with the id and the name of its host.
pub(crate) type EncodedSnapshot = (HostId, Arc<str>, Bytes);

/// Encodes snapshots.
pub(crate) async fn encode(batches: Vec<MirroredBatch>) -> Result<Vec<u8>, String> {
    let encode = move || {
        let mut bytes = Vec::new();
        for MirroredBatch { host, name, snapshot } in &batches {
            let batch = Batch {
                host_id: host.to_bytes().to_vec().into(),
                host_name: name.to_string(),
                snapshots: vec![wire::encode_snapshot(snapshot)],
                ..Batch::default()
            };
            let encoded = wire::encode_batch(&batch);
            bytes.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(&encoded);
        }
        compression::compress(&bytes).map_err(|error| error.to_string())
    };
    // A usual snapshot has less than a kilobyte.
    tokio::task::spawn_blocking(encode).await.map_err(|error| error.to_string())?
}

/// Decodes a payload. Its snapshots stay encoded, because their shapes may be unknown.
pub(crate) async fn decode(payload: Vec<u8>) -> Result<Vec<EncodedSnapshot>, String> {
    if payload.len() <= MAX_SERVED_BYTES {
        return decode_now(&payload);
    }
    tokio::task::spawn_blocking(move || decode_now(&payload)).await.map_err(|error| error.to_string())?
}

fn decode_now(payload: &[u8]) -> Result<Vec<EncodedSnapshot>, String> {
    if compression::stated_size(payload).is_some_and(|size| size > MAX_PAYLOAD_BYTES) {
        return Err(format!("larger than {MAX_PAYLOAD_BYTES} bytes"));
    }
    let bytes = compression::decompress(payload, MAX_PAYLOAD_BYTES).map_err(|error| error.to_string())?;
    let mut bytes = Bytes::from(bytes);
    let mut snapshots = Vec::new();
    while bytes.remaining() >= 4 {
        let length = bytes.get_u32_le() as usize;
        if length > bytes.remaining() {
            return Err("truncated".to_owned());
        }
        let batch = wire::decode_batch(bytes.split_to(length)).map_err(|error| error.to_string())?;
        let host = batch.host().map_err(|error| error.to_string())?;
        let (Some(id), name) = (host.id, Arc::<str>::from(host.name)) else {
            return Err("batch without a host".to_owned());
        };
        snapshots.extend(batch.snapshots.into_iter().map(|snapshot| (id, name.clone(), snapshot)));
    }
    Ok(snapshots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape};

    #[tokio::test]
    async fn payload_survives_and_damage_is_an_error() {
        let snapshot = Arc::new(Snapshot {
            boot: BootId::default(),
            seq: 7,
            at_ms: 1_763_720_000_000,
            interval_ms: 2_000,
            shape: Arc::new(Shape::new(Vec::new())),
            values: Vec::new(),
            processes: Vec::new(),
            facts: None,
            errors: Vec::new(),
        });
        let hosts = ["web", "db"].map(|name| (HostId::of_name(name, 0), Arc::<str>::from(name)));
        let batches = hosts.iter().map(|(host, name)| MirroredBatch {
            host: *host,
            name: name.clone(),
            snapshot: snapshot.clone(),
        });
        let payload = encode(batches.collect()).await.unwrap();
        let decoded = decode(payload.clone()).await.unwrap();
        let expected = wire::encode_snapshot(&snapshot);
        assert!(decoded.iter().zip(&hosts).all(|((id, name, bytes), (host, host_name))| {
            id == host && name == host_name && *bytes == expected
        }));
        assert_eq!(decoded.len(), 2);
        for length in 0..payload.len() {
            let _ = decode(payload[..length].to_vec()).await;
        }
        assert!(decode(payload[..payload.len() - 9].to_vec()).await.is_err());
        assert!(decode(b"no payload".to_vec()).await.is_err());
        let bomb = compression::compress(&vec![0; 65 << 20]).unwrap();
        assert!(decode(bomb).await.unwrap_err().contains("larger"));
    }
}
