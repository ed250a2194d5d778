//! History of a real hub: acknowledged rows are stored exactly once, whatever is killed, and all
//! endpoints return the same data.

use crate::support::{TestHub, eventually, has_consecutive_sequences, now_ms, start_agent};
use perfwatch_testkit::Postgres;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const BOOT: &str = "6ccd780c-baba-4026-9564-5b8c656024db";

fn snapshot(host: &str, seq: u64, at_ms: i64) -> Value {
    json!({
        "host": host, "boot": BOOT, "seq": seq, "timestamp": at_ms, "interval_ms": 100,
        "cpu": { "usage": seq % 100 }, "memory": { "used": seq * 4096, "total": 1_i64 << 40 },
    })
}

/// Returns the stored sequence numbers of a host, in the order of the export.
pub(crate) fn exported(hub: &TestHub, host: &str) -> Vec<u64> {
    let text =
        hub.get(&format!("/api/v1/hosts/{host}/export?format=jsonl&from=-6h&to={}", now_ms() + 60_000)).text;
    let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
    text.lines().map(seq).collect()
}

#[test]
fn acked_rows_survive_kill_9_on_sqlite() {
    assert_acked_rows_survive(&[], |_| {});
}

#[test]
fn acked_rows_survive_kill_9_on_postgres() {
    let server = Mutex::new(Postgres::start_durable());
    let url = server.lock().unwrap().database("crash");
    // The database is killed too, every third time.
    assert_acked_rows_survive(&["--store", &url], |run| {
        if run % 3 == 1 {
            let mut server = server.lock().unwrap();
            server.kill();
            server.resume();
        }
    });
}

