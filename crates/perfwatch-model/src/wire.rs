//! Wire format of batches from agents to the hub: protobuf, usually compressed with zstd.
//! Specified in `docs/WIRE-FORMAT.md`. Field numbers never change; unknown fields are skipped,
//! missing fields have defaults.
//!
//! A snapshot references its shape by id; the columns are sent only if the hub requests them.
//! Snapshots stay encoded inside a batch, so the agent's spool contains the bytes that are sent,
//! and a snapshot that cannot be decoded does not affect the others.

mod clean;
mod count;
mod process;
mod reduce;

pub(crate) use clean::clean_facts;
pub use clean::decode_sent_shape;
pub use reduce::{reduce_snapshot, shrink_snapshot};

use crate::fixed_point::MAX_DECIMALS;
use crate::printable::printable_within;
use crate::snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};
use crate::{BootId, CollectorRequests, Column, HostId, Shape, ShapeId, limits};
use bytes::Bytes;
use count::{SnapshotCounts, count_fields, decoded_bytes};
use process::{ProcessMessage, text_too_long};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Maximum number of snapshots or shapes of a decoded batch; a hub accepts
/// [`limits::MAX_BATCH_SNAPSHOTS`].
const MAX_BATCH_ENTRIES: usize = 4_096;

/// Content type of a protobuf batch.
pub const CONTENT_TYPE: &str = "application/vnd.perfwatch.batch.v1+protobuf";

/// Snapshots of a single host, oldest first.
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    /// Host id as a UUID of 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub host_id: Bytes,
    /// Display name of the host.
    #[prost(string, tag = "2")]
    pub host_name: String,
    /// Shapes that the hub requested, each encoded by [`encode_shape`].
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub shapes: Vec<Bytes>,
    /// Snapshots, each encoded by [`encode_snapshot`].
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub snapshots: Vec<Bytes>,
    /// Sender's wall time at sending, milliseconds since 1970; used to compute its clock skew.
    #[prost(int64, tag = "5")]
    pub sent_at_ms: i64,
    /// Host facts; sent together with requested shapes, for a hub that has no facts of the host.
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
struct ErrorMessage {
    #[prost(string, tag = "1")]
    collector: String,
    #[prost(string, tag = "2")]
    message: String,
}

/// Protobuf message of [`HostFacts`].
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

/// JSON response of `POST /ingest/metrics`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct IngestResponse {
    /// Number of accepted snapshots; they are durable before the response is sent.
    pub accepted: usize,
    /// Number of snapshots that were already stored.
    pub duplicates: usize,
    /// Snapshots that are rejected permanently; sending them again has no effect.
    pub rejected: Vec<RejectedSnapshot>,
    /// Request to include the host facts in the next batch.
    pub facts_requested: bool,
    /// Collection interval requested by the hub, milliseconds; `None` leaves it to the agent.
    pub interval_ms: Option<u32>,
    /// Collectors that the hub asks to run less often or not at all.
    #[serde(skip_serializing_if = "CollectorRequests::is_empty")]
    pub collectors: CollectorRequests,
}

/// Permanently rejected snapshot of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedSnapshot {
    /// Index in the batch, starting at 0.
    pub index: usize,
    /// Stable error code for programs.
    pub code: String,
    /// Human-readable reason of the rejection.
    pub message: String,
}

/// Error code of a response that requests shapes and facts.
pub const ERROR_UNKNOWN_SHAPE: &str = "unknown_shape";

/// Error of decoding a batch, shape or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Invalid or truncated protobuf.
    #[error("not a PerfWatch message: {0}")]
    Malformed(String),
    /// Valid protobuf with an invalid value.
    #[error("{0}")]
    Invalid(String),
    /// Columns of the shape were not received yet.
    #[error("unknown shape {0}")]
    UnknownShape(ShapeId),
}

fn malformed(error: &prost::DecodeError) -> WireError {
    WireError::Malformed(error.to_string())
}

fn invalid<T>(message: impl Into<String>) -> Result<T, WireError> {
    Err(WireError::Invalid(message.into()))
}

/// Returns whether a name consists of non-empty words of `a-z`, `0-9` and `_` separated by dots,
/// and does not start with a reserved key of snapshot JSON.
pub fn is_metric_name(name: &str) -> bool {
    let is_word = |w: &str| !w.is_empty() && w.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    name.len() <= limits::MAX_METRIC_NAME_BYTES
        && name.split('.').all(is_word)
        && !crate::json::RESERVED.contains(&name.split('.').next().unwrap_or_default())
}

