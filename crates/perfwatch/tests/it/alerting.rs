//! Alerting with real processes: top consumers in webhook and mail notifications, delivery exactly
//! once after a crash, rules as YAML, limited visibility.

use crate::support::{TestHub, eventually, start_agent};
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Processes with a unique name that use all cores until dropped.
struct BusyProcess(Vec<Child>);

impl BusyProcess {
    fn start(folder: &Path) -> Self {
        let program = folder.join("pwbusy");
        std::fs::copy("/bin/sh", &program).unwrap();
        let cores = std::thread::available_parallelism().unwrap().get();
        let spawn = |_| {
            let mut command = Command::new(&program);
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..cores).map(spawn).collect())
    }
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Replaces all rules by one rule, and creates the channels.
pub(crate) fn set_up(hub: &TestHub, rule: &Value, channels: &[Value]) {
    let rules = hub.get("/api/v1/rules");
    assert!(rules.body["rules"].as_array().unwrap().len() > 15, "built-in rules: {}", rules.text);
    for existing in rules.body["rules"].as_array().unwrap() {
        let path = format!("/api/v1/rules/{}", existing["rule"]["id"].as_str().unwrap());
        assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).status, 204);
    }
    let created = hub.request("POST", "/api/v1/rules", &hub.token, rule);
    assert_eq!(created.status, 201, "{}", created.text);
    for channel in channels {
        let created = hub.request("POST", "/api/v1/channels", &hub.token, channel);
        assert_eq!(created.status, 201, "{}", created.text);
    }
}

fn webhook(recorder: &HttpRecorder) -> Value {
    let settings = json!({ "url": format!("{}/hook", recorder.url()), "secret": "s3cret" });
    json!({ "name": "hook", "kind": "webhook", "settings": settings })
}

pub(crate) fn cpu_rule(threshold: f64, hold_for: &str) -> Value {
    json!({
        "name": "High CPU usage", "runbook": "Check the top consumers.", "for": hold_for,
        "condition": { "kind": "threshold", "metric": "cpu.usage", "threshold": threshold },
    })
}

#[test]
fn cpu_alert_names_top_process_and_resolves() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let (http, smtp) = (HttpRecorder::start(), SmtpRecorder::start());
    let mail = json!({ "name": "mail", "kind": "email", "settings": {
        "to": "ops@example.org", "from": "perfwatch@example.org", "server": "127.0.0.1",
        "port": smtp.port().to_string(), "security": "none",
    } });
    set_up(&hub, &cpu_rule(90.0, "10s"), &[webhook(&http), mail]);
    let _agent = start_agent(folder.path(), &hub, "1s");
    // Elapsed time for the hub: a baseline for the explanation.
    eventually("some ticks are recorded", || hub.seqs("it").len() >= 8);
    let busy = BusyProcess::start(folder.path());
    let request = http.next_request_within(Duration::from_secs(60)).expect("no notification");
    let message: Value = serde_json::from_str(&request.body).unwrap();
    let alert = &message["alerts"][0];
    assert_eq!(
        (message["reason"].as_str(), alert["rule"].as_str()),
        (Some("opened"), Some("High CPU usage")),
        "{message}"
    );
    // On a busy machine, other processes may use more. Their order is tested with given values.
    let consumers = alert["consumers"].as_array().unwrap();
    let is_busy = |consumer: &Value| consumer.as_str().unwrap().starts_with("pwbusy (pid ");
    assert!(consumers.iter().any(is_busy), "{message}");
    assert!(request.header("x-perfwatch-signature").unwrap().starts_with("sha256="));
    let mail = smtp.next();
    assert!(mail.data.contains("High CPU usage") && mail.data.contains("pwbusy (pid "), "{}", mail.data);
    // Fired after the hold time of ten seconds, by the clock of the host.
    let active = hub.get("/api/v1/incidents");
    let alert = &active.body["incidents"][0]["alerts"][0];
    let hold_ms = alert["fired_ms"].as_i64().unwrap() - alert["pending_since_ms"].as_i64().unwrap();
    assert!(hold_ms >= 10_000, "{hold_ms} {}", active.text);
    let id = active.body["incidents"][0]["id"].as_str().unwrap().to_owned();
    let detail = hub.get(&format!("/api/v1/incidents/{id}"));
    let explanation = &detail.body["incident"]["alerts"][0]["explanation"];
    let explained = explanation["consumers"].as_array().unwrap();
    assert!(explained.iter().any(|consumer| consumer["name"] == "pwbusy"), "{}", detail.text);
    let kinds: Vec<&str> = detail.body["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"fired") && kinds.contains(&"notified"), "{kinds:?}");

    let acknowledged = hub.request(
        "POST",
        &format!("/api/v1/incidents/{id}/ack"),
        &hub.token,
        &json!({ "duration": "1h", "comment": "investigating" }),
    );
    assert_eq!(acknowledged.status, 204, "{}", acknowledged.text);
    drop(busy);
    // Tests that run at the same time may keep the processors busy for minutes.
    let request = http.next_request_within(Duration::from_secs(300)).expect("no resolved notification");
    let message: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(message["reason"], "resolved", "{message}");
    eventually("no incident is open", || {
        hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().is_empty()
    });
    let history = hub.get("/api/v1/incidents/history?text=cpu&host=it");
    assert_eq!(history.body["incidents"][0]["phase"], "resolved", "{}", history.text);
    // The alert is also listed for its host.
    assert_eq!(hub.get("/api/v1/hosts/it/alerts").body["alerts"].as_array().unwrap().len(), 1);
    eventually("both channels received both notifications", || {
        hub.get("/api/v1/notifications?state=sent").body["notifications"].as_array().unwrap().len() == 4
    });
}

