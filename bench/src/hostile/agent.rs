//! Hostile agent: one secret of one watched host.

use super::attack::{Attack, Attacker};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{BootId, Clock as _, Column, HostId, ProcessRow, Shape, Snapshot, limits};
use serde_json::json;
use std::sync::Arc;

/// Host of the hostile agent.
pub(crate) const HOST_ID: &str = "019aa3b0-bad0-7000-8000-000000000001";
pub(crate) const HOST_NAME: &str = "mallory";
/// Columns of a wide snapshot, a little less than the limit.
const WIDE_COLUMNS: usize = 8_000;
/// Columns whose names change with each snapshot.
const CHANGING_COLUMNS: usize = 500;
/// Connections with an unfinished body.
const UNFINISHED_BODIES: usize = 100;

pub(crate) const ATTACKS: &[Attack] = &[
    ("agent: new shapes of 8,000 columns", new_shapes),
    ("agent: columns that change each second", changing_columns),
    ("agent: snapshots of 8,000 columns", wide_snapshots),
    ("agent: decompression bombs", decompression_bombs),
    ("agent: small JSON that decodes large", amplified_json),
    ("agent: empty wire entries", empty_entries),
    ("agent: unfinished bodies", unfinished_bodies),
    ("agent: names of other hosts", other_names),
    ("agent: enrollment for other hosts", other_enrollments),
    ("agent: oversized and control text", hostile_text),
];

fn host_id() -> HostId {
    HOST_ID.parse().unwrap_or_else(|_| HostId::generate())
}

/// Shape whose instances contain a text.
fn shape(columns: usize, instance: &str) -> Arc<Shape> {
    let column = |index: usize| Column {
        metric: if index < columns / 2 { "network.rx_bytes" } else { "network.tx_bytes" }.into(),
        dimension: "interface".into(),
        instance: format!("{instance}-{index}").into(),
        decimals: 0,
    };
    Arc::new(Shape::new((0..columns).map(column).collect()))
}

fn snapshot(attacker: &Attacker, shape: Arc<Shape>, seq: u64) -> Snapshot {
    Snapshot {
        boot: BootId::default(),
        seq,
        at_ms: attacker.clock.wall_ms(),
        interval_ms: 1_000,
        values: (0..).take(shape.columns().len()).collect(),
        shape,
        processes: Vec::new(),
        facts: None,
        errors: Vec::new(),
    }
}

fn batch(attacker: &Attacker, name: &str, snapshots: &[Snapshot]) -> Vec<u8> {
    let batch = Batch {
        host_id: host_id().to_bytes().to_vec().into(),
        host_name: name.to_owned(),
        shapes: snapshots.iter().map(|snapshot| wire::encode_shape(&snapshot.shape)).collect(),
        snapshots: snapshots.iter().map(wire::encode_snapshot).collect(),
        sent_at_ms: attacker.clock.wall_ms(),
        facts: None,
    };
    compress(&wire::encode_batch(&batch))
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap_or_default()
}

fn post(attacker: &Attacker, http: &ureq::Agent, content_type: &str, body: &[u8]) -> String {
    attacker.send(http, ("POST", "/ingest/metrics"), &attacker.agent, (content_type, "zstd"), body)
}

fn new_shapes(attacker: &Attacker, attack: &'static str) {
    attacker.repeat(attack, |http, number| {
        let shape = shape(WIDE_COLUMNS, &format!("shape{number}"));
        let body = batch(attacker, HOST_NAME, &[snapshot(attacker, shape, 1_000_000 + number)]);
        post(attacker, http, wire::CONTENT_TYPE, &body)
    });
}

fn changing_columns(attacker: &Attacker, attack: &'static str) {
    attacker.repeat(attack, |http, number| {
        let shape = shape(CHANGING_COLUMNS, &format!("eth{number}"));
        let body = batch(attacker, HOST_NAME, &[snapshot(attacker, shape, 2_000_000 + number)]);
        post(attacker, http, wire::CONTENT_TYPE, &body)
    });
}

fn wide_snapshots(attacker: &Attacker, attack: &'static str) {
    let shape = shape(WIDE_COLUMNS, "wide");
    attacker.repeat(attack, |http, number| {
        let snapshots = (0..10).map(|n| snapshot(attacker, shape.clone(), 3_000_000 + number * 10 + n));
        let mut snapshots: Vec<Snapshot> = snapshots.collect();
        snapshots.iter_mut().zip(0..).for_each(|(snapshot, n)| snapshot.at_ms -= n);
        post(attacker, http, wire::CONTENT_TYPE, &batch(attacker, HOST_NAME, &snapshots))
    });
}

