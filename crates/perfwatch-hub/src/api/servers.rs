//! `/api/v1/servers`: hosts without an agent, how to enter them, and how it went.

use super::hosts;
use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_agentless::server::{AuthMethod, Thresholds};
use perfwatch_agentless::server_request::ServerRequest;
use perfwatch_agentless::summary::{FleetTotals, ServerSummary};
use perfwatch_agentless::{Server, next_run_ms};
use perfwatch_auth::directory::AuthSnapshot as Everyone;
use perfwatch_auth::{AuthError, Identity};
use perfwatch_model::remote_collector::FailureCause;
use perfwatch_model::{HostId, HumanDuration};
use perfwatch_store::agents::HostTags;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{HostRecord, SqlStatement, collection_jobs::CollectionJobs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Of one hub.
pub(crate) const MAX_SERVERS: usize = 10_000;

/// The last look.
#[derive(Serialize, ToSchema)]
pub(crate) struct LastCollection {
    finished_ms: i64,
    duration_ms: i64,
    /// Why it came to nothing.
    #[schema(value_type = Option<FailureCause>)]
    cause: Option<String>,
    error: Option<String>,
}

/// Why it is not tried any more, until somebody acts.
#[derive(Serialize, ToSchema)]
pub(crate) struct BlockedReason {
    #[schema(value_type = FailureCause)]
    cause: String,
    /// The key that it showed instead of its own.
    offered_host_key: Option<String>,
}

/// A host without an agent. What opens its door is not shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerResponse {
    id: Uuid,
    name: String,
    address: String,
    port: u16,
    user: String,
    auth_method: AuthMethod,
    jump: Option<Uuid>,
    tags: Vec<String>,
    #[schema(value_type = String)]
    interval: HumanDuration,
    thresholds: Thresholds,
    enabled: bool,
    /// Rises with each change: send it back with yours.
    version: i64,
    /// The key that it must show.
    host_key: Option<String>,
    blocked: Option<BlockedReason>,
    last: Option<LastCollection>,
    /// When a look last brought something.
    last_success_ms: Option<i64>,
    /// When it is looked at next.
    next_run_ms: Option<i64>,
    /// What it saw last, in the last hour.
    summary: Option<ServerSummary>,
}

/// Servers by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerListResponse {
    servers: Vec<ServerResponse>,
    now_ms: i64,
}

fn to_response(
    row: ServerRow,
    server: Server,
    latest: Option<ServerSummary>,
    everyone: &Everyone,
) -> ServerResponse {
    let Server { name, address, port, user, auth_method: login, jump, interval, thresholds } = server;
    let last = row.last_run_ms.map(|at_ms| LastCollection {
        finished_ms: at_ms,
        duration_ms: row.last_duration_ms.unwrap_or_default(),
        cause: row.last_cause,
        error: row.last_error,
    });
    let shown_key = row.offered_host_key;
    ServerResponse {
        id: row.id,
        name,
        address,
        port,
        user,
        auth_method: login,
        jump,
        tags: everyone.host_tags(HostId(row.id)).to_vec(),
        interval,
        thresholds,
        enabled: row.enabled,
        version: row.version,
        host_key: row.host_key,
        blocked: row.blocked_reason.map(|cause| BlockedReason { cause, offered_host_key: shown_key }),
        last,
        last_success_ms: row.last_success_ms,
        next_run_ms: row.next_run_ms,
        summary: latest,
    }
}

/// One that they may see; another one is not there.
pub(super) async fn find(app: &App, identity: &Identity, id: &str) -> Result<ServerRow, ApiError> {
    let missing = || ApiError::not_found(format!("there is no server {id:?}"));
    let id: Uuid = id.parse().map_err(|_| missing())?;
    if !identity.can_view(&app.directory.snapshot(), HostId(id)) {
        return Err(missing());
    }
    ServerRow::get(app.agentless.store(), id).await?.ok_or_else(missing)
}

async fn to_response_with_summary(row: ServerRow, app: &App) -> Result<ServerResponse, ApiError> {
    let unreadable =
        || ApiError::unprocessable("server_unreadable", "server record has an unsupported version");
    let server = Server::from_row(&row).ok_or_else(unreadable)?;
    let one = [(row.id, server)];
    let latest = app.agentless.summaries().get_many(&one).await.pop().flatten();
    let [(_, server)] = one;
    Ok(to_response(row, server, latest, &app.directory.snapshot()))
}

