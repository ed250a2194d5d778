//! Push notifications through Pushover.

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
    name: "pushover",
    label: "Pushover",
    tracks_incidents: false,
    fields: &[
        secret("token", "Application token", "a…", "pushover.net: your application"),
        secret("user", "User or group key", "u…", "pushover.net: your account"),
        optional(field("server", "Server", "https://api.pushover.net", "")),
    ],
};

/// Limit of the title in characters of up to four bytes.
const MAX_TITLE: TextLimit = TextLimit::Chars(250);
/// Limit of the message in characters of up to four bytes.
const MAX_MESSAGE: TextLimit = TextLimit::Chars(1_024);
/// Maximum length of the link.
const MAX_URL_LEN: usize = 512;

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let priority = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) | (_, Severity::Info) => -1,
        (_, Severity::Warning) => 0,
        // Bypasses the quiet hours of the phone.
        (_, Severity::Critical) => 1,
    };
    let url = &rendered.notification.url;
    let url = if url.len() <= MAX_URL_LEN { url } else { "" };
    let body = json!({
        "token": get(settings, "token"),
        "user": get(settings, "user"),
        "title": truncate(&rendered.title, MAX_TITLE),
        "message": truncate(&rendered.text, MAX_MESSAGE),
        "priority": priority,
        "url": url,
    });
    let server = get_or(settings, "server", "https://api.pushover.net").trim_end_matches('/');
    http.send(Request::json(format!("{server}/1/messages.json"), &body))
}
