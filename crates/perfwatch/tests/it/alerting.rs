//! Alerts by real processes: a program that burns the processor is told of by name, on HTTP and
//! by mail; a hub that is killed before it could tell tells once when it is back.

use crate::support::{TestHub, eventually, start_agent};
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Busy until it is dropped, under a name of its own.
struct BusyProcess(Vec<Child>);

impl BusyProcess {
    fn start(folder: &Path) -> Self {
        let program = folder.join("pwburner");
        std::fs::copy("/bin/sh", &program).unwrap();
        let cores = std::thread::available_parallelism().unwrap().get();
        let burn = |_| {
            let mut command = Command::new(&program);
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..cores).map(burn).collect())
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

/// Only this rule, and a channel that hears all.
fn set_up(hub: &TestHub, rule: &Value, channels: &[Value]) {
    let rules = hub.get("/api/v1/rules");
    assert!(rules.body["rules"].as_array().unwrap().len() > 15, "the built-in ones: {}", rules.text);
    for known in rules.body["rules"].as_array().unwrap() {
        let path = format!("/api/v1/rules/{}", known["rule"]["id"].as_str().unwrap());
        assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).status, 204);
    }
    let made = hub.request("POST", "/api/v1/rules", &hub.token, rule);
    assert_eq!(made.status, 201, "{}", made.text);
    for channel in channels {
        let made = hub.request("POST", "/api/v1/channels", &hub.token, channel);
        assert_eq!(made.status, 201, "{}", made.text);
    }
}

fn webhook(sink: &HttpRecorder) -> Value {
    json!({ "name": "hook", "kind": "webhook", "settings": { "url": format!("{}/hook", sink.url()), "secret": "s3cret" } })
}

