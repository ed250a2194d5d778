//! Opsgenie: an incident here is an alert there, and is closed with it.

use crate::http::{Http, Request};
use crate::{field, get, get_or, optional, secret, truncate};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "opsgenie",
    label: "Opsgenie",
    tracks_incidents: true,
    fields: &[
        secret("key", "API key", "…", "Team, Integrations, API"),
        optional(field("server", "Server", "https://api.opsgenie.com", "The EU has api.eu.opsgenie.com")),
    ],
};

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let message = letter.notification;
    let server = get_or(settings, "server", "https://api.opsgenie.com").trim_end_matches('/');
    let of = if message.reason == NotificationReason::Test { message.id } else { message.incident };
    let alias = format!("perfwatch-{of}");
    let (url, body) = if message.reason == NotificationReason::Resolved {
        let url = format!("{server}/v2/alerts/{alias}/close?identifierType=alias");
        (url, json!({ "source": "PerfWatch", "note": truncate(&letter.title, 1_000) }))
    } else {
        let priority = match message.severity {
            Severity::Critical => "P1",
            Severity::Warning => "P3",
            Severity::Info => "P5",
        };
        let body = json!({
            "message": truncate(&letter.title, 130),
            "alias": alias,
            "description": truncate(&letter.text, 10_000),
            "priority": priority,
            "source": "PerfWatch",
            "details": { "url": message.url },
        });
        (format!("{server}/v2/alerts"), body)
    };
    http.send(Request::json(url, &body).header("authorization", format!("GenieKey {}", get(settings, "key"))))
}
