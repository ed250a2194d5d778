//! Mail server of the hub and defaults of new channels, changed while the hub runs.

use crate::support::TestHub;
use perfwatch_testkit::recorder::SmtpRecorder;
use serde_json::{Value, json};

const MAIL: &str = "/api/v1/settings/mail";

fn start(folder: &std::path::Path) -> TestHub {
    TestHub::start_with_env(
        folder,
        &["hub", "--listen", "127.0.0.1:0"],
        &[("PERFWATCH_HUB_ALLOWED_TARGETS", "127.0.0.0/8")],
    )
}

fn server(smtp: &SmtpRecorder) -> Value {
    json!({ "server": "127.0.0.1", "port": smtp.port().to_string(), "security": "none",
        "from": "PerfWatch <perfwatch@example.org>" })
}

fn extended(settings: &Value, changes: &Value) -> Value {
    let mut settings = settings.clone();
    settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    settings
}

#[test]
fn channels_without_server_send_by_that_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(folder.path());
    let (smtp, other) = (SmtpRecorder::start(), SmtpRecorder::start());
    let channel = json!({ "name": "team", "kind": "email", "settings": { "to": "ops@example.org" } });
    let create = || hub.request("POST", "/api/v1/channels", &hub.token, &channel);
    let response = create();
    assert!(
        response.status == 422 && response.text.contains("the hub has no mail server"),
        "{}",
        response.text
    );
    let put = |version: i64, settings: &Value| {
        hub.admin_request("PUT", MAIL, &json!({ "version": version, "settings": settings }))
    };
    let saved = put(0, &server(&smtp));
    assert_eq!((saved.status, &saved.body["version"]), (200, &json!(1)), "{}", saved.text);
    let id = create().body["id"].as_str().unwrap().to_owned();
    assert_eq!(hub.get(MAIL).body["channels"], 1);
    let test = || hub.request("POST", &format!("/api/v1/channels/{id}/test"), &hub.token, &Value::Null);
    assert_eq!(test().body["delivered"], true, "{}", test().text);
    assert!(smtp.next().data.contains("From: PerfWatch <perfwatch@example.org>"));
    // A change applies to the next mail; the channel is not changed.
    assert_eq!(put(1, &server(&other)).status, 200);
    assert_eq!(test().body["delivered"], true);
    assert!(other.next().data.contains("ops@example.org"));
    // A server in use stays, and a change needs the current version.
    assert_eq!(put(2, &json!({})).code(), "mail_server_in_use");
    assert_eq!(put(1, &server(&smtp)).code(), "conflict");
    let part =
        json!({ "channel": extended(&channel, &json!({ "settings": { "to": "a@x.org", "port": "25" } })) });
    let response = hub.request("POST", "/api/v1/channels/test", &hub.token, &part);
    assert!(response.text.contains("port: requires a server"), "{}", response.text);
    hub.request("DELETE", &format!("/api/v1/channels/{id}"), &hub.token, &Value::Null);
    assert_eq!(put(2, &json!({})).body["settings"], json!({}));
    let audit = hub.get("/api/v1/audit").text;
    assert!(audit.contains("mail_server.update") && audit.contains(&smtp.port().to_string()), "{audit}");
}

