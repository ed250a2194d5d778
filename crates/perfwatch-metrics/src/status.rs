//! Status of the hub as the API shows it.

use perfwatch_history::History;
use perfwatch_http::proxy_check::ProxyFault;
use serde::Serialize;

/// Status of the hub and its process.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SystemResponse {
    /// Version of the hub.
    pub version: &'static str,
    /// Time since the start.
    pub uptime_s: u64,
    /// Time of the hub, Unix milliseconds.
    pub now_ms: i64,
    /// Number of visible hosts.
    pub hosts: usize,
    /// Number of open WebSocket connections.
    pub websocket_clients: usize,
    /// Snapshots accepted since the start.
    pub accepted_snapshots: u64,
    /// Enabled rules.
    pub rules: usize,
    /// Number of processors.
    pub cores: usize,
    /// Disk usage and retention.
    pub storage: StorageResponse,
    /// Resident memory of the process.
    pub memory_bytes: Option<u64>,
    /// CPU time of the process since its start.
    pub cpu_seconds: Option<f64>,
    /// Base URL of links in notifications.
    pub notification_base_url: String,
    /// Faults of reverse proxies, and links that lead to the machine of their reader.
    pub address_faults: Vec<ProxyFault>,
}

/// Disk usage and retention of the history.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StorageResponse {
    /// Database: `sqlite` or `postgresql`.
    pub backend: &'static str,
    /// Size of the files or relations.
    pub disk_bytes: u64,
    /// Disk budget.
    pub budget_bytes: u64,
    /// Size of the raw blocks.
    pub raw_bytes: u64,
    /// Size of the minute blocks.
    pub minute_bytes: u64,
    /// Size of the hour blocks.
    pub hour_bytes: u64,
    /// Size of the rows that are not sealed yet.
    pub head_bytes: u64,
    /// Used part of `disk_bytes`.
    pub used_bytes: u64,
    /// Retention of raw rows.
    pub raw_retention_s: u64,
    /// Retention of minutes.
    pub minute_retention_s: u64,
    /// Retention of hours.
    pub hour_retention_s: u64,
    /// Reason why ingestion is blocked; `null` while it is not.
    pub ingest_blocked: Option<String>,
}

impl StorageResponse {
    /// Disk usage and retention of a history.
    pub fn new(history: &History) -> Self {
        let (usage, config) = (history.metrics.usage(), history.config());
        let [raw_bytes, minute_bytes, hour_bytes] = usage.tier_bytes;
        Self {
            backend: history.backend().backend(),
            disk_bytes: usage.disk_bytes,
            budget_bytes: config.budget_bytes,
            raw_bytes,
            minute_bytes,
            hour_bytes,
            head_bytes: usage.head_bytes,
            used_bytes: usage.used_bytes,
            raw_retention_s: config.raw_retention.as_secs(),
            minute_retention_s: config.minute_retention.as_secs(),
            hour_retention_s: config.hour_retention.as_secs(),
            ingest_blocked: history.ingest_blocked(),
        }
    }
}
