//! Opsgenie: an incident becomes an alert there and is closed with it.

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
    name: "opsgenie",
    label: "Opsgenie",
    tracks_incidents: true,
    fields: &[
        secret("key", "API key", "…", "Team, Integrations, API"),
        optional(field(
            "server",
            "Server",
            "https://api.opsgenie.com",
            "In the EU: https://api.eu.opsgenie.com",
        )),
    ],
};

/// Limit of the message of an alert.
const MAX_MESSAGE: TextLimit = TextLimit::Utf16(130);
/// Limit of the description of an alert.
const MAX_DESCRIPTION: TextLimit = TextLimit::Utf16(15_000);
/// Limit of the note of a closed alert; Opsgenie allows more.
const MAX_NOTE: TextLimit = TextLimit::Utf16(1_000);

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let notification = rendered.notification;
    let server = get_or(settings, "server", "https://api.opsgenie.com").trim_end_matches('/');
    // A test has no incident, so its own id separates it from real alerts.
    let alias_id =
        if notification.reason == NotificationReason::Test { notification.id } else { notification.incident };
    let alias = format!("perfwatch-{alias_id}");
    let (url, body) = if notification.reason == NotificationReason::Resolved {
        let url = format!("{server}/v2/alerts/{alias}/close?identifierType=alias");
        (url, json!({ "source": "PerfWatch", "note": truncate(&rendered.title, MAX_NOTE) }))
    } else {
        let priority = match notification.severity {
            Severity::Critical => "P1",
            Severity::Warning => "P3",
            Severity::Info => "P5",
        };
        let body = json!({
            "message": truncate(&rendered.title, MAX_MESSAGE),
            "alias": alias,
            "description": truncate(&rendered.text, MAX_DESCRIPTION),
            "priority": priority,
            "source": "PerfWatch",
            "details": { "url": notification.url },
        });
        (format!("{server}/v2/alerts"), body)
    };
    http.send(Request::json(url, &body).header("authorization", format!("GenieKey {}", get(settings, "key"))))
}
