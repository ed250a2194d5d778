//! `/api/v1/servers`: hosts without an agent, how to enter them, and how it went.

use super::body::JsonBody;
use super::{hosts, params};
use crate::app::App;
use crate::auth::people::State as Everyone;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use crate::servers::latest::{Latest, ServersTotal};
use crate::servers::record::{LoginKind, ServerWish, Thresholds};
use crate::servers::{Server, Servers, queue};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_model::remote::Cause;
use perfwatch_model::{HostId, Span};
use perfwatch_store::people::HostTags;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{Change, HostRecord, jobs::Jobs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Of one hub.
pub(crate) const MOST_SERVERS: usize = 10_000;

/// The last look.
#[derive(Serialize, ToSchema)]
pub(crate) struct LastJson {
    at_ms: i64,
    took_ms: i64,
    /// Why it came to nothing.
    #[schema(value_type = Option<Cause>)]
    cause: Option<String>,
    error: Option<String>,
}

/// Why it is not tried any more, until somebody acts.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedJson {
    #[schema(value_type = Cause)]
    cause: String,
    /// The key that it showed instead of its own.
    shown_key: Option<String>,
}

/// A host without an agent. What opens its door is not shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerJson {
    id: Uuid,
    name: String,
    address: String,
    port: u16,
    user: String,
    login: LoginKind,
    jump: Option<Uuid>,
    tags: Vec<String>,
    #[schema(value_type = String)]
    interval: Span,
    thresholds: Thresholds,
    enabled: bool,
    /// Rises with each change: send it back with yours.
    version: i64,
    /// The key that it must show.
    host_key: Option<String>,
    refused: Option<RefusedJson>,
    last: Option<LastJson>,
    /// When a look last brought something.
    last_ok_ms: Option<i64>,
    /// When it is looked at next.
    next_ms: Option<i64>,
    /// What it saw last, in the last hour.
    latest: Option<Latest>,
}

/// Servers by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServersJson {
    servers: Vec<ServerJson>,
    now_ms: i64,
}

fn show(row: ServerRow, server: Server, latest: Option<Latest>, everyone: &Everyone) -> ServerJson {
    let Server { name, address, port, user, login, jump, interval, thresholds } = server;
    let last = row.last_ms.map(|at_ms| LastJson {
        at_ms,
        took_ms: row.last_took_ms.unwrap_or_default(),
        cause: row.last_cause,
        error: row.last_error,
    });
    let shown_key = row.shown_key;
    ServerJson {
        id: row.id,
        name,
        address,
        port,
        user,
        login,
        jump,
        tags: everyone.tags(HostId(row.id)).to_vec(),
        interval,
        thresholds,
        enabled: row.enabled,
        version: row.version,
        host_key: row.host_key,
        refused: row.refused.map(|cause| RefusedJson { cause, shown_key }),
        last,
        last_ok_ms: row.last_ok_ms,
        next_ms: row.next_ms,
        latest,
    }
}

/// One that they may see; another one is not there.
pub(super) async fn find(app: &App, identity: &Identity, id: &str) -> Result<ServerRow, ApiError> {
    let missing = || ApiError::not_found(format!("there is no server {id:?}"));
    let id: Uuid = id.parse().map_err(|_| missing())?;
    if !identity.sees(&app.people.now(), HostId(id)) {
        return Err(missing());
    }
    ServerRow::one(app.servers.store(), id).await?.ok_or_else(missing)
}

async fn shown(row: ServerRow, app: &App) -> Result<ServerJson, ApiError> {
    let unreadable = || ApiError::unprocessable("unreadable", "this version can't read that server's record");
    let server = Servers::record(&row).ok_or_else(unreadable)?;
    let one = [(row.id, server)];
    let latest = app.servers.latest(&one).await.pop().flatten();
    let [(_, server)] = one;
    Ok(show(row, server, latest, &app.people.now()))
}

