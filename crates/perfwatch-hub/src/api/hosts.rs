//! `/api/v1/hosts`: what is watched.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_auth::directory::AuthSnapshot as Everyone;
use perfwatch_live::host_registry::Host;
use perfwatch_model::{HostFacts, HostId};
use perfwatch_store::agents::{Agent, HostTags};
use perfwatch_store::host_last_seen::HostLastSeen;
use perfwatch_store::{HostRecord, SqlStatement};
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
    Disabled,
}

/// How figures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CollectionMethod {
    /// They are sent.
    Agent,
    /// The hub looks for itself.
    Ssh,
}

/// A host as the API shows it.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostResponse {
    #[schema(value_type = uuid::Uuid)]
    id: HostId,
    name: String,
    status: HostStatus,
    /// How its figures come.
    collection_method: CollectionMethod,
    /// What it is told apart by: `environment=production`.
    tags: Vec<String>,
    #[schema(value_type = Option<HostFacts>)]
    facts: Option<Arc<HostFacts>>,
    first_seen_ms: i64,
    last_seen_ms: Option<i64>,
    last_snapshot_ms: Option<i64>,
    interval_ms: u32,
    clock_skew_ms: Option<i64>,
}

/// A page of hosts.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostListResponse {
    hosts: Vec<HostResponse>,
    total: usize,
    /// The hub's clock, by which hosts were last seen.
    now_ms: i64,
    /// Give it back as `after` for the next page; none at the end.
    next: Option<usize>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HostsQuery {
    /// How many to leave out: `next` of the page before.
    #[serde(default)]
    after: usize,
    /// 1,000 at most.
    limit: Option<usize>,
}

/// List hosts
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", params(HostsQuery), responses((status = 200, body = HostListResponse)))]
pub(crate) async fn list_hosts(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    page: Result<Query<HostsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<HostListResponse>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let limit = page.limit.unwrap_or(500).clamp(1, 1_000);
    let everyone = app.directory.snapshot();
    let all = query::hosts(&app, &identity);
    let total = all.len();
    let now_ms = app.clock.wall_ms();
    let hosts = all
        .into_iter()
        .skip(page.after)
        .take(limit)
        .map(|host| to_response(host, &everyone, now_ms))
        .collect();
    let end = page.after.saturating_add(limit);
    Ok(Json(HostListResponse { hosts, total, now_ms, next: (end < total).then_some(end) }))
}

/// Get a host
#[utoipa::path(get, path = "/api/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Id or name")), responses((status = 200, body = HostResponse)))]
pub(crate) async fn get_host(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<HostResponse>, ApiError> {
    Ok(Json(to_response(query::host(&app, &identity, &id)?, &app.directory.snapshot(), app.clock.wall_ms())))
}

/// All tags of a host.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TagsRequest {
    tags: Vec<String>,
}

/// Replace the tags of a host
#[utoipa::path(put, path = "/api/v1/hosts/{id}/tags", tag = "hosts",
    params(("id" = String, Path, description = "Id or name")), request_body = TagsRequest,
    responses((status = 200, body = HostResponse), (status = 409), (status = 422)))]
pub(crate) async fn set_host_tags(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<TagsRequest>,
) -> Result<Json<HostResponse>, ApiError> {
    let after = TagsRequest { tags: query::validate_tags(&wish.tags)? };
    let turn = app.directory.begin_write().await?;
    let host = query::host(&app, &actor.identity, &id)?;
    let tags = app.directory.snapshot().host_tags(host.record.id).to_vec();
    let (before, object) = (TagsRequest { tags }, format!("host {}", host.record.name));
    let entry = actor.audit_change("host.set_tags", object, Some(&before), Some(&after));
    turn.commit([HostTags::set(host.record.id, &after.tags)], Some(entry)).await?;
    Ok(Json(to_response(host, &app.directory.snapshot(), app.clock.wall_ms())))
}

/// Delete a host and revoke its agents
///
/// What is known of its past goes with retention. One that sends again comes back.
#[utoipa::path(delete, path = "/api/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Id or name")), responses((status = 204), (status = 409)))]
pub(crate) async fn delete_host(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.directory.begin_write().await?;
    let host = query::host(&app, &actor.identity, &id)?;
    let (id, now_ms) = (host.record.id, app.clock.wall_ms());
    let everyone = app.directory.snapshot();
    let agents = everyone.agents.values().filter(|agent| agent.host == id && agent.revoked_ms.is_none());
    let mut changes: Vec<SqlStatement> = agents.map(|agent| Agent::revoke(agent.id, now_ms)).collect();
    changes.extend(delete_statements(id));
    changes.push(HostRecord::delete(id));
    let entry = actor.audit("host.delete", format!("host {}", host.record.name));
    turn.commit(changes, Some(entry)).await?;
    evict_host(&app, id);
    Ok(StatusCode::NO_CONTENT)
}

/// What is written of a host beside its own row.
pub(super) fn delete_statements(id: HostId) -> [SqlStatement; 2] {
    [HostTags::delete(id), HostLastSeen::delete(id.0)]
}

/// Nothing of a host that is gone stays in memory.
pub(super) fn evict_host(app: &App, id: HostId) {
    app.hosts.remove(id);
    app.live_feed.remove(id);
    app.alerting.remove_host(id);
}

fn to_response(host: Host, everyone: &Everyone, now_ms: i64) -> HostResponse {
    // Three ticks of grace, and never less than ten seconds.
    let grace_ms = (3 * i64::from(host.interval_ms())).max(10_000);
    let status = match host.last_seen_ms {
        _ if host.poll_schedule.is_some_and(|planned| !planned.enabled) => HostStatus::Disabled,
        // Its history is there from before this hub started.
        None if host.record.last_snapshot_ms.is_some() => HostStatus::Silent,
        None => HostStatus::New,
        Some(seen) if now_ms - seen <= grace_ms => HostStatus::Online,
        Some(_) => HostStatus::Silent,
    };
    let interval_ms = host.interval_ms();
    HostResponse {
        id: host.record.id,
        name: host.record.name,
        status,
        collection_method: if host.poll_schedule.is_some() {
            CollectionMethod::Ssh
        } else {
            CollectionMethod::Agent
        },
        tags: everyone.host_tags(host.record.id).to_vec(),
        facts: host.record.facts,
        first_seen_ms: host.record.first_seen_ms,
        last_seen_ms: host.last_seen_ms.or(host.record.last_snapshot_ms),
        last_snapshot_ms: host.last_at_ms.or(host.record.last_snapshot_ms),
        interval_ms,
        clock_skew_ms: host.clock_skew_ms,
    }
}
