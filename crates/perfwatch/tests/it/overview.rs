//! The overview of the fleet: values, totals, last 24 hours, activity, and the limits of access.

use crate::support::{TestHub, TestResponse, eventually, now_ms};
use serde_json::{Value, json};

const BOOT: &str = "11111111-2222-4333-8444-555555555555";
const VIEWER: (&str, &str) = ("vera", "viewer-password-1");
const PATHS: [&str; 3] = ["/api/v1/overview", "/api/v1/overview/history", "/api/v1/overview/activity"];

/// Sends a snapshot of a host with a process.
fn send(hub: &TestHub, host: &str, usage: f64, command: &str) {
    let process = json!({ "pid": 7, "name": "burner", "user": "root", "cpu_percent": usage,
                          "memory_bytes": 4_096, "threads": 1, "command": command });
    let response = hub.post_json(&json!({
        "host": host, "interval_ms": 60_000,
        "cpu": { "usage": usage }, "memory": { "used": 50, "total": 200, "used_percent": 25 },
        "load": { "1m": 1.5 }, "network": { "total": { "rx_bytes": 1_000, "tx_bytes": 500 } },
        "filesystem": { "mount": { "/data": { "used_percent": 40, "used": 40, "size": 100 },
                                   "/run/lock": { "used_percent": 99, "used": 9, "size": 10 } } },
        "processes": { "top": [process] },
    }));
    assert_eq!(response.status, 200, "{}", response.text);
}

fn viewer_of(hub: &TestHub, tags: &[&str]) -> String {
    let body = json!({ "name": VIEWER.0, "password": VIEWER.1, "role": "viewer", "host_tags": tags });
    assert_eq!(hub.admin_request("POST", "/api/v1/users", &body).status, 201);
    hub.create_token(VIEWER, "viewer")
}

#[test]
fn overview_contains_values_totals_and_processes() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let empty = hub.get("/api/v1/overview");
    assert_eq!((empty.status, &empty.body["totals"]["hosts"]), (200, &json!(0)), "{}", empty.text);
    send(&hub, "a", 20.0, "burn a");
    send(&hub, "b", 60.0, "burn b");
    let mut overview = Value::Null;
    eventually("both hosts have values", || {
        overview = hub.get("/api/v1/overview").body;
        overview["values"]["cpu"] == json!([20.0, 60.0])
    });
    let names: Vec<&Value> = overview["hosts"].as_array().unwrap().iter().map(|host| &host["name"]).collect();
    assert_eq!(names, [&json!("a"), &json!("b")]);
    let (totals, values) = (&overview["totals"], &overview["values"]);
    assert_eq!(
        (&totals["online"], &totals["cpu"], &totals["rx"]),
        (&json!(2), &json!(40.0), &json!(2_000.0))
    );
    assert_eq!((&totals["memory_used"], &totals["memory_total"]), (&json!(100.0), &json!(400.0)));
    assert_eq!(values["disk_mount"], json!(["/data", "/data"]), "only real filesystems count");
    assert_eq!(totals["storage_size"], json!(200.0));
    assert_eq!(values["load"], json!([1.5, 1.5]));
    let top = overview["top_processes"]["cpu"].as_array().unwrap();
    assert_eq!((&top[0]["host_name"], &top[0]["command"]), (&json!("b"), &json!("burn b")));

    let revision = overview["revision"].as_str().unwrap();
    let known = hub.get(&format!("/api/v1/overview?revision={revision}")).body;
    assert_eq!((&known["hosts"], &known["recent"]), (&Value::Null, &Value::Null));
    assert_eq!(known["values"]["cpu"], json!([20.0, 60.0]));
    let outdated = hub.get("/api/v1/overview?revision=0").body;
    assert_eq!(outdated["hosts"].as_array().unwrap().len(), 2);
    assert_eq!(hub.get("/api/v1/overview?unknown=1").code(), "invalid_query");

    let history = hub.get("/api/v1/overview/history").body;
    let buckets = history["t"].as_array().unwrap().len();
    assert_eq!(buckets, 96);
    for list in ["hosts", "cpu", "cpu_p5", "cpu_p95", "memory", "rx", "tx"] {
        assert_eq!(history[list].as_array().unwrap().len(), buckets, "{list}");
    }
    assert_eq!(history["health"]["healthy"][95], 2, "{history}");
    let activity = hub.get("/api/v1/overview/activity").body;
    let joined = |entry: &&Value| entry["kind"] == "host_joined";
    assert_eq!(activity["entries"].as_array().unwrap().iter().filter(joined).count(), 2, "{activity}");
}

