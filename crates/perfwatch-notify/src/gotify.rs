//! Push notifications through a self-hosted Gotify server.

use crate::format::{TextLimit, truncate};
use crate::http::{Http, Request};
use crate::settings::{field, get, secret};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
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

/// Limit of the title; Gotify itself has none.
const MAX_TITLE: TextLimit = TextLimit::Chars(250);
/// Limit of the message; Gotify itself has none.
const MAX_MESSAGE: TextLimit = TextLimit::Chars(4_000);

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let priority = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) => 2,
        (_, Severity::Critical) => 9,
        (_, Severity::Warning) => 6,
        (_, Severity::Info) => 3,
    };
    let body = json!({
        "title": truncate(&rendered.title, MAX_TITLE),
        "message": truncate(&rendered.text, MAX_MESSAGE),
        "priority": priority,
        "extras": { "client::notification": { "click": { "url": rendered.notification.url } } },
    });
    let url = format!("{}/message", get(settings, "server").trim_end_matches('/'));
    http.send(Request::json(url, &body).header("x-gotify-key", get(settings, "token")))
}
