//! Push notifications through ntfy.sh or a self-hosted ntfy server.

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
    name: "ntfy",
    label: "ntfy",
    tracks_incidents: false,
    fields: &[
        field(
            "topic",
            "Topic",
            "my-servers",
            "Anyone who knows the topic can read it unless the server requires a token",
        ),
        optional(field("server", "Server", "https://ntfy.sh", "")),
        optional(secret("token", "Access token", "tk_…", "For protected topics")),
    ],
};

/// Limit of the title; ntfy itself has none, but the phone shows few lines.
const MAX_TITLE: TextLimit = TextLimit::Bytes(250);
/// Limit of a message. A longer one becomes an attachment, which servers may reject.
const MAX_MESSAGE: TextLimit = TextLimit::Bytes(4_096);
/// Maximum length of the request body: twice the limit of a message.
const MAX_BODY_BYTES: usize = 8_192;

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let (priority, tag) = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) => (2, "white_check_mark"),
        (_, Severity::Critical) => (5, "rotating_light"),
        (_, Severity::Warning) => (4, "warning"),
        (_, Severity::Info) => (3, "information_source"),
    };
    let mut body = json!({
        "topic": get(settings, "topic"),
        "title": truncate(&rendered.title, MAX_TITLE),
        "message": "",
        "priority": priority,
        "tags": [tag],
    });
    if !rendered.notification.url.is_empty() {
        body["click"] = rendered.notification.url.as_str().into();
    }
    let available = MAX_BODY_BYTES.saturating_sub(body.to_string().len());
    // Quotes and line breaks take two bytes in the body, but one in the message.
    let message = truncate(&rendered.text, TextLimit::JsonBytes(available));
    body["message"] = truncate(&message, MAX_MESSAGE).into();
    let mut request = Request::json(get_or(settings, "server", "https://ntfy.sh"), &body);
    if !get(settings, "token").is_empty() {
        request = request.header("authorization", format!("Bearer {}", get(settings, "token")));
    }
    http.send(request)
}
