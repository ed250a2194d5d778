//! Values in audit entries, and the number of entries in the timeline of an incident.

use crate::access::add_user;
use crate::alerting::{cpu_rule, set_up};
use crate::support::{TestHub, eventually, now_ms};
use serde_json::{Value, json};

/// Newest entry of an action.
fn newest_entry(hub: &TestHub, action: &str) -> Value {
    hub.get(&format!("/api/v1/audit?text={action}")).body["entries"][0].clone()
}

/// Opens an incident of a host and returns its id.
fn open_incident(hub: &TestHub) -> String {
    set_up(hub, &cpu_rule(50.0, "0s"), &[]);
    let body = json!({ "timestamp": now_ms(), "host": "web", "cpu": { "usage": 99 } });
    assert_eq!(hub.post_json(&body).status, 200);
    let find = || hub.get("/api/v1/incidents").body["incidents"][0]["id"].as_str().map(str::to_owned);
    eventually("the incident opens", || find().is_some());
    find().unwrap()
}

#[test]
fn audit_entries_have_the_values_of_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let request = |method: &str, path: &str, body: Value| {
        let response = hub.request(method, path, &hub.token, &body);
        assert!(response.status < 300, "{method} {path}: {}", response.text);
        response.body
    };
    let incident = open_incident(&hub);
    request(
        "POST",
        &format!("/api/v1/incidents/{incident}/ack"),
        json!({ "comment": "known", "duration": "1h" }),
    );
    let table = "name,address,user,password\nbox,192.0.2.4,x,s3cret\n";
    request("POST", "/api/v1/servers/import", json!({ "format": "csv", "text": table, "enabled": false }));
    request("POST", "/api/v1/servers/metrics/queue/clean", json!({ "state": "failed" }));
    let server = hub.get("/api/v1/servers").body["servers"][0]["id"].as_str().unwrap().to_owned();
    request("DELETE", &format!("/api/v1/servers/{server}"), Value::Null);
    let rule = hub.get("/api/v1/rules").body["rules"][0]["rule"]["id"].as_str().unwrap().to_owned();
    request("DELETE", &format!("/api/v1/rules/{rule}"), Value::Null);
    for (action, field, expected) in [
        ("incident.acknowledge", "after", vec!["known", "1h"]),
        ("server.import", "after", vec!["box", "192.0.2.4"]),
        ("queue.clean", "after", vec!["failed"]),
        ("server.delete", "before", vec!["box", "192.0.2.4"]),
        ("rule.delete", "before", vec!["High CPU usage", "cpu.usage"]),
    ] {
        let entry = newest_entry(&hub, action);
        let value = entry[field].to_string();
        assert!(expected.iter().all(|text| value.contains(text)), "{action}: {entry}");
        assert!(!entry.to_string().contains("s3cret"), "{action}: {entry}");
    }
}

/// One account cannot fill the timeline of an incident for others.
#[test]
fn timeline_entries_are_bounded_per_account() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let incident = open_incident(&hub);
    add_user(&hub, ("oscar", "operator-password-1"), "operator", &[]);
    let other = hub.create_token(("oscar", "operator-password-1"), "operator");
    let comment = |token: &str, number: usize| {
        let path = format!("/api/v1/incidents/{incident}/comments");
        hub.request("POST", &path, token, &json!({ "text": format!("comment {number}") }))
    };
    for number in 0..200 {
        let response = comment(&hub.token, number);
        assert!(response.status < 300, "{number}: {}", response.text);
    }
    assert_eq!(comment(&hub.token, 200).code(), "too_many_entries");
    let acknowledged =
        hub.request("POST", &format!("/api/v1/incidents/{incident}/ack"), &hub.token, &Value::Null);
    assert_eq!(acknowledged.code(), "too_many_entries");
    assert!(comment(&other, 0).status < 300);
}
