//! Input of agents, scripts and WebSocket clients: batches, snapshot JSON, compressed bodies, messages.

use crate::{MemoryBound, Target};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use perfwatch_http::compressed_body;
use perfwatch_live::message::ClientMessage;
use perfwatch_model::validation::{remove_invalid_values, validate_snapshot};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Catalog, HostId, HostRef, Shape, ShapeId, Snapshot, json, limits};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Time of the hub in all targets.
pub(crate) const NOW_MS: i64 = 1_795_263_132_344;

pub(crate) const WIRE_BATCH: Target = Target {
    name: "wire_batch",
    run: wire_batch,
    seeds: wire_seeds,
    dictionary: &["\n\0", "\x12\0", "\x1a\0", "\"\0", "2\0", ":\0", "B\0", "J\0", "cpu.usage", "eth0"],
    max_len: 64 << 10,
    // The batch twice, a snapshot, and its copies without columns; a value of one byte takes eight.
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 64 },
};

pub(crate) const SNAPSHOT_JSON: Target = Target {
    name: "snapshot_json",
    run: snapshot_json,
    seeds: json_seeds,
    dictionary: &[
        "{\"",
        "\":",
        "null",
        "[",
        "]",
        "}",
        "\"host\":",
        "\"errors\":{",
        "\"processes\":",
        "\\u0000",
    ],
    max_len: 64 << 10,
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 60 },
};

pub(crate) const COMPRESSED_BODY: Target = Target {
    name: "compressed_body",
    run: compressed_body,
    seeds: compressed_seeds,
    dictionary: &[],
    max_len: 16 << 10,
    // The decompressed body, its copy while it grows, and the window of the decoder.
    memory: MemoryBound { fixed_bytes: 4 * limits::MAX_DECOMPRESSED_BYTES, per_byte: 4 },
};

pub(crate) const CLIENT_MESSAGE: Target = Target {
    name: "client_message",
    run: client_message,
    seeds: || {
        [
            r#"{"subscribe":{"hosts":["web-1"],"metrics":["cpu.*"],"processes":true,"backfill_s":300}}"#,
            r#"{"subscribe":{"since":{"019aa3b0-0000-7000-8000-000000000001":1795263132344}}}"#,
            r#"{"unsubscribe":1}"#,
            r#"{"ping":7}"#,
            r#"{"incident_counts":true}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &["{\"", "\":", "null", "\"\",", "[", "]", "subscribe", "4294967296"],
    max_len: limits::MAX_CLIENT_MESSAGE_BYTES,
    memory: MemoryBound { fixed_bytes: 16 << 10, per_byte: 24 },
};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| perfwatch_collect::catalog(&[]));

/// Metrics of the collectors.
pub(crate) fn catalog() -> &'static Catalog {
    &CATALOG
}

/// Snapshot of a small host, with every kind of content.
pub(crate) fn sample_snapshots() -> Vec<Snapshot> {
    crate::host::fixture_snapshots()
}

