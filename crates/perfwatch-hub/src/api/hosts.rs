//! `GET /api/v1/hosts` and `GET /api/v1/hosts/{id}`.

use super::params;
use crate::app::App;
use crate::error::ApiError;
use crate::fleet::Host;
use axum::Json;
use axum::extract::{Path, Query, State};
use perfwatch_model::{HostFacts, HostId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A host as the API shows it.
#[derive(Serialize)]
pub(crate) struct HostJson {
    id: HostId,
    name: String,
    /// `online` while snapshots come as they should, else `silent`; `new` before the first.
    status: &'static str,
    facts: Option<Arc<HostFacts>>,
    first_seen_ms: i64,
    last_seen_ms: Option<i64>,
    last_at_ms: Option<i64>,
    interval_ms: u32,
    clock_skew_ms: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct HostsJson {
    hosts: Vec<HostJson>,
    total: usize,
    /// The hub's clock, by which hosts were last seen.
    now_ms: i64,
    /// Give it back as `after` for the next page; none at the end.
    next: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    after: usize,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<HostsJson>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let limit = page.limit.unwrap_or(500).clamp(1, 1_000);
    let all = app.fleet.all();
    let total = all.len();
    let now_ms = app.clock.wall_ms();
    let hosts = all.into_iter().skip(page.after).take(limit).map(|host| show(host, now_ms)).collect();
    let end = page.after.saturating_add(limit);
    Ok(Json(HostsJson { hosts, total, now_ms, next: (end < total).then_some(end) }))
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<HostJson>, ApiError> {
    Ok(Json(show(params::host(&app, &id)?, app.clock.wall_ms())))
}

fn show(host: Host, now_ms: i64) -> HostJson {
    // Three ticks of grace, and never less than ten seconds.
    let grace_ms = (3 * i64::from(host.interval_ms)).max(10_000);
    let status = match host.last_seen_ms {
        // Its history is there from before this hub started.
        None if host.record.last_at_ms.is_some() => "silent",
        None => "new",
        Some(seen) if now_ms - seen <= grace_ms => "online",
        Some(_) => "silent",
    };
    HostJson {
        id: host.record.id,
        name: host.record.name,
        status,
        facts: host.record.facts,
        first_seen_ms: host.record.first_seen_ms,
        last_seen_ms: host.last_seen_ms.or(host.record.last_at_ms),
        last_at_ms: host.last_at_ms.or(host.record.last_at_ms),
        interval_ms: if host.interval_ms > 0 { host.interval_ms } else { host.record.interval_ms },
        clock_skew_ms: host.clock_skew_ms,
    }
}