/// Hosts without an agent, by name
#[utoipa::path(get, path = "/api/v1/servers", tag = "servers", responses((status = 200, body = ServersJson)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    identity: Identity,
) -> Result<Json<ServersJson>, ApiError> {
    let everyone = app.people.now();
    let rows = ServerRow::all(app.servers.store()).await?;
    let rows = rows.into_iter().filter(|row| identity.sees(&everyone, HostId(row.id)));
    let (known, rows): (Vec<(Uuid, Server)>, Vec<ServerRow>) =
        rows.filter_map(|row| Some(((row.id, Servers::record(&row)?), row))).unzip();
    let latest = app.servers.latest(&known).await;
    let all = rows.into_iter().zip(known).zip(latest);
    let mut servers: Vec<ServerJson> =
        all.map(|((row, (_, server)), latest)| show(row, server, latest, &everyone)).collect();
    servers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Json(ServersJson { servers, now_ms: app.clock.wall_ms() }))
}

/// What all of them come to together
#[utoipa::path(get, path = "/api/v1/servers/metrics/summary", tag = "servers",
    responses((status = 200, body = ServersTotal)))]
pub(crate) async fn summary(
    State(app): State<Arc<App>>,
    identity: Identity,
) -> Result<Json<ServersTotal>, ApiError> {
    let everyone = app.people.now();
    let rows = ServerRow::all(app.servers.store()).await?;
    let rows = rows.iter().filter(|row| row.enabled && identity.sees(&everyone, HostId(row.id)));
    let servers: Vec<(Uuid, Server)> = rows.filter_map(|row| Some((row.id, Servers::record(row)?))).collect();
    // Whoever may see the same, as of the same changes, sees the same.
    let who = format!("{}:{}", everyone.revision(), identity.host_tags.join(","));
    Ok(Json(app.servers.summary(&who, &servers).await))
}

/// One host without an agent
#[utoipa::path(get, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    responses((status = 200, body = ServerJson), (status = 422)))]
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Json<ServerJson>, ApiError> {
    Ok(Json(shown(find(&app, &identity, &id).await?, &app).await?))
}

/// Whether its host may be theirs, and its way leads through what they may see.
pub(super) async fn allowed(
    app: &App,
    identity: &Identity,
    tags: &[String],
    server: &Server,
) -> Result<(), ApiError> {
    let within = identity.host_tags.is_empty() || tags.iter().any(|tag| identity.host_tags.contains(tag));
    if !within {
        let why = format!("tags: one of yours must be among them ({})", identity.host_tags.join(", "));
        return Err(ApiError::unprocessable("invalid_server", why));
    }
    if let Some(jump) = server.jump {
        let found = find(app, identity, &jump.to_string()).await;
        found.map_err(|_| ApiError::unprocessable("invalid_server", "jump: there is no such server"))?;
    }
    Ok(())
}

/// A new row of what somebody wants, and the tags of its host.
pub(super) async fn made(
    app: &App,
    identity: &Identity,
    wish: &ServerWish,
) -> Result<(ServerRow, Server, Vec<String>), ApiError> {
    let (server, tags) = (wish.checked()?, params::tags(&wish.tags)?);
    allowed(app, identity, &tags, &server).await?;
    let id = Uuid::now_v7();
    let sealed = app.servers.seal(id, &server, &wish.credentials(None)?).ok_or_else(ApiError::no_key)?;
    let body = server.body();
    let row = ServerRow {
        enabled: wish.enabled,
        interval_ms: server.interval.ms(),
        ..ServerRow::new(id, body, Some(sealed))
    };
    Ok((row, server, tags))
}

/// What a new one brings into the store.
pub(super) fn add(row: &ServerRow, tags: &[String], now_ms: i64) -> Vec<Change> {
    let mut changes = vec![row.add()];
    if !tags.is_empty() {
        changes.push(HostTags::put(HostId(row.id), tags));
    }
    // The first look is made at once.
    changes.push(Jobs::plan(row.id, now_ms));
    changes
}