#[test]
fn mail_password_stays_with_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(folder.path());
    let smtp = SmtpRecorder::start();
    let settings = extended(&server(&smtp), &json!({ "user": "perfwatch", "password": "mail-secret-7" }));
    let put = |version: i64, settings: &Value| {
        hub.admin_request("PUT", MAIL, &json!({ "version": version, "settings": settings }))
    };
    assert_eq!(put(0, &settings).status, 200);
    let stored = hub.get(MAIL);
    assert_eq!(stored.body["has_password"], true, "{}", stored.text);
    let without = extended(&server(&smtp), &json!({ "user": "perfwatch" }));
    assert_eq!(
        put(1, &extended(&without, &json!({ "from": "other@example.org" }))).body["has_password"],
        true
    );
    for change in
        [json!({ "server": "localhost" }), json!({ "port": "1" }), json!({ "security": "starttls" })]
    {
        let response = put(2, &extended(&without, &change));
        assert!(response.text.contains("password: secret is required"), "{change}: {}", response.text);
        let test = json!({ "settings": extended(&without, &change), "to": "me@example.org" });
        let response = hub.request("POST", &format!("{MAIL}/test"), &hub.token, &test);
        assert_eq!(response.code(), "invalid_mail_server", "{change}: {}", response.text);
    }
    for (change, field) in [
        (json!({ "server": "mail.example.org", "password": "x" }), "security: a password requires TLS"),
        (json!({ "from": "nobody" }), "from: invalid e-mail address"),
        (json!({ "from": "" }), "from: required"),
        (json!({ "to": "me@example.org" }), "to: unknown setting"),
        (json!({ "color": "red" }), "color: unknown setting"),
    ] {
        let response = put(2, &extended(&without, &change));
        assert!(response.status == 422 && response.text.contains(field), "{field}: {}", response.text);
    }
    let everything = [stored.text, hub.get("/api/v1/audit").text].concat();
    assert!(!everything.contains("mail-secret-7"));
}

#[test]
fn mail_server_requires_an_administrator_at_the_browser() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(folder.path());
    let smtp = SmtpRecorder::start();
    let body = json!({ "version": 0, "settings": server(&smtp) });
    // An API token changes no settings.
    assert_eq!(hub.request("PUT", MAIL, &hub.token, &body).status, 403);
    let user = json!({ "name": "olga", "password": "operator-password-1", "role": "operator" });
    assert_eq!(hub.admin_request("POST", "/api/v1/users", &user).status, 201);
    let token = hub.sign_token("olga", "operator-password-1");
    assert_eq!(hub.request("GET", MAIL, &token, &Value::Null).status, 403);
    let test = json!({ "settings": server(&smtp), "to": "me@example.org" });
    assert_eq!(hub.request("POST", &format!("{MAIL}/test"), &token, &test).status, 403);
    // The test sends without saving.
    let response = hub.request("POST", &format!("{MAIL}/test"), &hub.token, &test);
    assert_eq!(response.body["delivered"], true, "{}", response.text);
    assert!(smtp.next().data.contains("To: me@example.org"));
    assert_eq!(hub.get(MAIL).body["version"], 0);
    assert!(hub.get("/api/v1/audit").text.contains("mail_server.test"));
}

#[test]
fn new_channels_start_with_the_defaults_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(folder.path());
    let set = |version: i64, values: &Value| {
        hub.admin_request("PUT", "/api/v1/settings", &json!({ "version": version, "values": values }))
    };
    let response = set(0, &json!({ "channel_repeat_interval_s": 30 }));
    assert!(response.text.contains("must be 0 or at least 60"), "{}", response.text);
    let response = set(0, &json!({ "channel_repeat_interval_s": 3600, "channel_send_resolved": 0 }));
    assert_eq!(response.status, 200, "{}", response.text);
    let settings = json!({ "url": "https://hook.example.org/x" });
    let create = |changes: &Value| {
        let channel = extended(&json!({ "name": "hook", "kind": "webhook", "settings": settings }), changes);
        let body = hub.request("POST", "/api/v1/channels", &hub.token, &channel).body;
        (body["repeat_interval"].clone(), body["send_resolved"].clone())
    };
    assert_eq!(create(&json!({})), (json!("1h"), json!(false)));
    let given = json!({ "repeat_interval": "0s", "send_resolved": true });
    assert_eq!(create(&given), (json!("0s"), json!(true)));
    let kinds = hub.get("/api/v1/channels/kinds").body;
    assert_eq!(kinds["defaults"], json!({ "repeat_interval": "1h", "send_resolved": false }));
    assert_eq!(kinds["has_mail_server"], false);
}
