//! Generic webhook: POST of the notification as JSON, or of a rendered template, with an optional
//! HMAC signature.

use crate::http::{Http, Request};
use crate::settings::{field, get, get_or, optional, secret};
use crate::template::{self, RequestBody};
use hmac::{Hmac, KeyInit as _, Mac as _};
use perfwatch_rules::notification::{
    ChannelField, ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
use perfwatch_workers::{WorkKind, WorkRequest};
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
                "{\"text\": \"{{ title }}\"}",
                "Jinja template; default: the notification as JSON. Values in JSON, forms and XML are escaped; other forms use \
                 the filters urlencode or escape",
            )
        }),
        optional(field(
            "content_type",
            "Content-Type",
            "application/json",
            "Content type of the body; default: application/json for JSON, else text/plain",
        )),
    ],
};

pub(crate) fn validate(settings: &ChannelSettings) -> Option<(&'static str, String)> {
    if let Some(name) =
        ["authorization", "content_type"].into_iter().find(|name| !get(settings, name).is_ascii())
    {
        return Some((name, "ASCII characters only".to_owned()));
    }
    let body = get(settings, "body");
    if body.is_empty() {
        return None;
    }
    template::validate_body(body, get(settings, "content_type")).err().map(|error| ("body", error))
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

/// Renders the body in the worker pool; the calling thread has no stack of a known size.
fn render_in_pool(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Result<RequestBody, String>, SendError> {
    let principal = format!("channel {}", get(settings, "url"));
    let (template, content_type) = (get(settings, "body"), get(settings, "content_type"));
    let request =
        WorkRequest { kind: WorkKind::Template, principal: &principal, input_bytes: template.len() };
    let (template, content_type) = (template.to_owned(), content_type.to_owned());
    let notification = rendered.notification.clone();
    let render = move |_: &_| template::render_body(&template, &content_type, &notification);
    match http.workers.run_blocking(request, render) {
        Err(error) if error.is_retryable() => {
            Err(SendError::Transient { reason: error.to_string(), retry_after: None })
        }
        result => Ok(result.unwrap_or_else(|error| Err(error.to_string()))),
    }
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let default_body = || {
        let mut json = serde_json::to_value(rendered.notification).unwrap_or_default();
        json["title"] = rendered.title.as_str().into();
        json["text"] = rendered.text.as_str().into();
        json.to_string()
    };
    let body = match get(settings, "body") {
        "" => Ok(RequestBody::Json(default_body())),
        _ => render_in_pool(http, settings, rendered)?,
    };
    let (body, default_type) = match body {
        Ok(RequestBody::Json(body)) => (body, "application/json"),
        Ok(RequestBody::Text(body)) => (body, "text/plain; charset=utf-8"),
        // A template that fails for this notification must not prevent its delivery.
        Err(_) => (default_body(), "application/json"),
    };
    let mut request = Request {
        method: "POST",
        url: get(settings, "url").to_owned(),
        headers: vec![
            ("content-type", get_or(settings, "content_type", default_type).to_owned()),
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
