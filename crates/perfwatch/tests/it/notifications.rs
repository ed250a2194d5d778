//! Notifications with a real hub: results by recipient, hostile names in templates, secrets in the
//! answers of servers, retry hints.

use crate::alerting::{cpu_rule, set_up};
use crate::support::{TestHub, eventually, start_agent};
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder, start_silent_server};
use serde_json::{Value, json};
use std::time::Duration;

fn mail_channel(port: u16, to: &str, security: &str) -> Value {
    json!({ "name": "mail", "kind": "email", "settings": {
        "to": to, "from": "perfwatch@example.org", "server": "127.0.0.1",
        "port": port.to_string(), "security": security,
    } })
}

fn webhook(settings: &Value) -> Value {
    json!({ "name": "hook", "kind": "webhook", "settings": settings })
}

/// Rule that fires at once, with a name that breaks careless templates.
fn hostile_rule() -> Value {
    let mut rule = cpu_rule(-1.0, "0s");
    rule["name"] = "disk \"data\" \\ {{ x }} 😀".into();
    rule
}

fn test_channel(hub: &TestHub, channel: &Value) -> Value {
    let body = json!({ "id": null, "channel": channel });
    hub.request("POST", "/api/v1/channels/test", &hub.token, &body).body
}

/// Notifications in a state.
fn notifications(hub: &TestHub, state: &str) -> Vec<Value> {
    hub.get(&format!("/api/v1/notifications?state={state}")).body["notifications"].as_array().unwrap().clone()
}

#[test]
fn mail_reaches_the_recipients_that_are_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let smtp = SmtpRecorder::start();
    smtp.refuse_recipient("gone@example.org", "550 5.1.1 no such user");
    smtp.refuse_recipient("grey@example.org", "451 4.7.1 greylisted");
    let channel = mail_channel(smtp.port(), "ops@example.org, gone@example.org, grey@example.org", "none");
    set_up(&hub, &hostile_rule(), &[channel]);
    let _agent = start_agent(folder.path(), &hub, "1s");
    let mail = smtp.next();
    assert_eq!(mail.to, ["ops@example.org"]);
    assert!(mail.data.contains("Auto-Submitted: auto-generated"), "{}", mail.data);
    eventually("the results are listed", || notifications(&hub, "sent").len() == 1);
    let sent = notifications(&hub, "sent").remove(0);
    let states: Vec<&str> = sent["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["sent", "refused", "deferred"], "{sent}");
    assert_eq!(sent["recipients"][1]["reason"], "550 5.1.1 no such user", "{sent}");
    let incident = sent["incident"].as_str().unwrap();
    let timeline = hub.get(&format!("/api/v1/incidents/{incident}")).text;
    assert!(timeline.contains("gone@example.org refused: 550 5.1.1 no such user"), "{timeline}");
    // The deferred recipient alone gets the mail later.
    smtp.accept_all();
    assert_eq!(smtp.next().to, ["grey@example.org"]);
    eventually("the deferred recipient is recorded as sent", || notifications(&hub, "sent").len() == 2);
}

#[test]
fn mail_that_all_recipients_refuse_fails() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let smtp = SmtpRecorder::start();
    smtp.refuse("550 no such user");
    let channel = mail_channel(smtp.port(), "a@example.org, b@example.org", "none");
    set_up(&hub, &cpu_rule(-1.0, "0s"), std::slice::from_ref(&channel));
    let _agent = start_agent(folder.path(), &hub, "1s");
    eventually("the notification failed", || notifications(&hub, "failed").len() == 1);
    let error = notifications(&hub, "failed")[0]["error"].clone();
    assert_eq!(error, "a@example.org: 550 no such user; b@example.org: 550 no such user");
    // The test of a channel shows the results, too.
    smtp.accept_all();
    smtp.refuse_recipient("b@example.org", "550 no such user");
    let tested = test_channel(&hub, &channel);
    assert_eq!(tested["delivered"], true, "{tested}");
    assert_eq!(tested["error"], "b@example.org refused: 550 no such user", "{tested}");
}

#[test]
fn wrong_mail_security_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let plain = SmtpRecorder::start();
    let tls_port = start_silent_server(Duration::from_secs(60));
    for (port, security, advice) in [
        (plain.port(), "tls", "set security to starttls"),
        (plain.port(), "starttls", "does not offer STARTTLS"),
        (tls_port, "starttls", "set security to tls"),
    ] {
        let tested = test_channel(&hub, &mail_channel(port, "a@example.org", security));
        let error = tested["error"].as_str().unwrap();
        assert!(error.contains(advice) && !error.contains("os error"), "{security}: {error}");
    }
}

#[test]
fn json_template_delivers_hostile_names() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    let url = format!("{}/hook", http.url());
    let template = json!({ "url": url, "body": "{\"text\": \"{{ title }}\"}" });
    set_up(&hub, &hostile_rule(), &[webhook(&template)]);
    let _agent = start_agent(folder.path(), &hub, "1s");
    let request = http.next_request();
    let body: Value = serde_json::from_str(&request.body).unwrap_or_else(|_| panic!("{}", request.body));
    assert_eq!(body["text"], "[WARNING] it: disk \"data\" \\ {{ x }} 😀");
    assert_eq!(request.header("content-type"), Some("application/json"));
    // Templates that such a name breaks are not saved; the error names the place.
    for (body, place) in [
        ("{\"text\": \"{{ title|safe }}\"}", "body: with quotes, backslashes and line breaks in names"),
        ("{\"text\": \"{{ title|tojson }}\"}", "line 1 column 12"),
        ("{\"text\": {{ title }},}", "line 1 column"),
        ("{\"text\": {{ titel }}}", "undefined"),
    ] {
        let channel = webhook(&json!({ "url": url, "body": body }));
        let created = hub.request("POST", "/api/v1/channels", &hub.token, &channel);
        assert_eq!(created.status, 422, "{body}: {}", created.text);
        assert!(created.body["error"]["message"].as_str().unwrap().contains(place), "{}", created.text);
    }
}

