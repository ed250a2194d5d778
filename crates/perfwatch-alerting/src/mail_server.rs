//! Mail server of the hub, which e-mail channels without a server use.
//!
//! It is stored as a channel, so that it is encrypted, validated and tested as channels are. Its address and its
//! password are one ciphertext: a password is never sent to an address that it was not entered for.

use perfwatch_model::HumanDuration;
use perfwatch_rules::channel::{Channel, ChannelFilter, NotificationTemplate};
use perfwatch_rules::notification::ChannelSettings;
use perfwatch_store::settings::get_setting;
use perfwatch_store::{Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Kind of the channels that use a mail server.
pub const MAIL_KIND: &str = "email";
/// Name of the document in the table of settings.
const DOCUMENT: &str = "mail_server";
/// Id of the channel, to which the ciphertext is bound.
const CHANNEL_ID: Uuid = Uuid::from_u128(0x6d61_696c);
/// Settings of the connection. A channel has its own, or uses those of the hub.
const CONNECTION_SETTINGS: [&str; 5] = ["server", "port", "security", "user", "password"];
/// Sender, which a channel may replace.
const SENDER_SETTING: &str = "from";

/// Mail server of the hub.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MailServer {
    /// Version, which every change increments.
    pub version: i64,
    /// Time of the last change, Unix milliseconds.
    pub changed_ms: i64,
    /// Actor of the last change.
    pub changed_by: String,
    /// E-mail channel without recipients, with encrypted settings; `None` after the server was removed.
    pub channel: Option<Channel>,
}

impl MailServer {
    /// Channel with the settings of a mail server.
    pub fn to_channel(settings: ChannelSettings) -> Channel {
        Channel {
            id: CHANNEL_ID,
            name: "mail server".to_owned(),
            kind: MAIL_KIND.to_owned(),
            enabled: true,
            settings,
            filter: ChannelFilter::default(),
            escalate_after: HumanDuration::default(),
            repeat_interval: HumanDuration::default(),
            send_resolved: true,
            quiet_hours: None,
            template: NotificationTemplate::default(),
        }
    }

    /// Writes the server in a transaction that changes the revision of the definitions.
    pub fn put(&self, tx: &mut Transaction) {
        // Names and numbers always serialize.
        tx.settings().put(DOCUMENT, &serde_json::to_string(self).unwrap_or_default());
    }

    pub(crate) async fn load(store: &dyn Store) -> Result<Option<Arc<Self>>, StoreError> {
        let Some(text) = get_setting(store, DOCUMENT).await? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(server) => Ok(Some(Arc::new(server))),
            Err(error) => {
                tracing::error!(%error, "failed to parse the mail server; ignoring it");
                Ok(None)
            }
        }
    }
}

fn is_set(settings: &ChannelSettings, name: &str) -> bool {
    settings.get(name).is_some_and(|value| !value.trim().is_empty())
}

/// Returns whether a channel with these settings uses the mail server of the hub.
pub fn uses_hub_server(kind: &str, settings: &ChannelSettings) -> bool {
    kind == MAIL_KIND && !is_set(settings, "server")
}

/// Setting of a connection in the settings of a channel without a server, to which it could not belong.
pub fn find_stray_setting(kind: &str, settings: &ChannelSettings) -> Option<&'static str> {
    let mut names = CONNECTION_SETTINGS.into_iter().filter(|_| uses_hub_server(kind, settings));
    names.find(|name| is_set(settings, name))
}

/// Adds what a channel leaves to the mail server of the hub: the connection as a whole, and the sender.
pub(crate) fn complete(kind: &str, settings: &mut ChannelSettings, server: &ChannelSettings) {
    if kind != MAIL_KIND {
        return;
    }
    if uses_hub_server(kind, settings) {
        for name in CONNECTION_SETTINGS {
            settings.remove(name);
            settings.extend(server.get(name).map(|value| (name.to_owned(), value.clone())));
        }
    }
    if !is_set(settings, SENDER_SETTING) {
        settings.extend(server.get(SENDER_SETTING).map(|value| (SENDER_SETTING.to_owned(), value.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> ChannelSettings {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn channels_without_server_use_that_of_the_hub() {
        let hub =
            settings(&[("server", "smtp.hub"), ("user", "u"), ("password", "p"), ("from", "hub@x.org")]);
        for (kind, channel, expected) in [
            (
                "email",
                &[("to", "a@x.org")][..],
                &[
                    ("to", "a@x.org"),
                    ("server", "smtp.hub"),
                    ("user", "u"),
                    ("password", "p"),
                    ("from", "hub@x.org"),
                ][..],
            ),
            // A blank value counts as none, and no part of the connection remains.
            (
                "email",
                &[("server", " "), ("port", "25"), ("from", "me@x.org")],
                &[("server", "smtp.hub"), ("user", "u"), ("password", "p"), ("from", "me@x.org")],
            ),
            // The password of the hub stays with the server of the hub.
            (
                "email",
                &[("server", "smtp.own"), ("user", "me")],
                &[("server", "smtp.own"), ("user", "me"), ("from", "hub@x.org")],
            ),
            ("gotify", &[("token", "t")], &[("token", "t")]),
        ] {
            let mut completed = settings(channel);
            complete(kind, &mut completed, &hub);
            assert_eq!(completed, settings(expected));
        }
    }

    #[test]
    fn connection_settings_require_a_server() {
        for (kind, channel, expected) in [
            ("email", &[("to", "a"), ("from", "b")][..], None),
            ("email", &[("to", "a"), ("password", "p")], Some("password")),
            ("email", &[("server", "s"), ("password", "p")], None),
            ("webhook", &[("password", "p")], None),
        ] {
            assert_eq!(find_stray_setting(kind, &settings(channel)), expected);
        }
    }
}
