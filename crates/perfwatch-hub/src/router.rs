//! Every route, in reading order.

use crate::app::App;
use crate::error::ApiError;
use crate::{api, guard, ingest, live, ui};
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

/// A request that is not answered by then never is.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn router(app: Arc<App>) -> Router {
    let answered = Router::new()
        .route("/ingest/metrics", post(ingest::http::ingest))
        .route("/api/metrics/recent", get(api::recent::recent))
        .route("/api/v1/catalog", get(api::catalog::list))
        .route("/api/v1/hosts", get(api::hosts::list))
        .route("/api/v1/hosts/{id}", get(api::hosts::one))
        .route("/api/v1/hosts/{id}/series", get(api::history::series))
        .route("/api/v1/hosts/{id}/snapshot", get(api::history::snapshot))
        .route("/api/v1/hosts/{id}/processes", get(api::history::processes))
        .route("/api/v1/system", get(api::system::system))
        .route("/metrics", get(api::health::metrics))
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        // Takes as long as its reader.
        .route("/api/v1/hosts/{id}/export", get(api::history::export).layer(CompressionLayer::new()));
    let fixed = |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    Router::new()
        .merge(answered)
        .route("/api/ws/metrics", get(live::ws::upgrade))
        .route("/healthz", get(api::health::healthz))
        .route("/readyz", get(api::health::readyz))
        .fallback(ui::serve)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::X_FRAME_OPTIONS, "DENY"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
        ))
        .layer(axum::middleware::from_fn(guard::guard))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route knows no such method")
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let what =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = what.unwrap_or("?"), "a request panicked; please report it");
    drop(panic);
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the hub made a mistake; see its log")
        .into_response()
}
