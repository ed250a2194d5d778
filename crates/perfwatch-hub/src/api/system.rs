//! `GET /api/v1/system`: the hub at a glance.

use crate::app::App;
use crate::self_metrics::ProcessMetrics;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Hub status.
#[derive(Serialize, ToSchema)]
pub(crate) struct SystemResponse {
    version: &'static str,
    uptime_s: u64,
    now_ms: i64,
    hosts: usize,
    websocket_clients: usize,
    accepted_snapshots: u64,
    storage: StorageResponse,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
}

/// What history takes and how long it is kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct StorageResponse {
    backend: &'static str,
    disk_bytes: u64,
    budget_bytes: u64,
    raw_bytes: u64,
    minute_bytes: u64,
    hour_bytes: u64,
    raw_retention_s: u64,
    minute_retention_s: u64,
    hour_retention_s: u64,
    /// Why nothing is taken in, while that is so.
    ingest_blocked: Option<String>,
}

fn history(app: &App) -> StorageResponse {
    let (usage, config) = (app.history.counts.usage(), app.history.config());
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

/// Hub status
#[utoipa::path(get, path = "/api/v1/system", tag = "hub", responses((status = 200, body = SystemResponse)))]
pub(crate) async fn system(State(app): State<Arc<App>>) -> Json<SystemResponse> {
    let own = ProcessMetrics::read();
    Json(SystemResponse {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.clock.monotonic().saturating_sub(app.started).as_secs(),
        now_ms: app.clock.wall_ms(),
        hosts: app.hosts.len(),
        websocket_clients: app.live_feed.client_count(),
        accepted_snapshots: app.metrics.accepted_total(),
        storage: history(&app),
        memory_bytes: own.as_ref().map(|own| own.memory_bytes),
        cpu_seconds: own.map(|own| own.cpu_seconds),
    })
}
