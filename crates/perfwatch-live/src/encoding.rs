//! JSON fragments of live messages: values, processes and the entry of a host in a `tick`.

use super::selection::Selection;
use perfwatch_model::{HostId, MISSING, ProcessRow, Snapshot, json};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Appends a JSON array of scaled values. Missing values are null.
pub(crate) fn push_values(out: &mut String, values: impl Iterator<Item = i64>) {
    out.push('[');
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = if value == MISSING { write!(out, "null") } else { write!(out, "{value}") };
    }
    out.push(']');
}

/// Appends the member `processes` with a comma before it.
pub(crate) fn push_processes(out: &mut String, rows: &[ProcessRow]) {
    let rows: Vec<_> = rows.iter().map(json::process_json).collect();
    let text = serde_json::to_string(&rows).unwrap_or_else(|_| "[]".to_owned());
    let _ = write!(out, ",\"processes\":{text}");
}

/// Entry of a host in a `tick`: the selected values of a snapshot.
pub(crate) fn tick_entry(host: HostId, snapshot: &Snapshot, selection: &Selection) -> String {
    let selected = selection.project(&snapshot.shape);
    let mut out = String::with_capacity(64 + selected.indices.len() * 6);
    let _ = write!(
        out,
        "{{\"host\":\"{host}\",\"shape\":\"{}\",\"t\":{},\"seq\":{},\"interval_ms\":{},\"v\":",
        snapshot.shape.id(),
        snapshot.at_ms,
        snapshot.seq,
        snapshot.interval_ms
    );
    let value = |&index: &usize| snapshot.values.get(index).copied().unwrap_or(MISSING);
    push_values(&mut out, selected.indices.iter().map(value));
    if selection.processes {
        push_processes(&mut out, &snapshot.processes);
    }
    if !snapshot.errors.is_empty() {
        let errors: HashMap<_, _> = snapshot.errors.iter().map(|e| (&e.collector, &e.message)).collect();
        let text = serde_json::to_string(&errors).unwrap_or_else(|_| "{}".to_owned());
        let _ = write!(out, ",\"errors\":{text}");
    }
    out.push('}');
    out
}
