//! Formats of `POST /ingest/metrics`, and the specific error of every invalid request.

use crate::support::{TestHub, now_ms};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write as _;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn snapshot(host: &str, at_ms: i64) -> Value {
    json!({ "timestamp": at_ms, "host": host, "cpu": { "usage": 12.34 },
            "network": { "interface": { "eth0": { "rx_bytes": 5 } } } })
}

#[test]
fn json_snapshot_is_visible_and_deduplicated() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let at = now_ms();
    let first = hub.post_json(&snapshot("web-1", at));
    assert_eq!(
        (first.status, &first.body["accepted"], &first.body["duplicates"]),
        (200, &json!(1), &json!(0))
    );
    let repeated = hub.post_json(&snapshot("web-1", at));
    assert_eq!(
        (repeated.status, &repeated.body["accepted"], &repeated.body["duplicates"]),
        (200, &json!(0), &json!(1))
    );
    // gzip, zstd, and curl's default content type.
    let text = |offset: i64| snapshot("web-1", at + offset).to_string().into_bytes();
    assert_eq!(hub.post(&gzip(&text(1)), &[("Content-Encoding", "gzip")]).body["accepted"], 1);
    let zstd = zstd::bulk::compress(&text(2), 3).unwrap();
    assert_eq!(hub.post(&zstd, &[("Content-Encoding", "zstd")]).body["accepted"], 1);
    assert_eq!(
        hub.post(&text(3), &[("Content-Type", "application/x-www-form-urlencoded")]).body["accepted"],
        1
    );
    let list = json!([snapshot("web-1", at + 4), snapshot("web-2", at), { "host": "" }]);
    let list = hub.post_json(&list);
    assert_eq!((list.status, &list.body["accepted"]), (200, &json!(2)), "{}", list.text);
    assert_eq!(list.body["rejected"][0]["index"], 2);

    let recent = hub.get("/api/metrics/recent?host=web-1&metric=cpu.usage,network.rx_bytes");
    assert_eq!(recent.body["times"].as_array().unwrap().len(), 5);
    assert_eq!(recent.body["series"][0]["values"][4], 12.34);
    assert_eq!(recent.body["series"][1]["instance"], "eth0");
    let full = hub.get("/api/metrics/recent?host=web-2");
    assert_eq!(full.body["snapshots"][0]["cpu"]["usage"], 12.34);
    assert_eq!(hub.get("/api/v1/hosts").body["total"], 2);
    assert_eq!(hub.get("/api/v1/hosts/web-2").body["status"], "online");
}

/// Label, body, headers, expected status and error code.
type Case<'a> = (&'a str, Vec<u8>, &'a [(&'a str, &'a str)], u16, &'a str);

