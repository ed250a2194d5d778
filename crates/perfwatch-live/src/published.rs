//! A published snapshot; each encoding is computed once.

use super::encoding;
use super::selection::{CachedBytes, Selection};
use bytes::Bytes;
use perfwatch_model::{HostId, HostRef, Snapshot, json};
use perfwatch_tsdb::EncodedRow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Accepted snapshot with its host, time of acceptance and encodings.
pub struct PublishedSnapshot {
    /// Host of the snapshot.
    pub host: HostId,
    /// Name of the host at the time of acceptance.
    pub name: Arc<str>,
    /// Snapshot in decoded form.
    pub snapshot: Arc<Snapshot>,
    /// Time of acceptance, monotonic clock of the hub; zero for snapshots of the recent window.
    pub accepted_at: Duration,
    /// Snapshot as the history has it in memory, if it does.
    pub row: Option<EncodedRow>,
    /// Set for a snapshot that another hub accepted.
    pub is_mirrored: bool,
    full_json: OnceLock<Bytes>,
    /// Tick entries by selection id, within the limit of encodings.
    selection_json: Mutex<Vec<(u64, Arc<str>, CachedBytes)>>,
}

impl PublishedSnapshot {
    /// Creates a published snapshot without encodings.
    pub fn new(host: HostId, name: Arc<str>, snapshot: Arc<Snapshot>, accepted_at: Duration) -> Self {
        Self {
            host,
            name,
            snapshot,
            accepted_at,
            row: None,
            is_mirrored: false,
            full_json: OnceLock::new(),
            selection_json: Mutex::default(),
        }
    }

    /// Adds the row of the history, which the recent window shares.
    pub fn with_row(self, row: EncodedRow) -> Self {
        Self { row: Some(row), ..self }
    }

    /// Marks a snapshot that another hub accepted.
    pub fn mirrored(self) -> Self {
        Self { is_mirrored: true, ..self }
    }

    /// Encodes the full snapshot as JSON, without caching the text.
    pub fn to_json(&self) -> String {
        let host = HostRef { id: Some(self.host), name: self.name.to_string() };
        let mut text = String::with_capacity(6 << 10);
        json::write_snapshot(&mut text, self.host, &host, &self.snapshot);
        text
    }

    /// Full snapshot as JSON, encoded once for all clients.
    pub fn full_json(&self) -> &Bytes {
        self.full_json.get_or_init(|| self.to_json().into())
    }

    /// Entry of a `tick` for a selection, encoded once for all its subscriptions, or for each of them if the
    /// account that requested the selection has too many encodings.
    pub fn selection_json(&self, selection: &Selection) -> Arc<str> {
        let mut entries = self.selection_json.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entry, _)) = entries.iter().find(|(id, ..)| *id == selection.id) {
            return entry.clone();
        }
        let entry: Arc<str> = encoding::tick_entry(self.host, &self.snapshot, selection).into();
        if let Some(cached) = selection.reserve_encoding(entry.len()) {
            entries.push((selection.id, entry.clone(), cached));
        }
        entry
    }
}
