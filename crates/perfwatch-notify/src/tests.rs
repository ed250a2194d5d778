//! Every channel against a local server that takes down what it hears.

use super::*;
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::AlertText;
use perfwatch_alert::incident::Notice;
use perfwatch_alert::words;
use perfwatch_testkit::sink::{HttpSink, SmtpSink};
use serde_json::Value;
use uuid::Uuid;

fn message(notice: Notice) -> Message {
    let alert = AlertText {
        rule: "CPU is busy".into(),
        host: "web-1".into(),
        instance: String::new(),
        metric: "cpu.usage".into(),
        severity: Severity::Critical,
        firing: notice != Notice::Resolved,
        summary: "cpu.usage is 97.2 % (above 90 % for 10s)".into(),
        note: "Look at <it> & \"see\"".into(),
        fired: "2026-11-21T10:00:00Z".into(),
        resolved: (notice == Notice::Resolved).then(|| "2026-11-21T10:05:00Z".into()),
        consumers: vec!["burner (pid 9, root) 99.8 %, before not among the largest".into()],
        movers: vec!["load.1m 0.30 → 4.1".into()],
        url: "http://hub/hosts/1?at=5".into(),
    };
    Message {
        id: Uuid::from_u128(1),
        notice,
        incident: Uuid::from_u128(2),
        severity: Severity::Critical,
        subject: "web-1: CPU is busy".into(),
        at: "2026-11-21T10:00:00Z".into(),
        opened: "2026-11-21T10:00:00Z".into(),
        url: "http://hub/alerts/2".into(),
        alerts: vec![alert],
        more: 0,
        digest: vec![],
    }
}

fn settings(kind: &Kind, server: &str) -> Settings {
    let value = |field: &Field| match field.name {
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

fn say(kind: &str, settings: &Settings, message: &Message) -> Result<(), SendError> {
    let letter = Letter { message, title: words::title(message), text: words::text(message) };
    Channels::new().send(kind, settings, &letter)
}

#[test]
fn each_says_what_its_service_wants_to_hear() {
    let sink = HttpSink::start();
    let mut heard = Vec::new();
    for kind in Channels::new().kinds().iter().filter(|kind| kind.name != "email") {
        let settings = settings(kind, &sink.url());
        assert_eq!(Channels::new().problem(kind.name, &settings), None, "{}", kind.name);
        for notice in [Notice::Opened, Notice::Resolved, Notice::Test] {
            say(kind.name, &settings, &message(notice))
                .unwrap_or_else(|error| panic!("{}: {error}", kind.name));
            let request = sink.next();
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
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/heard.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &heard).unwrap();
    }
    assert_eq!(heard, std::fs::read_to_string(golden).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn answers_mean_yes_later_or_never_and_tell_no_secret() {
    let sink = HttpSink::start();
    let settings = settings(&telegram::KIND, &sink.url());
    for (status, later) in
        [(400, false), (401, false), (404, false), (301, false), (429, true), (500, true), (503, true)]
    {
        sink.answer(status, "no such bot: the-token");
        match say("telegram", &settings, &message(Notice::Opened)).unwrap_err() {
            SendError::Retry { why, after } => {
                assert!(later && !why.contains("the-token"), "{status} {why}");
                assert_eq!(after.map(|after| after.as_secs()), Some(7));
            }
            SendError::Permanent(why) => assert!(!later && why.contains("no such bot: …"), "{status} {why}"),
        }
        sink.next();
    }
    let gone = Settings::from([("url".to_owned(), "http://127.0.0.1:9/the-token".to_owned())]);
    let SendError::Retry { why, .. } = say("slack", &gone, &message(Notice::Opened)).unwrap_err() else {
        panic!()
    };
    assert!(!why.contains("the-token"), "{why}");
}

#[test]
fn mails_arrive_as_one_thread() {
    let sink = SmtpSink::start();
    let settings = Settings::from(
        [
            ("to", "ops@example.org, Ärzte <me@example.org>"),
            ("from", "PerfWatch <perfwatch@example.org>"),
            ("server", "127.0.0.1"),
            ("port", &sink.port().to_string()),
            ("security", "none"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(Channels::new().problem("email", &settings), None);
    say("email", &settings, &message(Notice::Opened)).unwrap();
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
    assert!(matches!(say("email", &settings, &message(Notice::Opened)), Err(SendError::Permanent(_))));
    sink.refuse("451 come back later");
    assert!(matches!(say("email", &settings, &message(Notice::Opened)), Err(SendError::Retry { .. })));
}

#[test]
fn settings_that_can_not_be_are_said() {
    let channels = Channels::new();
    let of = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Settings>()
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
            channels.problem(kind, &settings).map(|(field, _)| field).as_deref(),
            Some(field),
            "{kind} {settings:?}"
        );
    }
    assert_eq!(channels.problem("email", &mail(&[])), None);
}

#[test]
fn templates_are_bounded_and_say_where_they_are_wrong() {
    let message = message(Notice::Opened);
    let render = |template: &str| Channels::new().render(template, &message);
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
fn long_texts_are_cut_between_characters() {
    assert_eq!(
        (cut("äöü", 3), cut("äöüß", 3), cut("", 3)),
        ("äöü".to_owned(), "äö…".to_owned(), String::new())
    );
}

#[test]
fn a_body_of_ones_own_is_signed() {
    let sink = HttpSink::start();
    let settings = Settings::from(
        [
            ("url", sink.url()),
            ("secret", "s3cret".to_owned()),
            ("body", "hello {{ subject }}".to_owned()),
            ("content_type", "text/plain".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    say("webhook", &settings, &message(Notice::Opened)).unwrap();
    let request = sink.next();
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
