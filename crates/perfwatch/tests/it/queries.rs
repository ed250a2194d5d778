//! Queries over many hosts and saved views: values, limits, access, audit.

use crate::access::add_user;
use crate::support::{ADMIN, TestHub, TestResponse, now_ms};
use serde_json::{Value, json};

const BOOT: &str = "11111111-2222-4333-8444-555555555555";
const PASSWORD: &str = "a-password-of-tests-1";

/// Sends ten minutes of snapshots of a host, one every 10 s, that end at `end_ms`.
fn send(hub: &TestHub, host: &str, usage: f64, end_ms: i64) {
    let row = |index: i64| {
        json!({
            "host": host, "boot": BOOT, "seq": index, "timestamp": end_ms - (59 - index) * 10_000,
            "interval_ms": 10_000, "cpu": { "usage": usage },
            "network": { "interface": { "eth0": { "rx_bytes": 100.0 * usage }, "eth1": { "rx_bytes": usage } } },
        })
    };
    let response = hub.post_json(&Value::Array((0..60).map(row).collect()));
    assert_eq!(response.body["accepted"], 60, "{}", response.text);
}

fn set_tags(hub: &TestHub, host: &str, tags: &[&str]) {
    let response =
        hub.request("PUT", &format!("/api/v1/hosts/{host}/tags"), &hub.token, &json!({ "tags": tags }));
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Two database hosts and a web host. Returns the time of their last snapshots.
fn start_fleet(hub: &TestHub) -> i64 {
    let end_ms = now_ms();
    for (host, usage, tag) in
        [("db-1", 10.0, "role=db"), ("db-2", 30.0, "role=db"), ("web-1", 50.0, "role=web")]
    {
        send(hub, host, usage, end_ms);
        set_tags(hub, host, &[tag]);
    }
    end_ms
}

fn query(hub: &TestHub, token: &str, body: &Value) -> TestResponse {
    hub.request("POST", "/api/v1/query", token, body)
}

/// Series as label and value in the middle of the range.
fn middle(response: &TestResponse) -> Vec<(String, f64)> {
    let series = response.body["series"].as_array().unwrap_or_else(|| panic!("{}", response.text));
    let text = |series: &Value| {
        let labels = series["labels"].as_object().unwrap().values().map(|label| label.as_str().unwrap());
        format!("{} {}", series["query"].as_str().unwrap(), labels.collect::<Vec<_>>().join(" "))
    };
    let value = |series: &Value| {
        let values = series["v"].as_array().unwrap();
        values[values.len() / 2].as_f64().unwrap_or(f64::NAN)
    };
    series.iter().map(|series| (text(series), value(series))).collect()
}

#[test]
fn queries_group_aggregate_and_combine_series() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    start_fleet(&hub);
    for (request, expected) in [
        (json!({ "metric": "cpu.usage" }), vec![("A web-1", 50.0), ("A db-2", 30.0), ("A db-1", 10.0)]),
        (json!({ "metric": "cpu.usage", "limit": 1 }), vec![("A web-1", 50.0)]),
        (json!({ "metric": "cpu.usage", "by": "none" }), vec![("A ", 30.0)]),
        (json!({ "metric": "cpu.usage", "by": "none", "aggregate": "sum" }), vec![("A ", 90.0)]),
        (json!({ "metric": "cpu.usage", "by": "tag:role" }), vec![("A web", 50.0), ("A db", 20.0)]),
        (
            json!({ "metric": "cpu.usage", "hosts": { "tags": ["role=db"] }, "by": "none" }),
            vec![("A ", 20.0)],
        ),
        (json!({ "metric": "cpu.usage", "hosts": { "hosts": ["db-2"] } }), vec![("A db-2", 30.0)]),
        (json!({ "metric": "cpu.usage", "aggregate": "p95", "by": "none" }), vec![("A ", 50.0)]),
        (
            json!({ "metric": "network.rx_bytes", "by": "instance", "aggregate": "max" }),
            vec![("A eth0", 5_000.0), ("A eth1", 50.0)],
        ),
        (
            json!({ "metric": "network.rx_bytes", "instance": "eth1", "by": "series", "limit": 2 }),
            vec![("A web-1 eth1", 50.0), ("A db-2 eth1", 30.0)],
        ),
    ] {
        let mut first = request.clone();
        first["id"] = json!("A");
        let response = query(&hub, &hub.token, &json!({ "from": "-8m", "to": "-1m", "queries": [first] }));
        let expected: Vec<(String, f64)> =
            expected.into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
        assert_eq!(middle(&response), expected, "{request}: {}", response.text);
        assert_eq!(response.body["left_out"]["reasons"], json!([]), "{}", response.text);
    }
    let response = query(
        &hub,
        &hub.token,
        &json!({
            "from": "-8m", "to": "-1m",
            "queries": [
                { "id": "A", "metric": "cpu.usage" },
                { "id": "B", "metric": "cpu.usage", "by": "none", "aggregate": "sum", "hidden": true },
            ],
            "formulas": [{ "id": "F1", "expression": "A / B * 100", "limit": 2 }],
        }),
    );
    let shares: Vec<_> = middle(&response).into_iter().filter(|(label, _)| label.starts_with('F')).collect();
    assert_eq!(shares.len(), 2, "{}", response.text);
    assert!((shares[0].1 - 55.555_556).abs() < 1e-5, "{shares:?}");
    assert!(middle(&response).iter().all(|(label, _)| !label.starts_with('B')), "{}", response.text);
    assert_eq!(response.body["queries"][2], json!({ "id": "F1", "hosts": 3, "series": 3 }));
}

