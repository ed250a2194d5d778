//! What lets one into a channel (addresses, tokens, passwords) as it stands in the store and in
//! memory: sealed, and opened only for who says something there or changes it.

use super::{Alerting, AlertingSnapshot, StateChange, definitions};
use data_encoding::HEXLOWER;
use perfwatch_auth::encryption::{DecryptError, log_reencryption};
use perfwatch_rules::channel::Channel;
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::{CommitError, StoreError};
use std::sync::Arc;
use uuid::Uuid;

/// In place of all settings: no kind of channel has one of this name.
const ENCRYPTED_SETTING: &str = "sealed";

fn channel_aad(channel: Uuid) -> Vec<u8> {
    [b"channel ".as_slice(), channel.as_bytes()].concat()
}

impl Alerting {
    /// A channel as it is kept. None where this hub has no key.
    pub fn encrypt(&self, channel: &Channel) -> Option<Channel> {
        let settings = serde_json::to_vec(&channel.settings).ok()?;
        let sealed = HEXLOWER.encode(&self.deps.keyring.encrypt(&channel_aad(channel.id), &settings)?);
        Some(Channel { settings: [(ENCRYPTED_SETTING.to_owned(), sealed)].into(), ..channel.clone() })
    }

    /// A channel with its settings.
    ///
    /// # Errors
    /// They were sealed by a key that this hub does not have.
    pub fn decrypt(&self, channel: &Channel) -> Result<Channel, DecryptError> {
        // As it is said, or was kept before settings were sealed.
        let Some(sealed) = channel.settings.get(ENCRYPTED_SETTING) else { return Ok(channel.clone()) };
        let sealed = HEXLOWER.decode(sealed.as_bytes()).map_err(|_| DecryptError::Corrupt)?;
        let settings = self.deps.keyring.decrypt(&channel_aad(channel.id), &sealed)?;
        let settings = serde_json::from_slice(&settings).map_err(|_| DecryptError::Corrupt)?;
        Ok(Channel { settings, ..channel.clone() })
    }

    /// All by the key of now, where another one sealed them, or none.
    pub(super) async fn reencrypt(&self) -> Result<(), StoreError> {
        let is_old = |channel: &Channel| {
            let sealed = channel
                .settings
                .get(ENCRYPTED_SETTING)
                .and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
            sealed.is_none_or(|sealed| self.deps.keyring.needs_reencryption(&sealed))
        };
        let plan = |state: &AlertingSnapshot, _: i64| {
            let mut asked = state.definitions.clone();
            let mut changes = Vec::new();
            let mut closed = 0_usize;
            for channel in &mut asked.channels {
                let Ok(opened) = self.decrypt(channel) else {
                    closed += 1;
                    continue;
                };
                if let Some(sealed) = self.encrypt(&opened).filter(|_| is_old(channel)) {
                    changes.push(DefinitionKind::Channel.upsert(sealed.id, &definitions::to_json(&sealed)));
                    *channel = Arc::new(sealed);
                }
            }
            let counts = (changes.len(), closed);
            Ok::<_, CommitError>((
                StateChange { definitions: Some(asked), statements: changes, incidents: None },
                counts,
            ))
        };
        let done = match self.update(None, plan).await {
            Err(CommitError::Store(error)) => return Err(error),
            done => done.ok(),
        };
        log_reencryption("channels", done);
        Ok(())
    }
}
