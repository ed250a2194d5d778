//! `/api/v1/hosts`: monitored hosts and their tags.

use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::{Actor, Identity};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller, params};
use perfwatch_live::host_registry::Host;
use perfwatch_live::host_status::{CollectionMethod, HostStatus};
use perfwatch_model::{HostFacts, HostId};
use perfwatch_store::Transaction;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::shares::{TierStorage, host_storage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Monitored host with its status.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostResponse {
    #[schema(value_type = uuid::Uuid)]
    id: HostId,
    name: String,
    status: HostStatus,
    collection_method: CollectionMethod,
    /// Tags such as `environment=production`.
    tags: Vec<String>,
    #[schema(value_type = Option<HostFacts>)]
    facts: Option<Arc<HostFacts>>,
    first_seen_ms: i64,
    /// Time at which the hub received the last snapshot.
    last_seen_ms: Option<i64>,
    /// Timestamp of the last snapshot.
    last_snapshot_ms: Option<i64>,
    interval_ms: u32,
    /// Clock of the host minus clock of the hub.
    clock_skew_ms: Option<i64>,
    /// Time at which snapshots of several machines with this host id were last mixed; `null` if that was more
    /// than an hour ago or never.
    sender_conflict_ms: Option<i64>,
}

/// Page of hosts, sorted by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostListResponse {
    hosts: Vec<HostResponse>,
    /// Number of visible hosts on all pages.
    total: usize,
    /// Current time of the hub.
    now_ms: i64,
    /// Value of `after` for the next page; `null` on the last page.
    next: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HostsQuery {
    /// `next` of the previous page.
    after: Option<String>,
    /// Maximum number of hosts: 1 to 1,000, default 500.
    limit: Option<usize>,
}

/// List hosts
#[utoipa::path(
    get, path = "/api/v1/hosts", tag = "hosts",
    params(HostsQuery),
    responses((status = 200, body = HostListResponse)),
)]
pub(crate) async fn list_hosts(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<HostsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<HostListResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let limit = query.limit.unwrap_or(500).clamp(1, 1_000);
    let auth_snapshot = app.directory.snapshot();
    let mut hosts = host_access::hosts(&app, &identity);
    let total = hosts.len();
    let now_ms = app.clock.wall_ms();
    if let Some(after) = &query.after {
        let (name, id) = params::parse_host_cursor(after).ok_or_else(|| {
            ApiError::bad_request("invalid_query", "after: must be the `next` value of the previous page")
        })?;
        let is_before = |host: &Host| (&host.record.name, host.record.id) <= (&name, id);
        hosts.drain(..hosts.partition_point(is_before));
    }
    let next = (hosts.len() > limit).then(|| params::host_cursor(&hosts[limit - 1].record));
    hosts.truncate(limit);
    let hosts = hosts.into_iter().map(|host| to_response(&app, host, &auth_snapshot, now_ms)).collect();
    Ok(Json(HostListResponse { hosts, total, now_ms, next }))
}

/// Get a host
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Id or name of the host")),
    responses((status = 200, body = HostResponse), (status = 404), (status = 409)),
)]
pub(crate) async fn get_host(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<HostResponse>, ApiError> {
    Ok(Json(to_response(
        &app,
        host_access::host(&app, &identity, &id)?,
        &app.directory.snapshot(),
        app.clock.wall_ms(),
    )))
}

/// Complete list of a host's tags.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TagsRequest {
    tags: Vec<String>,
}

