//! `GET /api/v1/system`: the hub at a glance.

use crate::app::App;
use crate::self_metrics::OwnProcess;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub(crate) struct SystemJson {
    version: &'static str,
    uptime_s: u64,
    now_ms: i64,
    hosts: usize,
    live_clients: usize,
    accepted_snapshots: u64,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
}

pub(crate) async fn system(State(app): State<Arc<App>>) -> Json<SystemJson> {
    let own = OwnProcess::read();
    Json(SystemJson {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.clock.monotonic().saturating_sub(app.started).as_secs(),
        now_ms: app.clock.wall_ms(),
        hosts: app.fleet.len(),
        live_clients: app.live.watchers(),
        accepted_snapshots: app.metrics.accepted_total(),
        memory_bytes: own.as_ref().map(|own| own.memory_bytes),
        cpu_seconds: own.map(|own| own.cpu_seconds),
    })
}
