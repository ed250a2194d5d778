//! The overview at a past time: values, states, processes and incidents of that time, on both databases.

use crate::support::{TestHub, TestResponse, eventually, now_ms};
use perfwatch_testkit::Postgres;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const BOOT: &str = "21111111-2222-4333-8444-555555555555";
const VIEWER: (&str, &str) = ("vera", "viewer-password-1");
const INTERVAL_MS: i64 = 10_000;
const ROWS: i64 = 200;

/// Row of a host; its CPU usage is the number of the row plus an offset.
fn row(host: &str, number: i64, at_ms: i64, offset: i64) -> Value {
    let usage = (number + offset) % 100;
    let process = json!({ "pid": 7, "name": format!("burner-{host}"), "user": "root", "cpu_percent": usage,
                          "memory_bytes": 4_096, "threads": 1, "command": format!("burn {host} {number}") });
    json!({
        "host": host, "boot": BOOT, "seq": number, "timestamp": at_ms, "interval_ms": INTERVAL_MS,
        "cpu": { "usage": usage }, "memory": { "used": 50, "total": 200, "used_percent": 25 },
        "network": { "total": { "rx_bytes": 1_000, "tx_bytes": 500 } },
        "filesystem": { "mount": { "/data": { "used_percent": 40, "used": 40, "size": 100 } } },
        "processes": { "top": [process] },
    })
}

fn send_rows(hub: &TestHub, host: &str, (first, last): (i64, i64), start_ms: i64, offset: i64) {
    let rows: Vec<Value> = (first..last).map(|n| row(host, n, start_ms + n * INTERVAL_MS, offset)).collect();
    let response = hub.post_json(&Value::Array(rows));
    assert_eq!(
        (response.status, &response.body["accepted"]),
        (200, &json!(last - first)),
        "{}",
        response.text
    );
}

fn read(hub: &TestHub, at: impl std::fmt::Display, token: &str) -> TestResponse {
    hub.request("GET", &format!("/api/v1/overview?at={at}"), token, &Value::Null)
}

fn overview_at(hub: &TestHub, at_ms: i64) -> Value {
    let response = read(hub, at_ms, &hub.token);
    assert_eq!(response.status, 200, "{}", response.text);
    response.body
}

fn left_out(overview: &Value, part: &str) -> Vec<Value> {
    let all = overview["replay"]["left_out"].as_array().unwrap().iter();
    all.filter(|entry| entry["part"] == part).cloned().collect()
}

#[test]
fn replay_reads_past_values_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    assert_replay(folder.path(), &[]);
}

#[test]
fn replay_reads_past_values_on_postgres() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Postgres::start());
    let url = server.database("replay");
    assert_replay(folder.path(), &["--store", &url]);
}

fn assert_replay(folder: &Path, store: &[&str]) {
    let start = || TestHub::start_with(folder, &[&["hub", "--listen", "127.0.0.1:0"], store].concat());
    let hub = start();
    // Five hours ago: host `b` sends only the first half of the time.
    let start_ms = (now_ms() - 5 * 3_600_000) / 60_000 * 60_000;
    send_rows(&hub, "a", (0, ROWS), start_ms, 0);
    send_rows(&hub, "b", (0, ROWS / 2), start_ms, 30);
    assert_past_values(&hub, start_ms);
    // Blocks and head rows of another process.
    hub.process.kill();
    let hub = start();
    send_rows(&hub, "late", (0, 1), now_ms(), 10);
    assert_past_values(&hub, start_ms);
    assert_newest_values(&hub);
    assert_course(&hub, start_ms);
    assert_times(&hub);
}

#[test]
fn replay_uses_roll_ups_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    assert_roll_ups(folder.path(), &[]);
}

#[test]
fn replay_uses_roll_ups_on_postgres() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Postgres::start());
    let url = server.database("replay");
    assert_roll_ups(folder.path(), &["--store", &url]);
}

