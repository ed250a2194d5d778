//! Any program that takes a POST: the message as JSON, or a body of one's own; signed, so that
//! who takes it knows whose it is.

use crate::http::{Http, Request};
use crate::{field, get, get_or, optional, secret, template};
use hmac::{Hmac, KeyInit as _, Mac as _};
use perfwatch_rules::notification::{
    ChannelField, ChannelKind, ChannelSettings, RenderedNotification, SendError,
};
use sha2::Sha256;
use std::fmt::Write as _;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "webhook",
    label: "Webhook",
    tracks_incidents: true,
    fields: &[
        // It often is the secret itself.
        secret("url", "URL", "https://example.org/hook", "Receives a POST for each notification"),
        optional(secret(
            "secret",
            "Signing secret",
            "",
            "X-PerfWatch-Signature is then sha256=HMAC-SHA-256 of X-PerfWatch-Timestamp, a dot and the body",
        )),
        optional(secret("authorization", "Authorization header", "Bearer …", "Sent verbatim")),
        optional(ChannelField {
            multiline: true,
            ..field(
                "body",
                "Body",
                "{\"text\": {{ title|tojson }}}",
                "Jinja template; default: the notification as JSON",
            )
        }),
        optional(field("content_type", "Content-Type", "application/json", "Content type of the body")),
    ],
};

pub(crate) fn check(settings: &ChannelSettings) -> Option<(&'static str, String)> {
    let header =
        ["authorization", "content_type"].into_iter().find(|name| !get(settings, name).is_ascii())?;
    Some((header, "ASCII characters only".to_owned()))
}

/// The signature of a body at a time.
pub(crate) fn signature(secret: &str, timestamp: &str, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let usual = || {
        let mut all = serde_json::to_value(letter.notification).unwrap_or_default();
        all["title"] = letter.title.as_str().into();
        all["text"] = letter.text.as_str().into();
        all.to_string()
    };
    let body = match get(settings, "body") {
        "" => usual(),
        // A template that fails at this message must not keep anybody in the dark.
        body => template::render(body, letter.notification).unwrap_or_else(|_| usual()),
    };
    let mut request = Request {
        method: "POST",
        url: get(settings, "url").to_owned(),
        headers: vec![
            ("content-type", get_or(settings, "content_type", "application/json").to_owned()),
            // Who hears it twice knows it by this.
            ("idempotency-key", letter.notification.id.to_string()),
        ],
        body,
    };
    if !get(settings, "authorization").is_empty() {
        request = request.header("authorization", get(settings, "authorization"));
    }
    if !get(settings, "secret").is_empty() {
        let timestamp = letter.notification.created_at.clone();
        let signed = signature(get(settings, "secret"), &timestamp, &request.body);
        request = request.header("x-perfwatch-timestamp", timestamp).header("x-perfwatch-signature", signed);
    }
    http.send(request)
}