/// Replace the tags of a host
#[utoipa::path(
    put, path = "/api/v1/hosts/{id}/tags", tag = "hosts",
    params(("id" = String, Path, description = "Id or name of the host")),
    request_body = TagsRequest,
    responses((status = 200, body = HostResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn set_host_tags(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<TagsRequest>,
) -> Result<Json<HostResponse>, ApiError> {
    let after = params::validate_tags(&request.tags)?;
    let guard = app.directory.begin_write(&actor).await?;
    let host = host_access::host(&app, &actor.identity, &id)?;
    let before = app.directory.snapshot().host_tags(host.record.id).to_vec();
    require_own_scope(&actor.identity, &after)?;
    let tx = Transaction::build(|tx| tx.host_tags().set(host.record.id, &after));
    let entry = tag_change(&actor, &host.record.name, before, after);
    guard.commit(tx, Some(entry)).await?;
    Ok(Json(to_response(&app, host, &app.directory.snapshot(), app.clock.wall_ms())))
}

/// Maximum number of hosts that one request changes.
const MAX_CHANGED_HOSTS: usize = 1_000;

/// Change of the tags of several hosts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateHostsRequest {
    /// Ids of 1 to 1,000 hosts.
    #[schema(value_type = Vec<uuid::Uuid>)]
    ids: BTreeSet<HostId>,
    /// Tags that each host gets.
    #[serde(default)]
    add_tags: Vec<String>,
    /// Tags that each host loses.
    #[serde(default)]
    remove_tags: Vec<String>,
}

/// Number of changed hosts.
#[derive(Serialize, ToSchema)]
pub(crate) struct UpdateHostsResponse {
    /// Hosts whose tags changed; others had these tags already.
    changed: usize,
}

/// Change the tags of several hosts
///
/// All hosts are changed, or none.
#[utoipa::path(
    patch, path = "/api/v1/hosts", tag = "hosts",
    request_body = UpdateHostsRequest,
    responses((status = 200, body = UpdateHostsResponse), (status = 404), (status = 409), (status = 422)),
)]
pub(crate) async fn update_hosts(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<UpdateHostsRequest>,
) -> Result<Json<UpdateHostsResponse>, ApiError> {
    let UpdateHostsRequest { ids, add_tags, remove_tags } = request;
    if ids.is_empty() || ids.len() > MAX_CHANGED_HOSTS {
        let message = format!("ids: expected 1 to {MAX_CHANGED_HOSTS} hosts");
        return Err(ApiError::unprocessable("invalid_hosts", message));
    }
    let (add_tags, remove_tags) = (params::validate_tags(&add_tags)?, params::validate_tags(&remove_tags)?);
    if add_tags.is_empty() && remove_tags.is_empty() {
        return Err(ApiError::unprocessable("invalid_tags", "add_tags or remove_tags must contain a tag"));
    }
    let guard = app.directory.begin_write(&actor).await?;
    let auth_snapshot = app.directory.snapshot();
    let (mut tx, mut entries) = (Transaction::default(), Vec::new());
    for id in ids {
        let host = app.hosts.get(id).filter(|_| actor.identity.can_view(&auth_snapshot, id));
        let host = host.ok_or_else(|| ApiError::not_found(format!("host {id} not found")))?;
        let before = auth_snapshot.host_tags(id);
        let after = params::change_tags(before, &add_tags, &remove_tags).map_err(|error| {
            let message = format!("host {}: {}", host.record.name, error.message());
            ApiError::unprocessable("invalid_tags", message)
        })?;
        require_own_scope(&actor.identity, &after)?;
        if after != before {
            tx.host_tags().set(id, &after);
            entries.push(tag_change(&actor, &host.record.name, before.to_vec(), after));
        }
    }
    let changed = entries.len();
    if changed > 0 {
        guard.commit(tx, entries).await?;
    }
    Ok(Json(UpdateHostsResponse { changed }))
}

/// Audit entry of changed tags.
fn tag_change(actor: &Actor, host: &str, before: Vec<String>, after: Vec<String>) -> AuditEntry {
    let (before, after) = (TagsRequest { tags: before }, TagsRequest { tags: after });
    actor.audit_change("host.set_tags", format!("host {host}"), Some(&before), Some(&after))
}

