//! Rules on the metrics of the hub itself, live and over their recorded history.

use crate::support::{TestHub, eventually};
use serde_json::{Value, json};

fn hub_rule(metric: &str, compare: &str, threshold: f64) -> Value {
    let condition =
        json!({ "kind": "hub", "hub_metric": metric, "compare": compare, "threshold": threshold });
    json!({ "name": format!("Rule on {metric}"), "for": "0s", "condition": condition })
}

#[test]
fn recorded_metrics_of_the_hub_have_rules_and_backtests() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    for rule in [
        hub_rule("host_count", "below", 100.0),
        hub_rule("resident_memory", "above", 1_000_000.0),
        hub_rule("longest_poll", "above", 0.0),
        hub_rule("request_rate", "above", 1_000_000.0),
    ] {
        let response = hub.request("POST", "/api/v1/rules", &hub.token, &rule);
        assert_eq!(response.status, 201, "{}", response.text);
    }
    let unknown = hub.request("POST", "/api/v1/rules", &hub.token, &hub_rule("luck", "above", 1.0));
    assert_eq!((unknown.status, unknown.text.contains("luck")), (400, true), "{}", unknown.text);
    // The recorder measures every ten seconds; rules follow within five.
    let incidents = || hub.get("/api/v1/incidents").text;
    eventually("the rules fire", || {
        let text = incidents();
        ["host_count", "resident_memory", "longest_poll"].iter().all(|name| text.contains(name))
    });
    assert!(!incidents().contains("Rule on request_rate"));
    let backtest = |rule: &Value| {
        let body = json!({ "rule": rule, "from": "-1h" });
        hub.request("POST", "/api/v1/rules/backtest", &hub.token, &body)
    };
    let fired = backtest(&hub_rule("resident_memory", "above", 1_000_000.0));
    assert_eq!(fired.body["firing_count"], 1, "{}", fired.text);
    let idle = backtest(&hub_rule("request_rate", "above", 1_000_000.0));
    assert_eq!(idle.body["firing_count"], 0, "{}", idle.text);
    assert!(idle.body["hosts"][0]["value_count"].as_i64().unwrap() > 0, "{}", idle.text);
}
