//! Generic webhook: POST of the notification as JSON, or of a rendered template, with an optional
//! HMAC signature.

use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
use crate::template;
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
        // Secret, because the URL often contains a token.
        secret("url", "URL", "https://example.org/hook", "Receives a POST for each notification"),
        optional(secret(
            "secret",
            "Signing secret",
            "",
            "Adds X-PerfWatch-Signature: sha256=HMAC-SHA-256 of X-PerfWatch-Timestamp, a dot and the body",
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

pub(crate) fn validate(settings: &ChannelSettings) -> Option<(&'static str, String)> {
    let name = ["authorization", "content_type"].into_iter().find(|name| !get(settings, name).is_ascii())?;
    Some((name, "ASCII characters only".to_owned()))
}

/// Signature of a timestamp and a body, as the value of `X-PerfWatch-Signature`.
pub(crate) fn signature(secret: &str, timestamp: &str, body: &str) -> String {
    // HMAC accepts keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let default_body = || {
        let mut json = serde_json::to_value(rendered.notification).unwrap_or_default();
        json["title"] = rendered.title.as_str().into();
        json["text"] = rendered.text.as_str().into();
        json.to_string()
    };
    let body = match get(settings, "body") {
        "" => default_body(),
        // A template that fails for this notification must not prevent its delivery.
        template => template::render(template, rendered.notification).unwrap_or_else(|_| default_body()),
    };
    let mut request = Request {
        method: "POST",
        url: get(settings, "url").to_owned(),
        headers: vec![
            ("content-type", get_or(settings, "content_type", "application/json").to_owned()),
            // Delivery is at least once; receivers recognize duplicates by this key.
            ("idempotency-key", rendered.notification.id.to_string()),
        ],
        body,
    };
    if !get(settings, "authorization").is_empty() {
        request = request.header("authorization", get(settings, "authorization"));
    }
    if !get(settings, "secret").is_empty() {
        let timestamp = rendered.notification.created_at.clone();
        let signature = signature(get(settings, "secret"), &timestamp, &request.body);
        request =
            request.header("x-perfwatch-timestamp", timestamp).header("x-perfwatch-signature", signature);
    }
    http.send(request)
}
