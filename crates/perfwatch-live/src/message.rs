//! Messages of the WebSocket `/api/ws/metrics`, described in `docs/WEBSOCKET.md`.
//!
//! Messages of the hub, except full snapshots, carry `type`: `backfill`, `columns`, `tick`,
//! `incident_counts`, `lagged`, `pong`, `error`. Values are integers scaled by the column's decimals; a
//! missing value is null. Times are Unix milliseconds.

use super::encoding::{push_processes, push_values};
use super::published::PublishedSnapshot;
use super::selection::Selection;
use perfwatch_model::{HostId, MISSING};
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Target size of a message. Longer messages are split, so that a slow connection shows the first part
/// early.
const TARGET_MESSAGE_BYTES: usize = 512 << 10;

/// Message of a client over `WS /api/ws/metrics`. Exactly one member is set.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientMessage {
    /// Starts a subscription, or replaces the subscription with the same id.
    pub subscribe: Option<SubscribeRequest>,
    /// Ends the subscription with this id.
    pub unsubscribe: Option<u32>,
    /// Number that the `pong` returns. Browsers do not expose protocol pings.
    pub ping: Option<u32>,
    /// Requests `incident_counts`, immediately and on each change of incidents.
    pub incident_counts: Option<bool>,
}

/// Subscription to series of some hosts.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubscribeRequest {
    /// Number chosen by the client, returned in each message of the subscription.
    #[serde(default)]
    pub id: u32,
    /// Ids or names of hosts; empty for all hosts.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Names of metrics, or groups such as `cpu.*`; empty for all metrics.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Whether to send the top processes.
    #[serde(default)]
    pub processes: bool,
    /// Seconds of history to send first, at most 300.
    #[serde(default)]
    pub backfill_s: u32,
    /// Host id → time in Unix milliseconds: limits the backfill to newer snapshots.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = HashMap<String, i64>))]
    pub since: HashMap<HostId, i64>,
}

/// Number of open incidents by severity: info, warning, critical.
pub fn incident_counts(revision: u64, [info, warning, critical]: [usize; 3]) -> String {
    format!(
        "{{\"type\":\"incident_counts\",\"revision\":{revision},\
         \"info\":{info},\"warning\":{warning},\"critical\":{critical}}}"
    )
}

/// Message that contains the tick entries of several hosts.
pub fn tick<'a>(id: u32, entries: impl Iterator<Item = &'a str>) -> String {
    let mut out = format!("{{\"type\":\"tick\",\"id\":{id},\"hosts\":[");
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(entry);
    }
    out.push_str("]}");
    out
}

/// Columns of a shape, sent before the first tick that has the shape.
pub fn columns(id: u32, published: &PublishedSnapshot, selection: &Selection) -> String {
    let shape = &published.snapshot.shape;
    let selected = selection.project(shape);
    format!(
        "{{\"type\":\"columns\",\"id\":{id},\"host\":\"{}\",\"shape\":\"{}\",\"columns\":{}}}",
        published.host,
        shape.id(),
        selected.columns
    )
}

/// Backfill of a host by column. A change of the shape starts a new entry. Entries are encoded when they are
/// needed.
pub fn backfill_entries<'a>(
    snapshots: &'a [Arc<PublishedSnapshot>],
    selection: &'a Selection,
) -> impl Iterator<Item = String> + 'a {
    let same_shape = |a: &Arc<PublishedSnapshot>, b: &Arc<PublishedSnapshot>| {
        a.snapshot.shape.id() == b.snapshot.shape.id()
    };
    let max_rows = |snapshots: &[Arc<PublishedSnapshot>]| {
        // A value takes about six characters.
        let columns = selection.project(&snapshots[0].snapshot.shape).indices.len();
        (TARGET_MESSAGE_BYTES / (6 * columns + 16)).max(1)
    };
    let runs = snapshots.chunk_by(same_shape);
    let chunks = runs.flat_map(move |run| run.chunks(max_rows(run)));
    chunks.map(|chunk| backfill_entry(chunk, selection))
}

fn backfill_entry(snapshots: &[Arc<PublishedSnapshot>], selection: &Selection) -> String {
    let (first, last) = (&snapshots[0], &snapshots[snapshots.len() - 1]);
    let selected = selection.project(&first.snapshot.shape);
    let mut out = String::with_capacity(64 + snapshots.len() * selected.indices.len() * 5);
    let _ = write!(
        out,
        "{{\"host\":\"{}\",\"shape\":\"{}\",\"interval_ms\":{},\"columns\":{},\"t\":",
        first.host,
        first.snapshot.shape.id(),
        last.snapshot.interval_ms,
        selected.columns
    );
    push_values(&mut out, snapshots.iter().map(|published| published.snapshot.at_ms));
    out.push_str(",\"v\":[");
    for (position, &index) in selected.indices.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        let value = |published: &Arc<PublishedSnapshot>| {
            published.snapshot.values.get(index).copied().unwrap_or(MISSING)
        };
        push_values(&mut out, snapshots.iter().map(value));
    }
    out.push(']');
    if selection.processes {
        push_processes(&mut out, &last.snapshot.processes);
    }
    out.push('}');
    out
}

