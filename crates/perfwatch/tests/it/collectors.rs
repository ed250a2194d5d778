//! Collectors and intervals that the hub requests from a real agent.

use crate::support::{AGENT, Process, TestHub, eventually};
use serde_json::{Value, json};

fn put(hub: &TestHub, version: i64, policy: &Value) -> u16 {
    let body = json!({ "version": version, "policy": policy });
    let response = hub.admin_request("PUT", "/api/v1/collectors", &body);
    assert!(response.status < 400 || !response.code().is_empty(), "{}", response.text);
    response.status
}

/// Newest snapshot of the agent.
fn newest(hub: &TestHub) -> Value {
    let response = hub.get("/api/metrics/recent?host=it");
    response.body["snapshots"].as_array().and_then(|list| list.last().cloned()).unwrap_or_default()
}

#[test]
fn agents_apply_requests_that_reduce_their_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let url = hub.url("");
    // The configuration of this agent disables a collector, and lets another run every 2 s at most.
    let args = ["--hub", &url, "--interval", "500ms", "--name", "it", "--token", &hub.token];
    let variables = [
        ("PERFWATCH_AGENT_COLLECTORS_DISABLED", "load"),
        ("PERFWATCH_AGENT_COLLECTORS_INTERVALS", "disk=2s"),
    ];
    let agent = Process::spawn_with(AGENT, folder.path(), "agent", &args, &variables);
    eventually("the agent sends", || newest(&hub)["cpu"].is_object());
    assert!(newest(&hub)["load"].is_null());
    let more = json!({ "collectors": {
        "load": { "disabled": false, "interval_ms": 250 },
        "disk": { "interval_ms": 250 },
        "memory": { "disabled": true },
    } });
    assert_eq!(put(&hub, 0, &more), 200);
    eventually("memory is no longer collected", || {
        let snapshot = newest(&hub);
        snapshot["cpu"].is_object() && snapshot["memory"]["used"].is_null()
    });
    // Applied together with the request above: what the agent's configuration forbids has no effect.
    assert!(newest(&hub)["load"].is_null());
    assert!(agent.log().contains("collectors changed by the hub"), "{}", agent.log());
    let host = hub.get("/api/v1/hosts/it").body["id"].clone();
    let own = json!({
        "collectors": { "memory": { "disabled": true } },
        "overrides": [{ "hosts": [host], "interval_ms": 1_000, "collectors": { "memory": {} } }],
    });
    assert_eq!(put(&hub, 0, &own), 409);
    assert_eq!(put(&hub, 1, &own), 200);
    eventually("the override lets memory run again at a longer interval", || {
        let snapshot = newest(&hub);
        snapshot["memory"]["used"].is_number() && snapshot["interval_ms"].as_i64().is_some_and(|ms| ms >= 750)
    });
    let response = hub.get("/api/v1/collectors").body;
    assert_eq!((&response["version"], &response["selected_hosts"]), (&json!(2), &json!([1])));
    assert!(response["cost_ms"]["cpu"].is_f64(), "{response}");
    let invalid = json!({ "collectors": { "gpu": {} } });
    assert_eq!(put(&hub, 2, &invalid), 422);
}

#[test]
fn collectors_are_changed_by_unlimited_administrators_only() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    crate::access::add_user(&hub, ("olga", "initial-password-2"), "admin", &["team=a"]);
    crate::access::add_user(&hub, ("otto", "initial-password-3"), "operator", &[]);
    for (name, password) in [("olga", "initial-password-2"), ("otto", "initial-password-3")] {
        let cookies = hub.log_in_confirmed(name, password);
        let body = json!({ "version": 0, "policy": {} });
        for (method, body) in [("GET", Value::Null), ("PUT", body)] {
            assert_eq!(
                hub.browser_request(method, "/api/v1/collectors", &cookies, &body).code(),
                "forbidden"
            );
        }
    }
}
