//! Callers limited by host tags: hidden hosts leave no trace in any read, and limits cannot be lifted.

use crate::access::add_user;
use crate::agentless::server_request;
use crate::alerting::{cpu_rule, set_up};
use crate::support::{TestHub, eventually};
use perfwatch_auth::access::ROUTES;
use serde_json::{Value, json};
use std::net::SocketAddr;

const VISIBLE: &str = "01a1ffe1-afde-72f9-853f-a45c90cff701";
const HIDDEN: &str = "01a1ffe1-afde-72f9-853f-a45c90cff702";
const PASSWORD: &str = "a-password-of-tests-1";
/// Address of a hidden server. Nothing listens there.
const HIDDEN_ADDRESS: &str = "127.66.77.88";
/// Fields that differ between two requests.
const VOLATILE: [&str; 14] = [
    "computed_ms",
    "day_ms",
    "from_ms",
    "to_ms",
    "now_ms",
    "uptime_s",
    "memory_bytes",
    "cpu_seconds",
    "accepted_snapshots",
    "disk_bytes",
    "last_used_ms",
    "websocket_clients",
    "recent",
    "clock_skew_ms",
];

/// Lets a host send values until its alert fires or resolves.
fn send(hub: &TestHub, host: &str, name: &str, usage: f64) {
    let body = json!({ "host_id": host, "host": name, "cpu": { "usage": usage } });
    assert_eq!(hub.post_json(&body).status, 200);
}

fn create(hub: &TestHub, path: &str, body: &Value) -> String {
    let created = hub.request("POST", path, &hub.token, body);
    assert!(created.status == 201 || created.status == 200, "{path}: {}", created.text);
    let id = created.body["id"].as_str().or(created.body["rule"]["id"].as_str());
    id.or(created.body["silence"]["id"].as_str()).unwrap().to_owned()
}

fn without_volatile(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = without_volatile(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_volatile(item.take())),
        _ => {}
    }
    value
}

/// Paths of all reads, with ids and longest searches.
fn paths(ids: &[String]) -> Vec<String> {
    let mut paths = Vec::new();
    for (method, path, ..) in ROUTES {
        let is_file = path.contains("/docs") || path.contains("openapi") || path.contains("{file}");
        if *method != "GET" || is_file || path.starts_with("/api/ws") || path.contains("oidc") {
            continue;
        }
        let queries: &[&str] = match *path {
            "/api/v1/hosts/{id}/series" => &["?metric=*"],
            "/api/v1/incidents/history" => &[
                "",
                "?text=hidden",
                "?limit=1",
                "?text=hosts",
                "?severity=critical",
                "?limit=2&from=-1d",
                "?state=resolved",
                "?state=open",
            ],
            "/api/v1/servers/metrics/queue/jobs" => {
                &["", "?state=failed", "?state=completed", "?state=delayed"]
            }
            "/api/metrics/recent" | "/api/v1/live" => &["", "?host=hidden-web"],
            "/api/v1/audit" => &["?text=hidden", ""],
            _ => &[""],
        };
        for query in queries {
            match path.contains("{id}") {
                true => paths.extend(ids.iter().map(|id| format!("{}{query}", path.replace("{id}", id)))),
                false => paths.push(format!("{path}{query}")),
            }
        }
    }
    paths
}

/// Responses of all lists that do not depend on ids.
fn lists(hub: &TestHub, token: &str) -> Vec<(String, u16, String)> {
    let read = |path: String| {
        let response = hub.request("GET", &path, token, &Value::Null);
        let text = match response.body.is_null() {
            true => response.text,
            false => without_volatile(response.body).to_string(),
        };
        (path, response.status, text)
    };
    // The course of the last day moves on with each minute; the tests of the overview check its values.
    let paths = paths(&[VISIBLE.to_owned()]).into_iter().filter(|path| path != "/api/v1/overview/history");
    paths.map(read).collect()
}