/// List agentless hosts
#[utoipa::path(get, path = "/api/v1/servers", tag = "servers", responses((status = 200, body = ServerListResponse)))]
pub(crate) async fn list_servers(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<ServerListResponse>, ApiError> {
    let everyone = app.directory.snapshot();
    let rows = ServerRow::list(app.agentless.store()).await?;
    let rows = rows.into_iter().filter(|row| identity.can_view(&everyone, HostId(row.id)));
    let (known, rows): (Vec<(Uuid, Server)>, Vec<ServerRow>) =
        rows.filter_map(|row| Some(((row.id, Server::from_row(&row)?), row))).unzip();
    let latest = app.agentless.summaries().get_many(&known).await;
    let all = rows.into_iter().zip(known).zip(latest);
    let mut servers: Vec<ServerResponse> =
        all.map(|((row, (_, server)), latest)| to_response(row, server, latest, &everyone)).collect();
    servers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Json(ServerListResponse { servers, now_ms: app.clock.wall_ms() }))
}

/// Totals of all agentless hosts
#[utoipa::path(get, path = "/api/v1/servers/summary", tag = "servers",
    responses((status = 200, body = FleetTotals)))]
pub(crate) async fn summary(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<FleetTotals>, ApiError> {
    let everyone = app.directory.snapshot();
    let rows = ServerRow::list(app.agentless.store()).await?;
    let rows = rows.iter().filter(|row| row.enabled && identity.can_view(&everyone, HostId(row.id)));
    let servers: Vec<(Uuid, Server)> =
        rows.filter_map(|row| Some((row.id, Server::from_row(row)?))).collect();
    // Whoever may see the same, as of the same changes, sees the same.
    let who = format!("{}:{}", everyone.revision(), identity.host_tags.join(","));
    Ok(Json(app.agentless.summaries().totals(&who, &servers).await))
}

/// Get an agentless host
#[utoipa::path(get, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    responses((status = 200, body = ServerResponse), (status = 422)))]
pub(crate) async fn get_server(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<ServerResponse>, ApiError> {
    Ok(Json(to_response_with_summary(find(&app, &identity, &id).await?, &app).await?))
}

/// Whether its host may be theirs, and its way leads through what they may see.
pub(super) async fn authorize_server(
    app: &App,
    identity: &Identity,
    tags: &[String],
    server: &Server,
) -> Result<(), ApiError> {
    let within = identity.host_tags.is_empty() || tags.iter().any(|tag| identity.host_tags.contains(tag));
    if !within {
        let why = format!("tags: must include one of your host tags ({})", identity.host_tags.join(", "));
        return Err(ApiError::unprocessable("invalid_server", why));
    }
    if let Some(jump) = server.jump {
        let found = find(app, identity, &jump.to_string()).await;
        found.map_err(|_| ApiError::unprocessable("invalid_server", "jump: server not found"))?;
    }
    Ok(())
}

/// A new row of what somebody wants, and the tags of its host.
pub(super) async fn build_server(
    app: &App,
    identity: &Identity,
    wish: &ServerRequest,
) -> Result<(ServerRow, Server, Vec<String>), ApiError> {
    let (server, tags) = (wish.validate()?, query::validate_tags(&wish.tags)?);
    authorize_server(app, identity, &tags, &server).await?;
    let id = Uuid::now_v7();
    let sealed = app
        .agentless
        .encrypt_credentials(id, &server, &wish.merge_credentials(None)?)
        .ok_or(AuthError::EncryptionKeyMissing)?;
    let body = server.to_body();
    let row = ServerRow {
        enabled: wish.enabled,
        interval_ms: server.interval.ms(),
        ..ServerRow::new(id, body, Some(sealed))
    };
    Ok((row, server, tags))
}

/// What a new one brings into the store.
pub(super) fn insert_statements(row: &ServerRow, tags: &[String], now_ms: i64) -> Vec<SqlStatement> {
    let mut changes = vec![row.insert()];
    if !tags.is_empty() {
        changes.push(HostTags::set(HostId(row.id), tags));
    }
    // The first look is made at once.
    changes.push(CollectionJobs::schedule(row.id, now_ms));
    changes
}

/// Create an agentless host
#[utoipa::path(post, path = "/api/v1/servers", tag = "servers", request_body = ServerRequest,
    responses((status = 201, body = ServerResponse), (status = 409), (status = 422)))]
