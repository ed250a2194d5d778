//! `GET /api/v1/system`: status of the hub.

use super::proxy_check::location;
use crate::app::App;
use crate::host_access;
use axum::Extension;
use axum::Json;
use axum::extract::{RawQuery, State};
use perfwatch_http::Caller;
use perfwatch_http::process_metrics::ProcessMetrics;
use perfwatch_http::proxy_check::{ProxyFault, ProxyFaultCode, find_faults, local_links};
use perfwatch_http::public_address::RequestAddress;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Status of the hub and its process.
#[derive(Serialize, ToSchema)]
pub(crate) struct SystemResponse {
    version: &'static str,
    uptime_s: u64,
    now_ms: i64,
    /// Number of visible hosts.
    hosts: usize,
    websocket_clients: usize,
    /// Snapshots accepted since the start.
    accepted_snapshots: u64,
    storage: StorageResponse,
    /// Resident memory of the process.
    memory_bytes: Option<u64>,
    /// CPU time of the process since its start.
    cpu_seconds: Option<f64>,
    /// Base URL of links in notifications.
    notification_base_url: String,
    /// Faults of reverse proxies, and links that lead to the machine of their reader.
    address_faults: Vec<ProxyFault>,
}

/// Disk usage and retention of the history.
#[derive(Serialize, ToSchema)]
pub(crate) struct StorageResponse {
    /// Database: `sqlite` or `postgresql`.
    backend: &'static str,
    disk_bytes: u64,
    budget_bytes: u64,
    raw_bytes: u64,
    minute_bytes: u64,
    hour_bytes: u64,
    raw_retention_s: u64,
    minute_retention_s: u64,
    hour_retention_s: u64,
    /// Reason why ingestion is blocked; `null` while it is not.
    ingest_blocked: Option<String>,
}

fn storage_response(app: &App) -> StorageResponse {
    let (usage, config) = (app.history.metrics.usage(), app.history.config());
    let [raw_bytes, minute_bytes, hour_bytes] = usage.tier_bytes;
    StorageResponse {
        backend: app.history.backend().backend(),
        disk_bytes: usage.disk_bytes,
        budget_bytes: config.budget_bytes,
        raw_bytes,
        minute_bytes,
        hour_bytes,
        raw_retention_s: config.raw_retention.as_secs(),
        minute_retention_s: config.minute_retention.as_secs(),
        hour_retention_s: config.hour_retention.as_secs(),
        ingest_blocked: app.history.ingest_blocked(),
    }
}

fn address_faults(app: &App, request: &RequestAddress, location: Option<&str>) -> Vec<ProxyFault> {
    let hub = &app.public_address;
    let mut faults = find_faults(hub, request, location);
    // Users may see the address of the proxy, which anonymous callers do not.
    if let Some(address) = request.untrusted_proxy {
        faults.retain(|fault| fault.code != ProxyFaultCode::UntrustedProxy);
        faults.push(ProxyFault::new(ProxyFaultCode::UntrustedProxy, "", &address.to_string()));
    }
    let upgrade_missing = || ProxyFault::new(ProxyFaultCode::UpgradeMissing, "Upgrade", "");
    faults.extend(hub.is_upgrade_missing().then(upgrade_missing));
    faults.extend(local_links(hub));
    faults
}

/// Hub status
#[utoipa::path(
    get, path = "/api/v1/system", tag = "hub",
    params(("location" = Option<String>, Query, description = "URL of the dashboard in the browser")),
    responses((status = 200, body = SystemResponse)),
)]
pub(crate) async fn system(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Extension(request): Extension<RequestAddress>,
    RawQuery(query): RawQuery,
) -> Json<SystemResponse> {
    let process = ProcessMetrics::read();
    let hosts = match identity.host_tags.is_empty() {
        true => app.hosts.count(),
        false => host_access::hosts(&app, &identity).len(),
    };
    Json(SystemResponse {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.clock.monotonic().saturating_sub(app.started).as_secs(),
        now_ms: app.clock.wall_ms(),
        hosts,
        websocket_clients: app.live_feed.client_count(),
        accepted_snapshots: app.metrics.accepted_total(),
        storage: storage_response(&app),
        memory_bytes: process.as_ref().map(|process| process.resident_bytes),
        cpu_seconds: process.map(|process| process.cpu_seconds),
        notification_base_url: app.public_address.notification_base_url.clone(),
        address_faults: address_faults(&app, &request, location(query.as_deref()).as_deref()),
    })
}