/// A new host without an agent; switched off unless asked otherwise
#[utoipa::path(post, path = "/api/v1/servers", tag = "servers", request_body = ServerWish,
    responses((status = 201, body = ServerJson), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<ServerWish>,
) -> Result<(StatusCode, Json<ServerJson>), ApiError> {
    let turn = app.people.turn().await?;
    let known = ServerRow::all(app.servers.store()).await?;
    if known.len() >= MOST_SERVERS {
        return Err(ApiError::conflict("too_many", format!("no more than {MOST_SERVERS} servers")));
    }
    let (row, server, tags) = made(&app, &doer.identity, &wish).await?;
    taken(&app, &known, &server.name, None)?;
    let entry = doer.changed("server.create", format!("server {}", server.name), None, Some(&server));
    turn.commit(add(&row, &tags, app.clock.wall_ms()), Some(entry)).await?;
    app.servers.wake(Some(row.id));
    let row = ServerRow::one(app.servers.store(), row.id).await?.unwrap_or(row);
    Ok((StatusCode::CREATED, Json(shown(row, &app).await?)))
}

/// Two of one name would be two hosts of one name.
pub(super) fn taken(app: &App, known: &[ServerRow], name: &str, but: Option<Uuid>) -> Result<(), ApiError> {
    let named =
        |row: &ServerRow| Some(row.id) != but && Servers::record(row).is_some_and(|one| one.name == name);
    // Whoever sends by name alone is known by it.
    let host = app.fleet.find(name).filter(|host| host.record.name == name && Some(host.record.id.0) != but);
    match host.is_some() || known.iter().any(named) {
        true => Err(ApiError::conflict("name_taken", format!("name: there is another host called {name:?}"))),
        false => Ok(()),
    }
}

/// Whether a way leads back to where it began.
fn circles(known: &[ServerRow], id: Uuid, server: &Server) -> bool {
    let (mut at, mut steps) = (server.jump, 0);
    while let Some(jump) = at {
        steps += 1;
        if jump == id || steps > known.len() {
            return true;
        }
        at = known.iter().find(|row| row.id == jump).and_then(Servers::record).and_then(|server| server.jump);
    }
    false
}

/// Another server in its place; credentials that are not said stay
///
/// Whatever it was refused for, it is tried again. With another address, its key is learnt anew.
#[utoipa::path(put, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    request_body = ServerWish, responses((status = 200, body = ServerJson), (status = 409), (status = 422)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<ServerWish>,
) -> Result<Json<ServerJson>, ApiError> {
    let turn = app.people.turn().await?;
    let before = find(&app, &doer.identity, &id).await?;
    let (server, tags) = (wish.checked()?, params::tags(&wish.tags)?);
    allowed(&app, &doer.identity, &tags, &server).await?;
    let known = ServerRow::all(app.servers.store()).await?;
    taken(&app, &known, &server.name, Some(before.id))?;
    if circles(&known, before.id, &server) {
        return Err(ApiError::unprocessable("invalid_server", "jump: it can't lead through itself"));
    }
    let was = Servers::record(&before);
    let place = |server: &Server| (server.address.clone(), server.port, server.jump);
    let moved = was.as_ref().is_none_or(|was| place(was) != place(&server));
    // Credentials that can't be opened any more are as good as none; and a password is not told to
    // another host than the one it was given for.
    let kept = app.servers.unseal(&before).ok();
    let kept = kept.filter(|kept| !moved || kept.kind() == LoginKind::Key);
    let credentials = wish.credentials(kept)?;
    let row = ServerRow {
        body: server.body(),
        enabled: wish.enabled,
        interval_ms: server.interval.ms(),
        secret: Some(app.servers.seal(before.id, &server, &credentials).ok_or_else(ApiError::no_key)?),
        ..before.clone()
    };
    let now_ms = app.clock.wall_ms();
    // At once where it was not looked at so far; else at its place in the new rhythm.
    let fresh = !before.enabled || before.refused.is_some();
    let run_ms = if fresh { now_ms } else { queue::next_run_ms(row.id, row.interval_ms, now_ms) };
    let mut changes = vec![row.change(wish.version.unwrap_or(before.version))];
    if moved {
        // What was learnt of the other place says nothing of this one.
        changes.push(ServerRow::forget(row.id));
    }
    changes.push(if tags.is_empty() {
        HostTags::remove(HostId(row.id))
    } else {
        HostTags::put(HostId(row.id), &tags)
    });
    let same_rhythm = !fresh && row.enabled && before.interval_ms == row.interval_ms;
    match row.enabled {
        true if same_rhythm => changes.push(Jobs::plan(row.id, run_ms)),
        true => changes.push(Jobs::replan(row.id, run_ms)),
        false => changes.push(Jobs::unplan(row.id)),
    }
    let secret_said = matches!(
        &wish.login,
        crate::servers::record::LoginWish::Password { password: Some(_) }
            | crate::servers::record::LoginWish::Key { key: Some(_), .. }
    );
    let action = if secret_said { "server.credentials" } else { "server.change" };
    let entry = doer.changed(action, format!("server {}", server.name), was.as_ref(), Some(&server));
    turn.commit(changes, Some(entry)).await?;
    app.servers.wake(Some(row.id));
    Ok(Json(shown(find(&app, &doer.identity, &id).await?, &app).await?))
}