#[test]
fn invalid_bodies_return_specific_errors() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let at = now_ms();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = snapshot("bad", at);
        change(&mut value);
        value.to_string().into_bytes()
    };
    let large = vec![b' '; (4 << 20) + 1];
    let bomb_gzip = gzip(&vec![b' '; 64 << 20]);
    let bomb_zstd = zstd::bulk::compress(&vec![b' '; 64 << 20], 1).unwrap();
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let many = Value::Array(vec![json!({}); 501]).to_string();
    let compact = [("Content-Type", perfwatch_model::wire::CONTENT_TYPE)];
    let none: [(&str, &str); 0] = [];
    let cases: Vec<Case> = vec![
        ("empty", vec![], &none, 400, "malformed_json"),
        ("malformed", b"{\"host\": }".to_vec(), &none, 400, "malformed_json"),
        ("NaN", b"{\"host\":\"h\",\"cpu\":{\"usage\":NaN}}".to_vec(), &none, 400, "malformed_json"),
        ("duplicate value", changed(&|v| v["cpu.usage"] = json!(5)), &none, 422, "invalid_snapshot"),
        ("NaN as text", changed(&|v| v["cpu"]["usage"] = json!("NaN")), &none, 422, "invalid_snapshot"),
        ("infinite", b"{\"host\":\"h\",\"cpu\":{\"usage\":1e999}}".to_vec(), &none, 400, "malformed_json"),
        ("deeply nested", deep.into_bytes(), &none, 400, "malformed_json"),
        ("no host", changed(&|v| v["host"] = Value::Null), &none, 422, "invalid_snapshot"),
        ("control characters", changed(&|v| v["host"] = json!("a\u{1b}[31m")), &none, 422, "invalid_host"),
        ("negative", changed(&|v| v["cpu"]["usage"] = json!(-3)), &none, 422, "value_out_of_range"),
        ("over 100 %", changed(&|v| v["cpu"]["usage"] = json!(100.5)), &none, 422, "value_out_of_range"),
        ("future", changed(&|v| v["timestamp"] = json!(at + 100_000_000)), &none, 422, "timestamp_in_future"),
        (
            "too old",
            changed(&|v| v["timestamp"] = json!("1999-01-01T00:00:00Z")),
            &none,
            422,
            "timestamp_too_old",
        ),
        ("too large", large, &none, 413, "body_too_large"),
        ("gzip bomb", bomb_gzip, &[("Content-Encoding", "gzip")], 413, "decompressed_too_large"),
        ("zstd bomb", bomb_zstd, &[("Content-Encoding", "zstd")], 413, "decompressed_too_large"),
        ("not gzip", b"{}".to_vec(), &[("Content-Encoding", "gzip")], 400, "invalid_compression"),
        (
            "cut zstd",
            zstd::bulk::compress(&changed(&|_| ()), 1).unwrap()[..20].to_vec(),
            &[("Content-Encoding", "zstd")],
            400,
            "invalid_compression",
        ),
        ("brotli", b"{}".to_vec(), &[("Content-Encoding", "br")], 415, "unsupported_encoding"),
        ("XML", b"<a/>".to_vec(), &[("Content-Type", "text/xml")], 415, "unsupported_content_type"),
        ("too many", many.into_bytes(), &none, 413, "too_many_snapshots"),
        ("not protobuf", b"hello".to_vec(), &compact, 400, "malformed_batch"),
        ("no host id", vec![], &compact, 400, "malformed_batch"),
    ];
    for (name, body, headers, status, code) in cases {
        let response = hub.post(&body, headers);
        assert_eq!((response.status, response.code()), (status, code), "{name}: {}", response.text);
        assert!(response.body["error"]["message"].as_str().unwrap().len() > 10, "{name}: {}", response.text);
        assert_eq!(
            hub.post_json(&json!({ "host": "good", "timestamp": now_ms() })).status,
            200,
            "after {name}"
        );
    }
    assert!(hub.process.resident_kib() < 200 << 10, "{} KiB after two bombs", hub.process.resident_kib());
    // Rejected snapshots create no host.
    assert_eq!(hub.get("/api/v1/hosts").body["total"], 1);
    assert!(!hub.process.log().contains("panicked"), "{}", hub.process.log());
}

#[test]
fn errors_share_one_envelope_and_loopback_is_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    assert_eq!(hub.get("/healthz").text, "ok\n");
    assert_eq!(hub.get("/readyz").text, "ready\n");
    let metrics = hub.get("/metrics").text;
    assert!(metrics.contains("perfwatch_hosts 0"), "{metrics}");
    assert!(metrics.contains("# TYPE perfwatch_ingest_samples_total counter"), "{metrics}");
    assert!(hub.get("/api/v1/catalog").body["metrics"].as_array().unwrap().len() > 100);
    assert_eq!(hub.get("/api/v1/system").body["version"], env!("CARGO_PKG_VERSION"));
    for (path, status, code) in [
        ("/api/nothing", 404, "not_found"),
        ("/api/v1/hosts/unknown", 404, "not_found"),
        ("/api/metrics/recent", 400, "host_required"),
        ("/api/metrics/recent?host=unknown", 404, "not_found"),
        ("/api/metrics/recent?unknown=5", 400, "invalid_query"),
        ("/api/v1/hosts?limit=x", 400, "invalid_query"),
        ("/ingest/metrics", 405, "method_not_allowed"),
        ("/assets/gone.js", 404, "not_found"),
    ] {
        let response = hub.get(path);
        assert_eq!((response.status, response.code()), (status, code), "{path}: {}", response.text);
    }
    let headers = [("Origin", "https://evil.example")];
    assert_eq!(hub.post(b"{\"host\":\"h\"}", &headers).code(), "cross_origin");
}

/// Protobuf batch of an agent, with the given time of the host's clock.
fn compact(host: perfwatch_model::HostId, at_ms: i64, sent_at_ms: i64) -> Vec<u8> {
    use perfwatch_model::{Column, Shape, Snapshot, wire};
    let column =
        Column { metric: "cpu.usage".into(), dimension: "".into(), instance: "".into(), decimals: 2 };
    let snapshot = Snapshot {
        boot: perfwatch_model::BootId::default(),
        seq: u64::try_from(at_ms).unwrap(),
        at_ms,
        interval_ms: 2000,
        shape: std::sync::Arc::new(Shape::new(vec![column])),
        values: vec![1234],
        processes: vec![],
        facts: None,
        errors: vec![],
    };
    let batch = wire::Batch {
        host_id: host.to_bytes().to_vec().into(),
        host_name: "skewed".into(),
        shapes: vec![wire::encode_shape(&snapshot.shape)],
        snapshots: vec![wire::encode_snapshot(&snapshot)],
        sent_at_ms,
        facts: None,
    };
    wire::encode_batch(&batch)
}

