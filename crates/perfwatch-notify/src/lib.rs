//! Notification channels, one file per channel; this file contains their list. Calls block: the hub
//! runs each on a separate thread with a timeout.

mod alertmanager;
mod discord;
mod email;
mod escape;
mod format;
mod gotify;
mod http;
mod json_body;
mod mask;
mod matrix;
mod ntfy;
mod opsgenie;
mod pagerduty;
mod pushover;
mod resolver;
mod response_reason;
mod retry_hint;
mod settings;
mod slack;
mod smtp;
mod teams;
mod telegram;
mod template;
mod template_budget;
mod template_guard;
mod template_namespace;
#[cfg(test)]
mod tests;
mod webhook;

use format::{TextLimit, truncate};
use http::Http;
use mask::Masker;
use perfwatch_model::{Clock, OutboundPolicy, SystemClock};
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, Notification, Notifier, RecipientResult, RenderedNotification,
    SendError,
};
use perfwatch_workers::{PoolConfig, WorkerPool};
use settings::get;
use std::sync::Arc;

/// Maximum length of a setting in bytes.
const MAX_SETTING_BYTES: usize = 20_000;
/// Maximum length of the reason of a failure.
const MAX_REASON: TextLimit = TextLimit::Chars(300);

/// Function that delivers a notification to one kind of channel.
type SendFn = fn(&Http, &ChannelSettings, &RenderedNotification<'_>) -> Result<Delivery, SendError>;
/// Validation beyond that of the fields; returns the first invalid setting and its error.
type ValidateFn = fn(&ChannelSettings) -> Option<(&'static str, String)>;

/// All channel kinds in display order.
const CHANNELS: &[(ChannelKind, SendFn, ValidateFn)] = &[
    (email::KIND, email::send, email::validate),
    (webhook::KIND, webhook::send, webhook::validate),
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
    let mut index = 0;
    while index < CHANNELS.len() {
        kinds[index] = CHANNELS[index].0;
        index += 1;
    }
    kinds
};

fn no_extra_validation(_: &ChannelSettings) -> Option<(&'static str, String)> {
    None
}

/// [`Notifier`] for all channel kinds.
pub struct ChannelNotifier {
    http: Http,
}

impl ChannelNotifier {
    /// Notifier with one HTTP client for all channels, a separate worker pool, and no refused addresses.
    pub fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let workers = Arc::new(WorkerPool::new(clock, PoolConfig::default()));
        Self::with_policy(OutboundPolicy::unrestricted(), workers)
    }

    /// Notifier that reaches the addresses of a policy and renders bodies in a worker pool.
    pub fn with_policy(policy: OutboundPolicy, workers: Arc<WorkerPool>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self { http: Http::new(clock, policy, workers) }
    }
}

impl Default for ChannelNotifier {
    fn default() -> Self {
        Self::new()
    }
}

fn find_channel(kind: &str) -> Option<&'static (ChannelKind, SendFn, ValidateFn)> {
    CHANNELS.iter().find(|(candidate, ..)| candidate.name == kind)
}

/// Reason of a failure without the secrets of the channel, in one line of limited length. Servers repeat
/// the path of a request, its headers or its body in their error pages.
fn clean_reason(masker: &Masker, reason: &str) -> String {
    let masked = masker.mask_cut(reason);
    let words: Vec<&str> =
        masked.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    truncate(&words.join(" "), MAX_REASON)
}

impl Notifier for ChannelNotifier {
    fn kinds(&self) -> &'static [ChannelKind] {
        &KINDS
    }

    fn validate(&self, kind: &str, settings: &ChannelSettings) -> Option<(String, String)> {
        let Some((kind, _, validate)) = find_channel(kind) else {
            return Some(("kind".to_owned(), format!("unknown channel kind {kind:?}")));
        };
        let invalid = |name: &str, error: &str| Some((name.to_owned(), error.to_owned()));
        if let Some(name) = settings.keys().find(|name| !kind.fields.iter().any(|field| field.name == **name))
        {
            return invalid(name, "unknown setting");
        }
        for field in kind.fields {
            let value = get(settings, field.name);
            if field.required && value.is_empty() {
                return invalid(field.name, "required");
            }
            if value.len() > MAX_SETTING_BYTES || (!field.multiline && value.contains(char::is_control)) {
                return invalid(field.name, "too long or contains line breaks");
            }
            let is_url = field.name == "url" || field.name == "server" && kind.name != "email";
            if is_url && !value.is_empty() && !http::is_http_url(value) {
                return invalid(field.name, "expected a URL that starts with https:// or http://");
            }
        }
        validate(settings).map(|(name, error)| (name.to_owned(), error))
    }

    fn escape_values(&self, kind: &str, notification: &Notification) -> Notification {
        escape::escape_values(kind, notification)
    }

    fn render(&self, template: &str, notification: &Notification) -> Result<String, String> {
        template::render(template, notification)
    }

    fn send(
        &self,
        kind: &str,
        settings: &ChannelSettings,
        rendered: &RenderedNotification<'_>,
    ) -> Result<Delivery, SendError> {
        let Some((kind, send, _)) = find_channel(kind) else {
            return Err(SendError::Permanent(format!("unknown channel kind {kind:?}")));
        };
        // The only place where texts of a channel leave this crate.
        let masker = Arc::new(Masker::new(kind, settings));
        let clean = |reason: &str| clean_reason(&masker, reason);
        match send(&self.http.with_masker(masker.clone()), settings, rendered) {
            Ok(Delivery { recipients }) => {
                let clean_result =
                    |result: RecipientResult| RecipientResult { reason: clean(&result.reason), ..result };
                Ok(Delivery { recipients: recipients.into_iter().map(clean_result).collect() })
            }
            Err(SendError::Transient { reason, retry_after }) => {
                Err(SendError::Transient { reason: clean(&reason), retry_after })
            }
            Err(SendError::Permanent(reason)) => Err(SendError::Permanent(clean(&reason))),
        }
    }
}
