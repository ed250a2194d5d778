//! Agent → hub, the compact form: protobuf (field numbers are for ever; unknown fields are
//! skipped, missing ones have defaults), usually inside zstd. `docs/WIRE-FORMAT.md` tells it in full.
//!
//! A batch names each snapshot's shape; the columns themselves travel only when the hub asks
//! for them. Snapshots stay encoded inside a batch, so the agent's spool holds the very bytes
//! that are sent, and a snapshot that does not decode costs only itself.

use crate::fixed_point::MAX_DECIMALS;
use crate::snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};
use crate::{BootId, Column, HostId, Shape, ShapeId, limits};
use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// What `Content-Type` says of a compact batch.
pub const CONTENT_TYPE: &str = "application/vnd.perfwatch.batch.v1+protobuf";

/// Some snapshots of one host, oldest first.
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    /// The host's UUID, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub host_id: Bytes,
    /// What people call it.
    #[prost(string, tag = "2")]
    pub host_name: String,
    /// Shapes that the hub asked for, each encoded by [`encode_shape`].
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub shapes: Vec<Bytes>,
    /// Each encoded by [`encode_snapshot`].
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub snapshots: Vec<Bytes>,
    /// The sender's wall clock when it sent, milliseconds since 1970: tells its skew.
    #[prost(int64, tag = "5")]
    pub sent_at_ms: i64,
    /// What changes rarely; sent along with shapes, for a hub that doesn't know the host.
    #[prost(message, optional, tag = "6")]
    pub facts: Option<FactsMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeMessage {
    #[prost(message, repeated, tag = "1")]
    columns: Vec<ColumnMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ColumnMessage {
    #[prost(string, tag = "1")]
    metric: String,
    #[prost(string, tag = "2")]
    dimension: String,
    #[prost(string, tag = "3")]
    instance: String,
    #[prost(uint32, tag = "4")]
    decimals: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotMessage {
    #[prost(bytes = "bytes", tag = "1")]
    boot: Bytes,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(int64, tag = "3")]
    at_ms: i64,
    #[prost(uint32, tag = "4")]
    interval_ms: u32,
    #[prost(bytes = "bytes", tag = "5")]
    shape: Bytes,
    #[prost(sint64, repeated, tag = "6")]
    values: Vec<i64>,
    #[prost(message, repeated, tag = "7")]
    processes: Vec<ProcessMessage>,
    #[prost(message, optional, tag = "8")]
    facts: Option<FactsMessage>,
    #[prost(message, repeated, tag = "9")]
    errors: Vec<ErrorMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ProcessMessage {
    #[prost(uint32, tag = "1")]
    pid: u32,
    // Texts, which must not cost a copy each: most are known already.
    #[prost(bytes = "bytes", tag = "2")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    user: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    command: Bytes,
    #[prost(uint32, tag = "5")]
    state: u32,
    #[prost(uint32, tag = "6")]
    cpu_tenths: u32,
    #[prost(uint64, tag = "7")]
    memory_bytes: u64,
    #[prost(uint32, tag = "8")]
    threads: u32,
    #[prost(uint32, optional, tag = "9")]
    handles: Option<u32>,
    #[prost(uint64, optional, tag = "10")]
    read_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    write_bytes: Option<u64>,
    #[prost(int64, tag = "12")]
    started_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorMessage {
    #[prost(string, tag = "1")]
    collector: String,
    #[prost(string, tag = "2")]
    message: String,
}

/// [`HostFacts`] on the wire.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of HostFacts")]
pub struct FactsMessage {
    #[prost(string, tag = "1")]
    pub os: String,
    #[prost(string, tag = "2")]
    pub kernel: String,
    #[prost(string, tag = "3")]
    pub arch: String,
    #[prost(string, tag = "4")]
    pub cpu_model: String,
    #[prost(uint32, tag = "5")]
    pub cores: u32,
    #[prost(uint64, tag = "6")]
    pub memory_bytes: u64,
    #[prost(int64, tag = "7")]
    pub boot_time_ms: i64,
    #[prost(string, tag = "8")]
    pub agent_version: String,
}

/// What the hub answers to `POST /ingest/metrics`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct IngestResponse {
    /// Snapshots taken in; durable when this is sent.
    pub accepted: usize,
    /// Snapshots that were there already.
    pub duplicates: usize,
    /// Snapshots that never will be taken in, by their place in the batch.
    pub rejected: Vec<RejectedSnapshot>,
    /// The hub does not know this host's facts: send them along next time.
    pub facts_requested: bool,
    /// How often the hub wants a snapshot, milliseconds; none if it leaves that to the agent.
    pub interval_ms: Option<u32>,
}

/// One refused snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedSnapshot {
    /// Place in the batch, from 0.
    pub index: usize,
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The error code of an answer that asks for shapes and facts.
pub const ERROR_UNKNOWN_SHAPE: &str = "unknown_shape";

/// Why bytes are no batch, shape or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not protobuf, or cut off.
    #[error("not a PerfWatch message: {0}")]
    Malformed(String),
    /// Decodes, but says something that can't be.
    #[error("{0}")]
    Invalid(String),
    /// The columns of this shape were not sent yet.
    #[error("shape {0} is not known here")]
    UnknownShape(ShapeId),
}

fn malformed(error: &prost::DecodeError) -> WireError {
    WireError::Malformed(error.to_string())
}

const TEXT_TOO_LONG: &str = "a text is too long";

fn invalid<T>(message: impl Into<String>) -> Result<T, WireError> {
    Err(WireError::Invalid(message.into()))
}

/// Dotted words of `a-z`, `0-9` and `_`, none empty, not one of the snapshot's own keys.
pub fn is_metric_name(name: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    name.len() <= limits::MAX_METRIC_NAME_BYTES
        && name.split('.').all(word)
        && !crate::json::RESERVED.contains(&name.split('.').next().unwrap_or_default())
}

impl Batch {
    /// Who it is from.
    ///
    /// # Errors
    /// [`WireError::Invalid`] without a UUID or a name of fair length.
    pub fn host(&self) -> Result<HostRef, WireError> {
        let Ok(id) = Uuid::from_slice(&self.host_id) else {
            return invalid("host_id is not a UUID of 16 bytes");
        };
        Ok(HostRef { id: Some(HostId(id)), name: self.host_name.clone() })
    }
}

/// Encodes a batch.
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    batch.encode_to_vec()
}

