//! `/healthz` (liveness), `/readyz` (readiness for ingestion) and `/metrics` (self-metrics).

use crate::app::App;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use perfwatch_http::{AllHosts, ApiError};
use perfwatch_metrics::text_format;
use std::sync::Arc;

/// Liveness
#[utoipa::path(
    get, path = "/healthz", tag = "hub",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Readiness
#[utoipa::path(
    get, path = "/readyz", tag = "hub",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if app.draining.is_cancelled() {
        return Err(ApiError::unavailable("shutting_down", "hub is shutting down", 5));
    }
    if app.history.ingest_blocked().is_some() {
        // The route is public: the reason is in the log and on the dashboard only.
        return Err(ApiError::unavailable("store_unavailable", "the store is not writable", 5));
    }
    Ok("ready\n")
}

/// Hub metrics (Prometheus)
#[utoipa::path(
    get, path = "/metrics", tag = "hub",
    responses((status = 200, description = "OpenMetrics if the client accepts it, else Prometheus text",
        content((String = "application/openmetrics-text"), (String = "text/plain")))),
)]
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    _: AllHosts,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let openmetrics = app.metrics.render(app.hosts.count());
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/openmetrics-text") {
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return Ok(([(header::CONTENT_TYPE, content_type)], openmetrics));
    }
    let text = text_format::from_openmetrics(&openmetrics);
    Ok(([(header::CONTENT_TYPE, text_format::CONTENT_TYPE)], text))
}
