//! Identity of hosts and agents: double names, cloned machines, revoked and deleted hosts. The rules are in
//! docs/IDENTITY.md.

use crate::support::{BINARY, TestHub, now_ms};
use serde_json::{Value, json};
use std::process::Command;

/// Snapshot of a host with an id.
fn snapshot(id: &str, name: &str, at_ms: i64) -> Value {
    json!({ "timestamp": at_ms, "host": name, "host_id": id, "cpu": { "usage": 12.5 } })
}

#[test]
fn name_of_two_hosts_is_rejected_with_both_ids() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let ids = [1_u128, 2].map(|id| uuid::Uuid::from_u128(id).to_string());
    let at = now_ms();
    for id in &ids {
        let response = hub.post_json(&snapshot(id, "web", at));
        assert_eq!(response.status, 200, "{}", response.text);
    }
    assert_eq!(hub.get("/api/v1/hosts").body["total"], 2);
    let assert_ambiguous = |response: crate::support::TestResponse| {
        assert_eq!((response.status, response.code()), (409, "ambiguous_host"), "{}", response.text);
        assert!(ids.iter().all(|id| response.text.contains(id.as_str())), "{}", response.text);
    };
    for path in [
        "/api/v1/hosts/web",
        "/api/v1/hosts/web/series?metric=cpu.usage",
        "/api/v1/hosts/web/snapshot",
        "/api/v1/hosts/web/processes",
        "/api/v1/hosts/web/export",
        "/api/v1/hosts/web/alerts",
        "/api/v1/incidents/history?host=web",
        "/api/metrics/recent?host=web",
    ] {
        assert_ambiguous(hub.get(path));
    }
    let tags = json!({ "tags": ["a"] });
    assert_ambiguous(hub.request("PUT", "/api/v1/hosts/web/tags", &hub.token, &tags));
    assert_ambiguous(hub.request("DELETE", "/api/v1/hosts/web", &hub.token, &Value::Null));
    // Ingestion by name; other hosts of a list are accepted.
    let by_name = json!({ "timestamp": at + 1, "host": "web", "cpu": { "usage": 1 } });
    assert_ambiguous(hub.post_json(&by_name));
    assert_ambiguous(hub.post_json(&json!([by_name])));
    let other = json!({ "timestamp": at, "host": "db", "cpu": { "usage": 1 } });
    let list = hub.post_json(&json!([by_name, other]));
    assert_eq!((list.status, &list.body["accepted"]), (200, &json!(1)), "{}", list.text);
    assert_eq!(list.body["rejected"][0]["code"], "ambiguous_host", "{}", list.text);
    let export = |host: &str| {
        let mut command = Command::new(BINARY);
        command.args(["export", host]).env("PERFWATCH_DATA", folder.path().join("hub")).output().unwrap()
    };
    let output = export("web");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && ids.iter().all(|id| error.contains(id.as_str())), "{error}");
    // The id selects one host everywhere.
    for id in &ids {
        assert_eq!(hub.get(&format!("/api/v1/hosts/{id}")).body["id"], id.as_str());
        assert_eq!(hub.post_json(&snapshot(id, "web", at + 2)).body["accepted"], 1);
        assert!(export(id).status.success());
    }
    // A unique name works again after the other host is deleted.
    let deleted = hub.request("DELETE", &format!("/api/v1/hosts/{}", ids[0]), &hub.token, &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    assert_eq!(hub.get("/api/v1/hosts/web").body["id"], ids[1].as_str());
}