#[test]
fn pending_notification_is_sent_once_after_crash() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    http.respond_with(503, "not yet");
    set_up(&hub, &cpu_rule(-1.0, "0s"), &[webhook(&http)]);
    let _agent = start_agent(folder.path(), &hub, "1s");
    let rejected = http.next_request();
    let listen = hub.address.clone();
    hub.process.kill();
    http.respond_with(200, "");
    let hub = TestHub::start_at(folder.path(), &listen);
    let delivered = http.next_request();
    let id = |body: &str| serde_json::from_str::<Value>(body).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(id(&delivered.body), id(&rejected.body), "the same notification");
    // The host keeps firing, without another notification.
    eventually("the notification is recorded as sent", || {
        let sent = hub.get("/api/v1/notifications?state=sent").body;
        sent["notifications"].as_array().is_some_and(|notifications| notifications.len() == 1)
    });
    assert!(http.next_request_within(Duration::from_secs(5)).is_none(), "notified twice");
}

#[test]
fn rules_round_trip_through_yaml_and_report_errors() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let yaml = hub.get("/api/v1/rules/export").text;
    assert!(yaml.contains("name: No data from host") && yaml.contains("grace: 1m"), "{yaml}");
    let import = |text: &str| {
        let request = ureq::http::Request::builder().method("POST").uri(hub.url("/api/v1/rules/import"));
        let request = request.header("Authorization", format!("Bearer {}", hub.token));
        let request = request.header("Content-Type", "application/yaml").body(text.to_owned()).unwrap();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut response = agent.run(request).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    };
    let (status, unchanged) = import(&yaml);
    assert_eq!(status, 200, "{unchanged}");
    let unchanged: Value = serde_json::from_str(&unchanged).unwrap();
    let counts = (unchanged["created"].as_i64(), unchanged["updated"].as_i64());
    assert_eq!(counts, (Some(0), Some(0)), "{unchanged}");
    let rules = hub.get("/api/v1/rules").body["rules"].as_array().unwrap().clone();
    assert!(
        rules.iter().all(|rule| rule["warnings"] == json!([])),
        "built-in rules have known metrics: {rules:?}"
    );
    let unknown = json!({ "kind": "threshold", "metric": "cpu.usge", "threshold": 90 });
    let unknown = json!({ "name": "misspelled", "condition": unknown });
    let created = hub.request("POST", "/api/v1/rules", &hub.token, &unknown);
    let warning = created.body["warnings"][0].as_str().unwrap_or_default();
    assert!(created.status == 201 && warning.contains("did you mean cpu.usage?"), "{}", created.text);
    let (status, imported) = import(&json!({ "rules": [unknown] }).to_string());
    assert!(status == 200 && imported.contains("did you mean cpu.usage?"), "{imported}");
    let (status, updated) = import(&yaml.replace("grace: 1m", "grace: 2m"));
    assert_eq!((status, updated.contains("\"updated\":1")), (200, true), "{updated}");
    for (text, expected) in [
        ("rules: [{name: x}]", "condition"),
        ("rules:\n- name: x\n  condition: {kind: threshold, metric: cpu.usage, treshold: 9}", "treshold"),
        ("rules:\n- name: x\n  condition: {kind: no_data, grace: 1s}", "at least 5s"),
        ("not rules", ""),
    ] {
        let (status, response) = import(text);
        assert!(status == 422 && response.contains(expected), "{status} {response}");
    }
    let request = |method: &str, path: &str, body: Value| hub.request(method, path, &hub.token, &body);
    let condition =
        json!({ "kind": "threshold", "metric": "cpu.usage", "threshold": 90, "clear_threshold": 95 });
    let response = request("POST", "/api/v1/rules", json!({ "name": "x", "condition": condition }));
    assert_eq!((response.status, response.code()), (422, "invalid_rule"), "{}", response.text);
    let incomplete = json!({ "name": "x", "kind": "slack", "settings": {} });
    assert_eq!(request("POST", "/api/v1/channels", incomplete).code(), "invalid_channel");
    let unknown = request("PUT", "/api/v1/rules/01a1ffe1-afde-72f9-853f-a45c90cff753", cpu_rule(90.0, "10s"));
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    let backwards = json!({ "starts_ms": 5_000_000_000_000_i64, "ends_ms": 4_000_000_000_000_i64 });
    assert_eq!(request("POST", "/api/v1/silences", backwards).code(), "invalid_silence");
}

