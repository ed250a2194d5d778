//! `/api/v1/servers`: configuration of agentless hosts and their collection state.

mod response;

use super::hosts;
use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_agentless::server_change::CREDENTIALS_REQUIRED;
use perfwatch_agentless::server_request::{DependentPasswords, ServerRequest, validate_password};
use perfwatch_agentless::summary::FleetTotals;
use perfwatch_agentless::{Server, ServerChange, ServerChangeError, ServerTable, next_run_ms};
use perfwatch_auth::{AuthError, Identity};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller, params};
use perfwatch_live::host_registry;
use perfwatch_model::HostId;
use perfwatch_store::Transaction;
use perfwatch_store::servers::ServerRow;
use response::{ServerResponse, to_response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Maximum number of servers per hub.
pub(super) const MAX_SERVERS: usize = perfwatch_agentless::import::MAX_ENTRIES;

/// Visible servers, sorted by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerListResponse {
    servers: Vec<ServerResponse>,
    /// Current time of the hub.
    now_ms: i64,
}

/// Server that the caller may view.
///
/// # Errors
/// Returns `not_found` if the server does not exist or is not visible to the caller.
pub(super) async fn find(app: &App, identity: &Identity, id: &str) -> Result<ServerRow, ApiError> {
    let missing = || ApiError::not_found(format!("server {id:?} not found"));
    let id: Uuid = id.parse().map_err(|_| missing())?;
    if !identity.can_view(&app.directory.snapshot(), HostId(id)) {
        return Err(missing());
    }
    ServerRow::get(app.agentless.store(), id).await?.ok_or_else(missing)
}

async fn to_response_with_summary(
    row: ServerRow,
    app: &App,
    identity: &Identity,
) -> Result<ServerResponse, ApiError> {
    let unreadable =
        || ApiError::unprocessable("server_unreadable", "server record has an unsupported version");
    let server = Server::from_row(&row).ok_or_else(unreadable)?;
    let servers = [(row.id, server)];
    let summary = app.agentless.summaries().get_many(&servers).await.pop().flatten();
    let [(_, server)] = servers;
    let hidden_paths = host_access::hidden_paths(app, identity).await?;
    Ok(to_response(row, server, summary, &app.directory.snapshot(), &hidden_paths))
}

/// List agentless hosts
#[utoipa::path(
    get, path = "/api/v1/servers", tag = "servers",
    responses((status = 200, body = ServerListResponse)),
)]
pub(crate) async fn list_servers(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<ServerListResponse>, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let rows = ServerRow::list(app.agentless.store()).await?;
    let rows = rows.into_iter().filter(|row| identity.can_view(&auth_snapshot, HostId(row.id)));
    let (servers, rows): (Vec<(Uuid, Server)>, Vec<ServerRow>) =
        rows.filter_map(|row| Some(((row.id, Server::from_row(&row)?), row))).unzip();
    let summaries = app.agentless.summaries().get_many(&servers).await;
    let rows = rows.into_iter().zip(servers).zip(summaries);
    let hidden_paths = host_access::hidden_paths(&app, &identity).await?;
    let mut servers: Vec<ServerResponse> = rows
        .map(|((row, (_, server)), summary)| to_response(row, server, summary, &auth_snapshot, &hidden_paths))
        .collect();
    servers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Json(ServerListResponse { servers, now_ms: app.clock.wall_ms() }))
}

/// Totals of all agentless hosts
#[utoipa::path(
    get, path = "/api/v1/servers/summary", tag = "servers",
    responses((status = 200, body = FleetTotals)),
)]
pub(crate) async fn summary(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<FleetTotals>, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let rows = ServerRow::list(app.agentless.store()).await?;
    let rows = rows.iter().filter(|row| row.enabled && identity.can_view(&auth_snapshot, HostId(row.id)));
    let servers: Vec<(Uuid, Server)> =
        rows.filter_map(|row| Some((row.id, Server::from_row(row)?))).collect();
    // Callers with the same host tags see the same totals until accounts or tags change.
    let scope = format!("{}:{}", auth_snapshot.revision(), identity.host_tags.join(","));
    Ok(Json(app.agentless.summaries().totals(&scope, &servers).await))
}

