//! `GET /api/v1/system`: the hub at a glance.

use crate::app::App;
use crate::self_metrics::OwnProcess;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The hub at a glance.
#[derive(Serialize, ToSchema)]
pub(crate) struct SystemJson {
    version: &'static str,
    uptime_s: u64,
    now_ms: i64,
    hosts: usize,
    live_clients: usize,
    accepted_snapshots: u64,
    history: HistoryJson,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
}

/// What history takes and how long it is kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryJson {
    store: &'static str,
    disk_bytes: u64,
    budget_bytes: u64,
    raw_bytes: u64,
    minute_bytes: u64,
    hour_bytes: u64,
    raw_keep_s: u64,
    minute_keep_s: u64,
    hour_keep_s: u64,
    /// Why nothing is taken in, while that is so.
    refusing: Option<String>,
}

fn history(app: &App) -> HistoryJson {
    let (usage, config) = (app.history.counts.usage(), app.history.config());
    let [raw_bytes, minute_bytes, hour_bytes] = usage.tier_bytes;
    HistoryJson {
        store: app.history.store().kind(),
        disk_bytes: usage.disk_bytes,
        budget_bytes: config.budget_bytes,
        raw_bytes,
        minute_bytes,
        hour_bytes,
        raw_keep_s: config.raw.as_secs(),
        minute_keep_s: config.minutes.as_secs(),
        hour_keep_s: config.hours.as_secs(),
        refusing: app.history.refusing(),
    }
}

/// The hub at a glance
#[utoipa::path(get, path = "/api/v1/system", tag = "hub", responses((status = 200, body = SystemJson)))]
pub(crate) async fn system(State(app): State<Arc<App>>) -> Json<SystemJson> {
    let own = OwnProcess::read();
    Json(SystemJson {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.clock.monotonic().saturating_sub(app.started).as_secs(),
        now_ms: app.clock.wall_ms(),
        hosts: app.fleet.len(),
        live_clients: app.live.watchers(),
        accepted_snapshots: app.metrics.accepted_total(),
        history: history(&app),
        memory_bytes: own.as_ref().map(|own| own.memory_bytes),
        cpu_seconds: own.map(|own| own.cpu_seconds),
    })
}
