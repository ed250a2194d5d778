//! PagerDuty, Events API v2: an incident here is an alert there, and ends with it.

use crate::http::{Http, Request};
use crate::{field, get, get_or, optional, secret, truncate};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "pagerduty",
    label: "PagerDuty",
    tracks_incidents: true,
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

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let message = letter.notification;
    let resolved = message.reason == NotificationReason::Resolved;
    let severity = match message.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let source = message.alerts.first().map_or("PerfWatch", |alert| &alert.host);
    // One that is only tried is one of its own.
    let of = if message.reason == NotificationReason::Test { message.id } else { message.incident };
    let mut body = json!({
        "routing_key": get(settings, "key"),
        "event_action": if resolved { "resolve" } else { "trigger" },
        "dedup_key": format!("perfwatch-{of}"),
        "client": "PerfWatch",
        "payload": {
            "summary": truncate(&letter.title, 1_024),
            "source": if source.is_empty() { "PerfWatch" } else { source },
            "severity": severity,
            "timestamp": message.created_at,
            "custom_details": { "text": truncate(&letter.text, 8_000) },
        },
    });
    if !message.url.is_empty() {
        body["links"] = json!([{ "href": message.url, "text": "PerfWatch" }]);
        body["client_url"] = message.url.as_str().into();
    }
    let server = get_or(settings, "server", "https://events.pagerduty.com").trim_end_matches('/');
    http.send(Request::json(format!("{server}/v2/enqueue"), &body))
}
