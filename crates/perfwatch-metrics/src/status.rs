//! Status of the hub as the API shows it.

use crate::SelfMetrics;
use perfwatch_alerting::Alerting;
use perfwatch_history::History;
use perfwatch_http::process_metrics::ProcessMetrics;
use perfwatch_http::proxy_check::ProxyFault;
use serde::Serialize;
use std::time::Duration;

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
    /// Enabled rules; `null` for callers that are limited to host tags.
    pub rules: Option<usize>,
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
    /// Size of the rows that are not sealed yet; `null` for callers that are limited to host tags.
    pub head_bytes: Option<u64>,
    /// Used part of `disk_bytes`; `null` for callers that are limited to host tags.
    pub used_bytes: Option<u64>,
    /// Retention of raw rows.
    pub raw_retention_s: u64,
    /// Retention of minutes.
    pub minute_retention_s: u64,
    /// Retention of hours.
    pub hour_retention_s: u64,
    /// Reason why ingestion is blocked; `null` while it is not.
    pub ingest_blocked: Option<String>,
}

/// Number of hosts that a caller may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisibleHosts {
    /// The caller sees all hosts.
    All(usize),
    /// The caller is limited to host tags: what depends on other hosts is left out.
    Some(usize),
}

impl SystemResponse {
    /// Status for a caller, `uptime` after the start.
    pub fn new(
        (metrics, history, alerting): (&SelfMetrics, &History, &Alerting),
        (uptime, now_ms): (Duration, i64),
        visible: VisibleHosts,
        (notification_base_url, address_faults): (String, Vec<ProxyFault>),
    ) -> Self {
        let process = ProcessMetrics::read();
        let (hosts, is_unlimited) = match visible {
            VisibleHosts::All(hosts) => (hosts, true),
            VisibleHosts::Some(hosts) => (hosts, false),
        };
        let rules = || alerting.snapshot().definitions.rules.iter().filter(|rule| rule.enabled).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: uptime.as_secs(),
            now_ms,
            hosts,
            websocket_clients: metrics.websocket_clients(),
            accepted_snapshots: metrics.accepted_total(),
            rules: is_unlimited.then(rules),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            storage: StorageResponse::new(history, is_unlimited),
            memory_bytes: process.as_ref().map(|process| process.resident_bytes),
            cpu_seconds: process.map(|process| process.cpu_seconds),
            notification_base_url,
            address_faults,
        }
    }
}

impl StorageResponse {
    fn new(history: &History, is_unlimited: bool) -> Self {
        let (usage, config) = (history.metrics.usage(), history.config());
        let [raw_bytes, minute_bytes, hour_bytes] = usage.tier_bytes;
        Self {
            backend: history.backend().backend(),
            disk_bytes: usage.disk_bytes,
            budget_bytes: config.budget_bytes,
            raw_bytes,
            minute_bytes,
            hour_bytes,
            head_bytes: is_unlimited.then_some(usage.head_bytes),
            used_bytes: is_unlimited.then_some(usage.used_bytes),
            raw_retention_s: config.raw_retention.as_secs(),
            minute_retention_s: config.minute_retention.as_secs(),
            hour_retention_s: config.hour_retention.as_secs(),
            ingest_blocked: history.ingest_blocked(),
        }
    }
}
