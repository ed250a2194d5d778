//! `/api/v1/settings`: settings of all hubs, changed while they run.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_http::body::JsonBody;
use perfwatch_http::{AllHosts, ApiError, Audited};
use perfwatch_settings::{PreviewResponse, SettingsResponse, UpdateSettingsRequest};
use std::sync::Arc;

/// List settings
#[utoipa::path(
    get, path = "/api/v1/settings", tag = "settings",
    responses((status = 200, body = SettingsResponse)),
)]
pub(crate) async fn get_settings(State(app): State<Arc<App>>, _: AllHosts) -> Json<SettingsResponse> {
    Json(app.settings.response())
}

/// Change settings
///
/// Takes effect on all hubs within a second.
#[utoipa::path(
    put, path = "/api/v1/settings", tag = "settings",
    request_body = UpdateSettingsRequest,
    responses((status = 200, body = SettingsResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_settings(
    State(app): State<Arc<App>>,
    _: AllHosts,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<UpdateSettingsRequest>,
) -> Result<Json<SettingsResponse>, ApiError> {
    Ok(Json(app.settings.update(&actor, &request).await?))
}

/// Preview the effect of settings on storage
#[utoipa::path(
    post, path = "/api/v1/settings/preview", tag = "settings",
    request_body = UpdateSettingsRequest,
    responses((status = 200, body = PreviewResponse), (status = 422)),
)]
pub(crate) async fn preview_settings(
    State(app): State<Arc<App>>,
    _: AllHosts,
    JsonBody(request): JsonBody<UpdateSettingsRequest>,
) -> Result<Json<PreviewResponse>, ApiError> {
    Ok(Json(app.settings.preview(&request.values).await?))
}