fn wire_seeds() -> Vec<Vec<u8>> {
    let snapshots = sample_snapshots();
    let facts = snapshots.iter().find_map(|snapshot| snapshot.facts.as_deref()).map(wire::facts_to_message);
    let batch = |snapshots: &[Snapshot]| {
        wire::encode_batch(&Batch {
            host_id: HostId(uuid(1)).to_bytes().to_vec().into(),
            host_name: "web-1".to_owned(),
            shapes: snapshots.iter().map(|snapshot| wire::encode_shape(&snapshot.shape)).collect(),
            snapshots: snapshots.iter().map(wire::encode_snapshot).collect(),
            sent_at_ms: NOW_MS,
            facts: facts.clone(),
        })
    };
    let mut small = snapshots[0].clone();
    small.values.truncate(3);
    small.shape = Arc::new(Shape::new(small.shape.columns()[..3].to_vec()));
    small.processes.truncate(1);
    vec![batch(&snapshots), batch(&snapshots[..1]), batch(&[small])]
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn wire_batch(data: &[u8]) -> bool {
    let Ok(batch) = wire::decode_batch(Bytes::copy_from_slice(data)) else { return false };
    let mut is_accepted = false;
    let encoded = wire::encode_batch(&batch);
    assert_eq!(wire::decode_batch(encoded.into()).as_ref(), Ok(&batch));
    let _ = batch.host();
    let mut shapes: HashMap<ShapeId, (Arc<Shape>, Bytes)> = HashMap::new();
    for bytes in batch.shapes.iter().take(limits::MAX_BATCH_SNAPSHOTS) {
        let Ok(shape) = wire::decode_shape(bytes.clone()) else { continue };
        assert_eq!(wire::shape_id(bytes.clone()), Ok(shape.id()));
        assert!(shape.columns().len() <= limits::MAX_COLUMNS);
        let encoded = wire::encode_shape(&shape);
        assert_eq!(wire::decode_shape(encoded).map(|shape| shape.id()), Ok(shape.id()));
        shapes.insert(shape.id(), (Arc::new(shape), bytes.clone()));
    }
    let shape = |id: ShapeId| shapes.get(&id).map(|(shape, _)| shape.clone());
    for bytes in batch.snapshots.iter().take(limits::MAX_BATCH_SNAPSHOTS) {
        let Ok(mut snapshot) = wire::decode_snapshot(bytes.clone(), &shape, &|text| text.into()) else {
            continue;
        };
        let encoded = wire::encode_snapshot(&snapshot);
        assert_eq!(wire::decode_snapshot(encoded, &shape, &|text| text.into()).as_ref(), Ok(&snapshot));
        if let Some((_, shape)) = shapes.get(&snapshot.shape.id()) {
            check_reduction(wire::reduce_snapshot(bytes.clone(), shape.clone(), "rejected"));
            for level in [1, 2, 5] {
                let reduced = wire::shrink_snapshot(bytes.clone(), shape.clone(), level, "too large");
                check_reduction(reduced.and_then(|reduced| {
                    reduced.ok_or_else(|| wire::WireError::Invalid("nothing remains".to_owned()))
                }));
            }
        }
        remove_invalid_values(&mut snapshot, catalog());
        check_accepted(&snapshot);
        is_accepted = true;
    }
    is_accepted
}

/// A reduced snapshot is accepted by a hub.
fn check_reduction(reduced: Result<Snapshot, wire::WireError>) {
    let Ok(reduced) = reduced else { return };
    let encoded = wire::encode_shape(&reduced.shape);
    let shape = Arc::new(wire::decode_shape(encoded).expect("a reduced shape is valid"));
    let decoded =
        wire::decode_snapshot(wire::encode_snapshot(&reduced), &|_| Some(shape.clone()), &|text| text.into());
    assert_eq!(decoded.as_ref(), Ok(&reduced));
}

/// Values of an accepted snapshot are in the ranges of the catalog; only its times may be rejected.
fn check_accepted(snapshot: &Snapshot) {
    assert_eq!(snapshot.values.len(), snapshot.shape.columns().len());
    assert!(snapshot.errors.len() <= limits::MAX_COLLECTOR_ERRORS);
    if let Err(reason) = validate_snapshot(snapshot, catalog(), NOW_MS) {
        assert_ne!(reason.code, "value_out_of_range", "{}", reason.message);
    }
}

fn json_seeds() -> Vec<Vec<u8>> {
    let host = HostRef { id: None, name: "web-1".to_owned() };
    let mut seeds: Vec<Vec<u8>> = sample_snapshots()
        .iter()
        .map(|snapshot| {
            let mut text = String::new();
            json::write_snapshot(&mut text, HostId(uuid(1)), &host, snapshot);
            text.into_bytes()
        })
        .collect();
    seeds.push(
        br#"{"host":"web-1","cpu":{"usage":12.5},"backup":{"duration_s":31},"errors":{"x":"y"}}"#.to_vec(),
    );
    seeds
}

fn snapshot_json(data: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice(data) else { return false };
    assert!(json::count_body(data).is_ok(), "JSON is counted");
    let Ok(parsed) = json::read_snapshot(&value, catalog(), NOW_MS) else { return false };
    let mut snapshot = parsed.snapshot;
    let encoded = wire::encode_snapshot(&snapshot);
    let decoded = wire::decode_snapshot(encoded, &|_| Some(snapshot.shape.clone()), &|text| text.into());
    assert_eq!(decoded.as_ref(), Ok(&snapshot), "an accepted snapshot can be stored");
    let shape = wire::decode_shape(wire::encode_shape(&snapshot.shape));
    assert_eq!(shape.map(|shape| shape.id()), Ok(snapshot.shape.id()), "an accepted shape can be stored");
    remove_invalid_values(&mut snapshot, catalog());
    check_accepted(&snapshot);
    let mut text = String::new();
    json::write_snapshot(&mut text, HostId(uuid(1)), &parsed.host, &snapshot);
    serde_json::from_str::<serde_json::Value>(&text).expect("written JSON is JSON");
    true
}

fn compressed_seeds() -> Vec<Vec<u8>> {
    let text = &json_seeds()[0];
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap_or_default();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\x07\0\x86\xa6\x106\x05\0\0\0";
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    vec![
        tagged(0, &zstd(text)),
        tagged(0, &zstd(&vec![0; 100_000])),
        tagged(1, gzip),
        tagged(1, &gzip.repeat(3)),
        tagged(2, text),
    ]
}

fn compressed_body(data: &[u8]) -> bool {
    let Some((encoding, body)) = data.split_first() else { return false };
    let encoding = ["zstd", "gzip", "identity", "br"][usize::from(encoding % 4)];
    let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
    let decompressed =
        compressed_body::decompress(&headers, Bytes::copy_from_slice(body), limits::MAX_DECOMPRESSED_BYTES);
    decompressed.is_ok_and(|bytes| {
        assert!(bytes.len() <= limits::MAX_DECOMPRESSED_BYTES);
        true
    })
}

fn client_message(data: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<ClientMessage>(data) else { return false };
    let Some(subscribe) = message.subscribe else { return true };
    for pattern in &subscribe.metrics {
        let _ = perfwatch_model::SeriesSelector::parse(pattern).matches("cpu.core.usage", "0");
    }
    true
}
