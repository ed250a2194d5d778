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
use perfwatch_alert::deliver::{Field, Kind, Letter, Message, Notifier, SendError, Settings};

/// A channel's own way to say a letter.
type Send = fn(&Http, &Settings, &Letter<'_>) -> Result<(), SendError>;
/// What is wrong with settings, beyond what their fields tell.
type Check = fn(&Settings) -> Option<(&'static str, String)>;

/// All of them, as people choose from them.
const CHANNELS: &[(Kind, Send, Check)] = &[
    (email::KIND, email::send, email::check),
    (webhook::KIND, webhook::send, webhook::check),
    (slack::KIND, slack::send, nothing_more),
    (discord::KIND, discord::send, nothing_more),
    (telegram::KIND, telegram::send, nothing_more),
    (teams::KIND, teams::send, nothing_more),
    (ntfy::KIND, ntfy::send, nothing_more),
    (gotify::KIND, gotify::send, nothing_more),
    (pushover::KIND, pushover::send, nothing_more),
    (matrix::KIND, matrix::send, nothing_more),
    (pagerduty::KIND, pagerduty::send, nothing_more),
    (opsgenie::KIND, opsgenie::send, nothing_more),
    (alertmanager::KIND, alertmanager::send, nothing_more),
];

const KINDS: [Kind; CHANNELS.len()] = {
    let mut kinds = [CHANNELS[0].0; CHANNELS.len()];
    let mut at = 0;
    while at < CHANNELS.len() {
        kinds[at] = CHANNELS[at].0;
        at += 1;
    }
    kinds
};

fn nothing_more(_: &Settings) -> Option<(&'static str, String)> {
    None
}

/// A field that must be there.
const fn field(name: &'static str, label: &'static str, example: &'static str, help: &'static str) -> Field {
    Field { name, label, help, example, required: true, secret: false, long: false }
}

/// The same, never shown again.
const fn secret(name: &'static str, label: &'static str, example: &'static str, help: &'static str) -> Field {
    Field { secret: true, ..field(name, label, example, help) }
}

/// The same, that may be left out.
const fn optional(field: Field) -> Field {
    Field { required: false, ..field }
}

/// A setting, or nothing.
fn get<'a>(settings: &'a Settings, name: &str) -> &'a str {
    settings.get(name).map(|value| value.trim()).unwrap_or_default()
}

/// A setting, or what stands for none.
fn get_or<'a>(settings: &'a Settings, name: &str, usual: &'a str) -> &'a str {
    Some(get(settings, name)).filter(|value| !value.is_empty()).unwrap_or(usual)
}

/// No longer than this many characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most.saturating_sub(1)) {
        Some((at, last)) if at + last.len_utf8() < text.len() => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

/// All channels.
pub struct Channels {
    http: Http,
}

impl Channels {
    /// Ready to send.
    pub fn new() -> Self {
        Self { http: Http::new() }
    }
}

impl Default for Channels {
    fn default() -> Self {
        Self::new()
    }
}

fn channel(kind: &str) -> Option<&'static (Kind, Send, Check)> {
    CHANNELS.iter().find(|(known, ..)| known.name == kind)
}

/// Without what lets one in: it may stand in an error, as in the address that failed.
fn without_secrets(text: &str, kind: &Kind, settings: &Settings) -> String {
    let secrets = kind.fields.iter().filter(|field| field.secret).map(|field| get(settings, field.name));
    secrets.filter(|secret| secret.len() >= 4).fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

impl Notifier for Channels {
    fn kinds(&self) -> &'static [Kind] {
        &KINDS
    }

    fn problem(&self, kind: &str, settings: &Settings) -> Option<(String, String)> {
        let Some((kind, _, check)) = channel(kind) else {
            return Some(("kind".to_owned(), format!("there is no kind of channels {kind:?}")));
        };
        let say = |name: &str, why: &str| Some((name.to_owned(), why.to_owned()));
        if let Some(name) = settings.keys().find(|name| !kind.fields.iter().any(|field| field.name == **name))
        {
            return say(name, "there is no such setting");
        }
        for field in kind.fields {
            let value = get(settings, field.name);
            if field.required && value.is_empty() {
                return say(field.name, "this is needed");
            }
            if value.len() > 20_000 || (!field.long && value.contains(char::is_control)) {
                return say(field.name, "this is too long, or has line breaks");
            }
            let address = field.name == "url" || field.name == "server" && kind.name != "email";
            if address && !value.is_empty() && !http::is_address(value) {
                return say(field.name, "an address that begins with https:// or http://");
            }
        }
        check(settings).map(|(name, why)| (name.to_owned(), why))
    }

    fn render(&self, template: &str, message: &Message) -> Result<String, String> {
        template::render(template, message)
    }

    fn send(&self, kind: &str, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
        let Some((kind, send, _)) = channel(kind) else {
            return Err(SendError::Permanent(format!("there is no kind of channels {kind:?}")));
        };
        send(&self.http, settings, letter).map_err(|error| match error {
            SendError::Retry { why, after } => {
                SendError::Retry { why: without_secrets(&why, kind, settings), after }
            }
            SendError::Permanent(why) => SendError::Permanent(without_secrets(&why, kind, settings)),
        })
    }
}
