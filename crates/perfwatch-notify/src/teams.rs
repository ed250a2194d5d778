//! Microsoft Teams, by a workflow's webhook: an adaptive card.

use crate::http::{Http, Request};
use crate::{cut, get, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::{Value, json};

pub(crate) const KIND: Kind = Kind {
    name: "teams",
    label: "Microsoft Teams",
    machine: false,
    fields: &[secret(
        "url",
        "Workflow URL",
        "https://….logic.azure.com/workflows/…",
        "Teams: Workflows, Post to a channel when a webhook request is received",
    )],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let color = match (letter.message.notice, letter.message.severity) {
        (Notice::Resolved, _) => "good",
        (_, Severity::Critical) => "attention",
        (_, Severity::Warning) => "warning",
        _ => "accent",
    };
    let title = json!({ "type": "TextBlock", "size": "medium", "weight": "bolder", "wrap": true, "color": color, "text": cut(&letter.title, 500) });
    let line = |line: &str| json!({ "type": "TextBlock", "wrap": true, "spacing": "small", "text": line });
    let text = cut(&letter.text, 8_000);
    let body: Vec<Value> = [title].into_iter().chain(text.lines().map(line)).collect();
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": body,
    });
    if !letter.message.url.is_empty() {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Open", "url": letter.message.url }]);
    }
    let attachment = json!({ "contentType": "application/vnd.microsoft.card.adaptive", "content": card });
    let body = json!({ "type": "message", "attachments": [attachment] });
    http.send(Request::json(get(settings, "url"), &body))
}
