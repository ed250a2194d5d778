//! Parts of all responses: security headers, the cache rule of the API, and the response of a handler that panicked.

use crate::error::ApiError;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use std::any::Any;
use std::panic::AssertUnwindSafe;

/// Only files of the hub; no inline scripts.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'";

/// Headers of every response that does not set them.
static DEFAULT_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Returns whether responses to requests of a path depend on the caller.
pub fn depends_on_caller(path: &str) -> bool {
    path.starts_with("/api/v1/") || path.starts_with("/api/metrics/") || path == "/metrics"
}

/// Adds the security headers that a response does not set, and forbids caching if it depends on the caller.
pub fn add_default_headers(response: &mut Response, depends_on_caller: bool) {
    let headers = response.headers_mut();
    for (name, value) in &DEFAULT_HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if depends_on_caller {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
}

/// Answers the request of a handler that panics with `500`; the panic is in the log.
pub async fn catch_panics(response: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(response).catch_unwind().await.unwrap_or_else(panicked)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("?"), "request handler panicked; please report this");
    drop(panic);
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal error; see the hub log")
        .into_response()
}
