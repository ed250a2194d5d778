//! Events of a host: reasons of gaps, reboots, alerts, changes by users, and the limits of access.

use crate::support::{TestHub, eventually, now_ms};
use serde_json::{Value, json};

const BOOTS: [&str; 2] = ["11111111-2222-4333-8444-555555555555", "66666666-2222-4333-8444-555555555555"];
const VIEWER: (&str, &str) = ("vera", "viewer-password-1");

fn send(hub: &TestHub, rows: &[(usize, u64, i64)]) {
    let row = |&(boot, seq, at_ms): &(usize, u64, i64)| {
        json!({ "host": "db-1", "boot": BOOTS[boot], "seq": seq, "timestamp": at_ms, "interval_ms": 2_000,
                "cpu": { "usage": 97 } })
    };
    let response = hub.post_json(&Value::Array(rows.iter().map(row).collect()));
    assert_eq!(response.status, 200, "{}", response.text);
}

fn kinds(events: &Value) -> Vec<&str> {
    events["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[test]
fn events_merge_history_alerts_and_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let rule = json!({
        "name": "CPU is high", "severity": "warning", "enabled": true, "hosts": {}, "for": "0s",
        "condition": { "kind": "threshold", "metric": "cpu.usage", "threshold": 90.0 },
    });
    assert_eq!(hub.request("POST", "/api/v1/rules", &hub.token, &rule).status, 201);
    let end = now_ms();
    let at = |seconds: i64| end - 600_000 + seconds * 1_000;
    // The agent stops for a minute, then the host is off for two.
    send(&hub, &[(0, 0, at(0)), (0, 1, at(2)), (0, 2, at(62)), (0, 3, at(64))]);
    send(&hub, &[(1, 0, at(184)), (1, 1, at(186))]);
    let tags = json!({ "tags": ["team=a"] });
    assert_eq!(hub.request("PUT", "/api/v1/hosts/db-1/tags", &hub.token, &tags).status, 200);
    let mut seq = 2;
    eventually("the alert fires", || {
        send(&hub, &[(1, seq, now_ms())]);
        seq += 1;
        let alerts = hub.get("/api/v1/hosts/db-1/events?kinds=alert").body;
        kinds(&alerts) == ["alert"]
    });
    let response = hub.get("/api/v1/hosts/db-1/events?from=-1h");
    let found = |kind: &str, detail: &str| {
        let is = |event: &&Value| event["kind"] == kind && (detail.is_empty() || event["detail"] == detail);
        response.body["events"].as_array().unwrap().iter().rfind(is).cloned().unwrap_or_default()
    };
    let stopped = found("gap", "agent_stopped");
    assert_eq!(
        (&stopped["from_ms"], &stopped["to_ms"]),
        (&json!(at(2)), &json!(at(62))),
        "{}",
        response.text
    );
    let reboot = found("reboot", "");
    assert_eq!((&reboot["from_ms"], &reboot["to_ms"]), (&json!(at(64)), &json!(at(184))));
    let alert = found("alert", "");
    assert_eq!((&alert["text"], &alert["severity"]), (&json!("CPU is high"), &json!("warning")));
    let change = found("change", "");
    assert_eq!((&change["text"], &change["after"]), (&json!("host.set_tags"), &json!("team=a")));
    assert!(found("first_seen", "")["from_ms"].is_number());
    assert_eq!(response.body["is_truncated"], false);

    let only = hub.get("/api/v1/hosts/db-1/events?from=-1h&kinds=reboot,change").body;
    assert_eq!(kinds(&only), ["change", "reboot"], "{only}");
    assert_eq!(hub.get("/api/v1/hosts/db-1/events?kinds=weather").code(), "invalid_query");
    assert_eq!(hub.get("/api/v1/hosts/db-1/events?from=-40d").code(), "invalid_range");
}

#[test]
fn events_are_limited_by_role_and_tags() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    send(&hub, &[(0, 0, now_ms() - 4_000), (0, 1, now_ms() - 2_000)]);
    let tag = |tag: &str| {
        let tags = json!({ "tags": [tag] });
        assert_eq!(hub.request("PUT", "/api/v1/hosts/db-1/tags", &hub.token, &tags).status, 200);
    };
    tag("team=a");
    let body = json!({ "name": VIEWER.0, "password": VIEWER.1, "role": "viewer", "host_tags": ["team=a"] });
    assert_eq!(hub.admin_request("POST", "/api/v1/users", &body).status, 201);
    let token = hub.create_token(VIEWER, "viewer");
    let path = "/api/v1/hosts/db-1/events?from=-1h";
    assert!(kinds(&hub.get(path).body).contains(&"change"));
    let limited = hub.request("GET", path, &token, &Value::Null);
    assert_eq!((limited.status, kinds(&limited.body)), (200, vec!["first_seen"]), "{}", limited.text);
    tag("team=b");
    eventually("the host is hidden", || hub.request("GET", path, &token, &Value::Null).status == 404);
}