/// Decodes the outside of a batch; shapes and snapshots stay encoded.
///
/// # Errors
/// [`WireError::Malformed`] for anything that is no batch.
pub fn decode_batch(bytes: Bytes) -> Result<Batch, WireError> {
    Batch::decode(bytes).map_err(|error| malformed(&error))
}

/// Encodes the columns of a shape.
pub fn encode_shape(shape: &Shape) -> Bytes {
    let columns = shape.columns().iter().map(|column| ColumnMessage {
        metric: column.metric.to_string(),
        dimension: column.dimension.to_string(),
        instance: column.instance.to_string(),
        decimals: u32::from(column.decimals),
    });
    ShapeMessage { columns: columns.collect() }.encode_to_vec().into()
}

/// Decodes the columns of a shape; its name is computed, never believed.
///
/// # Errors
/// Malformed bytes, too many columns, or a column that no metric can have.
pub fn decode_shape(bytes: Bytes) -> Result<Shape, WireError> {
    if bytes.len() > limits::MAX_SHAPE_BYTES {
        return invalid(format!("a shape of more than {} bytes", limits::MAX_SHAPE_BYTES));
    }
    let message = ShapeMessage::decode(bytes).map_err(|error| malformed(&error))?;
    if message.columns.len() > limits::MAX_COLUMNS {
        return invalid(format!(
            "a shape of {} columns; {} are allowed",
            message.columns.len(),
            limits::MAX_COLUMNS
        ));
    }
    let mut columns = Vec::with_capacity(message.columns.len());
    for column in message.columns {
        if !is_metric_name(&column.metric) {
            return invalid(format!("{:?} is not a metric name", column.metric));
        }
        if column.instance.len() > limits::MAX_INSTANCE_BYTES
            || column.dimension.len() > limits::MAX_METRIC_NAME_BYTES
        {
            return invalid(format!("the instance of {} is too long", column.metric));
        }
        let Some(decimals) = u8::try_from(column.decimals).ok().filter(|&d| d <= MAX_DECIMALS) else {
            return invalid(format!("{} can't have {} decimals", column.metric, column.decimals));
        };
        columns.push(Column {
            metric: column.metric.into(),
            dimension: column.dimension.into(),
            instance: column.instance.into(),
            decimals,
        });
    }
    let mut seen = HashSet::with_capacity(columns.len());
    if let Some(twice) = columns.iter().find(|c: &&Column| !seen.insert((&c.metric, &c.instance))) {
        return invalid(format!("{} {:?} stands twice in a shape", twice.metric, twice.instance));
    }
    Ok(Shape::new(columns))
}

/// Encodes one snapshot; its shape goes by name.
pub fn encode_snapshot(snapshot: &Snapshot) -> Bytes {
    let process = |row: &ProcessRow| ProcessMessage {
        pid: row.pid,
        name: Bytes::copy_from_slice(row.name.as_bytes()),
        user: Bytes::copy_from_slice(row.user.as_bytes()),
        command: Bytes::copy_from_slice(row.command.as_bytes()),
        state: u32::from(row.state),
        cpu_tenths: row.cpu_tenths,
        memory_bytes: row.memory_bytes,
        threads: row.threads,
        handles: row.open_files,
        read_bytes: row.read_bytes,
        write_bytes: row.write_bytes,
        started_ms: row.started_ms,
    };
    let error = |error: &CollectorError| ErrorMessage {
        collector: error.collector.clone(),
        message: error.message.clone(),
    };
    let message = SnapshotMessage {
        boot: Bytes::copy_from_slice(snapshot.boot.0.as_bytes()),
        seq: snapshot.seq,
        at_ms: snapshot.at_ms,
        interval_ms: snapshot.interval_ms,
        shape: Bytes::copy_from_slice(&snapshot.shape.id().0),
        values: snapshot.values.clone(),
        processes: snapshot.processes.iter().map(process).collect(),
        facts: snapshot.facts.as_deref().map(facts_to_message),
        errors: snapshot.errors.iter().map(error).collect(),
    };
    message.encode_to_vec().into()
}

