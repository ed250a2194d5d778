//! `/api/v1/views`: saved views of queries.

use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller};
use perfwatch_query::views::{ViewListResponse, ViewRequest, ViewResponse};
use std::sync::Arc;

/// List your views and shared views
#[utoipa::path(
    get, path = "/api/v1/views", tag = "query",
    responses((status = 200, body = ViewListResponse)),
)]
pub(crate) async fn list_views(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<ViewListResponse>, ApiError> {
    Ok(Json(app.views.list(&identity).await?))
}

/// Get a view
#[utoipa::path(
    get, path = "/api/v1/views/{id}", tag = "query",
    params(("id" = String, Path, description = "Id of the view")),
    responses((status = 200, body = ViewResponse)),
)]
pub(crate) async fn get_view(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<ViewResponse>, ApiError> {
    Ok(Json(app.views.get(&identity, &id).await?))
}

/// Save a view
#[utoipa::path(
    post, path = "/api/v1/views", tag = "query",
    request_body = ViewRequest,
    responses((status = 201, body = ViewResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn create_view(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<ViewRequest>,
) -> Result<(StatusCode, Json<ViewResponse>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.views.create(&actor, request).await?)))
}

/// Replace a view
#[utoipa::path(
    put, path = "/api/v1/views/{id}", tag = "query",
    params(("id" = String, Path, description = "Id of the view")),
    request_body = ViewRequest,
    responses((status = 200, body = ViewResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_view(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ViewRequest>,
) -> Result<Json<ViewResponse>, ApiError> {
    Ok(Json(app.views.replace(&actor, &id, request).await?))
}

/// Delete a view
#[utoipa::path(
    delete, path = "/api/v1/views/{id}", tag = "query",
    params(("id" = String, Path, description = "Id of the view")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_view(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.views.delete(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