fn assert_acked_rows_survive(store: &[&str], interfere: impl Fn(u64)) {
    const HOSTS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let start =
        |listen: &str| TestHub::start_with(folder.path(), &[&["hub", "--listen", listen], store].concat());
    let mut hub = start("127.0.0.1:0");
    let address = hub.address.clone();
    let acked: Arc<Mutex<BTreeMap<String, BTreeSet<u64>>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..HOSTS)
        .map(|number| {
            let (address, acked, stop) = (address.clone(), acked.clone(), stop.clone());
            let bearer = format!("Bearer {}", hub.token);
            std::thread::spawn(move || {
                let host = format!("load-{number}");
                let client = ureq::Agent::config_builder()
                    .timeout_global(Some(Duration::from_secs(5)))
                    .build()
                    .new_agent();
                let (mut next, start) = (0u64, now_ms() - 3 * 3_600_000);
                while !stop.load(Ordering::Relaxed) {
                    let rows: Vec<u64> = (next..next + 20).collect();
                    let body: Vec<Value> =
                        rows.iter().map(|&seq| snapshot(&host, seq, start + seq as i64 * 100)).collect();
                    let sent = client
                        .post(format!("http://{address}/ingest/metrics"))
                        .header("Authorization", &bearer)
                        .send(json!(body).to_string().as_bytes());
                    match sent {
                        Ok(response) if response.status() == 200 => {
                            acked.lock().unwrap().entry(host.clone()).or_default().extend(rows);
                            next += 20;
                        }
                        // Hub unreachable: retry the same rows after the delay of a sender.
                        _ => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            })
        })
        .collect();
    for run in 0..8 {
        let before: usize = acked.lock().unwrap().values().map(BTreeSet::len).sum();
        eventually("rows are acknowledged", || {
            acked.lock().unwrap().values().map(BTreeSet::len).sum::<usize>() > before + 400
        });
        // Elapsed time for the hub: each run is killed at a different point.
        std::thread::sleep(Duration::from_millis(run * 37 % 200));
        interfere(run);
        hub.process.kill();
        hub = start(&address);
    }
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let acked = acked.lock().unwrap().clone();
    for (host, seqs) in &acked {
        let stored = exported(&hub, host);
        let unique: BTreeSet<u64> = stored.iter().copied().collect();
        assert_eq!(stored.len(), unique.len(), "{host}: duplicate rows");
        assert!(seqs.is_subset(&unique), "{host}: lost {:?}", seqs.difference(&unique).collect::<Vec<_>>());
        assert!(unique.len() <= seqs.len() + 20, "{host}: more unacknowledged rows than one request");
    }
    // A restart after a clean shutdown returns the same rows.
    let metrics = hub.get("/metrics").text;
    assert!(metrics.contains("perfwatch_tsdb_blocks_sealed_total"), "{metrics}");
    let before: Vec<Vec<u64>> = acked.keys().map(|host| exported(&hub, host)).collect();
    assert_eq!(hub.process.terminate(), 0);
    let hub = start(&address);
    let after: Vec<Vec<u64>> = acked.keys().map(|host| exported(&hub, host)).collect();
    assert_eq!(before, after);
}

#[test]
fn history_is_readable_by_every_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let end = now_ms() / 60_000 * 60_000;
    let start = end - 2 * 3_600_000;
    // Two hours at one-second resolution, with a gap of ten minutes and a one-second spike.
    let seqs: Vec<u64> = (0..7_200).filter(|seq| !(3_000..3_600).contains(seq)).collect();
    for chunk in seqs.chunks(400) {
        let rows: Vec<Value> = chunk
            .iter()
            .map(|&seq| {
                let usage = if seq == 1_234 { 99.5 } else { 10.0 };
                json!({
                    "host": "past", "boot": BOOT, "seq": seq, "timestamp": start + seq as i64 * 1_000,
                    "interval_ms": 1_000,
                    "cpu": { "usage": usage, "core": { "0": { "usage": usage } } },
                    "processes": { "top": [{ "pid": 42, "name": "burner", "user": "u", "cpu_percent": usage,
                                            "memory_bytes": 1000, "threads": 1 }] },
                })
            })
            .collect();
        let response = hub.post_json(&Value::Array(rows));
        assert_eq!(response.body["accepted"], chunk.len(), "{}", response.text);
    }
    let get = |path: &str| {
        let response = hub.get(&format!("/api/v1/hosts/past/{path}"));
        assert_eq!(response.status, 200, "{path}: {}", response.text);
        response.body
    };
    // A wide range is downsampled: the maximum keeps the spike, the gap is reported.
    let wide = get(&format!("series?metric=cpu.usage&from={start}&to={end}&points=60"));
    assert_eq!(wide["step_ms"], 300_000);
    let max: Vec<f64> =
        wide["series"][0]["max"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(max.iter().filter(|v| **v == 99.5).count(), 1);
    assert_eq!(wide["gaps"].as_array().unwrap().len(), 1);
    assert_eq!(wide["gaps"][0]["from_ms"], start + 2_999_000);
    assert_eq!(wide["gaps"][0]["reason"], "data_lost");
    assert!(wide["t"].as_array().unwrap().iter().all(|t| t.as_i64() != Some(start + 3_300_000)));
    // A narrow range has every tick.
    let (from, to) = (start + 1_230_000, start + 1_240_000);
    let narrow = get(&format!("series?metric=cpu.*,cpu.core.usage%7B0%7D&from={from}&to={to}"));
    assert_eq!((narrow["step_ms"].as_i64(), narrow["t"].as_array().unwrap().len()), (Some(0), 10));
    assert_eq!(narrow["series"][0]["v"][4], 99.5);
    // The snapshot at a point in time.
    let snapshot = get(&format!("snapshot?at={}", start + 1_234_500));
    assert_eq!(snapshot["at_ms"], start + 1_234_000);
    assert_eq!(snapshot["snapshot"]["processes"]["top"][0]["cpu_percent"], 99.5);
    assert_eq!(hub.get(&format!("/api/v1/hosts/past/snapshot?at={}", start - 1)).status, 404);
    // Top processes of a range.
    let usage = get(&format!("processes?from={start}&to={}", start + 1_000_000));
    assert_eq!(usage["processes"][0]["name"], "burner");
    assert_eq!(usage["processes"][0]["cpu_percent_mean"], 10.0);
    assert_eq!(usage["covered_ms"], 1_000_000);
    // Export as CSV, raw and 1-minute roll-ups.
    let text = hub.get(&format!("/api/v1/hosts/past/export?metric=cpu.usage&from={from}&to={to}")).text;
    assert_eq!(text.lines().count(), 11);
    assert!(text.lines().nth(5).unwrap().ends_with(",cpu.usage,,99.5,,"), "{text}");
    let minutes =
        hub.get(&format!("/api/v1/hosts/past/export?metric=cpu.usage&from={start}&to={end}&tier=1m")).text;
    assert_eq!(minutes.lines().count(), 111);
    assert!(minutes.contains(",cpu.usage,,11.4917,10,99.5"), "{minutes}");
    for (path, code) in [
        ("series?from=-1h", "metric_required"),
        ("series?metric=cpu.usage&from=yesterday", "invalid_time"),
        ("series?metric=cpu.usage&from=now&to=-1h", "invalid_range"),
        ("series?metric=cpu.usage&unknown=1", "invalid_query"),
        ("series?metric=CPU+usage", "invalid_query"),
        ("export?format=xml", "invalid_query"),
        ("export?tier=5m", "invalid_query"),
        ("processes?from=-99d", "invalid_range"),
    ] {
        let response = hub.get(&format!("/api/v1/hosts/past/{path}"));
        assert_eq!((response.status, response.code()), (400, code), "{path}: {}", response.text);
    }
    assert_eq!(hub.get("/api/v1/hosts/unknown/series?metric=cpu.usage").code(), "not_found");
}

#[test]
fn low_disk_space_blocks_and_resumes_ingestion() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hub.yaml");
    // More than any disk.
    std::fs::write(&config, "hub:\n  listen: 127.0.0.1:0\n  min_free_space: 4000TB\n").unwrap();
    let hub = TestHub::start_with(folder.path(), &["hub", "--config", config.to_str().unwrap()]);
    let response = hub.post_json(&snapshot("full", 1, now_ms()));
    assert_eq!((response.status, response.code()), (503, "store_unavailable"), "{}", response.text);
    assert!(response.text.contains("hub.min_free_space"), "{}", response.text);
    assert_eq!(hub.get("/readyz").status, 503);
    assert!(hub.get("/api/v1/system").body["storage"]["ingest_blocked"].is_string());
    drop(hub);
    let hub = TestHub::start(folder.path());
    assert_eq!(hub.post_json(&snapshot("full", 1, now_ms())).body["accepted"], 1);
}