#[test]
fn secret_path_in_an_error_page_is_masked() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    http.respond_with(404, "<h1>Not found</h1> no route for {path} (SEGMENT1)");
    let url = format!("{}/services/SEGMENT1/SEGMENT%2F2?key=QUERY3", http.url());
    let channel = webhook(&json!({ "url": url }));
    set_up(&hub, &cpu_rule(-1.0, "0s"), std::slice::from_ref(&channel));
    let _agent = start_agent(folder.path(), &hub, "1s");
    eventually("the notification failed", || notifications(&hub, "failed").len() == 1);
    let failed = notifications(&hub, "failed").remove(0);
    let incident = hub.get(&format!("/api/v1/incidents/{}", failed["incident"].as_str().unwrap())).text;
    let audit = hub.get("/api/v1/audit").text;
    let tested = test_channel(&hub, &channel).to_string();
    let channels = hub.get("/api/v1/channels").text;
    for text in [failed.to_string(), incident.clone(), audit, tested, channels, hub.process.log()] {
        for secret in ["SEGMENT1", "SEGMENT%2F2", "SEGMENT/2", "QUERY3"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(incident.contains("HTTP 404") && incident.contains("no route for …"), "{incident}");
}

#[test]
fn retry_hint_of_a_service_delays_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let http = HttpRecorder::start();
    http.respond_with_headers(&[]);
    http.respond_with(429, r#"{"ok":false,"error_code":429,"parameters":{"retry_after":9}}"#);
    let settings = json!({ "token": "1:abcdef", "chat": "42", "server": http.url() });
    set_up(
        &hub,
        &cpu_rule(-1.0, "0s"),
        &[json!({ "name": "telegram", "kind": "telegram", "settings": settings })],
    );
    let _agent = start_agent(folder.path(), &hub, "1s");
    http.next_request();
    http.respond_with(200, "{}");
    eventually("the attempt is recorded", || {
        notifications(&hub, "pending").first().is_some_and(|pending| pending["attempts"] == 1)
    });
    let pending = notifications(&hub, "pending").remove(0);
    let delay_ms = pending["due_ms"].as_i64().unwrap() - pending["created_ms"].as_i64().unwrap();
    // Without the hint, the next attempt follows after five seconds.
    assert!(delay_ms >= 9_000, "{pending}");
    http.next_request();
}

/// Finding L7: channels reached the services of the hub's machine and the metadata service, and showed their
/// answers.
#[test]
fn loopback_and_metadata_addresses_are_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("PERFWATCH_HUB_ALLOWED_TARGETS", "")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &env);
    let http = HttpRecorder::start();
    let mail = SmtpRecorder::start();
    let port = http.url().rsplit(':').next().unwrap().to_owned();
    let hosts = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1"];
    let mut channels: Vec<Value> = hosts
        .iter()
        .map(|host| webhook(&json!({ "url": format!("http://{host}:{port}/") })))
        .chain([webhook(&json!({ "url": "http://169.254.169.254/latest/meta-data/" }))])
        .collect();
    channels.push(mail_channel(mail.port(), "a@example.org", "none"));
    let url = http.url();
    for (kind, settings) in [
        ("ntfy", json!({ "topic": "t", "server": url })),
        ("gotify", json!({ "server": url, "token": "x" })),
        ("telegram", json!({ "token": "1:x", "chat": "1", "server": url })),
        ("slack", json!({ "url": url })),
    ] {
        channels.push(json!({ "name": kind, "kind": kind, "settings": settings }));
    }
    for channel in &channels {
        let result = test_channel(&hub, channel);
        let error = result["error"].as_str().unwrap_or_default();
        let is_explained = error.starts_with("permanent failure: ") && error.contains("hub.allowed_targets");
        assert!(result["delivered"] == false && is_explained, "{channel}: {result}");
    }
    // The recorders are reached as soon as the setting allows it.
    assert!(http.next_request_within(Duration::ZERO).is_none() && mail.next_within(Duration::ZERO).is_none());
}

/// The secret of a mail server belongs to its address, port and encryption.
#[test]
fn mail_password_belongs_to_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let mut channel = mail_channel(465, "ops@example.org", "tls");
    channel["settings"]["user"] = "perfwatch".into();
    channel["settings"]["password"] = "s3cret".into();
    let created = hub.request("POST", "/api/v1/channels", &hub.token, &channel);
    assert_eq!(created.status, 201, "{}", created.text);
    let path = format!("/api/v1/channels/{}", created.body["id"].as_str().unwrap());
    let change = |field: &str, value: &str, password: Option<&str>| {
        let mut changed = channel.clone();
        changed["settings"]["password"] = password.into();
        changed["settings"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        changed["settings"][field] = value.into();
        hub.request("PUT", &path, &hub.token, &changed)
    };
    for (field, value) in [("server", "192.0.2.9"), ("port", "2525"), ("security", "none")] {
        let refused = change(field, value, None).text;
        assert!(refused.contains("required because the server changed"), "{field}: {refused}");
    }
    assert_eq!(change("to", "other@example.org", None).status, 200);
    assert_eq!(change("port", "2525", Some("s3cret")).status, 200);
}
