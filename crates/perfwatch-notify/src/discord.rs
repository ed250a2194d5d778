//! Discord, by a webhook of one of its channels.

use crate::http::{Http, Request};
use crate::slack::severity_color;
use crate::{get, secret, truncate};
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
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let mut embed = json!({
        "title": truncate(&letter.title, 256),
        "description": truncate(&letter.text, 4_000),
        "color": severity_color(letter),
        "timestamp": letter.notification.created_at,
    });
    if !letter.notification.url.is_empty() {
        embed["url"] = letter.notification.url.as_str().into();
    }
    // Names of hosts and processes call nobody.
    let body = json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } });
    http.send(Request::json(get(settings, "url"), &body))
}
