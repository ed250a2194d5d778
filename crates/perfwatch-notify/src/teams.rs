//! Microsoft Teams: an adaptive card through the webhook of a workflow.

use crate::format::{TextLimit, truncate};
use crate::http::{Http, Request};
use crate::settings::{get, secret};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
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

/// Limit of the title.
const MAX_TITLE: TextLimit = TextLimit::JsonBytes(1_000);
/// Maximum length of the lines of a card. A message has at most 28 KB.
const MAX_LINES_BYTES: usize = 24_000;

/// Text blocks of the lines, as many as fit; each line has the overhead of its block.
fn text_blocks(text: &str) -> Vec<Value> {
    let (mut available, mut blocks) = (MAX_LINES_BYTES, Vec::new());
    for line in text.lines() {
        let block =
            |text: &str| json!({ "type": "TextBlock", "wrap": true, "spacing": "small", "text": text });
        let overhead = block("").to_string().len() + 1;
        let text = truncate(line, TextLimit::JsonBytes(available.saturating_sub(overhead)));
        if text.is_empty() && !line.is_empty() {
            break;
        }
        blocks.push(block(&text));
        available = available.saturating_sub(overhead + TextLimit::JsonBytes(0).count(&text));
    }
    blocks
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let color = match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) => "good",
        (_, Severity::Critical) => "attention",
        (_, Severity::Warning) => "warning",
        _ => "accent",
    };
    let title = json!({ "type": "TextBlock", "size": "medium", "weight": "bolder", "wrap": true, "color": color, "text": truncate(&rendered.title, MAX_TITLE) });
    let body: Vec<Value> = [title].into_iter().chain(text_blocks(&rendered.text)).collect();
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
