//! One accepted snapshot on its way to many readers: each form of it is encoded once.

use super::message;
use super::selection::Selection;
use axum::extract::ws::Utf8Bytes;
use perfwatch_model::{HostId, HostRef, Snapshot, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A snapshot with its host, its time of acceptance and its encodings.
pub(crate) struct Accepted {
    pub(crate) host: HostId,
    pub(crate) name: Arc<str>,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Hub's monotonic clock.
    pub(crate) accepted: Duration,
    whole: OnceLock<Utf8Bytes>,
    parts: Mutex<Vec<(u64, Utf8Bytes)>>,
}

impl Accepted {
    pub(crate) fn new(host: HostId, name: Arc<str>, snapshot: Arc<Snapshot>, accepted: Duration) -> Self {
        Self { host, name, snapshot, accepted, whole: OnceLock::new(), parts: Mutex::default() }
    }

    /// The same without encodings, to be kept for longer.
    pub(crate) fn bare(&self) -> Self {
        Self::new(self.host, self.name.clone(), self.snapshot.clone(), self.accepted)
    }

    /// The whole snapshot as JSON.
    pub(crate) fn json(&self) -> String {
        let host = HostRef { id: Some(self.host), name: self.name.to_string() };
        let mut text = String::with_capacity(6 << 10);
        json::write_snapshot(&mut text, self.host, &host, &self.snapshot);
        text
    }

    /// The same for many readers.
    pub(crate) fn shared_json(&self) -> &Utf8Bytes {
        self.whole.get_or_init(|| self.json().into())
    }

    /// What a selection asks of it, as the entry of a `tick` message.
    pub(crate) fn part(&self, selection: &Selection) -> Utf8Bytes {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, part)) = parts.iter().find(|(id, _)| *id == selection.id) {
            return part.clone();
        }
        let part: Utf8Bytes = message::tick_entry(self, selection).into();
        parts.push((selection.id, part.clone()));
        part
    }
}