/// Backfill messages of a host for a client that polls.
pub fn backfill_of_host(snapshots: &mut Vec<Arc<PublishedSnapshot>>, selection: &Selection) -> Vec<String> {
    crate::recent_window::keep_newest(snapshots, selection);
    let mut builder = BackfillBuilder::new(0);
    let mut messages: Vec<String> =
        backfill_entries(snapshots, selection).filter_map(|entry| builder.push(entry)).collect();
    messages.extend(builder.finish());
    messages
}

/// Backfill message with entries of hosts.
pub fn backfill(id: u32, entries: &[String]) -> String {
    format!("{{\"type\":\"backfill\",\"id\":{id},\"hosts\":[{}]}}", entries.join(","))
}

/// Combines backfill entries to messages of about the target size.
#[derive(Debug)]
pub struct BackfillBuilder {
    id: u32,
    entries: Vec<String>,
    bytes: usize,
    has_messages: bool,
}

impl BackfillBuilder {
    /// Builder for the backfill of a subscription.
    pub fn new(id: u32) -> Self {
        Self { id, entries: Vec::new(), bytes: 0, has_messages: false }
    }

    /// Adds an entry. Returns the previous entries as a message if the entry does not fit.
    pub fn push(&mut self, entry: String) -> Option<String> {
        let is_full = !self.entries.is_empty() && self.bytes + entry.len() > TARGET_MESSAGE_BYTES;
        let full = is_full.then(|| {
            (self.bytes, self.has_messages) = (0, true);
            backfill(self.id, &std::mem::take(&mut self.entries))
        });
        self.bytes += entry.len();
        self.entries.push(entry);
        full
    }

    /// Last message. Without entries there is still one message, which completes the backfill.
    pub fn finish(self) -> Option<String> {
        let is_needed = !self.entries.is_empty() || !self.has_messages;
        is_needed.then(|| backfill(self.id, &self.entries))
    }
}

/// Splits entries into chunks of about the target message size, at least one entry each, in order.
pub fn chunk_by_size<T>(entries: &[T], size: fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut remaining = entries;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fitting = remaining.iter().take_while(|entry| {
            sum += size(entry);
            sum <= TARGET_MESSAGE_BYTES
        });
        let count = fitting.count().max(1).min(remaining.len());
        let (chunk, tail) = remaining.split_at(count);
        remaining = tail;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Notice to a slow client, with the number of snapshots that were not sent, if the client may see all of them. A new
/// subscription backfills them.
pub fn lagged(dropped: Option<u64>) -> String {
    match dropped {
        Some(dropped) => format!("{{\"type\":\"lagged\",\"dropped\":{dropped}}}"),
        None => "{\"type\":\"lagged\"}".to_owned(),
    }
}

/// Response to a `ping`, with its number.
pub fn pong(number: u32) -> String {
    format!("{{\"type\":\"pong\",\"ping\":{number}}}")
}

/// Response to an invalid client message.
pub fn error(code: &str, message: &str) -> String {
    serde_json::json!({ "type": "error", "error": { "code": code, "message": message } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_order_and_size() {
        let sizes = [1, TARGET_MESSAGE_BYTES, 5, TARGET_MESSAGE_BYTES - 5, 1, TARGET_MESSAGE_BYTES * 2, 1];
        let chunks: Vec<&[usize]> = chunk_by_size(&sizes, |&size| size).collect();
        assert_eq!(chunks.concat(), sizes);
        let is_bounded =
            |chunk: &&[usize]| chunk.len() == 1 || chunk.iter().sum::<usize>() <= TARGET_MESSAGE_BYTES;
        assert!(chunks.iter().all(is_bounded), "{chunks:?}");
        let empty = BackfillBuilder::new(3).finish();
        assert_eq!(empty.as_deref(), Some("{\"type\":\"backfill\",\"id\":3,\"hosts\":[]}"));
        let mut builder = BackfillBuilder::new(3);
        let long = "x".repeat(TARGET_MESSAGE_BYTES - 1);
        assert_eq!([long.clone(), "y".into()].map(|entry| builder.push(entry)), [None, None]);
        assert_eq!(builder.push("z".into()).unwrap(), backfill(3, &[long, "y".into()]));
        assert_eq!(builder.finish().unwrap(), backfill(3, &["z".into()]));
    }
}
