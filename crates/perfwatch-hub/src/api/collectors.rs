//! `/api/v1/collectors`: collectors and intervals that the hub requests from agents.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_http::body::JsonBody;
use perfwatch_http::{AllHosts, ApiError, Audited};
use perfwatch_overview::collector_cost;
use perfwatch_settings::{CollectionPolicyResponse, UpdateCollectionPolicyRequest};
use std::sync::Arc;

/// List the collectors requested from agents
#[utoipa::path(
    get, path = "/api/v1/collectors", tag = "settings",
    responses((status = 200, body = CollectionPolicyResponse)),
)]
pub(crate) async fn get_collectors(
    State(app): State<Arc<App>>,
    _: AllHosts,
) -> Json<CollectionPolicyResponse> {
    Json(response(&app))
}

/// Change the collectors requested from agents
///
/// Agents apply the change with the response to their next snapshot, as far as it reduces what their own
/// configuration allows.
#[utoipa::path(
    put, path = "/api/v1/collectors", tag = "settings",
    request_body = UpdateCollectionPolicyRequest,
    responses((status = 200, body = CollectionPolicyResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_collectors(
    State(app): State<Arc<App>>,
    _: AllHosts,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<UpdateCollectionPolicyRequest>,
) -> Result<Json<CollectionPolicyResponse>, ApiError> {
    app.settings.policy().update(&actor, request).await?;
    Ok(Json(response(&app)))
}

fn response(app: &App) -> CollectionPolicyResponse {
    app.settings.policy().response(&app.hosts.ids(), collector_cost::mean_cost_ms(&app.live_feed))
}
