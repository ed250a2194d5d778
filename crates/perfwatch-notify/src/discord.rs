//! Discord, by a webhook of one of its channels.

use crate::http::{Http, Request};
use crate::slack::color;
use crate::{cut, get, secret};
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "discord",
    label: "Discord",
    machine: false,
    fields: &[secret(
        "url",
        "Webhook URL",
        "https://discord.com/api/webhooks/…",
        "Channel settings, Integrations, Webhooks",
    )],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let mut embed = json!({
        "title": cut(&letter.title, 256),
        "description": cut(&letter.text, 4_000),
        "color": color(letter),
        "timestamp": letter.message.at,
    });
    if !letter.message.url.is_empty() {
        embed["url"] = letter.message.url.as_str().into();
    }
    // Names of hosts and processes call nobody.
    let body = json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } });
    http.send(Request::json(get(settings, "url"), &body))
}
