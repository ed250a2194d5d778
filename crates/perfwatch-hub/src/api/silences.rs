//! `/api/v1/silences`: silences and maintenance windows.

use super::definitions;
use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_alerting::{MAX_SILENCES, visible_silence};
use perfwatch_auth::Identity;
use perfwatch_http::body::JsonBody;
use perfwatch_http::params::validate_comment;
use perfwatch_http::{ApiError, Audited, Caller};
use perfwatch_rules::silence::{Matcher, Silence};
use perfwatch_rules::weekly_window::WeeklyWindow;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

const MAX_COMMENT_BYTES: usize = 1_000;

/// Silence with its current state.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilenceResponse {
    silence: Silence,
    /// Suppresses notifications at present.
    active: bool,
    /// Ended and will not become active again.
    expired: bool,
    /// Number of firing alerts that it holds back, of hosts that the caller may view.
    held_back: usize,
}

/// Silences of the visible hosts, expired ones last.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilenceListResponse {
    silences: Vec<SilenceResponse>,
}

/// Settings of a silence.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SilenceRequest {
    /// Alerts to silence; all alerts if empty.
    #[serde(default)]
    matcher: Matcher,
    /// Reason of the silence, at most 1,000 bytes.
    #[serde(default)]
    comment: String,
    /// Start of the silence; default: now.
    starts_ms: Option<i64>,
    /// End of the silence; unlimited if missing.
    ends_ms: Option<i64>,
    /// Weekly maintenance window that limits the silence to these hours.
    weekly: Option<WeeklyWindow>,
}

fn to_response(app: &App, identity: &Identity, silence: &Silence, now_ms: i64) -> SilenceResponse {
    let (state, auth_snapshot) = (app.alerting.snapshot(), app.directory.snapshot());
    SilenceResponse {
        held_back: state.held_back(silence, identity, &auth_snapshot, now_ms),
        silence: silence.clone(),
        active: silence.is_active(now_ms),
        expired: silence.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms),
    }
}

/// List silences
#[utoipa::path(
    get, path = "/api/v1/silences", tag = "silences",
    responses((status = 200, body = SilenceListResponse)),
)]
pub(crate) async fn list_silences(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<SilenceListResponse> {
    let now_ms = app.clock.wall_ms();
    let auth_snapshot = app.directory.snapshot();
    let state = app.alerting.snapshot();
    let stored = state.definitions.silences.iter();
    let visible = stored.filter_map(|silence| visible_silence(silence, &identity, &auth_snapshot));
    let mut silences: Vec<SilenceResponse> =
        visible.map(|silence| to_response(&app, &identity, &silence, now_ms)).collect();
    silences
        .sort_by_key(|response| (response.expired, !response.active, Reverse(response.silence.created_ms)));
    Json(SilenceListResponse { silences })
}

fn validate(request: SilenceRequest, id: Uuid, created_by: String, now_ms: i64) -> Result<Silence, ApiError> {
    let invalid = |message: String| ApiError::unprocessable("invalid_silence", message);
    let starts_ms = request.starts_ms.unwrap_or(now_ms);
    if request.ends_ms.is_some_and(|ends_ms| ends_ms <= starts_ms) {
        return Err(invalid("ends_ms must be after starts_ms".to_owned()));
    }
    if request.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms) {
        return Err(invalid("ends_ms is in the past".to_owned()));
    }
    if let Some(message) = request.weekly.as_ref().and_then(WeeklyWindow::validate) {
        return Err(invalid(message));
    }
    let matcher = &request.matcher;
    if matcher.hosts.len() > 1_000 || matcher.tags.len() > 100 || matcher.rules.len() > MAX_SILENCES {
        return Err(invalid("too many hosts, tags or rules".to_owned()));
    }
    Ok(Silence {
        id,
        matcher: request.matcher,
        comment: validate_comment(&request.comment, MAX_COMMENT_BYTES)?,
        created_by,
        created_ms: now_ms,
        starts_ms,
        ends_ms: request.ends_ms,
        weekly: request.weekly,
    })
}

/// Create a silence
#[utoipa::path(
    post, path = "/api/v1/silences", tag = "silences",
    request_body = SilenceRequest,
    responses((status = 201, body = SilenceResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn create_silence(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<SilenceRequest>,
) -> Result<(StatusCode, Json<SilenceResponse>), ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let silence = validate(request, Uuid::now_v7(), actor.identity.actor_name(), app.clock.wall_ms())?;
    let silence = definitions::create(&app, &actor, &silence, Silence::clone).await?;
    Ok((StatusCode::CREATED, Json(to_response(&app, &actor.identity, &silence, app.clock.wall_ms()))))
}

/// Replace a silence
#[utoipa::path(
    put, path = "/api/v1/silences/{id}", tag = "silences",
    params(("id" = String, Path, description = "Id of the silence")),
    request_body = SilenceRequest,
    responses((status = 200, body = SilenceResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_silence(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<SilenceRequest>,
) -> Result<Json<SilenceResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let id = definitions::find::<Silence>(&app, &id)?.id;
    let silence = validate(request, id, actor.identity.actor_name(), app.clock.wall_ms())?;
    let silence = definitions::replace(&app, &actor, &silence, Silence::clone).await?;
    Ok(Json(to_response(&app, &actor.identity, &silence, app.clock.wall_ms())))
}

/// Expire a silence
#[utoipa::path(
    delete, path = "/api/v1/silences/{id}", tag = "silences",
    params(("id" = String, Path, description = "Id of the silence")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_silence(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    definitions::delete(&app, &actor, &id, Silence::clone).await?;
    Ok(StatusCode::NO_CONTENT)
}
