//! Tests of mail delivery per recipient, size limits, retry hints and masked errors.

use super::*;
use perfwatch_model::OutboundPolicy;
use perfwatch_rules::hostile::hostile_notification;
use perfwatch_rules::notification::{RecipientResult, RecipientState};
use perfwatch_testkit::recorder::start_silent_server;
use smtp::{Envelope, Security, SmtpServer};
use std::time::Duration;

fn email_settings(port: u16, to: &str, security: &str) -> ChannelSettings {
    let pairs = [
        ("to", to),
        ("from", "PerfWatch <perfwatch@example.org>"),
        ("server", "127.0.0.1"),
        ("port", &port.to_string()),
        ("security", security),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn result(recipient: &str, state: RecipientState, reason: &str) -> RecipientResult {
    RecipientResult { recipient: recipient.to_owned(), state, reason: reason.to_owned() }
}

#[test]
fn refused_recipient_does_not_stop_the_others() {
    let recorder = SmtpRecorder::start();
    let settings = email_settings(recorder.port(), "a@x.org, Bé <b@x.org>; c@x.org", "none");
    recorder.refuse_recipient("b@x.org", "550 5.1.1 no such user");
    recorder.refuse_recipient("c@x.org", "451 4.7.1 greylisted");
    let delivery = send_to("email", &settings, &notification(NotificationReason::Opened)).unwrap();
    assert_eq!(recorder.next().to, ["a@x.org"]);
    let results = [
        result("a@x.org", RecipientState::Sent, ""),
        result("b@x.org", RecipientState::Refused, "550 5.1.1 no such user"),
        result("c@x.org", RecipientState::Deferred, "451 4.7.1 greylisted"),
    ];
    assert_eq!(delivery.recipients, results);
    // The next attempt is for the deferred recipient alone.
    recorder.accept_all();
    let retried =
        Notification { recipients: results[2..].to_vec(), ..notification(NotificationReason::Opened) };
    let delivery = send_to("email", &settings, &retried).unwrap();
    let mail = recorder.next();
    assert_eq!(mail.to, ["c@x.org"]);
    assert!(mail.data.contains("a@x.org"), "the header names all recipients: {}", mail.data);
    assert_eq!(delivery.recipients, [result("c@x.org", RecipientState::Sent, "")]);
    // Nobody accepts it: refused recipients are final, the others are retried.
    recorder.refuse_recipient("a@x.org", "552 mailbox full");
    recorder.refuse_recipient("b@x.org", "551 gone");
    recorder.refuse_recipient("c@x.org", "451 later");
    let delivery = send_to("email", &settings, &notification(NotificationReason::Opened)).unwrap();
    assert!(!delivery.is_sent() && delivery.has_state(RecipientState::Deferred), "{delivery:?}");
    recorder.refuse_recipient("c@x.org", "550 never");
    let error = send_to("email", &settings, &notification(NotificationReason::Opened)).unwrap_err();
    let SendError::Permanent(reason) = error else { panic!("{error:?}") };
    assert_eq!(reason, "a@x.org: 552 mailbox full; b@x.org: 551 gone; c@x.org: 550 never");
    assert!(recorder.next_within(Duration::from_millis(50)).is_none());
}

#[test]
fn mails_have_the_headers_of_automatic_mail() {
    let recorder = SmtpRecorder::start();
    let settings = email_settings(recorder.port(), "ops@müller.example", "none");
    send_to("email", &settings, &notification(NotificationReason::Opened)).unwrap();
    let mail = recorder.next();
    for header in
        ["Auto-Submitted: auto-generated", "X-Auto-Response-Suppress: All", "Date: ", "Message-ID: <"]
    {
        assert!(mail.data.lines().any(|line| line.starts_with(header)), "{header} in {}", mail.data);
    }
    assert!(!mail.data.contains("Precedence:"), "{}", mail.data);
    assert_eq!(mail.to, ["ops@xn--mller-kva.example"]);
}

#[test]
fn wrong_tls_settings_are_named() {
    let plain = SmtpRecorder::start();
    let (silent, closing) = (Duration::from_secs(60), Duration::from_millis(1));
    for (port, security, expected) in [
        (plain.port(), Security::Tls, "does not speak TLS from the start; set security to starttls"),
        (plain.port(), Security::StartTls, "does not offer STARTTLS"),
        (start_silent_server(silent), Security::StartTls, "set security to tls"),
        (start_silent_server(silent), Security::None, "set security to tls"),
        (start_silent_server(silent), Security::Tls, "set security to starttls"),
        (start_silent_server(closing), Security::StartTls, "does not answer like an SMTP server"),
        (start_silent_server(closing), Security::Tls, "closed the connection during the TLS handshake"),
        (9, Security::None, "cannot connect to 127.0.0.1:9: "),
    ] {
        let server = SmtpServer {
            host: "127.0.0.1",
            port,
            security,
            credentials: None,
            policy: &OutboundPolicy::unrestricted(),
            timeout: Duration::from_millis(300),
        };
        let to = ["a@x.org".parse().unwrap()];
        let envelope = Envelope { from: "b@x.org".parse().unwrap(), to: &to, message: b"x" };
        let error = server.send(&envelope).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("os error 11)"), "{security:?} {port}: {error}");
    }
}

#[test]
fn login_failures_are_masked_and_explained() {
    let recorder = SmtpRecorder::start();
    let mut settings = email_settings(recorder.port(), "a@x.org", "none");
    settings.insert("user".to_owned(), "mailer".to_owned());
    settings.insert("password".to_owned(), "hunter22".to_owned());
    let error = send_to("email", &settings, &notification(NotificationReason::Opened)).unwrap_err();
    assert!(error.to_string().contains("offers no login"), "{error}");
}

/// Strings of a JSON value by their path.
fn string(body: &Value, pointer: &str) -> String {
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} {body}")).to_owned()
}

