//! Routes of the hub with their middleware. [`perfwatch_auth::access`] lists the required access.

use crate::app::{App, AppState};
use crate::{api, middleware, openapi, ws};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use perfwatch_http::compression::compression;
use perfwatch_http::poll_times::measure_polls;
use perfwatch_http::{ApiError, base_path, layers, listener, read_limiter, ui};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Time limit of requests, except streamed exports, downloads and connection tests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Routes with a time limit.
fn timed_routes() -> OpenApiRouter<AppState> {
    api::timed_routes()
        .routes(routes!(api::ingest::ingest))
        .routes(routes!(openapi_json))
        .layer(compression())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
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

/// Runs reads off the serving threads, within the limits of reads.
async fn run_reads(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    read_limiter::run_reads(app.rate_limiters.reads.clone(), request, next).await
}

/// Router of all routes, the API browser and the dashboard.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, _) = routes().split_for_parts();
    let router = Router::new()
        .merge(routes)
        .route("/api/docs", get(ui::serve))
        .route("/api/docs/", get(ui::serve))
        .route("/api/docs/{*rest}", get(ui::serve))
        .fallback(ui::serve)
        .layer(Extension(app.public_address().page_base.clone()))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn_with_state(app.clone(), run_reads))
        .layer(from_fn_with_state(app.clone(), middleware::auth_middleware));
    let router = router.layer(from_fn_with_state(app.draining.clone(), middleware::close_unless_serving));
    let router = layers::security_headers(router);
    let router = if app.config.tls.is_some() {
        let public_url = app.public_address().public_url.clone();
        router.layer(from_fn_with_state(public_url, listener::redirect_to_https))
    } else {
        router
    };
    let base_path = app.public_address().base_path().to_owned();
    let polls = app.metrics.polls.clone();
    base_path::nest(measure_polls(layers::catch_panics(router).with_state(AppState(app)), polls), &base_path)
}