/// Checks that a host stays visible to a caller who is limited to hosts with certain tags.
///
/// # Errors
/// Returns `forbidden` if the host would leave the limit.
fn require_own_scope(identity: &Identity, tags: &[String]) -> Result<(), ApiError> {
    if identity.includes_host_with(tags) {
        return Ok(());
    }
    let message = "a host must keep one of the tags that your account is limited to";
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// Recorded history of a host in one tier.
#[derive(Serialize, ToSchema)]
pub(crate) struct TierStorageResponse {
    /// Size of the blocks in the database.
    bytes: u64,
    /// Time of the first row; `null` without blocks.
    first_ms: Option<i64>,
    /// Time of the last row in a block; newer rows become a block within 15 minutes.
    last_ms: Option<i64>,
}

/// Recorded history of a host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostStorageResponse {
    raw: TierStorageResponse,
    minute: TierStorageResponse,
    hour: TierStorageResponse,
    total_bytes: u64,
}

/// Get the storage that a host uses
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/storage", tag = "hosts",
    params(("id" = String, Path, description = "Id or name of the host")),
    responses((status = 200, body = HostStorageResponse), (status = 409)),
)]
pub(crate) async fn storage(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<HostStorageResponse>, ApiError> {
    let host = host_access::host(&app, &identity, &id)?.record.id;
    let tiers = host_storage(app.history.backend(), host).await?;
    let total_bytes = tiers.iter().map(|tier| tier.bytes).sum();
    let [raw, minute, hour] = tiers.map(|TierStorage { bytes, first_ms, last_ms }| TierStorageResponse {
        bytes,
        first_ms,
        last_ms,
    });
    Ok(Json(HostStorageResponse { raw, minute, hour, total_bytes }))
}

/// Delete a host and revoke its agents
///
/// History is deleted by retention. The host reappears if it sends again.
#[utoipa::path(
    delete, path = "/api/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Id or name of the host")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_host(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let guard = app.directory.begin_write(&actor).await?;
    let host = host_access::host(&app, &actor.identity, &id)?;
    let (id, now_ms) = (host.record.id, app.clock.wall_ms());
    let auth_snapshot = app.directory.snapshot();
    let agents = auth_snapshot.agents.values().filter(|agent| agent.host == id && agent.revoked_ms.is_none());
    let mut tx = Transaction::default();
    agents.for_each(|agent| tx.agents().revoke(agent.id, now_ms));
    delete_tags_and_last_seen(&mut tx, id);
    tx.hosts().delete(id);
    let entry = actor.audit("host.delete", format!("host {}", host.record.name));
    guard.commit(tx, Some(entry)).await?;
    evict_host(&app, id);
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes the tags and the last-seen time of a host; the host's own row is deleted separately.
pub(super) fn delete_tags_and_last_seen(tx: &mut Transaction, id: HostId) {
    tx.host_tags().delete(id);
    tx.host_last_seen().delete(id.0);
}

/// Removes the in-memory state of a deleted host.
pub(super) fn evict_host(app: &App, id: HostId) {
    app.hosts.remove(id);
    app.live_feed.remove(id);
    app.alerting.remove_host(id);
}

fn to_response(app: &App, host: Host, auth_snapshot: &AuthSnapshot, now_ms: i64) -> HostResponse {
    let (status, collection_method) = (host.status(now_ms), host.collection_method());
    let (interval_ms, clock_skew_ms) = (host.interval_ms(), host.clock_skew_ms());
    let sender_conflict_ms = app.hosts.sender_conflicts().last_conflict_ms(host.record.id, now_ms);
    HostResponse {
        id: host.record.id,
        name: host.record.name,
        status,
        collection_method,
        tags: auth_snapshot.host_tags(host.record.id).to_vec(),
        facts: host.record.facts,
        first_seen_ms: host.record.first_seen_ms,
        last_seen_ms: host.last_seen_ms.or(host.record.last_snapshot_ms),
        last_snapshot_ms: host.last_at_ms.or(host.record.last_snapshot_ms),
        interval_ms,
        clock_skew_ms,
        sender_conflict_ms,
    }
}