#[test]
fn clock_skew_is_corrected_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let host = perfwatch_model::HostId::generate();
    let headers = [("Content-Type", perfwatch_model::wire::CONTENT_TYPE)];
    let ahead = now_ms() + 3_600_000;
    let response = hub.post(&compact(host, ahead - 100, ahead), &headers);
    assert_eq!(
        (&response.body["accepted"], &response.body["facts_requested"]),
        (&json!(1), &json!(true)),
        "{}",
        response.text
    );
    let host_response = hub.get("/api/v1/hosts/skewed").body;
    assert!(
        (host_response["last_snapshot_ms"].as_i64().unwrap() - now_ms()).abs() < 30_000,
        "{host_response}"
    );
    assert!(host_response["clock_skew_ms"].as_i64().unwrap() > 3_500_000, "{host_response}");
    // Taken before the clock of the sender was set, sent afterwards.
    let response = hub.post(&compact(host, ahead, now_ms()), &headers);
    assert_eq!(response.body["rejected"].as_array().unwrap().len(), 0, "{}", response.text);
    // A script whose clock is two hours ahead is shown as such, at the time of the hub.
    let script = json!({ "host": "script", "timestamp": now_ms() + 7_200_000, "cpu": { "usage": 1 } });
    assert_eq!(hub.post_json(&script).status, 200);
    let host_response = hub.get("/api/v1/hosts/script").body;
    assert!((host_response["last_snapshot_ms"].as_i64().unwrap() - now_ms()).abs() < 30_000);
    assert!(host_response["clock_skew_ms"].as_i64().unwrap() > 7_100_000, "{host_response}");
    // A batch truncated at any byte is an error or a smaller batch; the hub does not crash.
    let batch = compact(host, now_ms(), now_ms());
    for length in 0..batch.len() {
        assert!([200, 400, 409].contains(&hub.post(&batch[..length], &headers).status));
    }
    assert_eq!(hub.get("/healthz").status, 200);
}

/// The hub stores snapshots as their agents encoded them, unless it corrected something.
#[test]
fn corrected_snapshots_are_the_same_after_a_crash() {
    use perfwatch_model::{Column, HostId, Shape, Snapshot, wire};
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let column = |metric: &'static str, dimension: &'static str, instance: &str| Column {
        metric: metric.into(),
        dimension: dimension.into(),
        instance: instance.into(),
        decimals: 2,
    };
    let plain = vec![column("cpu.usage", "", "")];
    let hidden = vec![column("cpu.usage", "", ""), column("network.rx_bytes", "interface", "eth\u{202e}0")];
    // Host, offset of its clock, interval, columns, values: unchanged, corrected time, removed value, learned interval,
    // cleaned text.
    let cases = [
        ("same", 0, 2_000, &plain, vec![1_234]),
        ("ahead", 3_600_000, 2_000, &plain, vec![1_234]),
        ("wrong", 0, 2_000, &plain, vec![99_999]),
        ("script", 0, 0, &plain, vec![1_234]),
        ("hidden", 0, 2_000, &hidden, vec![1_234, 500]),
    ];
    for (name, offset_ms, interval_ms, columns, values) in &cases {
        let host = HostId::generate();
        for tick in 0..3_u32 {
            let sent_at_ms = now_ms() + offset_ms;
            let snapshot = Snapshot {
                boot: perfwatch_model::BootId::default(),
                seq: u64::from(tick),
                at_ms: sent_at_ms - 5_000 + 1_000 * i64::from(tick),
                interval_ms: *interval_ms,
                shape: std::sync::Arc::new(Shape::new((*columns).clone())),
                values: values.clone(),
                processes: vec![],
                facts: None,
                errors: vec![],
            };
            let batch = wire::Batch {
                host_id: host.to_bytes().to_vec().into(),
                host_name: (*name).to_owned(),
                shapes: vec![wire::encode_shape(&snapshot.shape)],
                snapshots: vec![wire::encode_snapshot(&snapshot)],
                sent_at_ms,
                facts: None,
            };
            let response = hub.post(&wire::encode_batch(&batch), &[("Content-Type", wire::CONTENT_TYPE)]);
            assert_eq!(response.body["accepted"], 1, "{name}: {}", response.text);
        }
    }
    let recent = |hub: &TestHub, name: &str| hub.get(&format!("/api/metrics/recent?host={name}")).text;
    let before = cases.each_ref().map(|case| recent(&hub, case.0));
    let address = hub.address.clone();
    hub.process.kill();
    let hub = TestHub::start_at(folder.path(), &address);
    assert_eq!(cases.each_ref().map(|case| recent(&hub, case.0)), before);
}