/// Decodes one snapshot, finding its shape through `shapes` and the one copy of a text through
/// `texts`.
///
/// # Errors
/// Malformed bytes, a shape that `shapes` doesn't have, or values that don't fit it.
pub fn decode_snapshot(
    bytes: Bytes,
    shapes: &dyn Fn(ShapeId) -> Option<Arc<Shape>>,
    texts: &dyn Fn(&str) -> Arc<str>,
) -> Result<Snapshot, WireError> {
    let message = SnapshotMessage::decode(bytes).map_err(|error| malformed(&error))?;
    let Ok(id) = <[u8; 16]>::try_from(&message.shape[..]) else {
        return invalid("a shape's name has 16 bytes");
    };
    let Ok(boot) = Uuid::from_slice(&message.boot) else {
        return invalid("boot is not a UUID of 16 bytes");
    };
    let shape = shapes(ShapeId(id)).ok_or(WireError::UnknownShape(ShapeId(id)))?;
    if shape.columns().len() != message.values.len() {
        return invalid(format!("{} values for {} columns", message.values.len(), shape.columns().len()));
    }
    if message.processes.len() > limits::MAX_PROCESSES || message.errors.len() > limits::MAX_COLLECTOR_ERRORS
    {
        return invalid("too many processes or errors in one snapshot");
    }
    let long = |text: &str| text.len() > limits::MAX_TEXT_BYTES;
    if message.errors.iter().any(|e| long(&e.collector) || long(&e.message)) {
        return invalid(TEXT_TOO_LONG);
    }
    let process = |message| process_row(message, texts);
    Ok(Snapshot {
        boot: BootId(boot),
        seq: message.seq,
        at_ms: message.at_ms,
        interval_ms: message.interval_ms,
        shape,
        values: message.values,
        processes: message.processes.iter().map(process).collect::<Result<_, _>>()?,
        facts: message.facts.map(|facts| Arc::new(facts_from_message(facts))),
        errors: message
            .errors
            .into_iter()
            .map(|error| CollectorError { collector: error.collector, message: error.message })
            .collect(),
    })
}

fn process_row(message: &ProcessMessage, texts: &dyn Fn(&str) -> Arc<str>) -> Result<ProcessRow, WireError> {
    let text = |bytes: &Bytes| match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= limits::MAX_TEXT_BYTES => Ok(texts(text)),
        Ok(_) => invalid(TEXT_TOO_LONG),
        Err(_) => invalid("a process has a name that is no UTF-8"),
    };
    Ok(ProcessRow {
        pid: message.pid,
        name: text(&message.name)?,
        user: text(&message.user)?,
        command: text(&message.command)?,
        state: char::from_u32(message.state).unwrap_or('?'),
        cpu_tenths: message.cpu_tenths,
        memory_bytes: message.memory_bytes,
        threads: message.threads,
        open_files: message.handles,
        read_bytes: message.read_bytes,
        write_bytes: message.write_bytes,
        started_ms: message.started_ms,
    })
}

/// Facts as they travel.
pub fn facts_to_message(facts: &HostFacts) -> FactsMessage {
    FactsMessage {
        os: facts.os.clone(),
        kernel: facts.kernel.clone(),
        arch: facts.arch.clone(),
        cpu_model: facts.cpu_model.clone(),
        cores: facts.cores,
        memory_bytes: facts.memory_bytes,
        boot_time_ms: facts.boot_time_ms,
        agent_version: facts.agent_version.clone(),
    }
}

/// Facts alone, as blocks and stores keep them.
pub fn encode_facts(facts: &HostFacts) -> Vec<u8> {
    facts_to_message(facts).encode_to_vec()
}

/// Reads what [`encode_facts`] wrote.
///
/// # Errors
/// [`WireError::Malformed`] for anything else.
pub fn decode_facts(bytes: &[u8]) -> Result<HostFacts, WireError> {
    FactsMessage::decode(bytes).map(facts_from_message).map_err(|error| malformed(&error))
}

/// Facts as they arrived, each text cut to [`limits::TEXT_BYTES`].
pub fn facts_from_message(message: FactsMessage) -> HostFacts {
    truncate_facts(HostFacts {
        os: message.os,
        kernel: message.kernel,
        arch: message.arch,
        cpu_model: message.cpu_model,
        cores: message.cores,
        memory_bytes: message.memory_bytes,
        boot_time_ms: message.boot_time_ms,
        agent_version: message.agent_version,
    })
}

/// Facts from outside, each text cut to [`limits::TEXT_BYTES`].
pub(crate) fn truncate_facts(facts: HostFacts) -> HostFacts {
    let cut = |mut text: String| {
        let end = (0..=limits::MAX_TEXT_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        text
    };
    HostFacts {
        os: cut(facts.os),
        kernel: cut(facts.kernel),
        arch: cut(facts.arch),
        cpu_model: cut(facts.cpu_model),
        agent_version: cut(facts.agent_version),
        ..facts
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
