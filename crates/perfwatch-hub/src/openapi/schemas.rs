//! Shapes of what is not written by serde: long columns and whole snapshots go out as text, and
//! what goes over the WebSocket. Only the document is made of them.
#![expect(dead_code, reason = "only their shapes matter")]

use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Every error
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For programs; stays.
    code: String,
    /// For people; may change.
    message: String,
}

/// Series of one host over a range.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesResponse {
    host_id: Uuid,
    from_ms: i64,
    to_ms: i64,
    tier: Tier,
    /// Width of a point; 0 where each tick is one.
    step_ms: i64,
    /// Times of the points, milliseconds since 1970.
    t: Vec<i64>,
    gaps: Vec<Gap>,
    series: Vec<Series>,
}

/// How fine points are kept.
#[derive(Serialize, ToSchema)]
pub(crate) enum Tier {
    #[serde(rename = "raw")]
    Raw,
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "1h")]
    Hour,
}

/// A time without points.
#[derive(Serialize, ToSchema)]
pub(crate) struct Gap {
    from_ms: i64,
    to_ms: i64,
    reason: String,
}

/// One series; as many values as there are times.
#[derive(Serialize, ToSchema)]
pub(crate) struct Series {
    metric: String,
    instance: String,
    #[schema(required)]
    unit: Option<String>,
    /// Average of each point.
    v: Vec<Option<f64>>,
    /// Where a point is more than one tick.
    #[schema(nullable = false)]
    min: Option<Vec<Option<f64>>>,
    #[schema(nullable = false)]
    max: Option<Vec<Option<f64>>>,
}

/// Everything at one second.
#[derive(Serialize, ToSchema)]
pub(crate) struct SnapshotResponse {
    at_ms: i64,
    /// Of what it is made: one tick, a minute, an hour.
    resolution_ms: i64,
    snapshot: Snapshot,
}

/// One snapshot: metrics stand in it by their dotted names, nested, instances by key:
/// `{"cpu": {"usage": 12.5, "core": {"0": {"usage": 10}}}}`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// Milliseconds since 1970, or RFC 3339.
    timestamp: Option<Timestamp>,
    /// Name of the host.
    host: String,
    host_id: Option<Uuid>,
    boot: Option<Uuid>,
    seq: Option<u64>,
    interval_ms: Option<u32>,
    processes: Option<Processes>,
    /// Collectors that failed, and why.
    errors: Option<HashMap<String, String>>,
    #[serde(flatten)]
    metrics: HashMap<String, Value>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Timestamp {
    Milliseconds(i64),
    Text(String),
}

/// Processes of one tick.
#[derive(Serialize, ToSchema)]
pub(crate) struct Processes {
    top: Option<Vec<ProcessRow>>,
    #[serde(flatten)]
    metrics: HashMap<String, Value>,
}

/// One process at one tick.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProcessRow {
    pid: u32,
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
pub(crate) struct ProcessesResponse {
    host_id: Uuid,
    from_ms: i64,
    to_ms: i64,
    /// Time that there are rows of.
    covered_ms: i64,
    total: usize,
    processes: Vec<ProcessUsage>,
}

/// A process summed up over some time.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProcessUsage {
    pid: u32,
    name: String,
    user: String,
    command: String,
    started_ms: i64,
    first_ms: i64,
    last_ms: i64,
    rows: u64,
    cpu_percent_mean: f64,
    cpu_percent_max: f64,
    memory_bytes_max: u64,
    read_bytes: u64,
    write_bytes: u64,
}

/// The last minutes: whole snapshots, or columns of the metrics asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecentResponse {
    host_id: Uuid,
    #[schema(nullable = false)]
    snapshots: Option<Vec<Snapshot>>,
    #[schema(nullable = false)]
    times: Option<Vec<i64>>,
    #[schema(nullable = false)]
    series: Option<Vec<RecentSeries>>,
    /// Give it back as `before` for the page of earlier ones.
    #[schema(required)]
    before: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RecentSeries {
    metric: String,
    instance: String,
    #[schema(required)]
    unit: Option<String>,
    values: Vec<Option<f64>>,
}

/// One metric of the catalogue.
#[derive(Serialize, ToSchema)]
pub(crate) struct MetricDef {
    /// Dotted.
    name: String,
    unit: String,
    /// Digits kept after the point.
    decimals: u8,
    kind: String,
    /// What tells instances apart, or empty.
    dimension: String,
    rollup: String,
    min: f64,
    #[schema(required)]
    max: Option<f64>,
    /// One sentence.
    help: String,
}

/// What the hub says over `WS /api/ws/metrics` once something is subscribed to. Values are
/// integers scaled by their column's decimals.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum LiveMessage {
    /// The past of a new subscription.
    Backfill { id: u32, hosts: Vec<HostBackfill> },
    /// What the values of a shape are, before its first tick.
    Columns { id: u32, host: Uuid, shape: String, columns: Vec<Column> },
    /// What was just taken in.
    Tick { id: u32, hosts: Vec<TickEntry> },
    /// Open incidents by severity. `revision` increases when alerts change.
    IncidentCounts { revision: u64, info: usize, warning: usize, critical: usize },
    /// Number of snapshots dropped because the client was too slow. A new subscription backfills them.
    Lagged { dropped: u64 },
    /// The answer to a ping.
    Pong { ping: u32 },
    /// Something said was not understood.
    Error { error: ErrorDetail },
}

/// The past of one host, in columns.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostBackfill {
    host: Uuid,
    shape: String,
    interval_ms: u32,
    columns: Vec<Column>,
    t: Vec<i64>,
    v: Vec<Vec<Option<i64>>>,
    #[schema(nullable = false)]
    processes: Option<Vec<ProcessRow>>,
}

/// One column of a shape.
#[derive(Serialize, ToSchema)]
pub(crate) struct Column {
    metric: String,
    instance: String,
    decimals: u8,
}

/// One host's tick.
#[derive(Serialize, ToSchema)]
pub(crate) struct TickEntry {
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
