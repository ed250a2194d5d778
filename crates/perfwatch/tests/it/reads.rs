//! Reads of the largest hosts: every read is bounded, and the hub answers other requests.

use crate::access::add_user;
use crate::support::{TestHub, now_ms};
use futures_util::{SinkExt as _, StreamExt as _};
use perfwatch_auth::access::ROUTES;
use perfwatch_model::limits;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const BOOT: &str = "6ccd780c-baba-4026-9564-5b8c656024db";
/// Host with the maximum number of columns.
const LARGE: &str = "01a1ffe1-afde-72f9-853f-a45c90cff753";
/// Host whose columns change with each snapshot.
const CHANGING: &str = "01a1ffe1-afde-72f9-853f-a45c90cff754";
/// Maximum resident memory of the hub in this test.
const MAX_RESIDENT_KIB: u64 = 700 << 10;

/// Sends rows with one-second steps until now.
fn send_rows(hub: &TestHub, host: &str, rows: usize, columns: usize, is_changing: bool) {
    let start_ms = now_ms() - i64::try_from(rows).unwrap() * 1_000;
    let row = |seq: usize| {
        let prefix = if is_changing { seq } else { 0 };
        let interfaces: serde_json::Map<String, Value> =
            (0..columns).map(|index| (format!("{prefix}-{index}"), json!({ "rx_bytes": seq }))).collect();
        json!({
            "host": &host[32..], "host_id": host, "boot": BOOT, "seq": seq, "interval_ms": 1_000,
            "timestamp": start_ms + i64::try_from(seq).unwrap() * 1_000,
            "network": { "interface": interfaces },
        })
    };
    for chunk in (0..rows).collect::<Vec<_>>().chunks(10) {
        let response = hub.post_json(&chunk.iter().map(|&seq| row(seq)).collect());
        assert_eq!(response.body["accepted"], chunk.len(), "{}", response.text);
    }
}

/// Longest queries of a route for a host.
fn queries(path: &str, host: &str) -> Vec<String> {
    let metrics = vec!["network.rx_bytes"; 300].join(",");
    let names: Vec<String> = (0..200).map(|index| format!("*x{index}*")).collect();
    let queries: &[&str] = match path {
        "/api/v1/hosts/{id}/series" => {
            &["?metric=network.*&points=10000", "?metric=*&from=-30d", "?metric={metrics}", "?metric={names}"]
        }
        "/api/v1/hosts/{id}/export" => &["?format=csv", "?format=jsonl&from=-30d", "?tier=1m"],
        "/api/v1/hosts/{id}/processes" => &["?from=-30d&limit=1000"],
        "/api/v1/hosts/{id}/alerts" => &["?from=-300d"],
        "/api/v1/hosts" => &["?limit=1000"],
        "/api/metrics/recent" => &["?host={host}", "?host={host}&metric={metrics}"],
        "/api/v1/live" => &["?host={host}&since=0", "?host={host}&metric={metrics}"],
        "/api/v1/incidents/history" => &["?limit=200&text=a&from=-300d"],
        "/api/v1/audit" => &["?limit=500&text=a"],
        "/api/v1/notifications" => &["?limit=500"],
        "/api/v1/servers/metrics/queue/jobs" => &["?limit=1000"],
        _ => &[""],
    };
    let fill = |query: &&str| {
        let query = query.replace("{metrics}", &metrics).replace("{names}", &names.join(","));
        format!("{}{query}", path.replace("{id}", host)).replace("{host}", host)
    };
    queries.iter().map(fill).collect()
}

/// Findings H4 and H5: every GET with the largest host and the longest query.
#[test]
fn every_read_is_bounded_while_the_hub_answers() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    send_rows(&hub, LARGE, 40, 8_000, false);
    send_rows(&hub, CHANGING, 16, 8_000, true);
    let (is_finished, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_finished.load(Ordering::Relaxed) {
                assert_eq!(hub.request("GET", "/healthz", "", &Value::Null).text, "ok\n");
                answers.fetch_add(1, Ordering::Relaxed);
                // Below the rate limit of an address.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let paths = ROUTES.iter().filter(|(method, path, ..)| {
            *method == "GET" && !path.starts_with("/api/ws") && !path.contains("{file}")
        });
        let mut too_many = 0;
        for (_, path, ..) in paths {
            for host in [LARGE, CHANGING] {
                for query in queries(path, host) {
                    let response = hub.get(&query);
                    let shown = &query[..query.len().min(100)];
                    assert!(response.status < 500, "{shown}: {}", response.text);
                    assert!(response.text.len() < 32 << 20 || path.contains("export"), "{shown}");
                    too_many += usize::from(response.code() == "too_many_series");
                }
            }
        }
        assert!(too_many >= 2, "series of all columns of the changing host");
        is_finished.store(true, Ordering::Relaxed);
    });
    assert!(answers.into_inner() > 10);
    let resident_kib = hub.process.resident_kib();
    assert!(resident_kib < MAX_RESIDENT_KIB, "{resident_kib}");
    let series = hub.get(&format!("/api/v1/hosts/{LARGE}/series?metric=network.*&points=10000"));
    assert_eq!(series.body["series"].as_array().unwrap().len(), 8_000);
    let metrics = hub.get("/metrics").text;
    for limit in ["result_series", "result_points", "backfill"] {
        let counter = format!("perfwatch_limit_refusals_total{{limit=\"{limit}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&counter)).unwrap();
        assert_ne!(value, "0", "{limit}");
    }
}

/// Finding M1: an account above its share of selections receives an error message, which is counted, and other
/// accounts are served.
#[test]
fn selections_of_an_account_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    add_user(&hub, ("vera", "viewer-password-1"), "viewer", &[]);
    let viewer = hub.create_token(("vera", "viewer-password-1"), "viewer");
    let subscribe = |id: usize, socket: usize| {
        let metrics: Vec<String> = (0..200).map(|index| format!("x{socket}.y{id}.z{index}")).collect();
        Message::text(json!({ "subscribe": { "id": id, "metrics": metrics, "backfill_s": 1 } }).to_string())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sockets = Vec::new();
        let mut refused = 0;
        for number in 0..6 {
            let (mut socket, _) = connect_async(hub.websocket_url(&viewer)).await.unwrap();
            for id in 0..limits::MAX_SUBSCRIPTIONS {
                socket.send(subscribe(id, number)).await.unwrap();
                let answer = socket.next().await.unwrap().unwrap().into_text().unwrap();
                let is_refused = answer.contains("limit_reached");
                assert!(is_refused || answer.contains("backfill"), "{answer}");
                refused += usize::from(is_refused);
            }
            sockets.push(socket);
        }
        assert_eq!(refused, 6 * limits::MAX_SUBSCRIPTIONS - limits::MAX_SELECTIONS_PER_ACCOUNT);
        let (mut other, _) = connect_async(hub.websocket_url(&hub.token)).await.unwrap();
        other.send(subscribe(0, 7)).await.unwrap();
        let answer = other.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(answer.contains("backfill"), "{answer}");
    });
    let counter = "perfwatch_limit_refusals_total{limit=\"selections_per_account\"} 32";
    assert!(hub.get("/metrics").text.contains(counter));
}
