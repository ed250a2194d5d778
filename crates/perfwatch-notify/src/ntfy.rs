//! Push notifications through ntfy.sh or a self-hosted ntfy server.

use crate::format::truncate;
use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
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

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let (priority, tag) = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) => (2, "white_check_mark"),
        (_, Severity::Critical) => (5, "rotating_light"),
        (_, Severity::Warning) => (4, "warning"),
        (_, Severity::Info) => (3, "information_source"),
    };
    let mut body = json!({
        "topic": get(settings, "topic"),
        "title": truncate(&rendered.title, 250),
        "message": truncate(&rendered.text, 3_500),
        "priority": priority,
        "tags": [tag],
    });
    if !rendered.notification.url.is_empty() {
        body["click"] = rendered.notification.url.as_str().into();
    }
    let mut request = Request::json(get_or(settings, "server", "https://ntfy.sh"), &body);
    if !get(settings, "token").is_empty() {
        request = request.header("authorization", format!("Bearer {}", get(settings, "token")));
    }
    http.send(request)
}
