//! Slack and services compatible with its incoming webhooks (Mattermost, Rocket.Chat).

use crate::format::{severity_color, truncate};
use crate::http::{Http, Request};
use crate::settings::{get, secret};
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
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

/// Escapes the characters that Slack interprets as markup.
fn escape_markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let title = escape_markup(&truncate(&rendered.title, 500));
    let body = json!({
        "text": title,
        "attachments": [{
            "color": format!("#{:06x}", severity_color(rendered)),
            "fallback": title,
            "text": escape_markup(&truncate(&rendered.text, 3_000)),
        }],
    });
    http.send(Request::json(get(settings, "url"), &body))
}
