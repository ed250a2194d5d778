//! Messages to a room on Matrix.

use crate::format::{TextLimit, truncate};
use crate::http::{Http, Request};
use crate::settings::{field, get, secret};
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "matrix",
    label: "Matrix",
    tracks_incidents: false,
    fields: &[
        field("server", "Homeserver", "https://matrix.org", ""),
        field("room", "Room id", "!abc:matrix.org", "Room settings, Advanced"),
        secret("token", "Access token", "syt_…", "Access token of a user in the room"),
    ],
};

/// Limit of the text; an event has at most 65,536 bytes (client-server API, 3.5).
const MAX_TEXT: TextLimit = TextLimit::JsonBytes(60_000);

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let server = get(settings, "server").trim_end_matches('/');
    let mut url = url::Url::parse(server).map_err(|error| SendError::Permanent(error.to_string()))?;
    // The transaction id makes a retry idempotent (client-server API, 8.4.1).
    let id = rendered.notification.id.to_string();
    let path = ["_matrix", "client", "v3", "rooms", get(settings, "room"), "send", "m.room.message", &id];
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    let message_type =
        if rendered.notification.reason == NotificationReason::Resolved { "m.notice" } else { "m.text" };
    let text = truncate(&format!("{}\n{}", rendered.title, rendered.text), MAX_TEXT);
    let body = json!({ "msgtype": message_type, "body": text });
    let request = Request::json(url.to_string(), &body);
    let request = Request { method: "PUT", ..request };
    http.send(request.header("authorization", format!("Bearer {}", get(settings, "token"))))
}
