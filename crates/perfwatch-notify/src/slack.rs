//! Slack and services compatible with its incoming webhooks (Mattermost, Rocket.Chat).

use crate::format::{TextLimit, severity_color, truncate_escaped};
use crate::http::{Http, Request};
use crate::settings::{get, secret};
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "slack",
    label: "Slack",
    tracks_incidents: false,
    fields: &[secret(
        "url",
        "Webhook URL",
        "https://hooks.slack.com/services/…",
        "Slack: your app, Incoming Webhooks. Also for Mattermost and Rocket.Chat",
    )],
};

/// Limit of the title; Slack allows more, but wraps it.
const MAX_TITLE: TextLimit = TextLimit::Utf16(500);
/// Limit of a text block, which includes the escapes.
const MAX_TEXT: TextLimit = TextLimit::Utf16(3_000);

/// Escapes the characters that Slack interprets as markup.
fn escape_markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let title = truncate_escaped(&rendered.title, MAX_TITLE, escape_markup);
    let body = json!({
        "text": title,
        "attachments": [{
            "color": format!("#{:06x}", severity_color(rendered)),
            "fallback": title,
            "text": truncate_escaped(&rendered.text, MAX_TEXT, escape_markup),
        }],
    });
    http.send(Request::json(get(settings, "url"), &body))
}