/// Get an agentless host
#[utoipa::path(
    get, path = "/api/v1/servers/{id}", tag = "servers",
    params(("id" = String, Path, description = "Id of the server")),
    responses((status = 200, body = ServerResponse), (status = 422)),
)]
pub(crate) async fn get_server(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<ServerResponse>, ApiError> {
    Ok(Json(to_response_with_summary(find(&app, &identity, &id).await?, &app, &identity).await?))
}

/// Checks that the caller may view a host with these tags.
///
/// # Errors
/// Returns `invalid_server` if the tags are outside the caller's scope.
pub(super) fn ensure_in_scope(identity: &Identity, tags: &[String]) -> Result<(), ApiError> {
    if identity.includes_host_with(tags) {
        return Ok(());
    }
    let message = format!("tags: must include one of your host tags ({})", identity.host_tags.join(", "));
    Err(ApiError::unprocessable("invalid_server", message))
}

/// Checks that the caller may view the server with these tags, and its jump host.
///
/// # Errors
/// Returns `invalid_server` if the tags or the jump host are outside the caller's scope.
async fn authorize_server(
    app: &App,
    identity: &Identity,
    tags: &[String],
    server: &Server,
) -> Result<(), ApiError> {
    ensure_in_scope(identity, tags)?;
    if let Some(jump) = server.jump {
        let jump_host = find(app, identity, &jump.to_string()).await;
        jump_host.map_err(|_| ApiError::unprocessable("invalid_server", "jump: server not found"))?;
    }
    Ok(())
}

/// Configuration and tags of a request that the caller may save.
pub(super) async fn validate_request(
    app: &App,
    identity: &Identity,
    request: &ServerRequest,
) -> Result<(Server, Vec<String>), ApiError> {
    let server = request.validate().map_err(|error| change_error(&error.into()))?;
    let tags = params::validate_tags(&request.tags)?;
    authorize_server(app, identity, &tags, &server).await?;
    Ok((server, tags))
}

/// Error of a change that was not planned.
pub(super) fn change_error(error: &ServerChangeError) -> ApiError {
    let message = error.to_string();
    match error {
        ServerChangeError::Invalid(_) => ApiError::unprocessable("invalid_server", message),
        ServerChangeError::PasswordsRequired(_) => ApiError::conflict("passwords_required", message),
        ServerChangeError::EncryptionKeyMissing => AuthError::EncryptionKeyMissing.into(),
        ServerChangeError::Work(error) => (*error).into(),
    }
}

/// Checks that the caller may view all servers whose path leads through a server.
///
/// # Errors
/// Returns `forbidden` if a hidden server is behind it: its password would be deleted or sent elsewhere.
fn authorize_dependents(
    app: &App,
    identity: &Identity,
    table: &ServerTable,
    id: Uuid,
) -> Result<(), ApiError> {
    let auth_snapshot = app.directory.snapshot();
    if table.dependents(id).into_iter().all(|id| identity.can_view(&auth_snapshot, HostId(id))) {
        return Ok(());
    }
    let message = "the server is a jump host of servers that you may not view";
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// Checks that the path of a server leads through no hidden server.
///
/// # Errors
/// Returns `forbidden` otherwise.
async fn require_visible_path(app: &App, identity: &Identity, id: Uuid) -> Result<(), ApiError> {
    if host_access::hidden_paths(app, identity).await?.contains(&id) {
        let message = "the path of the server leads through a server that you may not view";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Ok(())
}

/// Inserts a new server with its tags and its first job.
pub(super) fn insert_server(tx: &mut Transaction, row: &ServerRow, tags: &[String], now_ms: i64) {
    tx.servers().insert(row);
    if !tags.is_empty() {
        tx.host_tags().set(HostId(row.id), tags);
    }
    // The first collection is due immediately.
    tx.collection_jobs().schedule(row.id, now_ms);
}

/// Create an agentless host
#[utoipa::path(
    post, path = "/api/v1/servers", tag = "servers",
    request_body = ServerRequest,
    responses((status = 201, body = ServerResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn create_server(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<ServerRequest>,
) -> Result<(StatusCode, Json<ServerResponse>), ApiError> {
    let (server, tags) = validate_request(&app, &actor.identity, &request).await?;
    let table = app.agentless.server_table().await?;
    let planned = app.agentless.editor().plan_create(&actor.identity.share_key(), &table, &request).await;
    let row = planned.map_err(|error| change_error(&error))?;
    let guard = app.directory.begin_write(&actor).await?;
    let table = app.agentless.server_table().await?;
    ensure_below_limit(&actor.identity, table.count() + 1)?;
    ensure_name_free(&app, &table, &server.name, None)?;
    let entry = actor.audit_change("server.create", format!("server {}", server.name), None, Some(&server));
    let tx = Transaction::build(|tx| insert_server(tx, &row, &tags, app.clock.wall_ms()));
    guard.commit(tx, Some(entry)).await?;
    app.agentless.notify_changed(Some(row.id));
    let row = ServerRow::get(app.agentless.store(), row.id).await?.unwrap_or(row);
    Ok((StatusCode::CREATED, Json(to_response_with_summary(row, &app, &actor.identity).await?)))
}

/// Checks that the caller may create servers up to this number of all servers.
///
/// # Errors
/// Returns `limit_reached` above the part of the limit that the caller has.
pub(super) fn ensure_below_limit(identity: &Identity, count: usize) -> Result<(), ApiError> {
    let max_servers = identity.max_objects(MAX_SERVERS);
    match count <= max_servers {
        true => Ok(()),
        false => Err(limit_reached(max_servers)),
    }
}

/// Error of a server above the maximum number.
pub(super) fn limit_reached(max_servers: usize) -> ApiError {
    ApiError::conflict("limit_reached", format!("at most {max_servers} servers are allowed"))
}

/// Checks that no other host has the name.
///
/// # Errors
/// Returns `name_taken` if another server or host has the name.
fn ensure_name_free(
    app: &App,
    servers: &ServerTable,
    name: &str,
    except: Option<Uuid>,
) -> Result<(), ApiError> {
    let is_server = servers.find_name(name).is_some_and(|id| Some(id) != except);
    // Hosts of scripts are identified by name only.
    let is_other = |host: &host_registry::Host| host.record.name == name && Some(host.record.id.0) != except;
    match is_server || app.hosts.find(name).iter().any(is_other) {
        true => {
            Err(ApiError::conflict("name_taken", format!("name: {name:?} is already used by another host")))
        }
        false => Ok(()),
    }
}

/// Replace an agentless host
///
/// Clears the blocked state. If the address changes, the host key is pinned again on the next connection.
/// Another address, port, user or jump host requires the password again, and those of servers behind it.
#[utoipa::path(
    put, path = "/api/v1/servers/{id}", tag = "servers",
    params(("id" = String, Path, description = "Id of the server")),
    request_body = ServerRequest,
    responses((status = 200, body = ServerResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_server(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ServerRequest>,
) -> Result<Json<ServerResponse>, ApiError> {
    let before = find(&app, &actor.identity, &id).await?;
    require_visible_path(&app, &actor.identity, before.id).await?;
    let (server, tags) = validate_request(&app, &actor.identity, &request).await?;
    // The change is planned on the stored version.
    if request.version.is_some_and(|version| version != before.version) {
        return Err(ApiError::conflict("conflict", "the server was changed concurrently; reload"));
    }
    let table = app.agentless.server_table().await?;
    // Other credentials of a jump host end the collection of the servers behind it.
    let is_moved = table.is_moved(before.id, &server) || table.changes_login(before.id, &server);
    if is_moved || request.credentials.has_secret() {
        authorize_dependents(&app, &actor.identity, &table, before.id)?;
    }
    let (editor, principal) = (app.agentless.editor(), actor.identity.share_key());
    let planned = editor.plan_update(&principal, table.clone(), &before, server.clone(), &request).await;
    let change = planned.map_err(|error| change_error(&error))?;
    let guard = app.directory.begin_write(&actor).await?;
    let table = app.agentless.server_table().await?;
    ensure_name_free(&app, &table, &server.name, Some(before.id))?;
    if table.has_jump_cycle(before.id, &server) {
        return Err(ApiError::unprocessable("invalid_server", "jump: jump hosts form a cycle"));
    }
    let (row, saved_server) = (&change.row, Server::from_row(&before));
    let now_ms = app.clock.wall_ms();
    // Immediately if the server was disabled or blocked, else at its phase of the interval.
    let is_resumed = !before.enabled || before.blocked_reason.is_some();
    let run_ms = if is_resumed { now_ms } else { next_run_ms(row.id, row.interval_ms, now_ms) };
    let mut tx = Transaction::default();
    tx.servers().update(row, before.version);
    if change.is_moved {
        // Host key and counters belong to the previous address.
        tx.servers().reset_host_state(row.id);
    }
    change.write_dependents(&mut tx);
    if tags.is_empty() {
        tx.host_tags().delete(HostId(row.id));
    } else {
        tx.host_tags().set(HostId(row.id), &tags);
    }
    let same_interval = !is_resumed && row.enabled && before.interval_ms == row.interval_ms;
    match row.enabled {
        true if same_interval => tx.collection_jobs().schedule(row.id, run_ms),
        true => tx.collection_jobs().reschedule(row.id, run_ms),
        false => tx.collection_jobs().cancel(row.id),
    }
    let has_secret = request.credentials.has_secret();
    let action = if has_secret { "server.update_credentials" } else { "server.update" };
    let entry =
        actor.audit_change(action, format!("server {}", server.name), saved_server.as_ref(), Some(&server));
    guard.commit(tx, Some(entry)).await?;
    notify_changed(&app, &change);
    Ok(Json(to_response_with_summary(find(&app, &actor.identity, &id).await?, &app, &actor.identity).await?))
}

/// Applies a change of a server, and of those behind it, without delay.
fn notify_changed(app: &App, change: &ServerChange) {
    change.dependents().chain([change.row.id]).for_each(|id| app.agentless.notify_changed(Some(id)));
}

/// Delete an agentless host
///
/// History is deleted by retention.
#[utoipa::path(
    delete, path = "/api/v1/servers/{id}", tag = "servers",
    params(("id" = String, Path, description = "Id of the server")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_server(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let guard = app.directory.begin_write(&actor).await?;
    let row = find(&app, &actor.identity, &id).await?;
    require_visible_path(&app, &actor.identity, row.id).await?;
    let servers = ServerRow::list(app.agentless.store()).await?;
    let uses_as_jump_host =
        |other: &&ServerRow| Server::from_row(other).is_some_and(|server| server.jump == Some(row.id));
    if let Some(other) = servers.iter().find(uses_as_jump_host) {
        // The name is included only if the caller may view that server.
        let visible = actor
            .identity
            .can_view(&app.directory.snapshot(), HostId(other.id))
            .then(|| Server::from_row(other));
        let name = visible.flatten().map_or_else(|| "another server".to_owned(), |server| server.name);
        return Err(ApiError::conflict("server_in_use", format!("the server is a jump host of {name}")));
    }
    let host = HostId(row.id);
    let server = Server::from_row(&row);
    let name = server.as_ref().map(|server| server.name.as_str()).unwrap_or_default();
    let entry = actor.audit_change("server.delete", format!("server {name}"), server.as_ref(), None);
    let mut tx = Transaction::default();
    tx.servers().delete(row.id);
    hosts::delete_tags_and_last_seen(&mut tx, host);
    if app.hosts.get(host).is_some() {
        tx.hosts().delete(host);
    }
    guard.commit(tx, Some(entry)).await?;
    hosts::evict_host(&app, host);
    app.agentless.notify_changed(Some(row.id));
    Ok(StatusCode::NO_CONTENT)
}

/// Host key to pin from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptHostKeyRequest {
    /// Offered host key: `ssh-ed25519 SHA256:…`.
    host_key: String,
    /// Password of the server; without it, the stored password is deleted. Keys are kept.
    #[schema(format = Password)]
    password: Option<String>,
    /// Passwords of servers behind this one, by id; `null` deletes a stored password.
    #[serde(default)]
    #[schema(value_type = std::collections::HashMap<String, Option<String>>)]
    passwords: DependentPasswords,
}

/// Accept a new host key
///
/// Passwords are bound to the host keys of the path to their server: they have to be sent along.
#[utoipa::path(
    put, path = "/api/v1/servers/{id}/host-key", tag = "servers",
    params(("id" = String, Path, description = "Id of the server")),
    request_body = AcceptHostKeyRequest,
    responses((status = 200, body = ServerResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn accept_host_key(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AcceptHostKeyRequest>,
) -> Result<Json<ServerResponse>, ApiError> {
    for password in request.password.iter().chain(request.passwords.values().flatten()) {
        validate_password("password", password).map_err(|error| change_error(&error.into()))?;
    }
    let guard = app.directory.begin_write(&actor).await?;
    let row = find(&app, &actor.identity, &id).await?;
    require_visible_path(&app, &actor.identity, row.id).await?;
    if row.offered_host_key.as_deref() != Some(request.host_key.as_str()) {
        return Err(ApiError::conflict("conflict", "host_key does not match the last offered key; reload"));
    }
    let table = app.agentless.server_table().await?;
    authorize_dependents(&app, &actor.identity, &table, row.id)?;
    let name = table.name(row.id).unwrap_or_default().to_owned();
    let planned = app.agentless.editor().plan_host_key(table, &row, request.password, &request.passwords);
    let change = planned.map_err(|error| change_error(&error))?;
    let (before, after) = (row.host_key.as_ref(), change.row.host_key.as_ref());
    let entry = actor.audit_change("server.accept_host_key", format!("server {name}"), before, after);
    let mut tx = Transaction::default();
    tx.servers().update(&change.row, row.version);
    tx.servers().accept_host_key(row.id, &request.host_key);
    tx.servers().require_credentials(row.id, CREDENTIALS_REQUIRED);
    change.write_dependents(&mut tx);
    tx.collection_jobs().reschedule(row.id, app.clock.wall_ms());
    guard.commit(tx, Some(entry)).await?;
    notify_changed(&app, &change);
    Ok(Json(to_response_with_summary(find(&app, &actor.identity, &id).await?, &app, &actor.identity).await?))
}
