//! Tags of several hosts in one request.

use crate::support::TestHub;
use serde_json::{Value, json};

const OPERATOR: (&str, &str) = ("olga", "initial-password-2");

/// Hub with two hosts of team a and a host of team b; returns their ids.
fn start(folder: &std::path::Path) -> (TestHub, Vec<String>) {
    let hub = TestHub::start(folder);
    let mut ids = Vec::new();
    for (host, tags) in [("one", ["team=a"]), ("two", ["team=a"]), ("other", ["team=b"])] {
        assert_eq!(hub.post_json(&json!({ "host": host, "cpu": { "usage": 1 } })).status, 200);
        let body = json!({ "tags": tags });
        let response = hub.request("PUT", &format!("/api/v1/hosts/{host}/tags"), &hub.token, &body);
        ids.push(response.body["id"].as_str().unwrap().to_owned());
    }
    (hub, ids)
}

fn tags(hub: &TestHub, host: &str) -> Value {
    hub.get(&format!("/api/v1/hosts/{host}")).body["tags"].clone()
}

#[test]
fn tags_of_several_hosts_change_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, ids) = start(folder.path());
    let patch = |body: &Value| hub.request("PATCH", "/api/v1/hosts", &hub.token, body);
    let body = json!({ "ids": ids, "add_tags": ["env=lab"], "remove_tags": ["team=a"] });
    let response = patch(&body);
    assert_eq!((response.status, &response.body["changed"]), (200, &json!(3)), "{}", response.text);
    assert_eq!(tags(&hub, "one"), json!(["env=lab"]));
    assert_eq!(tags(&hub, "other"), json!(["env=lab", "team=b"]));
    assert_eq!(patch(&body).body["changed"], 0);
    // Each host has its own entry, so that its events contain the change.
    let audit = hub.get("/api/v1/audit?limit=3").body;
    let objects: std::collections::BTreeSet<&str> =
        audit["entries"].as_array().unwrap().iter().map(|entry| entry["object"].as_str().unwrap()).collect();
    assert_eq!(objects.into_iter().collect::<Vec<_>>(), ["host one", "host other", "host two"]);
    let events = hub.get("/api/v1/hosts/one/events?kinds=change").body;
    assert_eq!(events["events"][0]["after"], "env=lab", "{events}");
    let full: Vec<String> = (0..32).map(|tag| format!("t{tag}")).collect();
    let missing = "01a1ffe1-afde-72f9-853f-a45c90cff753";
    let many: Vec<String> = (0..1_001).map(|_| perfwatch_model::HostId::generate().to_string()).collect();
    for (body, status, code) in [
        (json!({ "ids": [], "add_tags": ["x"] }), 422, "invalid_hosts"),
        (json!({ "ids": many, "add_tags": ["x"] }), 422, "invalid_hosts"),
        (json!({ "ids": ids }), 422, "invalid_tags"),
        (json!({ "ids": ids, "add_tags": ["a b"] }), 422, "invalid_tags"),
        (json!({ "ids": ids, "add_tags": full }), 422, "invalid_tags"),
        (json!({ "ids": [ids[0], missing], "add_tags": ["x"] }), 404, "not_found"),
        (json!({ "ids": ids, "tags": ["x"] }), 400, "invalid_body"),
    ] {
        let response = patch(&body);
        assert_eq!((response.status, response.code()), (status, code), "{}", response.text);
    }
    assert_eq!(tags(&hub, "one"), json!(["env=lab"]));
}

#[test]
fn limited_operators_keep_hosts_within_their_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, ids) = start(folder.path());
    crate::access::add_user(&hub, OPERATOR, "operator", &["team=a", "team=c"]);
    let token = hub.create_token(OPERATOR, "operator");
    let patch = |ids: &[String], add: &[&str], remove: &[&str]| {
        let body = json!({ "ids": ids, "add_tags": add, "remove_tags": remove });
        let response = hub.request("PATCH", "/api/v1/hosts", &token, &body);
        (response.status, response.code().to_owned())
    };
    let ok = (200, String::new());
    // Hosts outside of the limit are absent, also beside visible ones.
    assert_eq!(patch(&ids, &["team=a"], &[]), (404, "not_found".to_owned()));
    assert_eq!(patch(&ids[..2], &["env=lab"], &[]), ok);
    assert_eq!(patch(&ids[..2], &[], &["team=a"]), (403, "forbidden".to_owned()));
    assert_eq!(patch(&ids[..1], &["team=c"], &["team=a"]), ok);
    let body = json!({ "tags": ["env=lab"] });
    let replaced = hub.request("PUT", "/api/v1/hosts/two/tags", &token, &body);
    assert_eq!(replaced.code(), "forbidden", "{}", replaced.text);
    assert_eq!(tags(&hub, "two"), json!(["env=lab", "team=a"]));
    crate::access::add_user(&hub, ("vera", "initial-password-3"), "viewer", &[]);
    let viewer = hub.create_token(("vera", "initial-password-3"), "viewer");
    let body = json!({ "ids": ids, "add_tags": ["x"] });
    assert_eq!(hub.request("PATCH", "/api/v1/hosts", &viewer, &body).code(), "forbidden");
}