/// Resolution and limits of the time, after a change of the retention.
fn assert_roll_ups(folder: &Path, store: &[&str]) {
    let hub = TestHub::start_with(folder, &[&["hub", "--listen", "127.0.0.1:0"], store].concat());
    let start_ms = (now_ms() - 5 * 3_600_000) / 60_000 * 60_000;
    send_rows(&hub, "a", (0, ROWS), start_ms, 0);
    // Enough rows for a block: rows of the head are not deleted.
    send_rows(&hub, "b", (0, ROWS), start_ms, 30);
    let mut version = 0;
    // Each change is applied at once; one that meets rows that arrive is repeated.
    let mut set_retention = |tiers: &[&str]| {
        let value = json!(3_600 + version);
        let values: serde_json::Map<String, Value> =
            tiers.iter().map(|tier| (format!("{tier}_retention_s"), value.clone())).collect();
        let body = json!({ "version": version, "values": values });
        let set = hub.admin_request("PUT", "/api/v1/settings", &body);
        assert_eq!(set.status, 200, "{}", set.text);
        version += 1;
        std::thread::sleep(Duration::from_secs(1));
    };
    let mut overview = Value::Null;
    eventually("the raw rows are deleted", || {
        set_retention(&["raw"]);
        overview = overview_at(&hub, start_ms + 65_000);
        overview["replay"]["tiers"] == json!(["1m", "1m"])
    });
    // Rows 6 to 11 of the second minute.
    assert_eq!(overview["values"]["cpu"], json!([8.5, 38.5]), "{overview}");
    assert_eq!(overview["top_processes"]["cpu"], json!([]));
    let expected = json!({ "part": "processes", "reason": "retention", "count": 2 });
    assert_eq!(left_out(&overview, "processes"), [expected]);
    let three_days_ago = now_ms() - 3 * 86_400_000;
    eventually("the history of that day is deleted", || {
        set_retention(&["raw", "minute", "hour"]);
        read(&hub, three_days_ago, &hub.token).code() == "not_recorded"
    });
    assert_eq!(read(&hub, three_days_ago, &hub.token).status, 400);
}

fn assert_past_values(hub: &TestHub, start_ms: i64) {
    // Row 40 was the newest of both.
    let overview = overview_at(hub, start_ms + 40 * INTERVAL_MS + 9_000);
    let (values, totals) = (&overview["values"], &overview["totals"]);
    assert_eq!(values["cpu"][0], 40.0, "{overview}");
    assert_eq!(values["cpu"][1], 70.0);
    assert_eq!((&values["status"][0], &values["status"][1]), (&json!("online"), &json!("online")));
    assert_eq!(values["last_seen_ms"][0], start_ms + 40 * INTERVAL_MS);
    assert_eq!((&totals["cpu"], &totals["rx"]), (&json!(55.0), &json!(2_000.0)));
    assert_eq!((&totals["memory_used"], &totals["storage_size"]), (&json!(100.0), &json!(200.0)));
    let replay = &overview["replay"];
    assert_eq!((&replay["tiers"][0], &replay["tiers"][1]), (&json!("raw"), &json!("raw")));
    let top = overview["top_processes"]["cpu"].as_array().unwrap();
    assert_eq!((&top[0]["command"], &top[1]["command"]), (&json!("burn b 40"), &json!("burn a 40")));
    assert_eq!((top.len(), &top[0]["value"]), (2, &json!(0.7)));
    assert_eq!(left_out(&overview, "filling")[0]["reason"], "past");
    assert!(left_out(&overview, "values").is_empty() && left_out(&overview, "processes").is_empty());

    let later = overview_at(hub, start_ms + 150 * INTERVAL_MS);
    assert_eq!((&later["values"]["cpu"][0], &later["values"]["cpu"][1]), (&json!(50.0), &Value::Null));
    // The hub knows the hosts since now only: they were new.
    assert_eq!(later["values"]["status"][1], "new", "{later}");
    assert_eq!(later["totals"]["online"], 1);
    let earlier = overview_at(hub, start_ms - 60_000);
    assert_eq!((&earlier["values"]["status"][0], &earlier["totals"]["online"]), (&json!("new"), &json!(0)));
    // A host that joined later was not there.
    if let Some(status) = overview["values"]["status"].get(2) {
        assert_eq!((status, &overview["totals"]["new"]), (&json!("new"), &json!(1)));
    }

    let revision = overview["revision"].as_str().unwrap();
    let known = hub.get(&format!("/api/v1/overview?at={}&revision={revision}", start_ms + 1)).body;
    assert_eq!((&known["hosts"], &known["values"]["cpu"][0]), (&Value::Null, &json!(0.0)));
}

