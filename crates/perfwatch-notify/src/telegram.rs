//! Telegram, by a bot.

use crate::http::{Http, Request};
use crate::{cut, field, get, get_or, optional, secret};
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::{Severity, incident::Notice};
use serde_json::json;

pub(crate) const KIND: Kind = Kind {
    name: "telegram",
    label: "Telegram",
    machine: false,
    fields: &[
        secret("token", "Bot token", "123456:ABC…", "From @BotFather"),
        field("chat", "Chat", "-1001234567890", "Id of the chat, or @name of a channel that the bot is in"),
        optional(field("thread", "Topic", "42", "Of a group with topics")),
        optional(field("server", "Server", "https://api.telegram.org", "A Bot API server of your own")),
    ],
};

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let server = get_or(settings, "server", "https://api.telegram.org").trim_end_matches('/');
    let quiet = letter.message.notice == Notice::Resolved || letter.message.severity == Severity::Info;
    let mut body = json!({
        "chat_id": get(settings, "chat"),
        "text": cut(&format!("{}\n{}", letter.title, letter.text), 4_000),
        "disable_notification": quiet,
        "link_preview_options": { "is_disabled": true },
    });
    if let Ok(thread) = get(settings, "thread").parse::<i64>() {
        body["message_thread_id"] = thread.into();
    }
    http.send(Request::json(format!("{server}/bot{}/sendMessage", get(settings, "token")), &body))
}
