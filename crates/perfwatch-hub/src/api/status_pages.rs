//! `/api/v1/status-pages` and the answer to their visitors, by `perfwatch-status`.

use crate::app::App;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use perfwatch_http::body::JsonBody;
use perfwatch_http::public_address::BaseUrl;
use perfwatch_http::{ApiError, Audited, Caller, shared_json};
use perfwatch_status::public::PublicStatusResponse;
use perfwatch_status::response::{
    RenewLinkRequest, StatusPageLink, StatusPageListResponse, StatusPageRequest, StatusPageResponse,
};
use std::sync::Arc;

/// List status pages
#[utoipa::path(
    get, path = "/api/v1/status-pages", tag = "status",
    responses((status = 200, body = StatusPageListResponse)),
)]
pub(crate) async fn list_status_pages(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<StatusPageListResponse> {
    Json(app.status.list(&identity))
}

/// Create a status page
///
/// The link is returned only here. Its page shows the chosen hosts and values to visitors without a session, until it
/// expires or the account that answers for it loses its rights.
#[utoipa::path(
    post, path = "/api/v1/status-pages", tag = "status",
    request_body = StatusPageRequest,
    responses((status = 201, body = StatusPageLink), (status = 409), (status = 422)),
)]
pub(crate) async fn create_status_page(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Extension(base_url): Extension<BaseUrl>,
    JsonBody(request): JsonBody<StatusPageRequest>,
) -> Result<(StatusCode, Json<StatusPageLink>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.status.create(&actor, &base_url.0, request).await?)))
}

/// Replace a status page
///
/// The link stays. The caller answers for the page from then on.
#[utoipa::path(
    put, path = "/api/v1/status-pages/{id}", tag = "status",
    params(("id" = String, Path, description = "Id of the status page")),
    request_body = StatusPageRequest,
    responses((status = 200, body = StatusPageResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_status_page(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<StatusPageRequest>,
) -> Result<Json<StatusPageResponse>, ApiError> {
    Ok(Json(app.status.replace(&actor, &id, request).await?))
}

/// Renew the link of a status page
///
/// The previous link ends. The new link is returned only here.
#[utoipa::path(
    post, path = "/api/v1/status-pages/{id}/link", tag = "status",
    params(("id" = String, Path, description = "Id of the status page")),
    request_body = RenewLinkRequest,
    responses((status = 200, body = StatusPageLink), (status = 409), (status = 422)),
)]
pub(crate) async fn renew_status_link(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    Extension(base_url): Extension<BaseUrl>,
    JsonBody(request): JsonBody<RenewLinkRequest>,
) -> Result<Json<StatusPageLink>, ApiError> {
    Ok(Json(app.status.renew(&actor, (&base_url.0, &id), &request).await?))
}

/// Delete a status page
#[utoipa::path(
    delete, path = "/api/v1/status-pages/{id}", tag = "status",
    params(("id" = String, Path, description = "Id of the status page")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_status_page(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.status.delete(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get a public status page
///
/// Computed at most every ten seconds for all visitors. Unknown, expired and revoked links have the same response.
#[utoipa::path(
    get, path = "/api/v1/public/status/{token}", tag = "status",
    params(("token" = String, Path, description = "Token of the link (`pwp_`)")),
    responses((status = 200, body = PublicStatusResponse), (status = 304, description = "Unchanged")),
)]
pub(crate) async fn public_status(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let answer =
        app.status.answer(&token).await.ok_or_else(|| ApiError::not_found("status page not found"))?;
    Ok(shared_json::respond(&headers, answer.json, &answer.etag, &app.shared_compression).await)
}
