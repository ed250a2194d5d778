//! Gotify: pushes from a server of one's own.

use crate::http::{Http, Request};
use crate::{field, get, secret, truncate};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "gotify",
    label: "Gotify",
    tracks_incidents: false,
    fields: &[
        field("server", "Server", "https://gotify.example.org", ""),
        secret("token", "Application token", "A…", "Gotify: Apps"),
    ],
};

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let priority = match (letter.notification.reason, letter.notification.severity) {
        (NotificationReason::Resolved, _) => 2,
        (_, Severity::Critical) => 9,
        (_, Severity::Warning) => 6,
        (_, Severity::Info) => 3,
    };
    let body = json!({
        "title": truncate(&letter.title, 250),
        "message": truncate(&letter.text, 4_000),
        "priority": priority,
        "extras": { "client::notification": { "click": { "url": letter.notification.url } } },
    });
    let url = format!("{}/message", get(settings, "server").trim_end_matches('/'));
    http.send(Request::json(url, &body).header("x-gotify-key", get(settings, "token")))
}