#[test]
fn restart_restores_the_recent_window() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let start = now_ms() - 260_000;
    for chunk in 0..5 {
        let rows: Vec<Value> = (chunk * 40..chunk * 40 + 40)
            .map(|seq| snapshot("back", seq, start + seq as i64 * 1_000))
            .collect();
        assert_eq!(hub.post_json(&Value::Array(rows)).body["accepted"], 40);
    }
    eventually("the oldest rows are sealed", || {
        let metrics = hub.get("/metrics").text;
        let sealed =
            metrics.lines().find_map(|line| line.strip_prefix("perfwatch_tsdb_blocks_sealed_total "));
        sealed.is_some_and(|count| count != "0")
    });
    let times = |hub: &TestHub| {
        let recent = hub.get("/api/metrics/recent?host=back&metric=cpu.usage").body;
        recent["times"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect::<Vec<_>>()
    };
    let before = times(&hub);
    assert_eq!(before.len(), 200);
    hub.process.kill();
    let hub = TestHub::start(folder.path());
    let after = times(&hub);
    // Only the oldest rows may have left the window during the restart.
    assert!(after.len() > 150 && before.ends_with(&after), "{} of {}", after.len(), before.len());
}

#[test]
fn agent_spools_while_the_database_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Postgres::start_durable();
    let url = server.database("outage");
    let hub = TestHub::start_with(folder.path(), &["hub", "--listen", "127.0.0.1:0", "--store", &url]);
    let mut agent = start_agent(folder.path(), &hub, "250ms");
    let wait_for_rows = || {
        // Before the export, which fails if its connection was closed by the outage.
        eventually("the hub is ready", || hub.get("/readyz").status == 200);
        let before = exported(&hub, "it").len();
        eventually("rows are stored", || exported(&hub, "it").len() >= before + 4);
    };
    let wait_until_blocked = |seq: u64| {
        eventually("ingestion is blocked", || {
            let response = hub.post_json(&snapshot("other", seq, now_ms()));
            let blocked = (response.status, response.code()) == (503, "store_unavailable");
            assert!(blocked || response.status == 200, "{}", response.text);
            blocked
        });
        eventually("the hub is not ready", || hub.get("/readyz").status == 503);
        assert!(hub.get("/api/v1/system").body["storage"]["ingest_blocked"].is_string());
        // The API works without the database.
        assert_eq!(hub.get("/api/v1/hosts").status, 200);
        // Elapsed time for the agent: it spools eight ticks.
        std::thread::sleep(Duration::from_secs(2));
    };
    eventually("the host is known", || hub.get("/api/v1/hosts/it").status == 200);
    wait_for_rows();
    server.kill();
    wait_until_blocked(1);
    server.resume();
    wait_for_rows();
    server.set_read_only("outage", true);
    wait_until_blocked(2);
    server.set_read_only("outage", false);
    wait_for_rows();
    assert_eq!(agent.terminate(), 0);
    let seqs = exported(&hub, "it");
    assert!(has_consecutive_sequences(&seqs), "{seqs:?}");
}
