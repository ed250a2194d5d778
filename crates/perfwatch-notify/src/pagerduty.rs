//! PagerDuty, Events API v2: an incident becomes an alert there and is resolved with it.

use crate::format::truncate;
use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
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
            "In the EU: https://events.eu.pagerduty.com",
        )),
    ],
};

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
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
            "summary": truncate(&rendered.title, 1_024),
            "source": if source.is_empty() { "PerfWatch" } else { source },
            "severity": severity,
            "timestamp": notification.created_at,
            "custom_details": { "text": truncate(&rendered.text, 8_000) },
        },
    });
    if !notification.url.is_empty() {
        body["links"] = json!([{ "href": notification.url, "text": "PerfWatch" }]);
        body["client_url"] = notification.url.as_str().into();
    }
    let server = get_or(settings, "server", "https://events.pagerduty.com").trim_end_matches('/');
    http.send(Request::json(format!("{server}/v2/enqueue"), &body))
}