pub(crate) async fn create_server(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<ServerRequest>,
) -> Result<(StatusCode, Json<ServerResponse>), ApiError> {
    let turn = app.directory.begin_write().await?;
    let known = ServerRow::list(app.agentless.store()).await?;
    if known.len() >= MAX_SERVERS {
        return Err(ApiError::conflict("limit_reached", format!("no more than {MAX_SERVERS} servers")));
    }
    let (row, server, tags) = build_server(&app, &actor.identity, &wish).await?;
    ensure_name_free(&app, &known, &server.name, None)?;
    let entry = actor.audit_change("server.create", format!("server {}", server.name), None, Some(&server));
    turn.commit(insert_statements(&row, &tags, app.clock.wall_ms()), Some(entry)).await?;
    app.agentless.notify_changed(Some(row.id));
    let row = ServerRow::get(app.agentless.store(), row.id).await?.unwrap_or(row);
    Ok((StatusCode::CREATED, Json(to_response_with_summary(row, &app).await?)))
}

/// Two of one name would be two hosts of one name.
pub(super) fn ensure_name_free(
    app: &App,
    known: &[ServerRow],
    name: &str,
    but: Option<Uuid>,
) -> Result<(), ApiError> {
    let named =
        |row: &ServerRow| Some(row.id) != but && Server::from_row(row).is_some_and(|one| one.name == name);
    // Whoever sends by name alone is known by it.
    let host = app.hosts.find(name).filter(|host| host.record.name == name && Some(host.record.id.0) != but);
    match host.is_some() || known.iter().any(named) {
        true => {
            Err(ApiError::conflict("name_taken", format!("name: {name:?} is already used by another host")))
        }
        false => Ok(()),
    }
}

/// Whether a way leads back to where it began.
fn has_jump_cycle(known: &[ServerRow], id: Uuid, server: &Server) -> bool {
    let (mut at, mut steps) = (server.jump, 0);
    while let Some(jump) = at {
        steps += 1;
        if jump == id || steps > known.len() {
            return true;
        }
        at = known
            .iter()
            .find(|row| row.id == jump)
            .and_then(Server::from_row)
            .and_then(|server| server.jump);
    }
    false
}

/// Replace an agentless host
///
/// Whatever it was refused for, it is tried again. With another address, its key is learnt anew.
#[utoipa::path(put, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    request_body = ServerRequest, responses((status = 200, body = ServerResponse), (status = 409), (status = 422)))]
pub(crate) async fn update_server(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<ServerRequest>,
) -> Result<Json<ServerResponse>, ApiError> {
    let turn = app.directory.begin_write().await?;
    let before = find(&app, &actor.identity, &id).await?;
    let (server, tags) = (wish.validate()?, query::validate_tags(&wish.tags)?);
    authorize_server(&app, &actor.identity, &tags, &server).await?;
    let known = ServerRow::list(app.agentless.store()).await?;
    ensure_name_free(&app, &known, &server.name, Some(before.id))?;
    if has_jump_cycle(&known, before.id, &server) {
        return Err(ApiError::unprocessable("invalid_server", "jump: jump hosts form a cycle"));
    }
    let was = Server::from_row(&before);
    let place = |server: &Server| (server.address.clone(), server.port, server.jump);
    let moved = was.as_ref().is_none_or(|was| place(was) != place(&server));
    // Credentials that can't be opened any more are as good as none; and a password is not told to
    // another host than the one it was given for.
    let kept = app.agentless.decrypt_credentials(&before).ok();
    let kept = kept.filter(|kept| !moved || kept.auth_method() == AuthMethod::Key);
    let credentials = wish.merge_credentials(kept)?;
    let row = ServerRow {
        body: server.to_body(),
        enabled: wish.enabled,
        interval_ms: server.interval.ms(),
        encrypted_credentials: Some(
            app.agentless
                .encrypt_credentials(before.id, &server, &credentials)
                .ok_or(AuthError::EncryptionKeyMissing)?,
        ),
        ..before.clone()
    };
    let now_ms = app.clock.wall_ms();
    // At once where it was not looked at so far; else at its place in the new rhythm.
    let fresh = !before.enabled || before.blocked_reason.is_some();
    let run_ms = if fresh { now_ms } else { next_run_ms(row.id, row.interval_ms, now_ms) };
    let mut changes = vec![row.update(wish.version.unwrap_or(before.version))];
    if moved {
        // What was learnt of the other place says nothing of this one.
        changes.push(ServerRow::reset_host_state(row.id));
    }
    changes.push(if tags.is_empty() {
        HostTags::delete(HostId(row.id))
    } else {
        HostTags::set(HostId(row.id), &tags)
    });
    let same_rhythm = !fresh && row.enabled && before.interval_ms == row.interval_ms;
    match row.enabled {
        true if same_rhythm => changes.push(CollectionJobs::schedule(row.id, run_ms)),
        true => changes.push(CollectionJobs::reschedule(row.id, run_ms)),
        false => changes.push(CollectionJobs::cancel(row.id)),
    }
    let secret_said = wish.credentials.has_secret();
    let action = if secret_said { "server.update_credentials" } else { "server.update" };
    let entry = actor.audit_change(action, format!("server {}", server.name), was.as_ref(), Some(&server));
    turn.commit(changes, Some(entry)).await?;
    app.agentless.notify_changed(Some(row.id));
    Ok(Json(to_response_with_summary(find(&app, &actor.identity, &id).await?, &app).await?))
}