fn decompression_bombs(attacker: &Attacker, attack: &'static str) {
    let bombs = [
        compress(&vec![0; limits::MAX_DECOMPRESSED_BYTES]),
        compress(&vec![b' '; limits::MAX_DECOMPRESSED_BYTES]),
        compress(&vec![0; 256 << 20]),
    ];
    attacker.repeat(attack, |http, number| {
        let content_type = if number % 2 == 0 { wire::CONTENT_TYPE } else { "application/json" };
        post(attacker, http, content_type, &bombs[number as usize % bombs.len()])
    });
}

fn amplified_json(attacker: &Attacker, attack: &'static str) {
    let size = limits::MAX_DECOMPRESSED_BYTES - 64;
    let list = |part: &str| format!("[{}0]", part.repeat(size / part.len()));
    let bodies = [
        list("{},"),
        list("[],"),
        list("0,"),
        list("\"\","),
        format!("{{\"host\":\"{HOST_NAME}\",\"a\":{}}}", list("{\"b\":0},")),
        "[".repeat(size),
    ];
    let bodies = bodies.map(|body| compress(body.as_bytes()));
    attacker.repeat(attack, |http, number| {
        post(attacker, http, "application/json", &bodies[number as usize % bodies.len()])
    });
}

fn empty_entries(attacker: &Attacker, attack: &'static str) {
    let bodies =
        [b"\"\0", b"\x1a\0"].map(|entry| compress(&entry.repeat(limits::MAX_DECOMPRESSED_BYTES / 2)));
    attacker.repeat(attack, |http, number| {
        post(attacker, http, wire::CONTENT_TYPE, &bodies[number as usize % bodies.len()])
    });
}

fn unfinished_bodies(attacker: &Attacker, attack: &'static str) {
    let request = format!(
        "POST /ingest/metrics HTTP/1.1\r\nHost: hub\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n{}",
        attacker.agent,
        limits::MAX_BODY_BYTES,
        " ".repeat(limits::MAX_BODY_BYTES - 1_000)
    );
    attacker.hold_connections(attack, UNFINISHED_BODIES, &request, b' ');
}

fn other_names(attacker: &Attacker, attack: &'static str) {
    let shape = shape(1, "eth0");
    attacker.repeat(attack, |http, number| {
        let name = &attacker.names[number as usize % attacker.names.len().max(1)];
        if number % 2 == 0 {
            let body = batch(attacker, name, &[snapshot(attacker, shape.clone(), 4_000_000 + number)]);
            return post(attacker, http, wire::CONTENT_TYPE, &body);
        }
        let body = json!({ "host": name, "cpu": { "usage": 100.0 } }).to_string();
        post(attacker, http, "application/json", &compress(body.as_bytes()))
    });
}

fn other_enrollments(attacker: &Attacker, attack: &'static str) {
    attacker.repeat(attack, |http, number| {
        let name = &attacker.names[number as usize % attacker.names.len().max(1)];
        let body = json!({ "token": attacker.enrollment, "host_id": HostId::generate(), "host_name": name });
        attacker.send_json(http, ("POST", "/api/v1/agents/enroll"), &attacker.agent, &body)
    });
}

fn hostile_text(attacker: &Attacker, attack: &'static str) {
    let shape = shape(1, "eth0");
    attacker.repeat(attack, |http, number| {
        let text = match number % 3 {
            0 => "x".repeat(limits::MAX_TEXT_BYTES),
            1 => format!("\x1b]0;{number}\x07\r\n\0=cmd|' /C calc'!A1"),
            _ => format!("{number}-{}", "y".repeat(limits::MAX_SNAPSHOT_BYTES / 2)),
        };
        let row = ProcessRow {
            pid: 1,
            command: text.as_str().into(),
            name: text.as_str().into(),
            ..ProcessRow::default()
        };
        let mut snapshot = snapshot(attacker, shape.clone(), 5_000_000 + number);
        snapshot.processes = vec![row; limits::MAX_PROCESSES];
        snapshot.processes.truncate(if number % 3 == 2 { 1 } else { limits::MAX_PROCESSES });
        post(attacker, http, wire::CONTENT_TYPE, &batch(attacker, HOST_NAME, &[snapshot]))
    });
}