/// Fleet over a range of the past: both hosts send for 1,000 s, then one of them.
fn assert_course(hub: &TestHub, start_ms: i64) {
    let (from_ms, to_ms) = (start_ms - 600_000, start_ms + 2_400_000);
    let path = |points: &str| format!("/api/v1/overview/history?from={from_ms}&to={to_ms}{points}");
    let course = hub.get(&path("&points=60")).body;
    assert_eq!(course["step_ms"], 60_000, "{course}");
    // As raw rows until they are rolled up.
    assert!(["raw", "1m"].contains(&course["tier"].as_str().unwrap()), "{course}");
    let (times, hosts) = (course["t"].as_array().unwrap(), course["hosts"].as_array().unwrap());
    assert_eq!((times.len(), &times[0]), (50, &json!(from_ms)));
    let counts = |minutes: std::ops::Range<usize>| hosts[minutes].to_vec();
    assert_eq!(counts(0..10), vec![json!(0); 10]);
    assert_eq!(counts(10..26), vec![json!(2); 16]);
    assert_eq!(counts(28..43), vec![json!(1); 15]);
    assert_eq!(counts(44..50), vec![json!(0); 6]);
    // Rows 0 to 5 of both hosts.
    assert_eq!((&course["cpu"][10], &course["cpu_p95"][10]), (&json!(17.5), &json!(32.5)));
    assert_eq!(
        (&course["rx"][10], &course["rx"][30], &course["rx"][46]),
        (&json!(2_000.0), &json!(1_000.0), &Value::Null)
    );
    let health = &course["health"];
    assert_eq!((&health["healthy"][10], &health["healthy"][30]), (&json!(2), &json!(1)));
    assert_eq!(course["left_out"], json!([]));
    for query in ["from=-1h&points=0.5", "from=now&to=-1h", "from=noon", "span=1d"] {
        assert_eq!(hub.get(&format!("/api/v1/overview/history?{query}")).status, 400, "{query}");
    }
    let newest = hub.get("/api/v1/overview/history?from=-1h").body;
    let last = newest["t"].as_array().unwrap().len() - 1;
    assert_eq!(
        (&newest["step_ms"], &newest["health"]["healthy"][last]),
        (&json!(60_000), &json!(1)),
        "{newest}"
    );
}

/// The newest second is a past time too: it is in the recent window.
fn assert_newest_values(hub: &TestHub) {
    let overview = overview_at(hub, now_ms() - 1);
    assert_eq!(overview["values"]["cpu"], json!([null, null, 10.0]), "{overview}");
    assert_eq!(overview["values"]["status"], json!(["no_data", "no_data", "online"]));
    assert_eq!(overview["top_processes"]["cpu"][0]["command"], "burn late 0");
}

fn assert_times(hub: &TestHub) {
    for (time, code) in [("%2B1h", "invalid_time"), ("noon", "invalid_time"), ("", "invalid_time")] {
        let response = read(hub, time, &hub.token);
        assert_eq!((response.status, response.code()), (400, code), "{time}: {}", response.text);
    }
    let relative = read(hub, "-1s", &hub.token);
    assert_eq!(relative.status, 200, "{}", relative.text);
}