#[test]
fn channel_secrets_are_hidden_and_preserved_when_omitted() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    let created = hub.request("POST", "/api/v1/channels", &hub.token, &webhook(&http));
    assert!(created.status == 201 && !created.text.contains("s3cret"), "{}", created.text);
    let id = created.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/channels/{id}");
    let mut update = webhook(&http);
    update["settings"] = json!({ "url": format!("{}/hook", http.url()) });
    update["name"] = json!("renamed");
    let changed = hub.request("PUT", &path, &hub.token, &update);
    assert_eq!(
        (changed.status, changed.body["secrets_set"][0].as_str()),
        (200, Some("secret")),
        "{}",
        changed.text
    );
    let tested = hub.request("POST", &format!("{path}/test"), &hub.token, &Value::Null);
    assert_eq!(tested.body["delivered"], true, "{}", tested.text);
    assert!(http.next_request().header("x-perfwatch-signature").is_some(), "the stored secret is used");
    // A stored secret is never sent to another server.
    update["settings"] = json!({ "url": "http://127.0.0.1:9/elsewhere" });
    let moved = hub.request("PUT", &path, &hub.token, &update);
    assert_eq!(moved.code(), "invalid_channel", "{}", moved.text);
    for page in ["/api/v1/channels", "/api/v1/audit"] {
        assert!(!hub.get(page).text.contains("s3cret"), "{page}");
    }
    assert!(!hub.process.log().contains("s3cret"));
    let preview =
        json!({ "title": "{{ subject }}!", "text": "{% for a in alerts %}{{ a.host }}{% endfor %}" });
    let rendered = hub.request("POST", "/api/v1/channels/preview", &hub.token, &preview);
    assert!(rendered.body["title"].as_str().unwrap().ends_with('!'), "{}", rendered.text);
    let invalid = hub.request(
        "POST",
        "/api/v1/channels/preview",
        &hub.token,
        &json!({ "title": "{{ nothing }}", "text": "" }),
    );
    assert_eq!(invalid.status, 422, "{}", invalid.text);
}

#[test]
fn scoped_user_sees_own_alerts_and_cannot_change_rules() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    set_up(&hub, &cpu_rule(50.0, "0s"), &[]);
    for host in ["visible", "hidden"] {
        let posted = hub.post_json(&json!({ "host": host, "cpu": { "usage": 99.0 } }));
        assert_eq!(posted.status, 200, "{}", posted.text);
    }
    let put = hub.request("PUT", "/api/v1/hosts/visible/tags", &hub.token, &json!({ "tags": ["team=a"] }));
    assert_eq!(put.status, 200, "{}", put.text);
    eventually("both alerts fire", || {
        for host in ["visible", "hidden"] {
            hub.post_json(&json!({ "host": host, "cpu": { "usage": 99.0 } }));
        }
        hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().len() == 2
    });
    let body = json!({ "name": "olga", "password": "operator-password-1", "role": "operator",
                       "host_tags": ["team=a"] });
    assert_eq!(hub.admin_request("POST", "/api/v1/users", &body).status, 201);
    let operator = hub.sign_token("olga", "operator-password-1");
    let visible = hub.request("GET", "/api/v1/incidents", &operator, &Value::Null);
    assert_eq!(visible.body["incidents"].as_array().unwrap().len(), 1, "{}", visible.text);
    assert!(!visible.text.contains("hidden"), "{}", visible.text);
    let hidden_id = hub.get("/api/v1/incidents").body["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .find(|incident| incident["title"].as_str().unwrap().starts_with("hidden"))
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let visible_id = visible.body["incidents"][0]["id"].as_str().unwrap();
    let status = |method: &str, path: &str, body: Value| hub.request(method, path, &operator, &body).status;
    assert_eq!(status("GET", &format!("/api/v1/incidents/{hidden_id}"), Value::Null), 404);
    assert_eq!(status("POST", &format!("/api/v1/incidents/{hidden_id}/ack"), json!({})), 404);
    assert_eq!(status("POST", &format!("/api/v1/incidents/{visible_id}/ack"), json!({})), 204);
    assert_eq!(status("POST", "/api/v1/rules", cpu_rule(1.0, "0s")), 403);
    assert_eq!(status("POST", "/api/v1/silences", json!({})), 403);
    // Deleting a host resolves its alerts.
    assert_eq!(status("DELETE", "/api/v1/hosts/hidden", Value::Null), 404);
    assert_eq!(status("DELETE", "/api/v1/hosts/visible", Value::Null), 204);
    eventually("its incident is resolved", || {
        hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().len() == 1
    });
    assert_eq!(hub.get("/api/v1/hosts/visible").status, 404);
}
