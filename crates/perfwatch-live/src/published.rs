//! One accepted snapshot on its way to many readers: each form of it is encoded once.

use super::message;
use super::selection::Selection;
use bytes::Bytes;
use perfwatch_model::{HostId, HostRef, Snapshot, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A snapshot with its host, its time of acceptance and its encodings.
pub struct PublishedSnapshot {
    pub host: HostId,
    pub name: Arc<str>,
    pub snapshot: Arc<Snapshot>,
    /// Hub's monotonic clock.
    pub accepted_at: Duration,
    full_json: OnceLock<Bytes>,
    selection_json: Mutex<Vec<(u64, Arc<str>)>>,
}

impl PublishedSnapshot {
    pub fn new(host: HostId, name: Arc<str>, snapshot: Arc<Snapshot>, accepted_at: Duration) -> Self {
        Self {
            host,
            name,
            snapshot,
            accepted_at,
            full_json: OnceLock::new(),
            selection_json: Mutex::default(),
        }
    }

    /// The same without encodings, to be kept for longer.
    pub fn without_encodings(&self) -> Self {
        Self::new(self.host, self.name.clone(), self.snapshot.clone(), self.accepted_at)
    }

    /// The whole snapshot as JSON.
    pub fn to_json(&self) -> String {
        let host = HostRef { id: Some(self.host), name: self.name.to_string() };
        let mut text = String::with_capacity(6 << 10);
        json::write_snapshot(&mut text, self.host, &host, &self.snapshot);
        text
    }

    /// The same for many readers.
    pub fn full_json(&self) -> &Bytes {
        self.full_json.get_or_init(|| self.to_json().into())
    }

    /// What a selection asks of it, as the entry of a `tick` message.
    pub fn selection_json(&self, selection: &Selection) -> Arc<str> {
        let mut parts = self.selection_json.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, part)) = parts.iter().find(|(id, _)| *id == selection.id) {
            return part.clone();
        }
        let part: Arc<str> = message::tick_entry(self, selection).into();
        parts.push((selection.id, part.clone()));
        part
    }
}
