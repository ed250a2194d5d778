//! Routes of the hub with their middleware. [`perfwatch_auth::access`] lists the required access.

use crate::app::{App, AppState};
use crate::{api, middleware, openapi, ws};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Extension, Json, Router};
use perfwatch_http::compression::compression;
use perfwatch_http::{ApiError, base_path, ui};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tower_http::timeout::TimeoutLayer;
use tower_layer::Stack;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Time limit of requests, except streamed exports, downloads and connection tests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Routes with a time limit. Their layers are one, because every request clones all layers below each layer.
fn timed_routes() -> OpenApiRouter<AppState> {
    let timeout = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT);
    let responses = api::timed_routes().routes(routes!(openapi_json));
    // Responses to senders are too small for a compression.
    let ingest = OpenApiRouter::new().routes(routes!(api::ingest::ingest));
    responses.layer(Stack::new(timeout, compression())).merge(ingest.layer(timeout))
}

/// All routes with their descriptions.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(timed_routes())
        .merge(api::streamed_routes().layer(compression()))
        .merge(api::untimed_routes())
        .routes(routes!(ws::upgrade))
}

/// OpenAPI document of all routes.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::add_common_parts(routes().into_openapi()));

/// OpenAPI document, generated at the first use.
pub(crate) fn openapi_document() -> &'static Value {
    &DOCUMENT
}

/// OpenAPI document
#[utoipa::path(get, path = "/api/openapi.json", tag = "hub", responses((status = 200, body = Object)))]
async fn openapi_json() -> Json<Value> {
    let mut document = openapi_document().clone();
    // Paths of the API browser are relative to the hub, whatever path the hub is mounted at.
    document["servers"] = json!([{ "url": ".." }]);
    Json(document)
}

/// Router of all routes, the API browser and the dashboard.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, _) = routes().split_for_parts();
    let pages = Router::new()
        .route("/api/docs", get(ui::serve))
        .route("/api/docs/", get(ui::serve))
        .route("/api/docs/{*rest}", get(ui::serve))
        .fallback(ui::serve)
        .layer(Extension(app.public_address().page_base.clone()));
    let router = routes
        .merge(pages)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn_with_state(app.clone(), middleware::serve));
    let base_path = app.public_address().base_path().to_owned();
    base_path::nest(router.with_state(AppState(app)), &base_path)
}
