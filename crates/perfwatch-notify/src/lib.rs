//! How messages go out: one file a channel, and here the one list of them. Calls block; the hub
//! gives each a thread, a deadline and its turn.

mod alertmanager;
mod discord;
mod email;
mod gotify;
mod http;
mod matrix;
mod ntfy;
mod opsgenie;
mod pagerduty;
mod pushover;
mod slack;
mod teams;
mod telegram;
mod template;
#[cfg(test)]
mod tests;
mod webhook;

use http::Http;
use perfwatch_rules::notification::{
    ChannelField, ChannelKind, ChannelSettings, Notification, Notifier, RenderedNotification, SendError,
};

/// A channel's own way to say a letter.
type SendFn = fn(&Http, &ChannelSettings, &RenderedNotification<'_>) -> Result<(), SendError>;
/// What is wrong with settings, beyond what their fields tell.
type ValidateFn = fn(&ChannelSettings) -> Option<(&'static str, String)>;

/// All of them, as people choose from them.
const CHANNELS: &[(ChannelKind, SendFn, ValidateFn)] = &[
    (email::KIND, email::send, email::check),
    (webhook::KIND, webhook::send, webhook::check),
    (slack::KIND, slack::send, no_extra_validation),
    (discord::KIND, discord::send, no_extra_validation),
    (telegram::KIND, telegram::send, no_extra_validation),
    (teams::KIND, teams::send, no_extra_validation),
    (ntfy::KIND, ntfy::send, no_extra_validation),
    (gotify::KIND, gotify::send, no_extra_validation),
    (pushover::KIND, pushover::send, no_extra_validation),
    (matrix::KIND, matrix::send, no_extra_validation),
    (pagerduty::KIND, pagerduty::send, no_extra_validation),
    (opsgenie::KIND, opsgenie::send, no_extra_validation),
    (alertmanager::KIND, alertmanager::send, no_extra_validation),
];

const KINDS: [ChannelKind; CHANNELS.len()] = {
    let mut kinds = [CHANNELS[0].0; CHANNELS.len()];
    let mut at = 0;
    while at < CHANNELS.len() {
        kinds[at] = CHANNELS[at].0;
        at += 1;
    }
    kinds
};

fn no_extra_validation(_: &ChannelSettings) -> Option<(&'static str, String)> {
    None
}

/// A field that must be there.
const fn field(
    name: &'static str,
    label: &'static str,
    example: &'static str,
    help: &'static str,
) -> ChannelField {
    ChannelField { name, label, help, example, required: true, secret: false, multiline: false }
}

/// The same, never shown again.
const fn secret(
    name: &'static str,
    label: &'static str,
    example: &'static str,
    help: &'static str,
) -> ChannelField {
    ChannelField { secret: true, ..field(name, label, example, help) }
}

/// The same, that may be left out.
const fn optional(field: ChannelField) -> ChannelField {
    ChannelField { required: false, ..field }
}

/// A setting, or nothing.
fn get<'a>(settings: &'a ChannelSettings, name: &str) -> &'a str {
    settings.get(name).map(|value| value.trim()).unwrap_or_default()
}

/// A setting, or what stands for none.
fn get_or<'a>(settings: &'a ChannelSettings, name: &str, usual: &'a str) -> &'a str {
    Some(get(settings, name)).filter(|value| !value.is_empty()).unwrap_or(usual)
}

/// No longer than this many characters.
fn truncate(text: &str, most: usize) -> String {
    match text.char_indices().nth(most.saturating_sub(1)) {
        Some((at, last)) if at + last.len_utf8() < text.len() => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

/// All channels.
pub struct ChannelNotifier {
    http: Http,
}

impl ChannelNotifier {
    /// Ready to send.
    pub fn new() -> Self {
        Self { http: Http::new() }
    }
}

impl Default for ChannelNotifier {
    fn default() -> Self {
        Self::new()
    }
}

fn find_channel(kind: &str) -> Option<&'static (ChannelKind, SendFn, ValidateFn)> {
    CHANNELS.iter().find(|(known, ..)| known.name == kind)
}

/// Without what lets one in: it may stand in an error, as in the address that failed.
fn redact_secrets(text: &str, kind: &ChannelKind, settings: &ChannelSettings) -> String {
    let secrets = kind.fields.iter().filter(|field| field.secret).map(|field| get(settings, field.name));
    secrets.filter(|secret| secret.len() >= 4).fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

impl Notifier for ChannelNotifier {
    fn kinds(&self) -> &'static [ChannelKind] {
        &KINDS
    }

    fn validate(&self, kind: &str, settings: &ChannelSettings) -> Option<(String, String)> {
        let Some((kind, _, check)) = find_channel(kind) else {
            return Some(("kind".to_owned(), format!("unknown channel kind {kind:?}")));
        };
        let say = |name: &str, why: &str| Some((name.to_owned(), why.to_owned()));
        if let Some(name) = settings.keys().find(|name| !kind.fields.iter().any(|field| field.name == **name))
        {
            return say(name, "unknown setting");
        }
        for field in kind.fields {
            let value = get(settings, field.name);
            if field.required && value.is_empty() {
                return say(field.name, "required");
            }
            if value.len() > 20_000 || (!field.multiline && value.contains(char::is_control)) {
                return say(field.name, "too long or contains line breaks");
            }
            let address = field.name == "url" || field.name == "server" && kind.name != "email";
            if address && !value.is_empty() && !http::is_http_url(value) {
                return say(field.name, "an address that begins with https:// or http://");
            }
        }
        check(settings).map(|(name, why)| (name.to_owned(), why))
    }

    fn render(&self, template: &str, message: &Notification) -> Result<String, String> {
        template::render(template, message)
    }

    fn send(
        &self,
        kind: &str,
        settings: &ChannelSettings,
        letter: &RenderedNotification<'_>,
    ) -> Result<(), SendError> {
        let Some((kind, send, _)) = find_channel(kind) else {
            return Err(SendError::Permanent(format!("unknown channel kind {kind:?}")));
        };
        send(&self.http, settings, letter).map_err(|error| match error {
            SendError::Retry { reason: why, retry_after: after } => {
                SendError::Retry { reason: redact_secrets(&why, kind, settings), retry_after: after }
            }
            SendError::Permanent(why) => SendError::Permanent(redact_secrets(&why, kind, settings)),
        })
    }
}