impl Batch {
    /// Host that sent the batch.
    ///
    /// # Errors
    /// Returns [`WireError::Invalid`] if the host id is not a UUID.
    pub fn host(&self) -> Result<HostRef, WireError> {
        let Ok(id) = Uuid::from_slice(&self.host_id) else {
            return invalid("host_id is not a UUID of 16 bytes");
        };
        Ok(HostRef { id: Some(HostId(id)), name: self.host_name.clone() })
    }

    /// Size in memory after the shapes and snapshots are decoded, in bytes.
    pub fn decoded_bytes(&self) -> usize {
        decoded_bytes(&self.shapes, &self.snapshots)
    }
}

/// Encodes a batch as protobuf.
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    batch.encode_to_vec()
}

/// Decodes the envelope of a batch; shapes and snapshots stay encoded.
///
/// # Errors
/// Returns [`WireError::Malformed`] if the bytes are not a batch, and [`WireError::Invalid`] for several times
/// more snapshots than a hub accepts.
pub fn decode_batch(bytes: Bytes) -> Result<Batch, WireError> {
    if [3, 4].iter().any(|tag| count_fields(&bytes, *tag) > MAX_BATCH_ENTRIES) {
        return invalid(format!("more than {MAX_BATCH_ENTRIES} snapshots or shapes"));
    }
    Batch::decode(bytes).map_err(|error| malformed(&error))
}

/// Encodes the columns of a shape as protobuf.
pub fn encode_shape(shape: &Shape) -> Bytes {
    let columns = shape.columns().iter().map(|column| ColumnMessage {
        metric: column.metric.to_string(),
        dimension: column.dimension.to_string(),
        instance: column.instance.to_string(),
        decimals: u32::from(column.decimals),
    });
    ShapeMessage { columns: columns.collect() }.encode_to_vec().into()
}

/// Decodes the columns of a shape. Its id is always computed, never received.
///
/// # Errors
/// Returns [`WireError`] for malformed bytes, too many or duplicate columns, an invalid metric name,
/// a long instance or too many decimals.
pub fn decode_shape(bytes: Bytes) -> Result<Shape, WireError> {
    if bytes.len() > limits::MAX_SHAPE_BYTES {
        return invalid(format!("shape larger than {} bytes", limits::MAX_SHAPE_BYTES));
    }
    let columns = count_fields(&bytes, 1);
    if columns > limits::MAX_COLUMNS {
        return invalid(format!("shape with {columns} columns; expected at most {}", limits::MAX_COLUMNS));
    }
    let message = ShapeMessage::decode(bytes).map_err(|error| malformed(&error))?;
    let columns = message.columns.into_iter().map(decode_column).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::with_capacity(columns.len());
    if let Some(duplicate) = columns.iter().find(|c: &&Column| !seen.insert((&c.metric, &c.instance))) {
        return invalid(format!("duplicate {} {:?} in one shape", duplicate.metric, duplicate.instance));
    }
    Ok(Shape::new(columns))
}

/// Computes the id of an encoded shape, valid or not.
///
/// # Errors
/// Returns [`WireError::Malformed`] if the bytes are not a shape.
pub fn shape_id(bytes: Bytes) -> Result<ShapeId, WireError> {
    let message = ShapeMessage::decode(bytes).map_err(|error| malformed(&error))?;
    let column = |column: ColumnMessage| Column {
        metric: column.metric.into(),
        dimension: column.dimension.into(),
        instance: column.instance.into(),
        decimals: u8::try_from(column.decimals).unwrap_or(u8::MAX),
    };
    Ok(Shape::new(message.columns.into_iter().map(column).collect()).id())
}

fn decode_column(column: ColumnMessage) -> Result<Column, WireError> {
    if !is_metric_name(&column.metric) {
        return invalid(format!("invalid metric name {:?}", column.metric));
    }
    if column.instance.len() > limits::MAX_INSTANCE_BYTES
        || column.dimension.len() > limits::MAX_METRIC_NAME_BYTES
    {
        return invalid(format!("instance or dimension of {} too long", column.metric));
    }
    let Some(decimals) = u8::try_from(column.decimals).ok().filter(|&d| d <= MAX_DECIMALS) else {
        return invalid(format!(
            "invalid decimals {} of {}; expected at most {MAX_DECIMALS}",
            column.decimals, column.metric
        ));
    };
    Ok(Column {
        metric: column.metric.into(),
        dimension: column.dimension.into(),
        instance: column.instance.into(),
        decimals,
    })
}