#[test]
fn queries_state_hosts_gaps_and_errors() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    start_fleet(&hub);
    let sum = json!({ "id": "A", "metric": "cpu.usage", "by": "none", "aggregate": "sum",
                      "hosts": { "hosts": ["db-1", "web-1", "absent"] } });
    let response =
        query(&hub, &hub.token, &json!({ "from": "-30m", "to": "-1m", "points": 30, "queries": [sum] }));
    let series = &response.body["series"][0];
    let values = series["v"].as_array().unwrap();
    // Nothing was sent before: a gap, never zero.
    assert_eq!((&values[0], &series["hosts"][0]), (&Value::Null, &json!(0)), "{}", response.text);
    let last = values.len() - 2;
    assert_eq!((&values[last], &series["hosts"][last]), (&json!(60.0), &json!(2)), "{}", response.text);
    assert_eq!(response.body["left_out"]["unknown_hosts"], json!(["absent"]));
    assert_eq!(response.body["step_ms"], 60_000);
    for (body, status, code) in [
        (json!({ "queries": [] }), 422, "invalid_series_query"),
        (json!({ "queries": [{ "id": "A", "metric": "no metric" }] }), 422, "invalid_series_query"),
        (json!({ "queries": [{ "id": "A", "metric": "cpu.usage", "group": "host" }] }), 400, "invalid_body"),
        (
            json!({ "queries": [{ "id": "A", "metric": "cpu.usage" }],
                    "formulas": [{ "id": "F", "expression": "A / (B" }] }),
            422,
            "invalid_formula",
        ),
        (json!({ "from": "soon", "queries": [{ "id": "A", "metric": "cpu.usage" }] }), 400, "invalid_time"),
    ] {
        let response = query(&hub, &hub.token, &body);
        assert_eq!((response.status, response.code()), (status, code), "{body}: {}", response.text);
    }
    assert_eq!(query(&hub, "", &json!({})).status, 401);
}

#[test]
fn queries_of_limited_users_contain_no_hidden_host() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    start_fleet(&hub);
    add_user(&hub, ("lea", PASSWORD), "viewer", &["role=web"]);
    let token = hub.create_token(("lea", PASSWORD), "viewer");
    for by in ["host", "none", "tag:role", "series"] {
        let request = json!({ "from": "-8m", "to": "-1m",
                              "queries": [{ "id": "A", "metric": "cpu.usage", "by": by }] });
        let response = query(&hub, &token, &request);
        assert_eq!(middle(&response).len(), 1, "{by}: {}", response.text);
        assert_eq!(middle(&response)[0].1, 50.0, "{by}: {}", response.text);
        // With quotes: an id may contain the letters.
        for hidden in ["\"db-1\"", "\"db-2\"", "\"db\""] {
            assert!(!response.text.contains(hidden), "{by}: {}", response.text);
        }
        assert_eq!(response.body["queries"][0]["hosts"], 1);
    }
    // A hidden host and an absent host are alike.
    let named =
        json!({ "queries": [{ "id": "A", "metric": "cpu.usage", "hosts": { "hosts": ["db-1", "no"] } }] });
    let response = query(&hub, &token, &named);
    assert_eq!(response.body["left_out"]["unknown_hosts"], json!(["db-1", "no"]));
    assert_eq!(response.body["series"], json!([]));
}