#[test]
fn texts_fit_the_limits_of_each_service() {
    let recorder = HttpRecorder::start();
    let utf16 = |text: &str| text.encode_utf16().count();
    let chars = |text: &str| text.chars().count();
    for content in ["😀", "ä", "\"", "\n&<", "a", "👩‍👩‍👧"] {
        let notification = notification(NotificationReason::Opened);
        let rendered = RenderedNotification {
            notification: &notification,
            title: content.repeat(8_000).replace('\n', " "),
            text: content.repeat(40_000),
        };
        let body = |kind: &str| {
            let kind = find_channel(kind).unwrap().0;
            let settings = settings(&kind, &recorder.url());
            ChannelNotifier::new().send(kind.name, &settings, &rendered).unwrap();
            let request = recorder.next_request();
            assert!(!request.body.contains('\u{fffd}'), "{} cut a character", kind.name);
            (serde_json::from_str::<Value>(&request.body).unwrap(), request.body.len())
        };
        let (telegram, _) = body("telegram");
        let text = string(&telegram, "/text");
        assert!((4_080..=4_096).contains(&utf16(&text)), "telegram {content} {}", utf16(&text));
        let (discord, _) = body("discord");
        let (title, text) = (string(&discord, "/embeds/0/title"), string(&discord, "/embeds/0/description"));
        assert!(utf16(&title) <= 256 && utf16(&text) <= 4_096 && utf16(&title) + utf16(&text) <= 6_000);
        let (slack, _) = body("slack");
        let text = string(&slack, "/attachments/0/text");
        assert!((2_900..=3_000).contains(&utf16(&text)), "slack {content} {}", utf16(&text));
        let unescaped = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
        assert!(!unescaped.contains('&'), "slack {content}: an escape was cut: {text}");
        let (ntfy, bytes) = body("ntfy");
        assert!(string(&ntfy, "/message").len() <= 4_096 && bytes <= 8_192, "ntfy {content} {bytes}");
        assert!(string(&ntfy, "/message").len() >= 3_000, "ntfy {content}");
        let (pushover, _) = body("pushover");
        assert!(chars(&string(&pushover, "/message")) <= 1_024 && chars(&string(&pushover, "/title")) <= 250);
        let (pagerduty, bytes) = body("pagerduty");
        assert!(utf16(&string(&pagerduty, "/payload/summary")) <= 1_024 && bytes <= 512_000);
        let (opsgenie, _) = body("opsgenie");
        assert!(utf16(&string(&opsgenie, "/message")) <= 130);
        assert!(utf16(&string(&opsgenie, "/description")) <= 15_000);
        let (_, bytes) = body("matrix");
        assert!(bytes <= 65_000, "matrix {content} {bytes}");
        let (_, bytes) = body("teams");
        assert!(bytes <= 28_000, "teams {content} {bytes}");
    }
}

