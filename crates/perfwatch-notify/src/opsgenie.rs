//! Opsgenie: an incident here is an alert there, and is closed with it.

use crate::http::{Http, Request};
use crate::{cut, field, get, get_or, optional, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "opsgenie",
    label: "Opsgenie",
    machine: true,
    fields: &[
        secret("key", "API key", "…", "Team, Integrations, API"),
        optional(field("server", "Server", "https://api.opsgenie.com", "The EU has api.eu.opsgenie.com")),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let message = letter.message;
    let server = get_or(settings, "server", "https://api.opsgenie.com").trim_end_matches('/');
    let of = if message.notice == Notice::Test { message.id } else { message.incident };
    let alias = format!("perfwatch-{of}");
    let (url, body) = if message.notice == Notice::Resolved {
        let url = format!("{server}/v2/alerts/{alias}/close?identifierType=alias");
        (url, json!({ "source": "PerfWatch", "note": cut(&letter.title, 1_000) }))
    } else {
        let priority = match message.severity {
            Severity::Critical => "P1",
            Severity::Warning => "P3",
            Severity::Info => "P5",
        };
        let body = json!({
            "message": cut(&letter.title, 130),
            "alias": alias,
            "description": cut(&letter.text, 10_000),
            "priority": priority,
            "source": "PerfWatch",
            "details": { "url": message.url },
        });
        (format!("{server}/v2/alerts"), body)
    };
    http.send(Request::json(url, &body).with("authorization", format!("GenieKey {}", get(settings, "key"))))
}