fn cpu(threshold: f64, for_: &str) -> Value {
    json!({
        "name": "CPU is busy", "note": "Look who it is.", "for": for_,
        "when": { "kind": "value", "metric": "cpu.usage", "threshold": threshold },
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
    set_up(&hub, &cpu(90.0, "10s"), &[webhook(&http), mail]);
    let _agent = start_agent(folder.path(), &hub, "1s");
    // Some of the time before, so that there is something to compare with.
    std::thread::sleep(Duration::from_secs(8));
    let burner = BusyProcess::start(folder.path());
    let heard = http.next_request_within(Duration::from_secs(60)).expect("nothing was heard");
    let message: Value = serde_json::from_str(&heard.body).unwrap();
    let alert = &message["alerts"][0];
    assert_eq!(
        (message["notice"].as_str(), alert["rule"].as_str()),
        (Some("opened"), Some("CPU is busy")),
        "{message}"
    );
    let first = alert["consumers"][0].as_str().unwrap();
    assert!(first.starts_with("pwburner (pid "), "{message}");
    assert!(heard.header("x-perfwatch-signature").unwrap().starts_with("sha256="));
    let mail = smtp.next();
    assert!(mail.data.contains("CPU is busy") && mail.data.contains("pwburner (pid "), "{}", mail.data);
    // By the host's own clock: ten seconds, and what two ticks may add.
    let active = hub.get("/api/v1/incidents");
    let shown = &active.body["incidents"][0]["alerts"][0];
    let held = shown["fired_ms"].as_i64().unwrap() - shown["since_ms"].as_i64().unwrap();
    assert!((10_000..=12_500).contains(&held), "{held} {}", active.text);
    let id = active.body["incidents"][0]["id"].as_str().unwrap().to_owned();
    let detail = hub.get(&format!("/api/v1/incidents/{id}"));
    let explanation = &detail.body["incident"]["alerts"][0]["explanation"];
    assert_eq!(explanation["consumers"][0]["name"], "pwburner", "{}", detail.text);
    let kinds: Vec<&str> =
        detail.body["timeline"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"fired") && kinds.contains(&"told"), "{kinds:?}");

    let acknowledged = hub.request(
        "POST",
        &format!("/api/v1/incidents/{id}/ack"),
        &hub.token,
        &json!({ "lasts": "1h", "comment": "mine" }),
    );
    assert_eq!(acknowledged.status, 204, "{}", acknowledged.text);
    drop(burner);
    let heard = http.next_request_within(Duration::from_secs(60)).expect("the end was not heard");
    let message: Value = serde_json::from_str(&heard.body).unwrap();
    assert_eq!(message["notice"], "resolved", "{message}");
    eventually("nothing is the matter", || {
        hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().is_empty()
    });
    let history = hub.get("/api/v1/incidents/history?text=busy&host=it");
    assert_eq!(history.body["incidents"][0]["phase"], "closed", "{}", history.text);
    // Seen by the host's own list too.
    assert_eq!(hub.get("/api/v1/hosts/it/alerts").body["alerts"].as_array().unwrap().len(), 1);
    eventually("both were told of both", || {
        hub.get("/api/v1/notifications?state=sent").body["messages"].as_array().unwrap().len() == 4
    });
}

#[test]
fn pending_notification_is_sent_once_after_crash() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    http.respond_with(503, "not yet");
    set_up(&hub, &cpu(-1.0, "0s"), &[webhook(&http)]);
    let _agent = start_agent(folder.path(), &hub, "1s");
    let refused = http.next_request();
    let listen = hub.address.clone();
    hub.process.kill();
    http.respond_with(200, "");
    let hub = TestHub::start_at(folder.path(), &listen);
    let told = http.next_request();
    let id = |body: &str| serde_json::from_str::<Value>(body).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(id(&told.body), id(&refused.body), "the same message");
    // The host goes on sending what fires, and nothing more is said.
    eventually("it is written down", || {
        hub.get("/api/v1/notifications?state=sent").body["messages"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    });
    assert!(http.next_request_within(Duration::from_secs(5)).is_none(), "it was told twice");
}

#[test]
fn rules_round_trip_through_yaml_and_report_errors() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let yaml = hub.get("/api/v1/rules/export").text;
    assert!(yaml.contains("name: Host is down") && yaml.contains("grace: 1m"), "{yaml}");
    let import = |text: &str| {
        let request = ureq::http::Request::builder().method("POST").uri(hub.url("/api/v1/rules/import"));
        let request = request.header("Authorization", format!("Bearer {}", hub.token));
        let request = request.header("Content-Type", "application/yaml").body(text.to_owned()).unwrap();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.run(request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let (status, same) = import(&yaml);
    assert_eq!(status, 200, "{same}");
    let same: Value = serde_json::from_str(&same).unwrap();
    assert_eq!((same["created"].as_i64(), same["changed"].as_i64()), (Some(0), Some(0)), "{same}");
    let (status, changed) = import(&yaml.replace("grace: 1m", "grace: 2m"));
    assert_eq!((status, changed.contains("\"changed\":1")), (200, true), "{changed}");
    for (text, why) in [
        ("rules: [{name: x}]", "when"),
        ("rules:\n- name: x\n  when: {kind: value, metric: cpu.usage, treshold: 9}", "treshold"),
        ("rules:\n- name: x\n  when: {kind: silent, grace: 1s}", "5s at least"),
        ("not rules", ""),
    ] {
        let (status, answer) = import(text);
        assert!(status == 422 && answer.contains(why), "{status} {answer}");
    }
    let ask = |method: &str, path: &str, body: Value| hub.request(method, path, &hub.token, &body);
    let wrong = json!({ "name": "x", "when": { "kind": "value", "metric": "cpu.usage", "threshold": 90, "clear": 95 } });
    let answer = ask("POST", "/api/v1/rules", wrong);
    assert_eq!((answer.status, answer.code()), (422, "invalid_rule"), "{}", answer.text);
    let nobody = json!({ "name": "x", "kind": "slack", "settings": {} });
    assert_eq!(ask("POST", "/api/v1/channels", nobody).code(), "invalid_channel");
    let none = ask("PUT", "/api/v1/rules/01a1ffe1-afde-72f9-853f-a45c90cff753", cpu(90.0, "10s"));
    assert_eq!(none.status, 404, "{}", none.text);
    let backwards = json!({ "starts_ms": 5_000_000_000_000_i64, "ends_ms": 4_000_000_000_000_i64 });
    assert_eq!(ask("POST", "/api/v1/silences", backwards).code(), "invalid_silence");
}

#[test]
fn channel_secrets_are_hidden_and_kept_when_omitted() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    let made = hub.request("POST", "/api/v1/channels", &hub.token, &webhook(&http));
    assert!(made.status == 201 && !made.text.contains("s3cret"), "{}", made.text);
    let id = made.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/channels/{id}");
    let mut kept = webhook(&http);
    kept["settings"] = json!({ "url": format!("{}/hook", http.url()) });
    kept["name"] = json!("renamed");
    let changed = hub.request("PUT", &path, &hub.token, &kept);
    assert_eq!(
        (changed.status, changed.body["secrets"][0].as_str()),
        (200, Some("secret")),
        "{}",
        changed.text
    );
    let tried = hub.request("POST", &format!("{path}/test"), &hub.token, &Value::Null);
    assert_eq!(tried.body["heard"], true, "{}", tried.text);
    assert!(http.next_request().header("x-perfwatch-signature").is_some(), "the secret is still there");
    // Not to another server, unless it is said again.
    kept["settings"] = json!({ "url": "http://127.0.0.1:9/elsewhere" });
    let moved = hub.request("PUT", &path, &hub.token, &kept);
    assert_eq!(moved.code(), "invalid_channel", "{}", moved.text);
    for page in ["/api/v1/channels", "/api/v1/audit"] {
        assert!(!hub.get(page).text.contains("s3cret"), "{page}");
    }
    assert!(!hub.process.log().contains("s3cret"));
    let preview =
        json!({ "title": "{{ subject }}!", "text": "{% for a in alerts %}{{ a.host }}{% endfor %}" });
    let shown = hub.request("POST", "/api/v1/channels/preview", &hub.token, &preview);
    assert!(shown.body["title"].as_str().unwrap().ends_with('!'), "{}", shown.text);
    let wrong = hub.request(
        "POST",
        "/api/v1/channels/preview",
        &hub.token,
        &json!({ "title": "{{ nothing }}", "text": "" }),
    );
    assert_eq!(wrong.status, 422, "{}", wrong.text);
}

#[test]
fn scoped_user_sees_own_alerts_and_cannot_change_rules() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    set_up(&hub, &cpu(50.0, "0s"), &[]);
    for host in ["seen", "unseen"] {
        let posted = hub.post_json(&json!({ "host": host, "cpu": { "usage": 99.0 } }));
        assert_eq!(posted.status, 200, "{}", posted.text);
    }
    let put = hub.request("PUT", "/api/v1/hosts/seen/tags", &hub.token, &json!({ "tags": ["team=a"] }));
    assert_eq!(put.status, 200, "{}", put.text);
    eventually("both fire", || {
        for host in ["seen", "unseen"] {
            hub.post_json(&json!({ "host": host, "cpu": { "usage": 99.0 } }));
        }
        hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().len() == 2
    });
    let body = json!({ "name": "olga", "password": "turning some wheels", "role": "operator", "host_tags": ["team=a"] });
    assert_eq!(hub.request("POST", "/api/v1/users", &hub.token, &body).status, 201);
    let olga = hub.create_user_and_log_in("olga", "turning some wheels");
    let seen = hub.request("GET", "/api/v1/incidents", &olga, &Value::Null);
    assert_eq!(seen.body["incidents"].as_array().unwrap().len(), 1, "{}", seen.text);
    assert!(!seen.text.contains("unseen"), "{}", seen.text);
    let other = hub.get("/api/v1/incidents").body["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["title"].as_str().unwrap().starts_with("unseen"))
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = seen.body["incidents"][0]["id"].as_str().unwrap();
    let ask = |method: &str, path: &str, body: Value| hub.request(method, path, &olga, &body).status;
    assert_eq!(ask("GET", &format!("/api/v1/incidents/{other}"), Value::Null), 404);
    assert_eq!(ask("POST", &format!("/api/v1/incidents/{other}/ack"), json!({})), 404);
    assert_eq!(ask("POST", &format!("/api/v1/incidents/{own}/ack"), json!({})), 204);
    assert_eq!(ask("POST", "/api/v1/rules", cpu(1.0, "0s")), 403);
    assert_eq!(ask("POST", "/api/v1/silences", json!({})), 403);
    // A host that is removed takes its alerts along.
    assert_eq!(ask("DELETE", "/api/v1/hosts/unseen", Value::Null), 404);
    assert_eq!(ask("DELETE", "/api/v1/hosts/seen", Value::Null), 204);
    eventually("its incident is over", || {
        hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().len() == 1
    });
    assert_eq!(hub.get("/api/v1/hosts/seen").status, 404);
}
