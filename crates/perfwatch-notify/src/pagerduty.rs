//! PagerDuty, Events API v2: an incident becomes an alert there and is resolved with it.

use crate::format::{TextLimit, truncate};
use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
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
            "In the EU: https://events.eu.pagerduty.com",
        )),
    ],
};

/// Limit of the summary.
const MAX_SUMMARY: TextLimit = TextLimit::Utf16(1_024);
/// Limit of the name of the host.
const MAX_SOURCE: TextLimit = TextLimit::Utf16(255);
/// Limit of the text; an event has at most 512 KB, of which the other fields need little.
const MAX_TEXT: TextLimit = TextLimit::JsonBytes(64_000);

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let notification = rendered.notification;
    let resolved = notification.reason == NotificationReason::Resolved;
    let severity = match notification.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let source = notification.alerts.first().map_or("PerfWatch", |alert| &alert.host);
    // A test has no incident, so its own id separates it from real alerts.
    let dedup_id =
        if notification.reason == NotificationReason::Test { notification.id } else { notification.incident };
    let mut body = json!({
        "routing_key": get(settings, "key"),
        "event_action": if resolved { "resolve" } else { "trigger" },
        "dedup_key": format!("perfwatch-{dedup_id}"),
        "client": "PerfWatch",
        "payload": {
            "summary": truncate(&rendered.title, MAX_SUMMARY),
            "source": truncate(if source.is_empty() { "PerfWatch" } else { source }, MAX_SOURCE),
            "severity": severity,
            "timestamp": notification.created_at,
            "custom_details": { "text": truncate(&rendered.text, MAX_TEXT) },
        },
    });
    if !notification.url.is_empty() {
        body["links"] = json!([{ "href": notification.url, "text": "PerfWatch" }]);
        body["client_url"] = notification.url.as_str().into();
    }
    let server = get_or(settings, "server", "https://events.pagerduty.com").trim_end_matches('/');
    http.send(Request::json(format!("{server}/v2/enqueue"), &body))
}
