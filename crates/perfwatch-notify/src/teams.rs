//! Microsoft Teams: an adaptive card through the webhook of a workflow.

use crate::format::truncate;
use crate::http::{Http, Request};
use crate::settings::{get, secret};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use serde_json::{Value, json};

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "teams",
    label: "Microsoft Teams",
    tracks_incidents: false,
    fields: &[secret(
        "url",
        "Workflow URL",
        "https://….logic.azure.com/workflows/…",
        "Teams: Workflows, Post to a channel when a webhook request is received",
    )],
};

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let color = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) => "good",
        (_, Severity::Critical) => "attention",
        (_, Severity::Warning) => "warning",
        _ => "accent",
    };
    let title = json!({ "type": "TextBlock", "size": "medium", "weight": "bolder", "wrap": true, "color": color, "text": truncate(&rendered.title, 500) });
    let line = |line: &str| json!({ "type": "TextBlock", "wrap": true, "spacing": "small", "text": line });
    let text = truncate(&rendered.text, 8_000);
    let body: Vec<Value> = [title].into_iter().chain(text.lines().map(line)).collect();
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": body,
    });
    if !rendered.notification.url.is_empty() {
        card["actions"] =
            json!([{ "type": "Action.OpenUrl", "title": "Open", "url": rendered.notification.url }]);
    }
    let attachment = json!({ "contentType": "application/vnd.microsoft.card.adaptive", "content": card });
    let body = json!({ "type": "message", "attachments": [attachment] });
    http.send(Request::json(get(settings, "url"), &body))
}
