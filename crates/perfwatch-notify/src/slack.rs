//! Slack, and what understands its incoming webhooks (Mattermost, Rocket.Chat).

use crate::http::{Http, Request};
use crate::{get, secret, truncate};
use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
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
        "Slack: your app, Incoming Webhooks. Mattermost and Rocket.Chat work too",
    )],
};

/// The colour that stands for how bad it is.
pub(crate) fn severity_color(letter: &RenderedNotification<'_>) -> u32 {
    match (letter.notification.reason, letter.notification.severity) {
        (NotificationReason::Resolved, _) => 0x2e_9e_5b,
        (NotificationReason::Test, _) | (_, Severity::Info) => 0x3b_82_f6,
        (_, Severity::Warning) => 0xd9_8e_04,
        (_, Severity::Critical) => 0xd1_34_38,
    }
}

/// What stands for these is markup.
fn escape_markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let title = escape_markup(&truncate(&letter.title, 500));
    let body = json!({
        "text": title,
        "attachments": [{
            "color": format!("#{:06x}", severity_color(letter)),
            "fallback": title,
            "text": escape_markup(&truncate(&letter.text, 3_000)),
        }],
    });
    http.send(Request::json(get(settings, "url"), &body))
}
