//! Encrypts and decrypts channel settings.
//!
//! Settings contain addresses, tokens and passwords. They are encrypted in the store and in memory, and
//! decrypted only to send a notification or to change the channel.

use crate::definitions::{AlertDefinitions, to_json};
use crate::incident_service::IncidentService;
use crate::mail_server::{self, MAIL_KIND, MailServer};
use crate::state::{AlertingSnapshot, StateChange};
use data_encoding::HEXLOWER;
use perfwatch_auth::encryption::{DecryptError, Keyring, SecretRotation, StoredSecret};
use perfwatch_rules::channel::Channel;
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::{CommitError, StoreError, Transaction};
use std::sync::Arc;
use uuid::Uuid;

/// Setting that replaces all settings of an encrypted channel by their ciphertext, in hexadecimal. No
/// channel kind has a setting of this name.
const ENCRYPTED_SETTING: &str = "encrypted";

/// Associated data that binds the ciphertext to its channel.
fn channel_aad(channel: Uuid) -> Vec<u8> {
    [b"channel ".as_slice(), channel.as_bytes()].concat()
}

fn with_ciphertext(channel: &Channel, ciphertext: &[u8]) -> Channel {
    let settings = [(ENCRYPTED_SETTING.to_owned(), HEXLOWER.encode(ciphertext))].into();
    Channel { settings, ..channel.clone() }
}

/// Encryption of channel settings with the keys of the hub.
pub(crate) struct ChannelSecrets {
    keyring: Arc<Keyring>,
}

impl ChannelSecrets {
    pub(crate) fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// Encrypts the settings of a channel; `None` if the hub has no encryption key.
    pub(crate) fn encrypt(&self, channel: &Channel) -> Option<Channel> {
        let settings = serde_json::to_vec(&channel.settings).ok()?;
        Some(with_ciphertext(channel, &self.keyring.encrypt(&channel_aad(channel.id), &settings)?))
    }

    /// Decrypts the settings of a channel. Settings that are not encrypted are returned unchanged.
    ///
    /// # Errors
    /// Returns a [`DecryptError`] if the hub does not have the key, or if the ciphertext is corrupt.
    pub(crate) fn decrypt(&self, channel: &Channel) -> Result<Channel, DecryptError> {
        let Some(ciphertext) = channel.settings.get(ENCRYPTED_SETTING) else { return Ok(channel.clone()) };
        let ciphertext = HEXLOWER.decode(ciphertext.as_bytes()).map_err(|_| DecryptError::Corrupt)?;
        let settings = self.keyring.decrypt(&channel_aad(channel.id), &ciphertext)?;
        let settings = serde_json::from_slice(&settings).map_err(|_| DecryptError::Corrupt)?;
        Ok(Channel { settings, ..channel.clone() })
    }

    /// Channel whose settings are encrypted with the current key; `None` if nothing has to change.
    fn rotate(rotation: &mut SecretRotation<'_>, channel: &Channel) -> Option<Channel> {
        let aad = channel_aad(channel.id);
        let encrypted = match channel.settings.get(ENCRYPTED_SETTING) {
            // A text that is not hexadecimal counts as undecryptable, like any other corrupt ciphertext.
            Some(text) => {
                let ciphertext = HEXLOWER.decode(text.as_bytes()).unwrap_or_default();
                rotation.rotate(&aad, StoredSecret::Encrypted(&ciphertext))?
            }
            None => {
                let settings = serde_json::to_vec(&channel.settings).ok()?;
                rotation.rotate(&aad, StoredSecret::Plain(&settings))?
            }
        };
        Some(with_ciphertext(channel, &encrypted))
    }

    /// Settings of a channel as they are used: decrypted, and completed by the mail server of the hub.
    ///
    /// # Errors
    /// Returns a [`DecryptError`] if the settings of the channel or of the mail server cannot be decrypted.
    pub(crate) fn decrypt_completed(
        &self,
        channel: &Channel,
        definitions: &AlertDefinitions,
    ) -> Result<Channel, DecryptError> {
        let mut channel = self.decrypt(channel)?;
        let server = definitions.mail_server.as_ref().and_then(|server| server.channel.as_ref());
        if let Some(server) = server.filter(|_| channel.kind == MAIL_KIND) {
            mail_server::complete(&channel.kind, &mut channel.settings, &self.decrypt(server)?.settings);
        }
        Ok(channel)
    }

    /// Encrypts the settings of all channels with the current key.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store is unavailable. Settings that cannot be decrypted, and
    /// repeated conflicts with other hubs, are logged.
    pub(crate) async fn reencrypt(&self, incidents: &IncidentService) -> Result<(), StoreError> {
        const KIND: &str = "channels";
        let build_change = |state: &AlertingSnapshot, _: i64| {
            let mut definitions = state.definitions.clone();
            let mut tx = Transaction::default();
            let mut rotation = SecretRotation::new(&self.keyring, KIND);
            for channel in &mut definitions.channels {
                if let Some(encrypted) = Self::rotate(&mut rotation, channel) {
                    tx.definitions(DefinitionKind::Channel).upsert(encrypted.id, &to_json(&encrypted));
                    *channel = Arc::new(encrypted);
                }
            }
            let server = definitions.mail_server.as_deref();
            let encrypted = server.and_then(|server| Self::rotate(&mut rotation, server.channel.as_ref()?));
            if let (Some(server), Some(_)) = (server, &encrypted) {
                let server = MailServer { channel: encrypted, ..server.clone() };
                server.put(&mut tx);
                definitions.mail_server = Some(Arc::new(server));
            }
            let change = StateChange { definitions: Some(definitions), tx, incidents: None };
            Ok::<_, CommitError>((change, rotation))
        };
        match incidents.update(None, build_change).await {
            Ok(rotation) => rotation.log(),
            Err(CommitError::Conflict) => SecretRotation::log_conflict(KIND),
            Err(CommitError::Store(error)) => return Err(error),
        }
        Ok(())
    }
}
