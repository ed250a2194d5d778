//! Tests of every channel against local servers that record requests and mails.

mod delivery;

use super::*;
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{AlertSummary, ChannelField};
use perfwatch_rules::render;
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder};
use serde_json::Value;
use uuid::Uuid;

fn notification(reason: NotificationReason) -> Notification {
    let alert = AlertSummary {
        rule: "High CPU usage".into(),
        host: "web-1".into(),
        instance: String::new(),
        metric: "cpu.usage".into(),
        severity: Severity::Critical,
        firing: reason != NotificationReason::Resolved,
        summary: "cpu.usage is 97.2 % (above 90 % for 10s)".into(),
        runbook: "Check <it> & \"see\"".into(),
        fired_at: "2026-11-21T10:00:00Z".into(),
        resolved_at: (reason == NotificationReason::Resolved).then(|| "2026-11-21T10:05:00Z".into()),
        consumers: vec!["burner (pid 9, root) 99.8 %, before not among the largest".into()],
        movers: vec!["load.1m 0.30 → 4.1".into()],
        url: "http://hub/hosts/1?at=5".into(),
    };
    Notification {
        id: Uuid::from_u128(1),
        reason,
        incident: Uuid::from_u128(2),
        severity: Severity::Critical,
        subject: "web-1: High CPU usage".into(),
        created_at: "2026-11-21T10:00:00Z".into(),
        opened_at: "2026-11-21T10:00:00Z".into(),
        url: "http://hub/alerts/2".into(),
        alerts: vec![alert],
        omitted_alerts: 0,
        digest: vec![],
        recipients: vec![],
    }
}

