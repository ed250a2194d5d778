//! Push notifications through Pushover.

use crate::format::truncate;
use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "pushover",
    label: "Pushover",
    tracks_incidents: false,
    fields: &[
        secret("token", "Application token", "a…", "pushover.net: your application"),
        secret("user", "User or group key", "u…", "pushover.net: your account"),
        optional(field("server", "Server", "https://api.pushover.net", "")),
    ],
};

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let priority = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) | (_, Severity::Info) => -1,
        (_, Severity::Warning) => 0,
        // Bypasses the quiet hours of the phone.
        (_, Severity::Critical) => 1,
    };
    let body = json!({
        "token": get(settings, "token"),
        "user": get(settings, "user"),
        "title": truncate(&rendered.title, 250),
        "message": truncate(&rendered.text, 1_000),
        "priority": priority,
        "url": rendered.notification.url,
    });
    let server = get_or(settings, "server", "https://api.pushover.net").trim_end_matches('/');
    http.send(Request::json(format!("{server}/1/messages.json"), &body))
}
