//! Writes snapshots as JSON text.

use super::push_json;
use super::template::{JsonTemplate, Placeholder};
use crate::HostId;
use crate::fixed_point::write_scaled;
use crate::snapshot::{HostRef, ProcessRow, Snapshot};
use serde::Serialize;

/// Writes a snapshot as the JSON object that `POST /ingest/metrics` accepts and the WebSocket sends.
pub fn write_snapshot(out: &mut String, id: HostId, host: &HostRef, snapshot: &Snapshot) {
    use std::fmt::Write as _;
    out.push_str("{\"timestamp\":\"");
    super::write_time(out, snapshot.at_ms);
    out.push_str("\",\"host\":");
    push_json(out, &host.name);
    let _ = write!(
        out,
        ",\"host_id\":\"{id}\",\"boot\":\"{}\",\"seq\":{},\"interval_ms\":{},",
        snapshot.boot, snapshot.seq, snapshot.interval_ms
    );
    if let Some(facts) = &snapshot.facts {
        out.push_str("\"facts\":");
        push_json(out, &**facts);
        out.push(',');
    }
    out.push_str("\"errors\":{");
    for (index, error) in snapshot.errors.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_json(out, &error.collector);
        out.push(':');
        push_json(out, &error.message);
    }
    out.push_str("},");
    write_values(snapshot.shape.json_template(), out, snapshot);
}

fn write_values(template: &JsonTemplate, out: &mut String, snapshot: &Snapshot) {
    let columns = snapshot.shape.columns();
    for (text, placeholder) in &template.segments {
        out.push_str(text);
        match *placeholder {
            Placeholder::Value(index) => {
                let value = snapshot.values.get(index).copied().unwrap_or(crate::MISSING);
                write_scaled(out, value, columns[index].decimals);
            }
            Placeholder::Processes => {
                out.push('[');
                for (index, row) in snapshot.processes.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_json(out, &process_json(row));
                }
                out.push(']');
            }
        }
    }
    out.push_str(&template.tail);
}

/// JSON representation of a [`ProcessRow`].
#[derive(Serialize)]
pub struct ProcessJson<'a> {
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    pub name: &'a str,
    pub user: &'a str,
    pub command: &'a str,
    pub state: char,
    pub cpu_percent: f64,
    pub memory_bytes: u64,
    pub threads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    pub started_ms: i64,
}

/// Converts a process row for serialization as JSON.
pub fn process_json(row: &ProcessRow) -> ProcessJson<'_> {
    ProcessJson {
        pid: row.pid,
        parent_pid: row.parent_pid,
        name: &row.name,
        user: &row.user,
        command: &row.command,
        state: row.state,
        cpu_percent: f64::from(row.cpu_tenths) / 10.0,
        memory_bytes: row.memory_bytes,
        threads: row.threads,
        open_files: row.open_files,
        read_bytes: row.read_bytes,
        write_bytes: row.write_bytes,
        started_ms: row.started_ms,
    }
}
