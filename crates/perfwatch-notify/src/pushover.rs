//! Pushover: pushes to phones.

use crate::http::{Http, Request};
use crate::{cut, field, get, get_or, optional, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "pushover",
    label: "Pushover",
    machine: false,
    fields: &[
        secret("token", "Application token", "a…", "pushover.net: your application"),
        secret("user", "User or group key", "u…", "pushover.net: your account"),
        optional(field("server", "Server", "https://api.pushover.net", "")),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let priority = match (letter.message.notice, letter.message.severity) {
        (Notice::Resolved, _) | (_, Severity::Info) => -1,
        (_, Severity::Warning) => 0,
        // Past quiet hours of the phone.
        (_, Severity::Critical) => 1,
    };
    let body = json!({
        "token": get(settings, "token"),
        "user": get(settings, "user"),
        "title": cut(&letter.title, 250),
        "message": cut(&letter.text, 1_000),
        "priority": priority,
        "url": letter.message.url,
    });
    let server = get_or(settings, "server", "https://api.pushover.net").trim_end_matches('/');
    http.send(Request::json(format!("{server}/1/messages.json"), &body))
}
