//! Discord, through the webhook of a text channel.

use crate::format::{severity_color, truncate};
use crate::http::{Http, Request};
use crate::settings::{get, secret};
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
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

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let mut embed = json!({
        "title": truncate(&rendered.title, 256),
        "description": truncate(&rendered.text, 4_000),
        "color": severity_color(rendered),
        "timestamp": rendered.notification.created_at,
    });
    if !rendered.notification.url.is_empty() {
        embed["url"] = rendered.notification.url.as_str().into();
    }
    // Names of hosts and processes must not mention users.
    let body = json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } });
    http.send(Request::json(get(settings, "url"), &body))
}