#[test]
fn overview_shows_nothing_of_hosts_outside_the_tags_of_a_user() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let rule = json!({
        "name": "CPU is high", "severity": "warning", "enabled": true, "hosts": {}, "for": "0s",
        "condition": { "kind": "threshold", "metric": "cpu.usage", "threshold": 10.0 },
    });
    let created = hub.request("POST", "/api/v1/rules", &hub.token, &rule);
    assert_eq!(created.status, 201, "{}", created.text);
    let hosts = ["visible-host", "hidden-host"];
    let send_both = || {
        for host in hosts {
            send(&hub, host, 20.0, &format!("command of {host}"));
        }
    };
    send_both();
    let tags = json!({ "tags": ["team=a"] });
    assert_eq!(hub.request("PUT", "/api/v1/hosts/visible-host/tags", &hub.token, &tags).status, 200);
    eventually("both alerts fire and are in the activity", || {
        send_both();
        let activity = hub.get("/api/v1/overview/activity").body;
        let fired = |entry: &&Value| entry["kind"] == "alert_fired";
        activity["entries"].as_array().unwrap().iter().filter(fired).count() == 2
    });
    eventually("both hosts are in the overview", || {
        hub.get("/api/v1/overview").body["totals"]["online"] == 2
    });
    let token = viewer_of(&hub, &["team=a"]);
    let read = |path: &str, token: &str| -> TestResponse {
        let response = hub.request("GET", path, token, &Value::Null);
        assert_eq!(response.status, 200, "{path}: {}", response.text);
        response
    };
    for path in PATHS {
        // The responses to the administrator are computed first and must not be shared.
        let all = read(path, &hub.token);
        let limited = read(path, &token);
        assert!(!limited.text.contains("hidden"), "{path}: {}", limited.text);
        if path == "/api/v1/overview/history" {
            assert_eq!((&all.body["hosts"][95], &limited.body["hosts"][95]), (&json!(2), &json!(1)));
            assert_eq!(limited.body["health"]["warning"][95], 1, "{}", limited.text);
        } else {
            assert!(all.text.contains("hidden-host"), "{path}: {}", all.text);
            assert!(limited.text.contains("visible-host"), "{path}: {}", limited.text);
        }
    }
    let limited = read("/api/v1/overview", &token).body;
    assert_eq!(
        (&limited["totals"]["hosts"], &limited["totals"]["incidents"]["warning"]),
        (&json!(1), &json!(1))
    );
    let revision = read("/api/v1/overview", &hub.token).body["revision"].as_str().unwrap().to_owned();
    let with_foreign_revision = read(&format!("/api/v1/overview?revision={revision}"), &token).body;
    assert_eq!(
        with_foreign_revision["hosts"].as_array().unwrap().len(),
        1,
        "the revision depends on the hosts"
    );
    let audit = read("/api/v1/overview/activity", &token).body;
    assert!(audit["entries"].as_array().unwrap().iter().all(|entry| entry["kind"] != "audit"), "{audit}");
    // A change of the limit takes effect with the next request.
    let removed = hub.request("PUT", "/api/v1/hosts/visible-host/tags", &hub.token, &json!({ "tags": [] }));
    assert_eq!(removed.status, 200);
    eventually("no host is visible", || {
        let overview = read("/api/v1/overview", &token).body;
        overview["totals"]["hosts"] == 0 && overview["top_processes"]["cpu"] == json!([])
    });
}

#[test]
fn overview_reads_the_last_day_from_history_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let end = now_ms();
    // Six hours, one snapshot a minute; the filesystem fills by a percent in ten minutes.
    let rows: Vec<Value> = (0..360_i64)
        .map(|minute| {
            json!({
                "host": "past", "boot": BOOT, "seq": minute, "timestamp": end - (359 - minute) * 60_000,
                "interval_ms": 60_000, "cpu": { "usage": 30.0 },
                "filesystem": { "mount": { "/data": { "used_percent": 50.0 + minute as f64 / 10.0 } } },
            })
        })
        .collect();
    assert_eq!(hub.post_json(&Value::Array(rows)).body["accepted"], 360);
    hub.process.kill();
    let hub = TestHub::start(folder.path());
    // Only hosts with current data are forecast.
    let newest = json!({ "host": "past", "boot": BOOT, "seq": 360, "interval_ms": 60_000, "cpu": { "usage": 30.0 },
                         "filesystem": { "mount": { "/data": { "used_percent": 86.0 } } } });
    assert_eq!(hub.post_json(&newest).status, 200);
    let mut history = Value::Null;
    eventually("the history is read", || {
        history = hub.get("/api/v1/overview/history").body;
        let hosts = history["hosts"].as_array().unwrap();
        hosts[74..95].iter().all(|count| *count == 1)
    });
    assert_eq!(history["cpu"][90], 30.0, "{history}");
    assert_eq!(history["hosts"][60], 0, "nothing was sent that day before");
    assert_eq!(history["cpu"][60], Value::Null);
    let mut overview = Value::Null;
    eventually("the filesystem is forecast", || {
        overview = hub.get("/api/v1/overview").body;
        overview["filling"] != json!([])
    });
    let filling = &overview["filling"][0];
    assert_eq!((&filling["host_name"], &filling["mount"]), (&json!("past"), &json!("/data")), "{overview}");
    let rest_min = (filling["full_at_ms"].as_i64().unwrap() - end) / 60_000;
    assert!((110..180).contains(&rest_min), "14 % are left at a percent in ten minutes: {rest_min}");
}
