//! Schemas of responses that are not serialized by serde: series, snapshots and WebSocket messages are
//! written as text. Used by the OpenAPI document only.
#![expect(missing_docs, reason = "the texts of the fields are in the OpenAPI document")]

use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Envelope of all errors.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// Code and message of an error.
#[derive(Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable code for programs.
    code: String,
    /// Message for users; may change.
    message: String,
}

/// Series of a host in a time range.
#[derive(Serialize, ToSchema)]
pub struct SeriesResponse {
    host_id: Uuid,
    from_ms: i64,
    to_ms: i64,
    tier: Tier,
    /// Width of a point; 0 if each point is one sample.
    step_ms: i64,
    /// Timestamps of the points, milliseconds since 1970.
    t: Vec<i64>,
    gaps: Vec<Gap>,
    series: Vec<Series>,
}

/// Resolution of stored values.
#[derive(Serialize, ToSchema)]
pub enum Tier {
    #[serde(rename = "raw")]
    Raw,
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "1h")]
    Hour,
}

/// Time range without samples.
#[derive(Serialize, ToSchema)]
pub struct Gap {
    from_ms: i64,
    to_ms: i64,
    reason: GapReason,
}

/// Reason of a gap.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// No agent was running on the host.
    AgentStopped,
    /// Snapshots were dropped before they reached the hub.
    DataLost,
    /// The host was off or restarted.
    HostRestarted,
    /// The rows do not say why.
    Unknown,
}

/// Values of a metric and instance at each timestamp.
#[derive(Serialize, ToSchema)]
pub struct Series {
    metric: String,
    instance: String,
    #[schema(required)]
    unit: Option<String>,
    /// Mean of each point, or the sample.
    v: Vec<Option<f64>>,
    /// Minimum of each point; only with points of several samples.
    #[schema(nullable = false)]
    min: Option<Vec<Option<f64>>>,
    /// Maximum of each point; only with points of several samples.
    #[schema(nullable = false)]
    max: Option<Vec<Option<f64>>>,
}

/// Snapshot of a host at a point in time.
#[derive(Serialize, ToSchema)]
pub struct SnapshotResponse {
    at_ms: i64,
    /// Resolution of the values: the collection interval, one minute or one hour.
    resolution_ms: i64,
    snapshot: Snapshot,
}

/// Snapshot of a host. Dotted metric names are nested, instances are keys:
/// `{"cpu": {"usage": 12.5, "core": {"0": {"usage": 10}}}}`.
#[derive(Serialize, ToSchema)]
pub struct Snapshot {
    timestamp: Option<Timestamp>,
    /// Name of the host.
    host: String,
    host_id: Option<Uuid>,
    /// Boot id of the kernel.
    boot: Option<Uuid>,
    /// Number of the snapshot since the agent started.
    seq: Option<u64>,
    interval_ms: Option<u32>,
    processes: Option<Processes>,
    /// Errors by the name of the failed collector.
    errors: Option<HashMap<String, String>>,
    #[serde(flatten)]
    metrics: HashMap<String, Value>,
}

/// Milliseconds since 1970, or RFC 3339.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Timestamp {
    Milliseconds(i64),
    Text(String),
}

/// Process counts and top processes of a snapshot.
#[derive(Serialize, ToSchema)]
pub struct Processes {
    top: Option<Vec<ProcessRow>>,
    #[serde(flatten)]
    metrics: HashMap<String, Value>,
}

/// Process in a snapshot.
#[derive(Serialize, ToSchema)]
pub struct ProcessRow {
    pid: u32,
    /// Absent without a parent, and if an earlier agent recorded the process.
    #[schema(nullable = false)]
    parent_pid: Option<u32>,
    name: String,
    user: String,
    command: String,
    state: String,
    cpu_percent: f64,
    memory_bytes: u64,
    #[schema(nullable = false)]
    threads: Option<u32>,
    #[schema(nullable = false)]
    open_files: Option<u32>,
    #[schema(nullable = false)]
    read_bytes: Option<u64>,
    #[schema(nullable = false)]
    write_bytes: Option<u64>,
    started_ms: i64,
}

