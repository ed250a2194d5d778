//! ntfy: pushes to phones, from ntfy.sh or a server of one's own.

use crate::http::{Http, Request};
use crate::{cut, field, get, get_or, optional, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "ntfy",
    label: "ntfy",
    machine: false,
    fields: &[
        field("topic", "Topic", "my-servers", "Who knows it may read it, unless the server asks for a token"),
        optional(field("server", "Server", "https://ntfy.sh", "")),
        optional(secret("token", "Access token", "tk_…", "For topics that are not open")),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let (priority, tag) = match (letter.message.notice, letter.message.severity) {
        (Notice::Resolved, _) => (2, "white_check_mark"),
        (_, Severity::Critical) => (5, "rotating_light"),
        (_, Severity::Warning) => (4, "warning"),
        (_, Severity::Info) => (3, "information_source"),
    };
    let mut body = json!({
        "topic": get(settings, "topic"),
        "title": cut(&letter.title, 250),
        "message": cut(&letter.text, 3_500),
        "priority": priority,
        "tags": [tag],
    });
    if !letter.message.url.is_empty() {
        body["click"] = letter.message.url.as_str().into();
    }
    let mut request = Request::json(get_or(settings, "server", "https://ntfy.sh"), &body);
    if !get(settings, "token").is_empty() {
        request = request.with("authorization", format!("Bearer {}", get(settings, "token")));
    }
    http.send(request)
}
