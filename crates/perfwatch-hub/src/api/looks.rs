//! `/api/v1/servers/…/test` and `…/tests`: whether a server can be looked at, and how looks went.

use super::body::JsonBody;
use super::params;
use super::servers::{allowed, find};
use crate::app::App;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use crate::servers::Servers;
use crate::servers::looking::Outcome;
use crate::servers::record::ServerWish;
use axum::Json;
use axum::extract::{Path, Query, State};
use perfwatch_model::remote::{Cause, Stage, Step};
use perfwatch_store::servers::{LookRow, ServerRow};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How a test went, step by step.
#[derive(Serialize, ToSchema)]
pub(crate) struct TestResult {
    ok: bool,
    took_ms: u64,
    /// What was done, in order.
    steps: Vec<Step>,
    /// Where it ended.
    stage: Option<Stage>,
    cause: Option<Cause>,
    /// Why, in words.
    error: Option<String>,
    /// The key that it showed.
    host_key: Option<String>,
}

fn busy() -> ApiError {
    ApiError::too_many("too many connections are tried at this moment", std::time::Duration::from_secs(10))
}

fn result(outcome: Outcome) -> TestResult {
    let failure = outcome.failure;
    TestResult {
        ok: failure.is_none(),
        took_ms: outcome.took_ms,
        steps: outcome.steps,
        stage: failure.as_ref().map(|failure| failure.stage),
        cause: failure.as_ref().map(|failure| failure.cause),
        host_key: outcome.key.or(failure.as_ref().and_then(|failure| failure.shown_key.clone())),
        error: failure.map(|failure| failure.message),
    }
}

/// Tries the connection to a server, as it is kept
#[utoipa::path(post, path = "/api/v1/servers/{id}/test", tag = "servers", params(("id" = String, Path)),
    responses((status = 200, body = TestResult), (status = 409), (status = 429)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<Json<TestResult>, ApiError> {
    let row = find(&app, &doer.identity, &id).await?;
    let outcome = app.servers.try_out(&row).await?.ok_or_else(busy)?;
    app.servers.note(&outcome).await?;
    app.servers.wake(None);
    Ok(Json(result(outcome)))
}

/// A server that may be there already, to be tried before it is kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestServer {
    /// Whose credentials are used where none are said.
    id: Option<Uuid>,
    server: ServerWish,
}

/// Tries the connection to a server before it is kept
#[utoipa::path(post, path = "/api/v1/servers/test", tag = "servers", request_body = TestServer,
    responses((status = 200, body = TestResult), (status = 422), (status = 429)))]
pub(crate) async fn try_out(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<TestServer>,
) -> Result<Json<TestResult>, ApiError> {
    let before = match wish.id {
        Some(id) => Some(find(&app, &doer.identity, &id.to_string()).await?),
        None => None,
    };
    let (server, tags) = (wish.server.checked()?, params::tags(&wish.server.tags)?);
    allowed(&app, &doer.identity, &tags, &server).await?;
    let same_place = |row: &&ServerRow| {
        Servers::record(row).is_some_and(|was| {
            (&was.address, was.port, &was.user, was.jump)
                == (&server.address, server.port, &server.user, server.jump)
        })
    };
    // What opens one door is not shown at another one.
    let known = before.as_ref().filter(same_place).and_then(|row| app.servers.unseal(row).ok());
    let credentials = wish.server.credentials(known)?;
    let id = before.as_ref().map_or_else(Uuid::now_v7, |row| row.id);
    let body = server.body();
    let sealed = app.servers.seal(id, &server, &credentials).ok_or_else(ApiError::no_key)?;
    let pin = before.as_ref().filter(same_place).and_then(|row| row.host_key.clone());
    let row = ServerRow { host_key: pin, ..ServerRow::new(id, body, Some(sealed)) };
    Ok(Json(result(app.servers.try_out(&row).await?.ok_or_else(busy)?)))
}

/// One look, or one test.
#[derive(Serialize, ToSchema)]
pub(crate) struct LookJson {
    id: i64,
    at_ms: i64,
    /// `scheduled`, `asked`, `live`, `test`.
    kind: String,
    /// Which try, from 1 on.
    tries: i64,
    took_ms: i64,
    #[schema(value_type = Option<Cause>)]
    cause: Option<String>,
    error: Option<String>,
    steps: Vec<Step>,
}

/// Looks, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct LooksJson {
    looks: Vec<LookJson>,
    /// Give it back as `before` for the next page; none at the end.
    next: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LookPage {
    /// `next` of the page before.
    before: Option<i64>,
    /// 500 at most.
    limit: Option<i64>,
}

/// Looks at a server and tests of its connection, newest first
#[utoipa::path(get, path = "/api/v1/servers/{id}/tests", tag = "servers", params(("id" = String, Path), LookPage),
    responses((status = 200, body = LooksJson)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
    page: Result<Query<LookPage>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<LooksJson>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let row = find(&app, &identity, &id).await?;
    let limit = page.limit.unwrap_or(100).clamp(1, 500);
    let rows = LookRow::list(app.servers.store(), row.id, page.before, limit).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().map(|row| row.id).filter(|_| full);
    let show = |row: LookRow| LookJson {
        id: row.id,
        at_ms: row.at_ms,
        kind: row.kind,
        tries: row.tries,
        took_ms: row.took_ms,
        cause: row.cause,
        error: row.error,
        steps: serde_json::from_str(&row.steps).unwrap_or_default(),
    };
    Ok(Json(LooksJson { looks: rows.into_iter().map(show).collect(), next }))
}
