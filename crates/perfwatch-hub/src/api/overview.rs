//! `/api/v1/overview`: all visible hosts at once. The responses are built and shared by `perfwatch-overview`.

use crate::app::App;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_model::json;
use perfwatch_overview::course_range::CourseRequest;
use perfwatch_overview::replay::{ReplayError, ReplayRequest};
use perfwatch_overview::response::{ActivityResponse, OverviewHistoryResponse, OverviewResponse};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Default range of the course in milliseconds.
const DAY_MS: i64 = 86_400_000;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OverviewQuery {
    /// Past time: Unix milliseconds, RFC 3339, or an offset such as `-2h`; default: the newest values.
    at: Option<String>,
    /// Revision of the hosts that the caller has; they are omitted if it is current.
    revision: Option<String>,
}

/// Get totals and newest values of all hosts
///
/// Computed at most once a second and shared by all callers that may see the same hosts. With `at`, the values of a past
/// time are read from the history: of the finest resolution that is kept, with `replay`.
#[utoipa::path(
    get, path = "/api/v1/overview", tag = "overview",
    params(OverviewQuery),
    responses((status = 200, body = OverviewResponse), (status = 400)),
)]
pub(crate) async fn overview(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    headers: HeaderMap,
    query: Result<Query<OverviewQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let revision = query.revision.as_deref();
    if let Some(at) = query.at.as_deref() {
        let at_ms = params::time_ms("at", at, app.clock.wall_ms())?;
        reader.reserve(app.overview.replay_memory_bytes()).await?;
        let request = ReplayRequest { at_ms, revision, held: reader.permit() };
        let text = app.overview.replay(&identity, request).await.map_err(replay_error)?;
        return Ok(reader.respond(text));
    }
    let json = app.overview.current(&identity, revision).await;
    Ok(app.shared_compression.respond(&headers, json).await)
}

fn replay_error(error: ReplayError) -> ApiError {
    match error {
        ReplayError::Future => {
            ApiError::bad_request("invalid_time", "at: must not be after the current time")
        }
        ReplayError::Deleted(before_ms) => {
            let mut before = String::new();
            json::write_time(&mut before, before_ms);
            ApiError::bad_request("not_recorded", format!("at: history before {before} was deleted"))
        }
        ReplayError::Store(error) => error.into(),
    }
}

/// Parameters of the course of all hosts.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CourseQuery {
    /// Start of the range; default: 24 hours before `to`.
    from: Option<String>,
    /// End of the range; default: now.
    to: Option<String>,
    /// Number of steps: 10 to 400, default 120.
    points: Option<usize>,
}

/// Get a time range of all hosts
///
/// Without parameters the last 24 hours, computed at most every 15 seconds and shared by callers. A range is read from the
/// history.
#[utoipa::path(
    get, path = "/api/v1/overview/history", tag = "overview",
    params(CourseQuery),
    responses((status = 200, body = OverviewHistoryResponse)),
)]
pub(crate) async fn overview_history(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    headers: HeaderMap,
    query: Result<Query<CourseQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    if query.from.is_some() || query.to.is_some() || query.points.is_some() {
        let (to, now_ms) = (query.to.as_deref(), app.clock.wall_ms());
        let to_ms = to.map_or(Ok(now_ms), |to| params::time_ms("to", to, now_ms))?;
        let day_before = (to_ms - DAY_MS).to_string();
        let from = query.from.as_deref().unwrap_or(&day_before);
        let range = params::range(Some(from), to, now_ms)?;
        let request = CourseRequest { range, points: query.points, held: reader.permit() };
        reader.reserve(app.overview.course_memory_bytes(&request)).await?;
        let text = app.overview.course(&identity, request).await?;
        return Ok(reader.respond(text));
    }
    let json = app.overview.history(&identity).await?;
    Ok(app.shared_compression.respond(&headers, json).await)
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
