//! Messages of a Telegram bot.

use crate::format::{TextLimit, truncate};
use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
use perfwatch_rules::{Severity, incident::NotificationReason};
use serde_json::json;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "telegram",
    label: "Telegram",
    tracks_incidents: false,
    fields: &[
        secret("token", "Bot token", "123456:ABC…", "Issued by @BotFather"),
        field("chat", "Chat", "-1001234567890", "Chat id, or @name of a channel the bot is in"),
        optional(field("thread", "Topic", "42", "Thread id, for groups with topics")),
        optional(field("server", "Server", "https://api.telegram.org", "Self-hosted Bot API server")),
    ],
};

/// Limit of a message: UTF-16 code units, because entities are addressed in them.
const MAX_TEXT: TextLimit = TextLimit::Utf16(4_096);

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let server = get_or(settings, "server", "https://api.telegram.org").trim_end_matches('/');
    let is_silent = rendered.notification.reason == NotificationReason::Resolved
        || rendered.notification.severity == Severity::Info;
    let mut body = json!({
        "chat_id": get(settings, "chat"),
        "text": truncate(&format!("{}\n{}", rendered.title, rendered.text), MAX_TEXT),
        "disable_notification": is_silent,
        "link_preview_options": { "is_disabled": true },
    });
    if let Ok(thread) = get(settings, "thread").parse::<i64>() {
        body["message_thread_id"] = thread.into();
    }
    http.send(Request::json(format!("{server}/bot{}/sendMessage", get(settings, "token")), &body))
}