/// Creates hosts, alerts, rules, silences, agents and servers that limited callers may not view. Returns
/// their ids.
fn add_hidden(hub: &TestHub) -> Vec<String> {
    send(hub, HIDDEN, "hidden-web", 99.0);
    eventually("the hidden alert fires", || {
        send(hub, HIDDEN, "hidden-web", 99.0);
        hub.get("/api/v1/incidents").text.contains(HIDDEN)
    });
    let mut rule = cpu_rule(1.0, "1h");
    (rule["name"], rule["hosts"]) = (json!("Both"), json!({ "hosts": [HIDDEN] }));
    create(hub, "/api/v1/rules", &rule);
    create(hub, "/api/v1/silences", &json!({ "matcher": { "hosts": [HIDDEN] }, "comment": "x" }));
    let token = hub.request(
        "POST",
        "/api/v1/enrollment-tokens",
        &hub.token,
        &json!({ "name": "other", "uses": 1, "tags": ["team=b"] }),
    );
    let enrolled = "01a1ffe1-afde-72f9-853f-a45c90cff703";
    let body = json!({ "token": token.body["token"], "host_id": enrolled, "host_name": "hidden-agent" });
    let agent = hub.request("POST", "/api/v1/agents/enroll", "", &body);
    assert_eq!(agent.status, 201, "{}", agent.text);
    // Second review: selected by a tag that only hidden hosts have.
    let mut rule = cpu_rule(1.0, "1h");
    (rule["name"], rule["hosts"]) = (json!("hidden-rule"), json!({ "tags": ["team=b"] }));
    create(hub, "/api/v1/rules", &rule);
    let silence = json!({ "matcher": { "tags": ["team=b"] }, "comment": "hidden-silence" });
    create(hub, "/api/v1/silences", &silence);
    let address: SocketAddr = format!("{HIDDEN_ADDRESS}:22").parse().unwrap();
    let credentials = json!({ "kind": "password", "password": "y" });
    let server = create(hub, "/api/v1/servers", &server_request("hidden-jump", address, "x", &credentials));
    let incident = hub.get("/api/v1/incidents").body["incidents"][0]["id"].as_str().unwrap().to_owned();
    let agent = agent.body["agent_id"].as_str().unwrap().to_owned();
    vec![HIDDEN.to_owned(), enrolled.to_owned(), server, agent, incident]
}

/// Findings M3 and L1: every read of a limited user is the same with and without hidden hosts.
#[test]
fn reads_of_limited_users_do_not_depend_on_hidden_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let mut rule = cpu_rule(50.0, "0s");
    rule["group_by"] = json!("rule");
    set_up(&hub, &rule, &[]);
    send(&hub, VISIBLE, "web", 1.0);
    let tags = json!({ "tags": ["team=a"] });
    assert_eq!(hub.request("PUT", &format!("/api/v1/hosts/{VISIBLE}/tags"), &hub.token, &tags).status, 200);
    eventually("the alert fires", || {
        send(&hub, VISIBLE, "web", 99.0);
        hub.get("/api/v1/incidents").text.contains(VISIBLE)
    });
    eventually("the alert is resolved", || {
        send(&hub, VISIBLE, "web", 1.0);
        hub.get("/api/v1/incidents").body["incidents"] == json!([])
    });
    let tokens: Vec<String> = ["viewer", "operator", "admin"]
        .iter()
        .map(|role| {
            let user = (&*format!("limited-{role}"), PASSWORD);
            add_user(&hub, user, role, &["team=a"]);
            hub.create_token(user, role)
        })
        .collect();
    // The overview is at most a second old.
    let is_in_overview = |host: &str| hub.get("/api/v1/overview").text.contains(host);
    eventually("the overview contains the host", || is_in_overview(VISIBLE));
    // Sessions and tokens are created first: their list does not depend on hosts.
    let before: Vec<_> = tokens.iter().map(|token| lists(&hub, token)).collect();
    let history = before[0].iter().find(|(path, ..)| path == "/api/v1/incidents/history").unwrap();
    assert!(history.2.contains("web"), "{}", history.2);
    let hidden_ids = add_hidden(&hub);
    eventually("the overview contains the hidden host", || is_in_overview(HIDDEN));
    let after: Vec<_> = tokens.iter().map(|token| lists(&hub, token)).collect();
    for (before, after) in before.iter().zip(&after) {
        for (before, after) in before.iter().zip(after) {
            assert_eq!(before, after);
        }
    }
    // Pages of hidden incidents do not exist: `next` is the same, and leads nowhere else.
    let names = ["hidden-web", "hidden-agent", "hidden-jump", "hidden-rule", "hidden-silence"];
    let hidden = [&[HIDDEN, HIDDEN_ADDRESS][..], &names].concat();
    let jump = json!({
        "name": "behind", "address": "127.66.77.89", "user": "x", "jump": hidden_ids[2], "tags": ["team=a"],
        "credentials": { "kind": "password", "password": "y" }, "interval": "24h", "enabled": true,
    });
    let behind = create(&hub, "/api/v1/servers", &jump);
    let collected = format!("/api/v1/servers/{behind}/collections");
    eventually("the server behind the hidden server was collected", || {
        hub.get(&collected).body["collections"] != json!([])
    });
    assert!(hub.get(&collected).text.contains(HIDDEN_ADDRESS));
    let mut ids = hidden_ids.clone();
    ids.extend([VISIBLE.to_owned(), behind.clone()]);
    for token in &tokens {
        for path in paths(&ids) {
            let response = hub.request("GET", &path, token, &Value::Null);
            // An error repeats the id of the request.
            let text =
                ids.iter().filter(|id| path.contains(*id)).fold(response.text, |t, id| t.replace(id, ""));
            let text = if path.contains("hidden-web") { text.replace("hidden-web", "") } else { text };
            for secret in hidden.iter().copied().chain(hidden_ids[1..4].iter().map(String::as_str)) {
                assert!(!text.contains(secret), "{secret} in {path}: {text}");
            }
        }
    }
    let shown = hub.request("GET", &format!("/api/v1/servers/{behind}"), &tokens[1], &Value::Null);
    assert_eq!((&shown.body["jump"], &shown.body["jump_hidden"]), (&Value::Null, &json!(true)));
    let mut direct = jump;
    direct.as_object_mut().unwrap().remove("jump");
    let path = format!("/api/v1/servers/{behind}");
    assert_eq!(hub.request("PUT", &path, &tokens[1], &direct).code(), "forbidden", "the path is kept");
}

