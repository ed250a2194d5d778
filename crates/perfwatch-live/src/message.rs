//! What is said over the WebSocket. `docs/WEBSOCKET.md` tells it in full.
//!
//! The hub's messages, apart from whole snapshots, carry `type`: `backfill`, `columns`, `tick`,
//! `incident_counts`, `lagged`, `error`. Values are integers scaled by the column's decimals; a missing
//! value is null. Times are milliseconds since 1970.

use super::PublishedSnapshot;
use super::selection::Selection;
use perfwatch_model::{HostId, MISSING, ProcessRow, json};
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// About the most in one message: more is split, so that a slow line shows the first part soon.
const TARGET_MESSAGE_BYTES: usize = 512 << 10;

/// What a client may say over `WS /api/ws/metrics`: one of these.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientMessage {
    pub subscribe: Option<SubscribeRequest>,
    pub unsubscribe: Option<u32>,
    /// Answered by `pong`: pages can't see the protocol's own pings.
    pub ping: Option<u32>,
    /// Tells how many incidents are open, now and whenever alerts change.
    pub incident_counts: Option<bool>,
}

/// A wish. Another one with the same id takes its place.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubscribeRequest {
    /// The client's own number for it, given back with each message.
    #[serde(default)]
    pub id: u32,
    /// Ids or names; none means all hosts.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Names, or groups as `cpu.*`; none means all metrics.
    #[serde(default)]
    pub metrics: Vec<String>,
    #[serde(default)]
    pub processes: bool,
    /// Seconds of the past to send first, at most 300.
    #[serde(default)]
    pub backfill_s: u32,
    /// Host id → time: back-fill only what is newer.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = HashMap<String, i64>))]
    pub since: HashMap<HostId, i64>,
}

fn push_value(out: &mut String, value: i64) {
    // Writing to a String can't fail.
    let _ = if value == MISSING { write!(out, "null") } else { write!(out, "{value}") };
}

fn push_processes(out: &mut String, rows: &[ProcessRow]) {
    let rows: Vec<_> = rows.iter().map(json::process_json).collect();
    let _ =
        write!(out, ",\"processes\":{}", serde_json::to_string(&rows).unwrap_or_else(|_| "[]".to_owned()));
}

/// How many incidents are open: info, warning, critical.
pub fn incident_counts(revision: u64, [info, warning, critical]: [usize; 3]) -> String {
    format!(
        "{{\"type\":\"incident_counts\",\"revision\":{revision},\
         \"info\":{info},\"warning\":{warning},\"critical\":{critical}}}"
    )
}

/// One host in a `tick`.
pub fn tick_entry(accepted: &PublishedSnapshot, selection: &Selection) -> String {
    let snapshot = &accepted.snapshot;
    let picked = selection.project(&snapshot.shape);
    let mut out = String::with_capacity(64 + picked.indices.len() * 6);
    let _ = write!(
        out,
        "{{\"host\":\"{}\",\"shape\":\"{}\",\"t\":{},\"seq\":{},\"interval_ms\":{},\"v\":[",
        accepted.host,
        snapshot.shape.id(),
        snapshot.at_ms,
        snapshot.seq,
        snapshot.interval_ms
    );
    for (at, &index) in picked.indices.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_value(&mut out, snapshot.values.get(index).copied().unwrap_or(MISSING));
    }
    out.push(']');
    if selection.processes {
        push_processes(&mut out, &snapshot.processes);
    }
    if !snapshot.errors.is_empty() {
        let errors: HashMap<_, _> = snapshot.errors.iter().map(|e| (&e.collector, &e.message)).collect();
        let _ =
            write!(out, ",\"errors\":{}", serde_json::to_string(&errors).unwrap_or_else(|_| "{}".to_owned()));
    }
    out.push('}');
    out
}

/// The message around entries.
pub fn tick<'a>(id: u32, entries: impl Iterator<Item = &'a str>) -> String {
    let mut out = format!("{{\"type\":\"tick\",\"id\":{id},\"hosts\":[");
    for (at, entry) in entries.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(entry);
    }
    out.push_str("]}");
    out
}

