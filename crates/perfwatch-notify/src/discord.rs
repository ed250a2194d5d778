//! Discord, through the webhook of a text channel.

use crate::format::{TextLimit, severity_color, truncate};
use crate::http::{Http, Request};
use crate::settings::{get, secret};
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "discord",
    label: "Discord",
    tracks_incidents: false,
    fields: &[secret(
        "url",
        "Webhook URL",
        "https://discord.com/api/webhooks/…",
        "Channel settings, Integrations, Webhooks",
    )],
};

/// Limit of the title of an embed.
const MAX_TITLE: TextLimit = TextLimit::Utf16(256);
/// Limit of the description of an embed; with the title it stays below the 6,000 of all embeds.
const MAX_TEXT: TextLimit = TextLimit::Utf16(4_096);
/// Maximum length of the link of an embed.
const MAX_URL_LEN: usize = 2_048;

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let mut embed = json!({
        "title": truncate(&rendered.title, MAX_TITLE),
        "description": truncate(&rendered.text, MAX_TEXT),
        "color": severity_color(rendered),
        "timestamp": rendered.notification.created_at,
    });
    if (1..=MAX_URL_LEN).contains(&rendered.notification.url.len()) {
        embed["url"] = rendered.notification.url.as_str().into();
    }
    // Names of hosts and processes must not mention users.
    let body = json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } });
    http.send(Request::json(get(settings, "url"), &body))
}
