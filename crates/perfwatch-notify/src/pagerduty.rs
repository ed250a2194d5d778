//! PagerDuty, Events API v2: an incident here is an alert there, and ends with it.

use crate::http::{Http, Request};
use crate::{cut, field, get, get_or, optional, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "pagerduty",
    label: "PagerDuty",
    machine: true,
    fields: &[
        secret("key", "Integration key", "32 characters", "Service, Integrations, Events API v2"),
        optional(field(
            "server",
            "Server",
            "https://events.pagerduty.com",
            "The EU has events.eu.pagerduty.com",
        )),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let message = letter.message;
    let resolved = message.notice == Notice::Resolved;
    let severity = match message.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let source = message.alerts.first().map_or("PerfWatch", |alert| &alert.host);
    // One that is only tried is one of its own.
    let of = if message.notice == Notice::Test { message.id } else { message.incident };
    let mut body = json!({
        "routing_key": get(settings, "key"),
        "event_action": if resolved { "resolve" } else { "trigger" },
        "dedup_key": format!("perfwatch-{of}"),
        "client": "PerfWatch",
        "payload": {
            "summary": cut(&letter.title, 1_024),
            "source": if source.is_empty() { "PerfWatch" } else { source },
            "severity": severity,
            "timestamp": message.at,
            "custom_details": { "text": cut(&letter.text, 8_000) },
        },
    });
    if !message.url.is_empty() {
        body["links"] = json!([{ "href": message.url, "text": "PerfWatch" }]);
        body["client_url"] = message.url.as_str().into();
    }
    let server = get_or(settings, "server", "https://events.pagerduty.com").trim_end_matches('/');
    http.send(Request::json(format!("{server}/v2/enqueue"), &body))
}
