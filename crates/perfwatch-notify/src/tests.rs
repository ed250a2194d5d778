//! Every channel against a local server that takes down what it hears.

use super::*;
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::AlertSummary;
use perfwatch_rules::render;
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder};
use serde_json::Value;
use uuid::Uuid;

fn message(notice: NotificationReason) -> Notification {
    let alert = AlertSummary {
        rule: "CPU is busy".into(),
        host: "web-1".into(),
        instance: String::new(),
        metric: "cpu.usage".into(),
        severity: Severity::Critical,
        firing: notice != NotificationReason::Resolved,
        summary: "cpu.usage is 97.2 % (above 90 % for 10s)".into(),
        runbook: "Look at <it> & \"see\"".into(),
        fired_at: "2026-11-21T10:00:00Z".into(),
        resolved_at: (notice == NotificationReason::Resolved).then(|| "2026-11-21T10:05:00Z".into()),
        consumers: vec!["burner (pid 9, root) 99.8 %, before not among the largest".into()],
        movers: vec!["load.1m 0.30 → 4.1".into()],
        url: "http://hub/hosts/1?at=5".into(),
    };
    Notification {
        id: Uuid::from_u128(1),
        reason: notice,
        incident: Uuid::from_u128(2),
        severity: Severity::Critical,
        subject: "web-1: CPU is busy".into(),
        created_at: "2026-11-21T10:00:00Z".into(),
        opened_at: "2026-11-21T10:00:00Z".into(),
        url: "http://hub/alerts/2".into(),
        alerts: vec![alert],
        omitted_alerts: 0,
        digest: vec![],
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

fn send_to(kind: &str, settings: &ChannelSettings, message: &Notification) -> Result<(), SendError> {
    let letter = RenderedNotification {
        notification: message,
        title: render::render_title(message),
        text: render::render_text(message),
    };
    ChannelNotifier::new().send(kind, settings, &letter)
}

#[test]
fn payloads_match_golden() {
    let sink = HttpRecorder::start();
    let mut heard = Vec::new();
    for kind in ChannelNotifier::new().kinds().iter().filter(|kind| kind.name != "email") {
        let settings = settings(kind, &sink.url());
        assert_eq!(ChannelNotifier::new().validate(kind.name, &settings), None, "{}", kind.name);
        for notice in [NotificationReason::Opened, NotificationReason::Resolved, NotificationReason::Test] {
            send_to(kind.name, &settings, &message(notice))
                .unwrap_or_else(|error| panic!("{}: {error}", kind.name));
            let request = sink.next_request();
            let body: Value =
                serde_json::from_str(&request.body).unwrap_or_else(|_| panic!("{}", request.body));
            let mut body = serde_json::to_string(&body).unwrap();
            body = body.replace(&sink.url(), "http://sink");
            let headers: Vec<String> =
                ["authorization", "x-gotify-key", "idempotency-key", "x-perfwatch-signature"]
                    .iter()
                    .filter_map(|name| Some(format!("{name}: {}\n", request.header(name)?)))
                    .collect();
            heard.push(format!(
                "### {} {}\n{} {}\n{}{body}\n",
                kind.name,
                notice.name(),
                request.method,
                request.path,
                headers.concat()
            ));
        }
    }
    let heard = heard.concat();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/payloads.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &heard).unwrap();
    }
    assert_eq!(heard, std::fs::read_to_string(golden).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn responses_map_to_success_retry_or_permanent() {
    let sink = HttpRecorder::start();
    let settings = settings(&telegram::KIND, &sink.url());
    for (status, later) in
        [(400, false), (401, false), (404, false), (301, false), (429, true), (500, true), (503, true)]
    {
        sink.respond_with(status, "no such bot: the-token");
        match send_to("telegram", &settings, &message(NotificationReason::Opened)).unwrap_err() {
            SendError::Retry { reason: why, retry_after: after } => {
                assert!(later && !why.contains("the-token"), "{status} {why}");
                assert_eq!(after.map(|after| after.as_secs()), Some(7));
            }
            SendError::Permanent(why) => assert!(!later && why.contains("no such bot: …"), "{status} {why}"),
        }
        sink.next_request();
    }
    let gone = ChannelSettings::from([("url".to_owned(), "http://127.0.0.1:9/the-token".to_owned())]);
    let SendError::Retry { reason: why, .. } =
        send_to("slack", &gone, &message(NotificationReason::Opened)).unwrap_err()
    else {
        panic!()
    };
    assert!(!why.contains("the-token"), "{why}");
}

#[test]
fn mails_of_an_incident_share_a_thread() {
    let sink = SmtpRecorder::start();
    let settings = ChannelSettings::from(
        [
            ("to", "ops@example.org, Ärzte <me@example.org>"),
            ("from", "PerfWatch <perfwatch@example.org>"),
            ("server", "127.0.0.1"),
            ("port", &sink.port().to_string()),
            ("security", "none"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(ChannelNotifier::new().validate("email", &settings), None);
    send_to("email", &settings, &message(NotificationReason::Opened)).unwrap();
    let mail = sink.next();
    assert_eq!(mail.to, ["ops@example.org", "me@example.org"]);
    for part in [
        "Subject: [CRITICAL] web-1: CPU is busy",
        "References: <00000000-0000-0000-0000-000000000002@example.org>",
        "burner (pid 9, root)",
        "text/html",
    ] {
        assert!(mail.data.contains(part), "{part} in {}", mail.data);
    }
    assert!(mail.data.contains("&lt;it&gt;"), "{}", mail.data);
    sink.refuse("550 no such user");
    assert!(matches!(
        send_to("email", &settings, &message(NotificationReason::Opened)),
        Err(SendError::Permanent(_))
    ));
    sink.refuse("451 come back later");
    assert!(matches!(
        send_to("email", &settings, &message(NotificationReason::Opened)),
        Err(SendError::Retry { .. })
    ));
}

#[test]
fn invalid_settings_are_reported() {
    let channels = ChannelNotifier::new();
    let of = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<ChannelSettings>()
    };
    let mail = |more: &[(&str, &str)]| {
        let mut all = of(&[("to", "a@b.org"), ("from", "c@d.org"), ("server", "mail")]);
        all.extend(of(more));
        all
    };
    for (kind, settings, field) in [
        ("pigeon", of(&[]), "kind"),
        ("slack", of(&[]), "url"),
        ("slack", of(&[("url", "file:///etc/passwd")]), "url"),
        ("slack", of(&[("url", "https://x.org"), ("uri", "x")]), "uri"),
        ("webhook", of(&[("url", "https://x.org"), ("authorization", "Bearer ä")]), "authorization"),
        ("webhook", of(&[("url", "https://x.org"), ("authorization", "Bearer\nx: y")]), "authorization"),
        ("email", mail(&[("to", "nobody")]), "to"),
        ("email", mail(&[("from", "nobody")]), "from"),
        ("email", mail(&[("port", "99999")]), "port"),
        ("email", mail(&[("security", "ssl")]), "security"),
        ("email", mail(&[("security", "none"), ("user", "u"), ("password", "p")]), "security"),
    ] {
        assert_eq!(
            channels.validate(kind, &settings).map(|(field, _)| field).as_deref(),
            Some(field),
            "{kind} {settings:?}"
        );
    }
    assert_eq!(channels.validate("email", &mail(&[])), None);
}

#[test]
fn template_errors_and_limits() {
    let message = message(NotificationReason::Opened);
    let render = |template: &str| ChannelNotifier::new().render(template, &message);
    let list =
        "{% for a in alerts %}{{ a.host }} {{ a.severity }}: {{ a.consumers[0] }}{% endfor %} {{ title }}";
    assert!(render(list).unwrap().starts_with("web-1 critical: burner (pid 9, root)"));
    assert_eq!(render("{\"t\": {{ subject|tojson }}}").unwrap(), "{\"t\": \"web-1: CPU is busy\"}");
    for (template, why) in [
        ("{{ nothing }}", "undefined"),
        ("a\n{% if %}", "line 2"),
        ("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", "fuel"),
        ("{% include '/etc/passwd' %}", ""),
    ] {
        let error = render(template).unwrap_err();
        assert!(error.contains(why), "{template}: {error}");
    }
}

#[test]
fn truncation_respects_char_boundaries() {
    assert_eq!(
        (truncate("äöü", 3), truncate("äöüß", 3), truncate("", 3)),
        ("äöü".to_owned(), "äö…".to_owned(), String::new())
    );
}

#[test]
fn custom_body_is_signed() {
    let sink = HttpRecorder::start();
    let settings = ChannelSettings::from(
        [
            ("url", sink.url()),
            ("secret", "s3cret".to_owned()),
            ("body", "hello {{ subject }}".to_owned()),
            ("content_type", "text/plain".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    send_to("webhook", &settings, &message(NotificationReason::Opened)).unwrap();
    let request = sink.next_request();
    assert_eq!(request.body, "hello web-1: CPU is busy");
    let timestamp = request.header("x-perfwatch-timestamp").unwrap();
    let want = webhook::signature("s3cret", timestamp, &request.body);
    assert_eq!(request.header("x-perfwatch-signature"), Some(want.as_str()));
    // RFC 4231's idea of it, by another program: printf '%s' 't.b' | openssl dgst -sha256 -hmac key
    assert_eq!(
        webhook::signature("key", "t", "b"),
        "sha256=0946cc60610b9542eb9ae142b426f0b7ff4f030a413552ea53fe0918a0fff28a"
    );
}