/// What the columns of a shape are, before the first tick that has it.
pub fn columns(id: u32, accepted: &PublishedSnapshot, selection: &Selection) -> String {
    let shape = &accepted.snapshot.shape;
    let picked = selection.project(shape);
    format!(
        "{{\"type\":\"columns\",\"id\":{id},\"host\":\"{}\",\"shape\":\"{}\",\"columns\":{}}}",
        accepted.host,
        shape.id(),
        picked.columns
    )
}

/// The past of one host in columns; where its shape changed, one entry a shape.
pub fn backfill_entries(past: &[Arc<PublishedSnapshot>], selection: &Selection) -> Vec<String> {
    let same_shape = |a: &Arc<PublishedSnapshot>, b: &Arc<PublishedSnapshot>| {
        a.snapshot.shape.id() == b.snapshot.shape.id()
    };
    let rows = |run: &[Arc<PublishedSnapshot>]| {
        // A value takes about six characters.
        let columns = selection.project(&run[0].snapshot.shape).indices.len();
        (TARGET_MESSAGE_BYTES / (6 * columns + 16)).max(1)
    };
    let runs = past.chunk_by(same_shape);
    runs.flat_map(|run| run.chunks(rows(run))).map(|run| backfill_entry(run, selection)).collect()
}

fn backfill_entry(run: &[Arc<PublishedSnapshot>], selection: &Selection) -> String {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let picked = selection.project(&first.snapshot.shape);
    let mut out = String::with_capacity(64 + run.len() * picked.indices.len() * 5);
    let list = |out: &mut String, values: &mut dyn Iterator<Item = i64>| {
        out.push('[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_value(out, value);
        }
        out.push(']');
    };
    let _ = write!(
        out,
        "{{\"host\":\"{}\",\"shape\":\"{}\",\"interval_ms\":{},\"columns\":{},\"t\":",
        first.host,
        first.snapshot.shape.id(),
        last.snapshot.interval_ms,
        picked.columns
    );
    list(&mut out, &mut run.iter().map(|accepted| accepted.snapshot.at_ms));
    out.push_str(",\"v\":[");
    for (at, &index) in picked.indices.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        list(&mut out, &mut run.iter().map(|a| a.snapshot.values.get(index).copied().unwrap_or(MISSING)));
    }
    out.push(']');
    if selection.processes {
        push_processes(&mut out, &last.snapshot.processes);
    }
    out.push('}');
    out
}

/// The messages around back-fill: one at least, so that a client knows when it has all.
pub fn backfill(id: u32, entries: &[String]) -> Vec<String> {
    let message = |entries: &[String]| {
        format!("{{\"type\":\"backfill\",\"id\":{id},\"hosts\":[{}]}}", entries.join(","))
    };
    if entries.is_empty() {
        return vec![message(&[])];
    }
    chunk_by_size(entries, String::len).map(message).collect()
}

/// Neighbours together as long as they stay within a message's size.
pub fn chunk_by_size<T>(entries: &[T], size: fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fit = rest.iter().take_while(|entry| {
            sum += size(entry);
            sum <= TARGET_MESSAGE_BYTES
        });
        let count = fit.count().max(1).min(rest.len());
        let (bite, left) = rest.split_at(count);
        rest = left;
        (!bite.is_empty()).then_some(bite)
    })
}

/// The reader was too slow; what it missed is in the back-fill of a new subscription.
pub fn lagged(dropped: u64) -> String {
    format!("{{\"type\":\"lagged\",\"dropped\":{dropped}}}")
}

/// The connection works.
pub fn pong(number: u32) -> String {
    format!("{{\"type\":\"pong\",\"ping\":{number}}}")
}

/// The client said something that can't be.
pub fn error(code: &str, message: &str) -> String {
    serde_json::json!({ "type": "error", "error": { "code": code, "message": message } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_order_and_size() {
        let sizes = [1, TARGET_MESSAGE_BYTES, 5, TARGET_MESSAGE_BYTES - 5, 1, TARGET_MESSAGE_BYTES * 2, 1];
        let bites: Vec<&[usize]> = chunk_by_size(&sizes, |&size| size).collect();
        assert_eq!(bites.concat(), sizes);
        let fits = |bite: &&[usize]| bite.len() == 1 || bite.iter().sum::<usize>() <= TARGET_MESSAGE_BYTES;
        assert!(bites.iter().all(fits), "{bites:?}");
        assert_eq!(backfill(3, &[]), ["{\"type\":\"backfill\",\"id\":3,\"hosts\":[]}"]);
    }
}
