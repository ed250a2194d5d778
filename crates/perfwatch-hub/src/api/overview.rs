//! `/api/v1/overview`: all visible hosts at once. The responses are built and shared by `perfwatch-overview`.

use crate::app::App;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use perfwatch_http::{ApiError, Caller};
use perfwatch_overview::response::{ActivityResponse, OverviewHistoryResponse, OverviewResponse};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OverviewQuery {
    /// Revision of the hosts that the caller has; they are omitted if it is current.
    revision: Option<String>,
}

/// Get totals and newest values of all hosts
///
/// Computed at most once a second and shared by all callers that may see the same hosts.
#[utoipa::path(
    get, path = "/api/v1/overview", tag = "overview",
    params(OverviewQuery),
    responses((status = 200, body = OverviewResponse)),
)]
pub(crate) async fn overview(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<OverviewQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let json = app.overview.current(&identity, query.revision.as_deref()).await;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Get the last 24 hours of all hosts
#[utoipa::path(
    get, path = "/api/v1/overview/history", tag = "overview",
    responses((status = 200, body = OverviewHistoryResponse)),
)]
pub(crate) async fn overview_history(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Response, ApiError> {
    let json = app.overview.history(&identity).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// List recent events of all hosts
#[utoipa::path(
    get, path = "/api/v1/overview/activity", tag = "overview",
    responses((status = 200, body = ActivityResponse)),
)]
pub(crate) async fn activity(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<ActivityResponse>, ApiError> {
    Ok(Json(app.overview.activity(&identity).await?))
}