/// Top processes over a time range.
#[derive(Serialize, ToSchema)]
pub struct ProcessesResponse {
    host_id: Uuid,
    from_ms: i64,
    to_ms: i64,
    /// Duration covered by snapshots with processes.
    covered_ms: i64,
    /// Number of processes before `limit`.
    total: usize,
    processes: Vec<ProcessUsage>,
}

/// Usage of a process in a range.
#[derive(Serialize, ToSchema)]
pub struct ProcessUsage {
    pid: u32,
    /// Parent in the last snapshot; `null` if unknown.
    #[schema(required)]
    parent_pid: Option<u32>,
    name: String,
    user: String,
    command: String,
    started_ms: i64,
    first_ms: i64,
    last_ms: i64,
    /// Number of snapshots that contain the process.
    rows: u64,
    cpu_percent_mean: f64,
    cpu_percent_max: f64,
    memory_bytes_max: u64,
    read_bytes: u64,
    write_bytes: u64,
}

/// Recent window of a host: snapshots, or columns of the requested metrics.
#[derive(Serialize, ToSchema)]
pub struct RecentResponse {
    host_id: Uuid,
    #[schema(nullable = false)]
    snapshots: Option<Vec<Snapshot>>,
    #[schema(nullable = false)]
    times: Option<Vec<i64>>,
    #[schema(nullable = false)]
    series: Option<Vec<RecentSeries>>,
    /// Value of `before` for the next page of older snapshots; `null` on the last page.
    #[schema(required)]
    before: Option<i64>,
}

/// Values of a metric and instance in each snapshot.
#[derive(Serialize, ToSchema)]
pub struct RecentSeries {
    metric: String,
    instance: String,
    #[schema(required)]
    unit: Option<String>,
    values: Vec<Option<f64>>,
}

/// Definition of a metric in the catalog.
#[derive(Serialize, ToSchema)]
pub struct MetricDef {
    /// Dotted name of the metric.
    name: String,
    unit: String,
    /// Number of stored decimals.
    decimals: u8,
    kind: String,
    /// Label of the instances, such as `interface`; empty without instances.
    dimension: String,
    rollup: String,
    min: f64,
    #[schema(required)]
    max: Option<f64>,
    /// Description in one sentence.
    help: String,
}

/// Message of the hub over `WS /api/ws/metrics` after the first subscription. Values are integers scaled by
/// the decimals of their column.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveMessage {
    /// Recent snapshots for a new subscription.
    Backfill { id: u32, hosts: Vec<HostBackfill> },
    /// Columns of a shape, sent before its first tick.
    Columns { id: u32, host: Uuid, shape: String, columns: Vec<Column> },
    /// Accepted snapshots, one per host.
    Tick { id: u32, hosts: Vec<TickEntry> },
    /// Open incidents by severity. `revision` increases when alerts change.
    IncidentCounts { revision: u64, info: usize, warning: usize, critical: usize },
    /// Number of snapshots dropped because the client was too slow; absent for accounts that do not see all hosts. A new
    /// subscription backfills them.
    Lagged { dropped: Option<u64> },
    /// Response to a ping.
    Pong { ping: u32 },
    /// Error of a client message.
    Error { error: ErrorDetail },
}

/// Messages that a new WebSocket subscription would receive.
#[derive(Serialize, ToSchema)]
pub struct LivePollResponse {
    messages: Vec<LiveMessage>,
}

/// Recent snapshots of a host, in columns.
#[derive(Serialize, ToSchema)]
pub struct HostBackfill {
    host: Uuid,
    shape: String,
    interval_ms: u32,
    columns: Vec<Column>,
    t: Vec<i64>,
    v: Vec<Vec<Option<i64>>>,
    #[schema(nullable = false)]
    processes: Option<Vec<ProcessRow>>,
}

/// Column of a shape.
#[derive(Serialize, ToSchema)]
pub struct Column {
    metric: String,
    instance: String,
    decimals: u8,
}

/// Accepted snapshot of a host.
#[derive(Serialize, ToSchema)]
pub struct TickEntry {
    host: Uuid,
    shape: String,
    t: i64,
    seq: u64,
    interval_ms: u32,
    v: Vec<Option<i64>>,
    #[schema(nullable = false)]
    processes: Option<Vec<ProcessRow>>,
    #[schema(nullable = false)]
    errors: Option<HashMap<String, String>>,
}
