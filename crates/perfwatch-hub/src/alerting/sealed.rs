//! What lets one into a channel (addresses, tokens, passwords) as it stands in the store and in
//! memory: sealed, and opened only for who says something there or changes it.

use super::{Alerting, Planned, State, asked};
use crate::auth::secret::{hex, unhex};
use crate::vault::{VaultError, resealed};
use perfwatch_alert::channel::Channel;
use perfwatch_store::alerts::Noun;
use perfwatch_store::{CommitError, StoreError};
use std::sync::Arc;
use uuid::Uuid;

/// In place of all settings: no kind of channel has one of this name.
const SEALED: &str = "sealed";

fn place(channel: Uuid) -> Vec<u8> {
    [b"channel ".as_slice(), channel.as_bytes()].concat()
}

impl Alerting {
    /// A channel as it is kept. None where this hub has no key.
    pub(crate) fn sealed(&self, channel: &Channel) -> Option<Channel> {
        let settings = serde_json::to_vec(&channel.settings).ok()?;
        let sealed = hex(&self.rooms.vault.seal(&place(channel.id), &settings)?);
        Some(Channel { settings: [(SEALED.to_owned(), sealed)].into(), ..channel.clone() })
    }

    /// A channel with its settings.
    ///
    /// # Errors
    /// They were sealed by a key that this hub does not have.
    pub(crate) fn opened(&self, channel: &Channel) -> Result<Channel, VaultError> {
        // As it is said, or was kept before settings were sealed.
        let Some(sealed) = channel.settings.get(SEALED) else { return Ok(channel.clone()) };
        let sealed = unhex(sealed).ok_or(VaultError::Damaged)?;
        let settings = self.rooms.vault.open(&place(channel.id), &sealed)?;
        let settings = serde_json::from_slice(&settings).map_err(|_| VaultError::Damaged)?;
        Ok(Channel { settings, ..channel.clone() })
    }

    /// All by the key of now, where another one sealed them, or none.
    pub(super) async fn reseal(&self) -> Result<(), StoreError> {
        let is_old = |channel: &Channel| {
            let sealed = channel.settings.get(SEALED).and_then(|text| unhex(text));
            sealed.is_none_or(|sealed| self.rooms.vault.is_old(&sealed))
        };
        let plan = |state: &State, _: i64| {
            let mut asked = state.asked.clone();
            let mut changes = Vec::new();
            let mut closed = 0_usize;
            for channel in &mut asked.channels {
                let Ok(opened) = self.opened(channel) else {
                    closed += 1;
                    continue;
                };
                if let Some(sealed) = self.sealed(&opened).filter(|_| is_old(channel)) {
                    changes.push(Noun::Channel.put(sealed.id, &asked::body(&sealed)));
                    *channel = Arc::new(sealed);
                }
            }
            let counts = (changes.len(), closed);
            Ok::<_, CommitError>((Planned { asked: Some(asked), changes, board: None }, counts))
        };
        let done = match self.change(None, plan).await {
            Err(CommitError::Store(error)) => return Err(error),
            done => done.ok(),
        };
        resealed("channels", done);
        Ok(())
    }
}
