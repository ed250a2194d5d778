//! Gotify: pushes from a server of one's own.

use crate::http::{Http, Request};
use crate::{cut, field, get, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "gotify",
    label: "Gotify",
    machine: false,
    fields: &[
        field("server", "Server", "https://gotify.example.org", ""),
        secret("token", "Application token", "A…", "Gotify: Apps"),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let priority = match (letter.message.notice, letter.message.severity) {
        (Notice::Resolved, _) => 2,
        (_, Severity::Critical) => 9,
        (_, Severity::Warning) => 6,
        (_, Severity::Info) => 3,
    };
    let body = json!({
        "title": cut(&letter.title, 250),
        "message": cut(&letter.text, 4_000),
        "priority": priority,
        "extras": { "client::notification": { "click": { "url": letter.message.url } } },
    });
    let url = format!("{}/message", get(settings, "server").trim_end_matches('/'));
    http.send(Request::json(url, &body).with("x-gotify-key", get(settings, "token")))
}