#[test]
fn secrets_that_servers_repeat_are_masked() {
    let recorder = HttpRecorder::start();
    let url = format!("{}/services/T0KENSEGMENT/b%2Fc%20d?key=QUERYSECRET", recorder.url());
    let webhook = ChannelSettings::from([("url".to_owned(), url)]);
    let telegram = ChannelSettings::from(
        [("token", "42:BOTSECRET"), ("chat", "7"), ("server", &recorder.url())]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let notification = notification(NotificationReason::Opened);
    for (kind, settings) in [("webhook", &webhook), ("slack", &webhook), ("telegram", &telegram)] {
        for (status, page) in [
            (404, "<h1>Not Found</h1> {path} was not found".to_owned()),
            (500, "{\"path\": \"{path}\", \"cut\": \"".to_owned()),
            // Longer than what is read and shown: no part of a secret may remain at a cut.
            (400, "{path} ".repeat(2_000)),
            (400, format!("{}{{path}}", "x".repeat(270))),
        ] {
            recorder.respond_with(status, &page);
            let error = send_to(kind, settings, &notification).unwrap_err().to_string();
            for secret in ["T0KEN", "b%2Fc", "QUERYS", "BOTSEC"] {
                assert!(!error.contains(secret), "{kind} {status}: {error}");
            }
            assert!(error.starts_with(&format!("HTTP {status} ")), "{error}");
            assert!(error.chars().count() <= 300 && !error.contains(char::is_control), "{error}");
        }
    }
}

#[test]
fn retry_hints_of_services_reach_the_error() {
    let recorder = HttpRecorder::start();
    let settings = settings(&telegram::KIND, &recorder.url());
    recorder.respond_with_headers(&[]);
    for (body, expected_ms) in [
        (r#"{"ok":false,"error_code":429,"parameters":{"retry_after":33}}"#, Some(33_000)),
        (r#"{"retry_after":0.75}"#, Some(750)),
        ("", None),
    ] {
        recorder.respond_with(429, body);
        let error = send_to("telegram", &settings, &notification(NotificationReason::Opened)).unwrap_err();
        let SendError::Transient { retry_after, .. } = error else { panic!("{error:?}") };
        assert_eq!(retry_after.map(|delay| delay.as_millis()), expected_ms, "{body}");
    }
}

#[test]
fn hostile_notifications_are_valid_requests() {
    let recorder = HttpRecorder::start();
    for kind in ChannelNotifier::new().kinds().iter().filter(|kind| kind.name != "email") {
        let mut settings = settings(kind, &recorder.url());
        if kind.name == "webhook" {
            settings.insert("body".to_owned(), "{\"text\": \"{{ title }}\"}".to_owned());
        }
        for reason in [NotificationReason::Opened, NotificationReason::Resolved] {
            let delivered = send_to(kind.name, &settings, &hostile_notification(reason));
            delivered.unwrap_or_else(|error| panic!("{}: {error}", kind.name));
            let request = recorder.next_request();
            let body: Result<Value, _> = serde_json::from_str(&request.body);
            body.unwrap_or_else(|error| panic!("{}: {error} {}", kind.name, request.body));
        }
    }
    let mails = SmtpRecorder::start();
    let settings = email_settings(mails.port(), "a@x.org", "none");
    send_to("email", &settings, &hostile_notification(NotificationReason::Opened)).unwrap();
    assert!(mails.next().data.is_ascii());
}