/// Encodes a snapshot with the id of its shape.
pub fn encode_snapshot(snapshot: &Snapshot) -> Bytes {
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
        processes: snapshot.processes.iter().map(ProcessMessage::new).collect(),
        facts: snapshot.facts.as_deref().map(facts_to_message),
        errors: snapshot.errors.iter().map(error).collect(),
    };
    message.encode_to_vec().into()
}

/// Decodes a snapshot. `shapes` looks up its shape by id, `intern` returns the shared copy of a
/// text.
///
/// # Errors
/// Returns [`WireError::UnknownShape`] if `shapes` returns `None`, and other [`WireError`]s for
/// malformed bytes, values that do not fit the shape, or exceeded limits.
pub fn decode_snapshot(
    bytes: Bytes,
    shapes: &dyn Fn(ShapeId) -> Option<Arc<Shape>>,
    intern: &dyn Fn(&str) -> Arc<str>,
) -> Result<Snapshot, WireError> {
    Ok(decode_next_snapshot(&[], bytes, shapes, intern)?.0)
}

/// Decodes a snapshot after another one of the same host, with whose processes (`previous`) it shares texts: most of them
/// are equal and need not be looked up. Also returns whether the bytes have the length and the shape of [`encode_snapshot`]:
/// they have no field that is unknown here, and may be stored.
///
/// # Errors
/// Returns the errors of [`decode_snapshot`].
pub fn decode_next_snapshot(
    previous: &[ProcessRow],
    bytes: Bytes,
    shapes: &dyn Fn(ShapeId) -> Option<Arc<Shape>>,
    intern: &dyn Fn(&str) -> Arc<str>,
) -> Result<(Snapshot, bool), WireError> {
    let counts = SnapshotCounts::new(&bytes);
    if counts.processes > limits::MAX_PROCESSES || counts.errors > limits::MAX_COLLECTOR_ERRORS {
        return invalid(format!(
            "too many processes or errors; expected at most {} and {}",
            limits::MAX_PROCESSES,
            limits::MAX_COLLECTOR_ERRORS
        ));
    }
    let mut message =
        SnapshotMessage { values: Vec::with_capacity(counts.values), ..SnapshotMessage::default() };
    let length = bytes.len();
    message.merge(bytes).map_err(|error| malformed(&error))?;
    let Ok(id) = <[u8; 16]>::try_from(&message.shape[..]) else {
        return invalid("shape id is not 16 bytes");
    };
    let Ok(boot) = Uuid::from_slice(&message.boot) else {
        return invalid("boot is not a UUID of 16 bytes");
    };
    let shape = shapes(ShapeId(id)).ok_or(WireError::UnknownShape(ShapeId(id)))?;
    // A shape whose texts were cleaned has another id than the bytes.
    let is_canonical = message.encoded_len() == length && shape.id() == ShapeId(id);
    if shape.columns().len() != message.values.len() {
        return invalid(format!("{} values for {} columns", message.values.len(), shape.columns().len()));
    }
    let is_long = |text: &str| text.len() > limits::MAX_TEXT_BYTES;
    if message.errors.iter().any(|e| is_long(&e.collector) || is_long(&e.message)) {
        return invalid(text_too_long());
    }
    let mut processes = Vec::with_capacity(message.processes.len());
    for process in &message.processes {
        processes.push(process.decode_row(previous, intern).map_err(WireError::Invalid)?);
    }
    let snapshot = Snapshot {
        boot: BootId(boot),
        seq: message.seq,
        at_ms: message.at_ms,
        interval_ms: message.interval_ms,
        shape,
        values: message.values,
        processes,
        facts: message.facts.map(|facts| Arc::new(facts_from_message(facts))),
        errors: message
            .errors
            .into_iter()
            .map(|error| CollectorError {
                collector: printable_within(&error.collector, limits::MAX_TEXT_BYTES).into_owned(),
                message: printable_within(&error.message, limits::MAX_TEXT_BYTES).into_owned(),
            })
            .collect(),
    };
    Ok((snapshot, is_canonical))
}

/// Converts facts to their protobuf message.
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

/// Encodes facts alone, for blocks and the store.
pub fn encode_facts(facts: &HostFacts) -> Vec<u8> {
    facts_to_message(facts).encode_to_vec()
}

/// Decodes the output of [`encode_facts`].
///
/// # Errors
/// Returns [`WireError::Malformed`] for other bytes.
pub fn decode_facts(bytes: &[u8]) -> Result<HostFacts, WireError> {
    FactsMessage::decode(bytes).map(facts_from_message).map_err(|error| malformed(&error))
}

/// Converts received facts; each text is truncated to [`limits::MAX_TEXT_BYTES`].
pub fn facts_from_message(message: FactsMessage) -> HostFacts {
    clean_facts(HostFacts {
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

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