/// Removes a server, and its host
///
/// What is known of its past goes with retention.
#[utoipa::path(delete, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.people.turn().await?;
    let row = find(&app, &doer.identity, &id).await?;
    let known = ServerRow::all(app.servers.store()).await?;
    let leads = |other: &&ServerRow| Servers::record(other).is_some_and(|server| server.jump == Some(row.id));
    if let Some(other) = known.iter().find(leads) {
        // Its name is told to who may see it.
        let seen = doer.identity.sees(&app.people.now(), HostId(other.id)).then(|| Servers::record(other));
        let name = seen.flatten().map_or_else(|| "another server".to_owned(), |server| server.name);
        return Err(ApiError::conflict("in_use", format!("the way to {name} leads through it")));
    }
    let host = HostId(row.id);
    let name = Servers::record(&row).map(|server| server.name).unwrap_or_default();
    let mut changes: Vec<Change> = ServerRow::remove(row.id).into();
    changes.extend(hosts::gone(host));
    if app.fleet.get(host).is_some() {
        changes.push(HostRecord::remove(host));
    }
    turn.commit(changes, Some(doer.did("server.remove", format!("server {name}")))).await?;
    hosts::forget(&app, host);
    app.servers.wake(Some(row.id));
    Ok(StatusCode::NO_CONTENT)
}

/// The key that a server showed, as it is trusted from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustWish {
    /// As it was shown: `ssh-ed25519 SHA256:…`.
    key: String,
}

/// Trusts the other key that a server showed
#[utoipa::path(put, path = "/api/v1/servers/{id}/host-key", tag = "servers", params(("id" = String, Path)),
    request_body = TrustWish, responses((status = 200, body = ServerJson), (status = 409), (status = 422)))]
pub(crate) async fn trust(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<TrustWish>,
) -> Result<Json<ServerJson>, ApiError> {
    let turn = app.people.turn().await?;
    let row = find(&app, &doer.identity, &id).await?;
    if row.shown_key.as_deref() != Some(wish.key.as_str()) {
        return Err(ApiError::conflict("changed", "that is not the key that it showed last; look again"));
    }
    let after = ServerRow { host_key: row.shown_key.clone(), ..row.clone() };
    let name = Servers::record(&row).map(|server| server.name).unwrap_or_default();
    let entry = doer.changed(
        "server.host_key",
        format!("server {name}"),
        row.host_key.as_ref(),
        after.host_key.as_ref(),
    );
    let trusted = ServerRow::trust(row.id, &wish.key);
    let changes = [after.change(row.version), trusted, Jobs::replan(row.id, app.clock.wall_ms())];
    turn.commit(changes, Some(entry)).await?;
    app.servers.wake(Some(row.id));
    Ok(Json(shown(find(&app, &doer.identity, &id).await?, &app).await?))
}
