//! A room on Matrix.

use crate::http::{Http, Request};
use crate::{cut, field, get, secret};
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "matrix",
    label: "Matrix",
    machine: false,
    fields: &[
        field("server", "Homeserver", "https://matrix.org", ""),
        field("room", "Room id", "!abc:matrix.org", "Room settings, Advanced"),
        secret("token", "Access token", "syt_…", "Of a user that is in the room"),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let server = get(settings, "server").trim_end_matches('/');
    let mut url = url::Url::parse(server).map_err(|error| SendError::Permanent(error.to_string()))?;
    // The transaction's number makes a second try the same message (client-server API, 8.4.1).
    let id = letter.message.id.to_string();
    let path = ["_matrix", "client", "v3", "rooms", get(settings, "room"), "send", "m.room.message", &id];
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    let kind = if letter.message.notice == Notice::Resolved { "m.notice" } else { "m.text" };
    let body = json!({ "msgtype": kind, "body": cut(&format!("{}\n{}", letter.title, letter.text), 20_000) });
    let request = Request::json(url.to_string(), &body);
    let request = Request { method: "PUT", ..request };
    http.send(request.with("authorization", format!("Bearer {}", get(settings, "token"))))
}