fn view(name: &str, shared: bool, hosts: &Value) -> Value {
    json!({
        "name": name, "shared": shared,
        "query": { "queries": [{ "id": "A", "metric": "cpu.usage", "hosts": hosts }] },
        "chart": { "split": "host", "form": "stack", "from": "-6h" },
    })
}

fn names(hub: &TestHub, token: &str) -> Vec<String> {
    let response = hub.request("GET", "/api/v1/views", token, &Value::Null);
    let views = response.body["views"].as_array().unwrap_or_else(|| panic!("{}", response.text));
    views.iter().map(|view| view["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn views_belong_to_their_owner_and_may_be_shared() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    start_fleet(&hub);
    for (name, role, tags) in
        [("olaf", "operator", &[][..]), ("vera", "viewer", &[]), ("lea", "viewer", &["role=web"])]
    {
        add_user(&hub, (name, PASSWORD), role, tags);
    }
    let token = |name: &str, scope: &str| hub.create_token((name, PASSWORD), scope);
    let (olaf, vera, lea) = (token("olaf", "operator"), token("vera", "viewer"), token("lea", "viewer"));
    let save = |token: &str, body: &Value| hub.request("POST", "/api/v1/views", token, body);
    let created = save(&olaf, &view("Databases", true, &json!({ "tags": ["role=db"] })));
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!((&created.body["owner"], &created.body["editable"]), (&json!("olaf"), &json!(true)));
    assert_eq!(created.body["chart"], json!({ "split": "host", "form": "stack", "from": "-6h" }));
    assert_eq!(save(&olaf, &view("Web", true, &json!({ "tags": ["role=web"] }))).status, 201);
    assert_eq!(save(&olaf, &view("Draft", false, &json!({}))).status, 201);
    assert_eq!(save(&olaf, &view("Draft", false, &json!({}))).code(), "name_taken");
    assert_eq!(save(&vera, &view("Draft", false, &json!({}))).status, 201);
    assert_eq!(save(&vera, &view("Mine", true, &json!({}))).code(), "forbidden");
    assert_eq!(names(&hub, &olaf), ["Databases", "Draft", "Web"]);
    assert_eq!(names(&hub, &vera), ["Databases", "Draft", "Web"]);
    // The view of the databases names a tag of hidden hosts.
    assert_eq!(names(&hub, &lea), ["Web"]);
    let path = format!("/api/v1/views/{}", created.body["id"].as_str().unwrap());
    assert_eq!(hub.request("GET", &path, &lea, &Value::Null).code(), "not_found");
    assert_eq!(hub.request("GET", &path, &vera, &Value::Null).body["editable"], false);
    assert_eq!(hub.request("DELETE", &path, &vera, &Value::Null).code(), "forbidden");

    let mut renamed = view("Databases, CPU", true, &json!({ "tags": ["role=db"] }));
    assert_eq!(hub.request("PUT", &path, &olaf, &renamed).code(), "invalid_view");
    renamed["updated_ms"] = created.body["updated_ms"].clone();
    let updated = hub.request("PUT", &path, &olaf, &renamed);
    assert_eq!((updated.status, &updated.body["name"]), (200, &json!("Databases, CPU")), "{}", updated.text);
    // Decided on an outdated view.
    assert_eq!(hub.request("PUT", &path, &olaf, &renamed).code(), "conflict");
    for (body, code) in [
        (json!({ "name": "", "query": { "queries": [] } }), "invalid_name"),
        (json!({ "name": "x", "query": { "queries": [] } }), "invalid_series_query"),
        (json!({ "name": "x", "query": renamed["query"], "chart": { "from": "soon" } }), "invalid_view"),
        (json!({ "name": "x", "query": renamed["query"], "chart": { "split": "rack" } }), "invalid_body"),
    ] {
        assert_eq!(save(&olaf, &body).code(), code, "{body}");
    }
    // An administrator may remove shared views, but sees no others.
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).status, 204);
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).code(), "not_found");
    assert_eq!(names(&hub, &hub.token), ["Web"]);
    let audit = hub.get("/api/v1/audit?text=view.").body;
    let actions: Vec<String> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}", entry["action"].as_str().unwrap(), entry["actor"].as_str().unwrap()))
        .collect();
    let first = [
        format!("view.delete token test (user {})", ADMIN.0),
        "view.update token test (user olaf)".to_owned(),
    ];
    assert_eq!(actions[..2], first, "{audit}");
    assert_eq!(actions.len(), 6, "{audit}");
}
