//! One hostile sender beside honest ones: what it sends costs itself only. The limits are in docs/LIMITS.md.

use crate::ingest::gzip;
use crate::support::{TestHub, eventually, now_ms};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const HOST: &str = "01a1ffe1-afde-72f9-853f-a45c90cff753";

/// Enrolls an agent; returns its secret.
fn enroll(hub: &TestHub, host: &str) -> String {
    let body = json!({ "name": "test", "uses": 1 });
    let created = hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &body);
    let body = json!({ "token": created.body["token"], "host_id": host, "host_name": "hostile" });
    let enrolled = hub.request("POST", "/api/v1/agents/enroll", "", &body);
    enrolled.body["secret"].as_str().unwrap_or_else(|| panic!("{}", enrolled.text)).to_owned()
}

/// Value of a counter of refusals.
fn refusals(hub: &TestHub, limit: &str) -> u64 {
    let name = format!("perfwatch_limit_refusals_total{{limit=\"{limit}\"}} ");
    let metrics = hub.get("/metrics").text;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("{limit} is missing: {metrics}")).parse().unwrap()
}

/// Sends the head of an ingest request and the first byte of its body.
fn open_request(hub: &TestHub, secret: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&hub.address).unwrap();
    write!(
        stream,
        "POST /ingest/metrics HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {secret}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{",
        hub.address
    )
    .unwrap();
    stream
}

/// Finding M2: unfinished bodies were not counted.
#[test]
fn unfinished_bodies_of_a_sender_do_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let secret = enroll(&hub, HOST);
    let body = json!({ "host": "hostile", "host_id": HOST, "cpu": { "usage": 1 } });
    let send = || hub.request("POST", "/ingest/metrics", &secret, &body);
    assert_eq!(send().status, 200);
    let open: Vec<TcpStream> = (0..4).map(|_| open_request(&hub, &secret, 4 << 20)).collect();
    eventually("the share is used up", || send().status == 429);
    assert!(refusals(&hub, "receiving_share") > 0);
    let honest = json!({ "host": "honest", "cpu": { "usage": 1 } });
    assert_eq!(hub.post_json(&honest).status, 200);
    drop(open);
    eventually("the share is free again", || send().status == 200);
}

/// Finding M2: 788 bytes became 712 MB of memory.
#[test]
fn small_body_with_large_content_is_refused_before_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let before_kib = hub.process.resident_kib();
    let list = |element: &str| format!("{}0", format!("{element},").repeat((7 << 20) / (element.len() + 1)));
    for element in ["{\"a\":0}", "[]", "{\"a\":{\"b\":0}}"] {
        let body = gzip(format!("{{\"host\":\"x\",\"y\":[{}]}}", list(element)).as_bytes());
        for _ in 0..4 {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
            let response = hub.post(&body, &headers);
            assert_eq!((response.status, response.code()), (413, "decoded_too_large"), "{}", response.text);
        }
    }
    assert_eq!(refusals(&hub, "decoded_request"), 12);
    let grown_kib = hub.process.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 100 << 10, "{grown_kib} KiB");
    let mut response = String::new();
    let mut stream = TcpStream::connect(&hub.address).unwrap();
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", hub.address).unwrap();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

/// Finding C1: one agent filled the disk budget with column sets; other hosts were refused and lost history.
#[test]
fn column_sets_of_a_host_are_refused_for_this_host_alone() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["hub", "--listen", "127.0.0.1:0"];
    let hub = TestHub::start_with_env(folder.path(), &args, &[("PERFWATCH_HUB_DISK_BUDGET", "64MB")]);
    let secret = enroll(&hub, HOST);
    let at = now_ms() - 100_000;
    let mut refused = 0;
    for set in 0..63 {
        let columns: serde_json::Map<String, Value> =
            (0..8_000).map(|n| (format!("flood_{set}_{n}"), json!(1))).collect();
        let body = json!({ "timestamp": at + set, "host": "hostile", "host_id": HOST, "flood": columns });
        let response = hub.request("POST", "/ingest/metrics", &secret, &body);
        match response.status {
            // The share refills with time.
            200 => {}
            429 => refused += 1,
            _ => panic!("{}", response.text),
        }
        let honest = json!({ "timestamp": at + set, "host": "honest", "cpu": { "usage": 1 } });
        assert_eq!(hub.post_json(&honest).status, 200);
    }
    assert!(refused > 0);
    assert!(refusals(&hub, "new_shape_bytes") + refusals(&hub, "new_columns") > 0);
    assert_eq!(hub.get("/readyz").status, 200);
    assert_eq!(hub.seqs("honest").len(), 63);
}

/// Finding C1: rows that do not compress fill the disk budget faster than old data is deleted.
#[test]
fn rows_of_a_host_leave_the_disk_budget_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["hub", "--listen", "127.0.0.1:0"];
    let hub = TestHub::start_with_env(folder.path(), &args, &[("PERFWATCH_HUB_DISK_BUDGET", "64MB")]);
    let secret = enroll(&hub, HOST);
    let (start, mut refused, mut accepted) = (now_ms() - 200_000, 0, 0);
    let noise = |length: usize| (0..length).map(|_| fastrand::alphanumeric()).collect::<String>();
    for batch in 0..60 {
        let at_ms = start + batch * 1_000;
        let snapshot = |n: i64| {
            let row = |pid| json!({ "pid": pid, "command": noise(1_000) });
            let rows: Vec<Value> = (0..100).map(row).collect();
            json!({ "timestamp": at_ms + n, "host": "hostile", "host_id": HOST, "processes": { "top": rows } })
        };
        let snapshots: Vec<Value> = (0..20).map(snapshot).collect();
        match hub.request("POST", "/ingest/metrics", &secret, &json!(snapshots)).status {
            200 => accepted += 1,
            status => {
                assert!(status == 429 || status == 413, "{status}");
                refused += 1;
            }
        }
        let honest = json!({ "timestamp": at_ms, "host": "honest", "cpu": { "usage": 1 } });
        let response = hub.post_json(&honest);
        assert_eq!(response.status, 200, "batch {batch}, {accepted} accepted: {}", response.text);
        assert_eq!(hub.get("/readyz").status, 200, "batch {batch}");
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
    assert!(refusals(&hub, "space_share") > 0);
    let path = format!("/api/v1/hosts/honest/series?metric=cpu.usage&from={start}&to={}", now_ms());
    let series = hub.get(&path);
    assert_eq!(series.status, 200, "{}", series.text);
}
