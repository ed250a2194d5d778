//! Slack, and what understands its incoming webhooks (Mattermost, Rocket.Chat).

use crate::http::{Http, Request};
use crate::{cut, get, secret};
use perfwatch_alert::Severity;
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "slack",
    label: "Slack",
    machine: false,
    fields: &[secret(
        "url",
        "Webhook URL",
        "https://hooks.slack.com/services/…",
        "Slack: your app, Incoming Webhooks. Mattermost and Rocket.Chat work too",
    )],
};

/// The colour that stands for how bad it is.
pub(crate) fn color(letter: &Letter<'_>) -> u32 {
    match (letter.message.notice, letter.message.severity) {
        (Notice::Resolved, _) => 0x2e_9e_5b,
        (Notice::Test, _) | (_, Severity::Info) => 0x3b_82_f6,
        (_, Severity::Warning) => 0xd9_8e_04,
        (_, Severity::Critical) => 0xd1_34_38,
    }
}

/// What stands for these is markup.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let title = plain(&cut(&letter.title, 500));
    let body = json!({
        "text": title,
        "attachments": [{
            "color": format!("#{:06x}", color(letter)),
            "fallback": title,
            "text": plain(&cut(&letter.text, 3_000)),
        }],
    });
    http.send(Request::json(get(settings, "url"), &body))
}
