//! `/api/v1/servers/…/test` and `…/tests`: whether a server can be looked at, and how looks went.

use super::servers::{authorize_server, find};
use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::Json;
use axum::extract::{Path, Query, State};
use perfwatch_agentless::server_request::ServerRequest;
use perfwatch_agentless::{CollectionReport, ConnectionTestError, Server};
use perfwatch_auth::AuthError;
use perfwatch_model::remote_collector::{CollectionStage, CollectionStep, FailureCause};
use perfwatch_store::collections::CollectionRow;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How a test went, step by step.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionTestResponse {
    ok: bool,
    duration_ms: u64,
    /// What was done, in order.
    steps: Vec<CollectionStep>,
    /// Where it ended.
    stage: Option<CollectionStage>,
    cause: Option<FailureCause>,
    /// Why, in words.
    error: Option<String>,
    /// The key that it showed.
    host_key: Option<String>,
}

impl From<ConnectionTestError> for ApiError {
    fn from(error: ConnectionTestError) -> Self {
        match error {
            ConnectionTestError::TooManyTests => {
                let message = "too many connection tests are running; retry";
                Self::too_many(message, std::time::Duration::from_secs(10))
            }
            ConnectionTestError::Store(error) => error.into(),
        }
    }
}

fn to_test_response(outcome: CollectionReport) -> ConnectionTestResponse {
    let failure = outcome.failure;
    ConnectionTestResponse {
        ok: failure.is_none(),
        duration_ms: outcome.duration_ms,
        steps: outcome.steps,
        stage: failure.as_ref().map(|failure| failure.stage),
        cause: failure.as_ref().map(|failure| failure.cause),
        host_key: outcome.host_key.or(failure.as_ref().and_then(|failure| failure.offered_host_key.clone())),
        error: failure.map(|failure| failure.message),
    }
}

/// Test the saved connection
#[utoipa::path(post, path = "/api/v1/servers/{id}/test", tag = "servers", params(("id" = String, Path)),
    responses((status = 200, body = ConnectionTestResponse), (status = 409), (status = 429)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<Json<ConnectionTestResponse>, ApiError> {
    let row = find(&app, &actor.identity, &id).await?;
    let outcome = app.agentless.test_connection(&row).await?;
    app.agentless.record(&outcome).await?;
    app.agentless.notify_changed(None);
    Ok(Json(to_test_response(outcome)))
}

/// A server that may be there already, to be tried before it is kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestServerRequest {
    /// Whose credentials are used where none are said.
    id: Option<Uuid>,
    server: ServerRequest,
}

/// Test an unsaved connection
#[utoipa::path(post, path = "/api/v1/servers/test", tag = "servers", request_body = TestServerRequest,
    responses((status = 200, body = ConnectionTestResponse), (status = 422), (status = 429)))]
pub(crate) async fn try_out(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<TestServerRequest>,
) -> Result<Json<ConnectionTestResponse>, ApiError> {
    let before = match wish.id {
        Some(id) => Some(find(&app, &actor.identity, &id.to_string()).await?),
        None => None,
    };
    let (server, tags) = (wish.server.validate()?, query::validate_tags(&wish.server.tags)?);
    authorize_server(&app, &actor.identity, &tags, &server).await?;
    let same_place = |row: &&ServerRow| {
        Server::from_row(row).is_some_and(|was| {
            (&was.address, was.port, &was.user, was.jump)
                == (&server.address, server.port, &server.user, server.jump)
        })
    };
    // What opens one door is not shown at another one.
    let known =
        before.as_ref().filter(same_place).and_then(|row| app.agentless.decrypt_credentials(row).ok());
    let credentials = wish.server.merge_credentials(known)?;
    let id = before.as_ref().map_or_else(Uuid::now_v7, |row| row.id);
    let body = server.to_body();
    let sealed = app
        .agentless
        .encrypt_credentials(id, &server, &credentials)
        .ok_or(AuthError::EncryptionKeyMissing)?;
    let pin = before.as_ref().filter(same_place).and_then(|row| row.host_key.clone());
    let row = ServerRow { host_key: pin, ..ServerRow::new(id, body, Some(sealed)) };
    Ok(Json(to_test_response(app.agentless.test_connection(&row).await?)))
}

/// One look, or one test.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionResponse {
    id: i64,
    finished_ms: i64,
    /// `scheduled`, `asked`, `live`, `test`.
    trigger: String,
    /// Which try, from 1 on.
    attempt: i64,
    duration_ms: i64,
    #[schema(value_type = Option<FailureCause>)]
    cause: Option<String>,
    error: Option<String>,
    steps: Vec<CollectionStep>,
}

/// Looks, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionPageResponse {
    looks: Vec<CollectionResponse>,
    /// Give it back as `before` for the next page; none at the end.
    next: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CollectionsQuery {
    /// `next` of the page before.
    before: Option<i64>,
    /// 500 at most.
    limit: Option<i64>,
}

/// List collections
#[utoipa::path(get, path = "/api/v1/servers/{id}/tests", tag = "servers", params(("id" = String, Path), CollectionsQuery),
    responses((status = 200, body = CollectionPageResponse)))]
pub(crate) async fn list_collections(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    page: Result<Query<CollectionsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<CollectionPageResponse>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let row = find(&app, &identity, &id).await?;
    let limit = page.limit.unwrap_or(100).clamp(1, 500);
    let rows = CollectionRow::list(app.agentless.store(), row.id, page.before, limit).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().map(|row| row.id).filter(|_| full);
    let show = |row: CollectionRow| CollectionResponse {
        id: row.id,
        finished_ms: row.finished_ms,
        trigger: row.trigger.name().to_owned(),
        attempt: row.attempt,
        duration_ms: row.duration_ms,
        cause: row.cause,
        error: row.error,
        steps: serde_json::from_str(&row.steps).unwrap_or_default(),
    };
    Ok(Json(CollectionPageResponse { looks: rows.into_iter().map(show).collect(), next }))
}