#[test]
fn replay_shows_incidents_of_its_time_and_visible_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let rule = json!({
        "name": "CPU is high", "severity": "critical", "enabled": true, "hosts": {}, "for": "0s",
        "condition": { "kind": "threshold", "metric": "cpu.usage", "threshold": 50.0 },
    });
    assert_eq!(hub.request("POST", "/api/v1/rules", &hub.token, &rule).status, 201);
    let hosts = ["hidden-host", "visible-host"];
    let mut number = 0;
    let mut send_both = |usage: i64| {
        number += 1;
        for host in hosts {
            let body = row(host, number, now_ms(), usage - number);
            assert_eq!(hub.post_json(&body).status, 200);
        }
    };
    send_both(20);
    let tags = json!({ "tags": ["team=a"] });
    assert_eq!(hub.request("PUT", "/api/v1/hosts/visible-host/tags", &hub.token, &tags).status, 200);
    let times = |kind: &str| -> Vec<i64> {
        let activity = hub.get("/api/v1/overview/activity").body;
        let entries = activity["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == kind);
        entries.map(|entry| entry["at_ms"].as_i64().unwrap()).collect()
    };
    eventually("both alerts fire", || {
        send_both(90);
        times("alert_fired").len() == 2
    });
    eventually("both alerts are resolved", || {
        send_both(20);
        times("alert_resolved").len() == 2
    });
    let fired_ms = times("alert_fired").into_iter().max().unwrap();
    let resolved_ms = times("alert_resolved").into_iter().max().unwrap();
    let user = json!({ "name": VIEWER.0, "password": VIEWER.1, "role": "viewer", "host_tags": ["team=a"] });
    assert_eq!(hub.admin_request("POST", "/api/v1/users", &user).status, 201);
    let token = hub.create_token(VIEWER, "viewer");

    let during = overview_at(&hub, fired_ms);
    assert_eq!(during["values"]["critical"], json!([1, 1]), "{during}");
    let incidents = during["replay"]["incidents"].as_array().unwrap();
    let firing: u64 = incidents.iter().map(|incident| incident["alerts"].as_u64().unwrap()).sum();
    assert_eq!((firing, &incidents[0]["severity"]), (2, &json!("critical")));
    assert_eq!(during["totals"]["incidents"]["critical"], incidents.len());
    let after = overview_at(&hub, resolved_ms + 1);
    assert_eq!((&after["values"]["critical"], &after["replay"]["incidents"]), (&json!([0, 0]), &json!([])));
    assert_eq!(after["totals"]["incidents"]["critical"], 0);

    let limited = read(&hub, fired_ms, &token);
    assert!(!limited.text.contains("hidden"), "{}", limited.text);
    assert_eq!(
        (&limited.body["totals"]["hosts"], &limited.body["values"]["critical"]),
        (&json!(1), &json!([1]))
    );
    let visible = &limited.body["replay"]["incidents"];
    assert_eq!((&visible[0]["hosts"], &visible[0]["alerts"]), (&json!(1), &json!(1)), "{visible}");
    assert_eq!(visible[0]["host_name"], "visible-host");
    assert_eq!(limited.body["top_processes"]["cpu"][0]["host_name"], "visible-host");
    let course = format!("/api/v1/overview/history?from={}&to={}", fired_ms - 600_000, resolved_ms + 60_000);
    let worst = |token: &str, level: &str| -> u64 {
        let course = hub.request("GET", &course, token, &Value::Null).body;
        course["health"][level].as_array().unwrap().iter().filter_map(Value::as_u64).max().unwrap()
    };
    assert_eq!((worst(&hub.token, "critical"), worst(&token, "critical")), (2, 1));
    let forecasts = left_out(&limited.body, "filling");
    assert_eq!(forecasts[0]["count"], 1, "counts of hidden hosts are not included");
}
