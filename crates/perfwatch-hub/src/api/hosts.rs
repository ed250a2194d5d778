//! `/api/v1/hosts`: what is watched.

use super::body::JsonBody;
use super::params;
use crate::app::App;
use crate::auth::people::State as Everyone;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use crate::fleet::Host;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_model::{HostFacts, HostId};
use perfwatch_store::alerts::LastHeard;
use perfwatch_store::people::{Agent, HostTags};
use perfwatch_store::{Change, HostRecord};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Whether snapshots come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HostStatus {
    /// None came yet.
    New,
    /// They come as they should.
    Online,
    /// They don't.
    Silent,
    /// Nobody asks for them.
    Resting,
}

/// How figures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Collected {
    /// They are sent.
    Agent,
    /// The hub looks for itself.
    Ssh,
}

/// A host as the API shows it.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostJson {
    #[schema(value_type = uuid::Uuid)]
    id: HostId,
    name: String,
    status: HostStatus,
    /// How its figures come.
    collected: Collected,
    /// What it is told apart by: `environment=production`.
    tags: Vec<String>,
    #[schema(value_type = Option<HostFacts>)]
    facts: Option<Arc<HostFacts>>,
    first_seen_ms: i64,
    last_seen_ms: Option<i64>,
    last_at_ms: Option<i64>,
    interval_ms: u32,
    clock_skew_ms: Option<i64>,
}

/// A page of hosts.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostsJson {
    hosts: Vec<HostJson>,
    total: usize,
    /// The hub's clock, by which hosts were last seen.
    now_ms: i64,
    /// Give it back as `after` for the next page; none at the end.
    next: Option<usize>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// How many to leave out: `next` of the page before.
    #[serde(default)]
    after: usize,
    /// 1,000 at most.
    limit: Option<usize>,
}

/// Hosts by name
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", params(Page), responses((status = 200, body = HostsJson)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    identity: Identity,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<HostsJson>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let limit = page.limit.unwrap_or(500).clamp(1, 1_000);
    let everyone = app.people.now();
    let all = params::hosts(&app, &identity);
    let total = all.len();
    let now_ms = app.clock.wall_ms();
    let hosts =
        all.into_iter().skip(page.after).take(limit).map(|host| show(host, &everyone, now_ms)).collect();
    let end = page.after.saturating_add(limit);
    Ok(Json(HostsJson { hosts, total, now_ms, next: (end < total).then_some(end) }))
}

/// One host
#[utoipa::path(get, path = "/api/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Id or name")), responses((status = 200, body = HostJson)))]
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Json<HostJson>, ApiError> {
    Ok(Json(show(params::host(&app, &identity, &id)?, &app.people.now(), app.clock.wall_ms())))
}

/// All tags of a host.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tags {
    tags: Vec<String>,
}

/// Gives a host its tags, in place of those it had
#[utoipa::path(put, path = "/api/v1/hosts/{id}/tags", tag = "hosts",
    params(("id" = String, Path, description = "Id or name")), request_body = Tags,
    responses((status = 200, body = HostJson), (status = 409), (status = 422)))]
pub(crate) async fn tags(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<Tags>,
) -> Result<Json<HostJson>, ApiError> {
    let after = Tags { tags: params::tags(&wish.tags)? };
    let turn = app.people.turn().await?;
    let host = params::host(&app, &doer.identity, &id)?;
    let tags = app.people.now().tags(host.record.id).to_vec();
    let (before, object) = (Tags { tags }, format!("host {}", host.record.name));
    let entry = doer.changed("host.tags", object, Some(&before), Some(&after));
    turn.commit([HostTags::put(host.record.id, &after.tags)], Some(entry)).await?;
    Ok(Json(show(host, &app.people.now(), app.clock.wall_ms())))
}

/// Removes a host that is no more, and revokes its agents
///
/// What is known of its past goes with retention. One that sends again comes back.
#[utoipa::path(delete, path = "/api/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Id or name")), responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.people.turn().await?;
    let host = params::host(&app, &doer.identity, &id)?;
    let (id, now_ms) = (host.record.id, app.clock.wall_ms());
    let everyone = app.people.now();
    let agents = everyone.agents.values().filter(|agent| agent.host == id && agent.revoked_ms.is_none());
    let mut changes: Vec<Change> = agents.map(|agent| Agent::revoke(agent.id, now_ms)).collect();
    changes.extend(gone(id));
    changes.push(HostRecord::remove(id));
    let entry = doer.did("host.remove", format!("host {}", host.record.name));
    turn.commit(changes, Some(entry)).await?;
    forget(&app, id);
    Ok(StatusCode::NO_CONTENT)
}

/// What is written of a host beside its own row.
pub(super) fn gone(id: HostId) -> [Change; 2] {
    [HostTags::remove(id), LastHeard::remove(id.0)]
}

/// Nothing of a host that is gone stays in memory.
pub(super) fn forget(app: &App, id: HostId) {
    app.fleet.remove(id);
    app.live.remove(id);
    app.alerting.forget(id);
}

fn show(host: Host, everyone: &Everyone, now_ms: i64) -> HostJson {
    // Three ticks of grace, and never less than ten seconds.
    let grace_ms = (3 * i64::from(host.rhythm_ms())).max(10_000);
    let status = match host.last_seen_ms {
        _ if host.planned.is_some_and(|planned| !planned.enabled) => HostStatus::Resting,
        // Its history is there from before this hub started.
        None if host.record.last_at_ms.is_some() => HostStatus::Silent,
        None => HostStatus::New,
        Some(seen) if now_ms - seen <= grace_ms => HostStatus::Online,
        Some(_) => HostStatus::Silent,
    };
    let interval_ms = host.rhythm_ms();
    HostJson {
        id: host.record.id,
        name: host.record.name,
        status,
        collected: if host.planned.is_some() { Collected::Ssh } else { Collected::Agent },
        tags: everyone.tags(host.record.id).to_vec(),
        facts: host.record.facts,
        first_seen_ms: host.record.first_seen_ms,
        last_seen_ms: host.last_seen_ms.or(host.record.last_at_ms),
        last_at_ms: host.last_at_ms.or(host.record.last_at_ms),
        interval_ms,
        clock_skew_ms: host.clock_skew_ms,
    }
}