/// Delete an agentless host
///
/// What is known of its past goes with retention.
#[utoipa::path(delete, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn delete_server(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.directory.begin_write().await?;
    let row = find(&app, &actor.identity, &id).await?;
    let known = ServerRow::list(app.agentless.store()).await?;
    let leads =
        |other: &&ServerRow| Server::from_row(other).is_some_and(|server| server.jump == Some(row.id));
    if let Some(other) = known.iter().find(leads) {
        // Its name is told to who may see it.
        let seen = actor
            .identity
            .can_view(&app.directory.snapshot(), HostId(other.id))
            .then(|| Server::from_row(other));
        let name = seen.flatten().map_or_else(|| "another server".to_owned(), |server| server.name);
        return Err(ApiError::conflict("server_in_use", format!("the server is a jump host of {name}")));
    }
    let host = HostId(row.id);
    let name = Server::from_row(&row).map(|server| server.name).unwrap_or_default();
    let mut changes: Vec<SqlStatement> = ServerRow::delete(row.id).into();
    changes.extend(hosts::delete_statements(host));
    if app.hosts.get(host).is_some() {
        changes.push(HostRecord::delete(host));
    }
    turn.commit(changes, Some(actor.audit("server.delete", format!("server {name}")))).await?;
    hosts::evict_host(&app, host);
    app.agentless.notify_changed(Some(row.id));
    Ok(StatusCode::NO_CONTENT)
}

/// The key that a server showed, as it is trusted from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptHostKeyRequest {
    /// As it was shown: `ssh-ed25519 SHA256:…`.
    host_key: String,
}

/// Accept a new host key
#[utoipa::path(put, path = "/api/v1/servers/{id}/host-key", tag = "servers", params(("id" = String, Path)),
    request_body = AcceptHostKeyRequest, responses((status = 200, body = ServerResponse), (status = 409), (status = 422)))]
pub(crate) async fn accept_host_key(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<AcceptHostKeyRequest>,
) -> Result<Json<ServerResponse>, ApiError> {
    let turn = app.directory.begin_write().await?;
    let row = find(&app, &actor.identity, &id).await?;
    if row.offered_host_key.as_deref() != Some(wish.host_key.as_str()) {
        return Err(ApiError::conflict("conflict", "host_key does not match the last offered key; reload"));
    }
    let after = ServerRow { host_key: row.offered_host_key.clone(), ..row.clone() };
    let name = Server::from_row(&row).map(|server| server.name).unwrap_or_default();
    let entry = actor.audit_change(
        "server.accept_host_key",
        format!("server {name}"),
        row.host_key.as_ref(),
        after.host_key.as_ref(),
    );
    let trusted = ServerRow::accept_host_key(row.id, &wish.host_key);
    let changes =
        [after.update(row.version), trusted, CollectionJobs::reschedule(row.id, app.clock.wall_ms())];
    turn.commit(changes, Some(entry)).await?;
    app.agentless.notify_changed(Some(row.id));
    Ok(Json(to_response_with_summary(find(&app, &actor.identity, &id).await?, &app).await?))
}
