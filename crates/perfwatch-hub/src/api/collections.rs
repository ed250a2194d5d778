//! `/api/v1/servers/…/test` and `…/collections`: connection tests and the collection history.

use super::servers::{change_error, find, validate_request};
use crate::app::App;
use crate::host_access::{self, HIDDEN_PATH};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use perfwatch_agentless::server_request::ServerRequest;
use perfwatch_agentless::{CollectionReport, ConnectionTestError, EventSender};
use perfwatch_auth::Actor;
use perfwatch_http::body::JsonBody;
use perfwatch_http::event_stream::respond_with_progress;
use perfwatch_http::{ApiError, Audited, Caller};
use perfwatch_model::remote_collector::{CollectionStage, CollectionStep, FailureCause};
use perfwatch_store::collections::{CollectTrigger, CollectionRow};
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Result of a connection test with its steps.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionTestResponse {
    ok: bool,
    duration_ms: u64,
    /// Completed steps, in order.
    steps: Vec<CollectionStep>,
    /// Stage that failed.
    stage: Option<CollectionStage>,
    cause: Option<FailureCause>,
    /// Error message of the failed stage.
    error: Option<String>,
    /// Host key that the server offered.
    host_key: Option<String>,
}

/// Error of a connection test, or of the collection of many servers, that did not start.
pub(super) fn connection_test_error(error: ConnectionTestError) -> ApiError {
    match error {
        ConnectionTestError::TooManyTests => {
            let message = "too many connection tests of your account; wait until others end";
            ApiError::too_many(message, std::time::Duration::from_secs(10))
        }
        ConnectionTestError::Store(error) => error.into(),
    }
}

/// Removes details, which contain addresses of jump hosts.
fn hide_steps(steps: &mut [CollectionStep]) {
    steps.iter_mut().for_each(|step| HIDDEN_PATH.clone_into(&mut step.detail));
}

fn to_test_response(mut outcome: CollectionReport, is_hidden: bool) -> ConnectionTestResponse {
    if is_hidden {
        hide_steps(&mut outcome.steps);
        outcome.failure.iter_mut().for_each(|failure| HIDDEN_PATH.clone_into(&mut failure.message));
    }
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

/// Tests a connection and responds with the result, and with the steps as they come if the client accepts an
/// event stream. Tests of saved servers are recorded. The audit log contains each address that was reached out to.
async fn respond_to_test(
    (app, actor, row): (Arc<App>, Actor, ServerRow),
    (is_saved, is_hidden): (bool, bool),
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (observer, events) = EventSender::new(is_hidden.then_some(HIDDEN_PATH));
    let action = async move {
        let server = perfwatch_agentless::Server::from_row(&row);
        let object =
            server.map(|server| format!("server {} ({}:{})", server.name, server.address, server.port));
        actor.record(actor.audit("server.test", object.unwrap_or_default())).await?;
        let tested = app.agentless.test_connection(&actor.identity.share_key(), &row, Some(observer)).await;
        let outcome = tested.map_err(connection_test_error)?;
        if is_saved {
            app.agentless.record(&outcome).await?;
            app.agentless.notify_changed(None);
        }
        Ok(to_test_response(outcome, is_hidden))
    };
    respond_with_progress(headers, events, action).await
}

/// Test the saved connection
///
/// With `Accept: text/event-stream`, the stages and steps are sent as they come, then the event `result`.
#[utoipa::path(
    post, path = "/api/v1/servers/{id}/test", tag = "servers",
    params(("id" = String, Path, description = "Id of the server")),
    responses((status = 200, body = ConnectionTestResponse), (status = 409), (status = 429)),
)]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = find(&app, &actor.identity, &id).await?;
    let is_hidden = host_access::hidden_paths(&app, &actor.identity).await?.contains(&row.id);
    respond_to_test((app, actor, row), (true, is_hidden), &headers).await
}

/// Unsaved server to test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestServerRequest {
    /// Saved server whose credentials are used if the request contains none.
    id: Option<Uuid>,
    server: ServerRequest,
}

/// Test an unsaved connection
///
/// With `Accept: text/event-stream`, the stages and steps are sent as they come, then the event `result`.
#[utoipa::path(
    post, path = "/api/v1/servers/test", tag = "servers",
    request_body = TestServerRequest,
    responses((status = 200, body = ConnectionTestResponse), (status = 404), (status = 422), (status = 429)),
)]
pub(crate) async fn test_unsaved(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    headers: HeaderMap,
    JsonBody(request): JsonBody<TestServerRequest>,
) -> Result<Response, ApiError> {
    let before = match request.id {
        Some(id) => Some(find(&app, &actor.identity, &id.to_string()).await?),
        None => None,
    };
    validate_request(&app, &actor.identity, &request.server).await?;
    let table = app.agentless.server_table().await?;
    let (principal, saved) = (actor.identity.share_key(), before.map(|row| row.id));
    let planned = app.agentless.editor().plan_test(&principal, &table, saved, &request.server).await;
    let row = planned.map_err(|error| change_error(&error))?;
    let hidden_paths = host_access::hidden_paths(&app, &actor.identity).await?;
    // The caller may view the adjacent jump host, and perhaps not those behind it.
    let is_hidden = request.server.jump.is_some_and(|jump| hidden_paths.contains(&jump));
    respond_to_test((app, actor, row), (false, is_hidden), &headers).await
}

/// Result of a collection or a connection test.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionResponse {
    id: i64,
    finished_ms: i64,
    trigger: CollectTrigger,
    /// Number of the attempt, from 1.
    attempt: i64,
    duration_ms: i64,
    #[schema(value_type = Option<FailureCause>)]
    cause: Option<String>,
    error: Option<String>,
    steps: Vec<CollectionStep>,
}

/// Page of collections, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionPageResponse {
    collections: Vec<CollectionResponse>,
    /// Value of `before` for the next page; `null` on the last page.
    next: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CollectionsQuery {
    /// Trigger; default: all.
    trigger: Option<CollectTrigger>,
    /// `next` of the previous page.
    before: Option<i64>,
    /// Maximum number of collections: 1 to 500, default 100.
    limit: Option<i64>,
}

/// List collections
#[utoipa::path(
    get, path = "/api/v1/servers/{id}/collections", tag = "servers",
    params(("id" = String, Path, description = "Id of the server"), CollectionsQuery),
    responses((status = 200, body = CollectionPageResponse)),
)]
pub(crate) async fn list_collections(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    query: Result<Query<CollectionsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<CollectionPageResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let row = find(&app, &identity, &id).await?;
    let limit = query.limit.unwrap_or(100).clamp(1, 500);
    let rows = CollectionRow::list(app.agentless.store(), row.id, query.trigger, query.before, limit).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().map(|row| row.id).filter(|_| full);
    let is_hidden = host_access::hidden_paths(&app, &identity).await?.contains(&row.id);
    let to_steps = |text: &str| {
        let mut steps: Vec<CollectionStep> = serde_json::from_str(text).unwrap_or_default();
        if is_hidden {
            hide_steps(&mut steps);
        }
        steps
    };
    let to_response = |row: CollectionRow| CollectionResponse {
        id: row.id,
        finished_ms: row.finished_ms,
        trigger: row.trigger,
        attempt: row.attempt,
        duration_ms: row.duration_ms,
        cause: row.cause,
        error: row.error.map(|error| if is_hidden { HIDDEN_PATH.to_owned() } else { error }),
        steps: to_steps(&row.steps),
    };
    Ok(Json(CollectionPageResponse { collections: rows.into_iter().map(to_response).collect(), next }))
}
