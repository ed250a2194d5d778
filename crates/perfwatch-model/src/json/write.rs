//! Writes snapshots as JSON text. The nesting depends on the shape only, so the text between the
//! values is built once per shape as a template.

use crate::fixed_point::write_scaled;
use crate::shape::instance_path;
use crate::snapshot::{HostRef, ProcessRow, Snapshot};
use crate::{Column, HostId};
use serde::Serialize;

/// Value that is inserted after a text segment.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Placeholder {
    Value(usize),
    Processes,
}

/// JSON text around the values of one shape.
#[derive(Debug)]
pub struct JsonTemplate {
    /// Text segments, each followed by the value that its placeholder names.
    segments: Vec<(String, Placeholder)>,
    tail: String,
}

enum JsonNode {
    Leaf(Placeholder),
    Branch(Vec<(String, JsonNode)>),
}

impl JsonNode {
    fn insert(&mut self, path: &[&str], placeholder: Placeholder) {
        match self {
            JsonNode::Branch(children) => {
                let (first, rest) = path.split_first().unwrap_or((&"", &[]));
                let index = children.iter().position(|(key, _)| key == first).unwrap_or_else(|| {
                    children.push(((*first).to_owned(), JsonNode::Branch(Vec::new())));
                    children.len() - 1
                });
                let child = &mut children[index].1;
                match child {
                    // An empty branch at the end of the path becomes the leaf.
                    JsonNode::Branch(inner) if rest.is_empty() && inner.is_empty() => {
                        *child = JsonNode::Leaf(placeholder)
                    }
                    _ => child.insert(rest, placeholder),
                }
            }
            // Duplicate names: the first value wins.
            JsonNode::Leaf(_) if path.is_empty() => {}
            // A name that is also a group (`load` and `load.one`) becomes a group; its value moves
            // under the empty key.
            JsonNode::Leaf(existing) => {
                let mut branch = JsonNode::Branch(vec![(String::new(), JsonNode::Leaf(*existing))]);
                branch.insert(path, placeholder);
                *self = branch;
            }
        }
    }

    fn write(&self, text: &mut String, segments: &mut Vec<(String, Placeholder)>) {
        match self {
            JsonNode::Leaf(placeholder) => segments.push((std::mem::take(text), *placeholder)),
            JsonNode::Branch(children) => {
                text.push('{');
                for (index, (key, child)) in children.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    push_json(text, key);
                    text.push(':');
                    child.write(text, segments);
                }
                text.push('}');
            }
        }
    }
}

impl JsonTemplate {
    pub(crate) fn new(columns: &[Column]) -> Self {
        let mut root = JsonNode::Branch(Vec::new());
        let mut sorted: Vec<usize> = (0..columns.len()).collect();
        // Metrics of a group are adjacent in the text, regardless of the column order.
        sorted.sort_by_key(|&index| columns[index].metric.split('.').next().map(str::to_owned));
        for index in sorted {
            let column = &columns[index];
            let node;
            let mut path: Vec<&str>;
            if column.dimension.is_empty() || column.instance.is_empty() {
                path = column.metric.split('.').collect();
            } else {
                node = instance_path(&column.metric, &column.dimension);
                path = node.split('.').collect();
                path.push(&column.instance);
                path.push(column.metric.rsplit('.').next().unwrap_or_default());
            }
            root.insert(&path, Placeholder::Value(index));
        }
        root.insert(&["processes", "top"], Placeholder::Processes);
        let (mut text, mut segments) = (String::new(), Vec::new());
        root.write(&mut text, &mut segments);
        // `write_snapshot` writes the opening brace, because the snapshot's own keys come first.
        if let Some((first, _)) = segments.first_mut() {
            first.remove(0);
        }
        Self { segments, tail: text }
    }

    fn write(&self, out: &mut String, snapshot: &Snapshot) {
        let columns = snapshot.shape.columns();
        for (text, placeholder) in &self.segments {
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
        out.push_str(&self.tail);
    }
}

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
    snapshot.shape.json_template().write(out, snapshot);
}

/// JSON representation of a [`ProcessRow`].
#[derive(Serialize)]
pub struct ProcessJson<'a> {
    pub pid: u32,
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

fn push_json(out: &mut String, value: &(impl Serialize + ?Sized)) {
    // Serialization of strings, numbers and structs of them cannot fail.
    out.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
}