/// Finding L3: an administrator limited by host tags neither lifts the limit nor creates or takes over
/// accounts beyond it.
#[test]
fn limited_administrator_cannot_lift_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let full = hub.get("/api/v1/auth/me").body["id"].as_str().unwrap().to_owned();
    let own = add_user(&hub, ("limited", PASSWORD), "admin", &["team=a", "team=b"]);
    let other = add_user(&hub, ("other", PASSWORD), "viewer", &["team=c"]);
    let session = hub.log_in_confirmed("limited", PASSWORD);
    let request = |method: &str, path: &str, body: Value| hub.browser_request(method, path, &session, &body);
    let user = |name: &str, tags: Value| json!({ "name": name, "password": "a-third-password-1", "role": "admin", "host_tags": tags });
    let path = |id: &str| format!("/api/v1/users/{id}");
    for (method, path, body) in [
        ("PATCH", path(&own), json!({ "host_tags": [] })),
        ("PATCH", path(&own), json!({ "host_tags": ["team=a", "team=c"] })),
        ("PATCH", path(&full), json!({ "password": "a-third-password-1" })),
        ("PATCH", path(&full), json!({ "host_tags": ["team=a"] })),
        ("PATCH", path(&other), json!({ "host_tags": ["team=a"] })),
        ("DELETE", path(&full), Value::Null),
        ("DELETE", path(&other), Value::Null),
        ("POST", "/api/v1/users".to_owned(), user("x", json!([]))),
        ("POST", "/api/v1/users".to_owned(), user("x", json!(["team=a", "team=c"]))),
    ] {
        let response = request(method, &path, body.clone());
        assert_eq!(response.code(), "forbidden", "{method} {path} {body}: {}", response.text);
    }
    let created = request("POST", "/api/v1/users", user("within", json!(["team=b"])));
    assert_eq!(created.status, 201, "{}", created.text);
    let created = path(created.body["id"].as_str().unwrap());
    assert_eq!(request("PATCH", &created, json!({ "host_tags": ["team=a"] })).status, 200);
    assert_eq!(request("PATCH", &created, json!({ "host_tags": [] })).code(), "forbidden");
    assert_eq!(request("DELETE", &created, Value::Null).status, 204);
    // The list has the accounts that may be changed.
    let listed = request("GET", "/api/v1/users", Value::Null).body["users"].clone();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["limited"], "{listed}");
}