fn settings(kind: &ChannelKind, server: &str) -> ChannelSettings {
    let value = |field: &ChannelField| match field.name {
        "url" => format!("{server}/hook"),
        "server" => server.to_owned(),
        "thread" => "42".to_owned(),
        "body" | "content_type" => String::new(),
        name => format!("the-{name}"),
    };
    kind.fields
        .iter()
        .map(|field| (field.name.to_owned(), value(field)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn send_to(
    kind: &str,
    settings: &ChannelSettings,
    notification: &Notification,
) -> Result<Delivery, SendError> {
    let rendered = RenderedNotification {
        notification,
        title: render::render_title(notification),
        text: render::render_text(notification),
    };
    ChannelNotifier::new().send(kind, settings, &rendered)
}

#[test]
fn payloads_match_golden() {
    let recorder = HttpRecorder::start();
    let mut requests = Vec::new();
    for kind in ChannelNotifier::new().kinds().iter().filter(|kind| kind.name != "email") {
        let settings = settings(kind, &recorder.url());
        assert_eq!(ChannelNotifier::new().validate(kind.name, &settings), None, "{}", kind.name);
        for reason in [NotificationReason::Opened, NotificationReason::Resolved, NotificationReason::Test] {
            send_to(kind.name, &settings, &notification(reason))
                .unwrap_or_else(|error| panic!("{}: {error}", kind.name));
            let request = recorder.next_request();
            let body: Value =
                serde_json::from_str(&request.body).unwrap_or_else(|_| panic!("{}", request.body));
            let mut body = serde_json::to_string(&body).unwrap();
            body = body.replace(&recorder.url(), "http://sink");
            let headers: Vec<String> =
                ["authorization", "x-gotify-key", "idempotency-key", "x-perfwatch-signature"]
                    .iter()
                    .filter_map(|name| Some(format!("{name}: {}\n", request.header(name)?)))
                    .collect();
            requests.push(format!(
                "### {} {}\n{} {}\n{}{body}\n",
                kind.name,
                reason.name(),
                request.method,
                request.path,
                headers.concat()
            ));
        }
    }
    let requests = requests.concat();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/payloads.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &requests).unwrap();
    }
    assert_eq!(requests, std::fs::read_to_string(golden).unwrap(), "UPDATE_GOLDEN=1 updates the file");
}

#[test]
fn responses_map_to_success_retry_or_permanent() {
    let recorder = HttpRecorder::start();
    let settings = settings(&telegram::KIND, &recorder.url());
    for (status, is_retry) in
        [(400, false), (401, false), (404, false), (301, false), (429, true), (500, true), (503, true)]
    {
        recorder.respond_with(status, "no such bot: the-token");
        match send_to("telegram", &settings, &notification(NotificationReason::Opened)).unwrap_err() {
            SendError::Transient { reason, retry_after } => {
                assert!(is_retry && !reason.contains("the-token"), "{status} {reason}");
                assert_eq!(retry_after.map(|delay| delay.as_secs()), Some(7));
            }
            SendError::Permanent(reason) => {
                assert!(!is_retry && reason.contains("no such bot: …"), "{status} {reason}");
            }
        }
        recorder.next_request();
    }
    let unreachable = ChannelSettings::from([("url".to_owned(), "http://127.0.0.1:9/the-token".to_owned())]);
    let SendError::Transient { reason, .. } =
        send_to("slack", &unreachable, &notification(NotificationReason::Opened)).unwrap_err()
    else {
        panic!()
    };
    assert!(!reason.contains("the-token"), "{reason}");
}

#[test]
fn mails_of_an_incident_share_a_thread() {
    let recorder = SmtpRecorder::start();
    let settings = ChannelSettings::from(
        [
            ("to", "ops@example.org, Ärzte <me@example.org>"),
            ("from", "PerfWatch <perfwatch@example.org>"),
            ("server", "127.0.0.1"),
            ("port", &recorder.port().to_string()),
            ("security", "none"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(ChannelNotifier::new().validate("email", &settings), None);
    send_to("email", &settings, &notification(NotificationReason::Opened)).unwrap();
    let mail = recorder.next();
    assert_eq!(mail.to, ["ops@example.org", "me@example.org"]);
    for text in [
        "Subject: [CRITICAL] web-1: High CPU usage",
        "References: <00000000-0000-0000-0000-000000000002@example.org>",
        "burner (pid 9, root)",
        "text/html",
    ] {
        assert!(mail.data.contains(text), "{text} in {}", mail.data);
    }
    assert!(mail.data.contains("&lt;it&gt;"), "{}", mail.data);
    recorder.refuse("550 no such user");
    assert!(matches!(
        send_to("email", &settings, &notification(NotificationReason::Opened)),
        Err(SendError::Permanent(_))
    ));
    recorder.refuse("451 come back later");
    assert!(matches!(
        send_to("email", &settings, &notification(NotificationReason::Opened)),
        Err(SendError::Transient { .. })
    ));
}

#[test]
fn invalid_settings_are_reported() {
    let channels = ChannelNotifier::new();
    let settings = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<ChannelSettings>()
    };
    let email_settings = |changes: &[(&str, &str)]| {
        let mut base = settings(&[("to", "a@b.org"), ("from", "c@d.org"), ("server", "mail")]);
        base.extend(settings(changes));
        base
    };
    for (kind, settings, field) in [
        ("pigeon", settings(&[]), "kind"),
        ("slack", settings(&[]), "url"),
        ("slack", settings(&[("url", "file:///etc/passwd")]), "url"),
        ("slack", settings(&[("url", "https://x.org"), ("uri", "x")]), "uri"),
        ("webhook", settings(&[("url", "https://x.org"), ("authorization", "Bearer ä")]), "authorization"),
        (
            "webhook",
            settings(&[("url", "https://x.org"), ("authorization", "Bearer\nx: y")]),
            "authorization",
        ),
        ("email", email_settings(&[("to", "not-an-address")]), "to"),
        ("email", email_settings(&[("from", "not-an-address")]), "from"),
        ("webhook", settings(&[("url", "https://x.org"), ("body", "{\"a\": \"{{ title|safe }}\"}")]), "body"),
        ("email", email_settings(&[("port", "99999")]), "port"),
        ("email", email_settings(&[("security", "ssl")]), "security"),
        ("email", email_settings(&[("security", "none"), ("user", "u"), ("password", "p")]), "security"),
    ] {
        assert_eq!(
            channels.validate(kind, &settings).map(|(field, _)| field).as_deref(),
            Some(field),
            "{kind} {settings:?}"
        );
    }
    assert_eq!(channels.validate("email", &email_settings(&[])), None);
}

#[test]
fn template_errors_and_limits() {
    let notification = notification(NotificationReason::Opened);
    let render = |template: &str| ChannelNotifier::new().render(template, &notification);
    let list =
        "{% for a in alerts %}{{ a.host }} {{ a.severity }}: {{ a.consumers[0] }}{% endfor %} {{ title }}";
    assert!(render(list).unwrap().starts_with("web-1 critical: burner (pid 9, root)"));
    assert_eq!(render("{\"t\": {{ subject|tojson }}}").unwrap(), "{\"t\": \"web-1: High CPU usage\"}");
    for (template, expected) in [
        ("{{ nothing }}", "undefined"),
        ("a\n{% if %}", "line 2"),
        ("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", "fuel"),
        ("{% include '/etc/passwd' %}", ""),
    ] {
        let error = render(template).unwrap_err();
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn custom_body_is_signed() {
    let recorder = HttpRecorder::start();
    let settings = ChannelSettings::from(
        [
            ("url", recorder.url()),
            ("secret", "s3cret".to_owned()),
            ("body", "hello {{ subject }}".to_owned()),
            ("content_type", "text/plain".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    send_to("webhook", &settings, &notification(NotificationReason::Opened)).unwrap();
    let request = recorder.next_request();
    assert_eq!(request.body, "hello web-1: High CPU usage");
    let timestamp = request.header("x-perfwatch-timestamp").unwrap();
    let expected = webhook::signature("s3cret", timestamp, &request.body);
    assert_eq!(request.header("x-perfwatch-signature"), Some(expected.as_str()));
    // Computed with OpenSSL: printf '%s' 't.b' | openssl dgst -sha256 -hmac key
    assert_eq!(
        webhook::signature("key", "t", "b"),
        "sha256=0946cc60610b9542eb9ae142b426f0b7ff4f030a413552ea53fe0918a0fff28a"
    );
}
