//! `GET /api/v1/proxy-check`: faults of reverse proxies, before login; and the probe of its WebSockets.

use crate::app::App;
use axum::Extension;
use axum::Json;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use perfwatch_http::proxy_check::{ProxyFault, find_faults};
use perfwatch_http::public_address::RequestAddress;
use perfwatch_http::{ApiError, params};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// Time limit for the close handshake of a probe.
const PROBE_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Address of the hub in this request, and what a proxy does wrong.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProxyCheckResponse {
    /// Scheme of the request as the hub sees it: `http` or `https`.
    scheme: &'static str,
    /// Host of the request as the hub sees it.
    host: Option<String>,
    /// Base path of the dashboard's URLs, with a slash at its end.
    base_path: String,
    public_url: Option<String>,
    faults: Vec<ProxyFault>,
}

/// Value of the query parameter `location`.
pub(super) fn location(query: Option<&str>) -> Option<String> {
    params::query_pairs(query).find(|(name, _)| name == "location").map(|(_, location)| location)
}

/// Reverse proxy check
///
/// Compares the address of the dashboard in the browser with the address that the hub sees.
#[utoipa::path(
    get, path = "/api/v1/proxy-check", tag = "hub",
    params(("location" = Option<String>, Query, description = "URL of the dashboard in the browser")),
    responses((status = 200, body = ProxyCheckResponse)),
)]
pub(crate) async fn proxy_check(
    State(app): State<Arc<App>>,
    Extension(request): Extension<RequestAddress>,
    RawQuery(query): RawQuery,
) -> Json<ProxyCheckResponse> {
    let hub = app.public_address();
    Json(ProxyCheckResponse {
        scheme: if request.client_addr.is_tls { "https" } else { "http" },
        host: request.hosts.first().map(ToString::to_string),
        base_path: format!("{}/", hub.base_path()),
        public_url: hub.public_url.as_ref().map(ToString::to_string),
        faults: find_faults(hub, &request, location(query.as_deref()).as_deref()),
    })
}

/// WebSocket probe
///
/// Accepts a WebSocket and closes it: shows whether proxies pass the headers of the handshake.
#[utoipa::path(
    get, path = "/api/ws/probe", tag = "hub",
    responses((status = 101, description = "WebSocket"), (status = 426)),
)]
pub(crate) async fn websocket_probe(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade =
        upgrade.map_err(|error| ApiError::new(error.status(), "upgrade_required", error.body_text()))?;
    Ok(upgrade.max_message_size(0).on_upgrade(async |mut socket| {
        let close = async {
            let _ = socket.send(Message::Close(None)).await;
            let _ = socket.recv().await;
        };
        let _ = tokio::time::timeout(PROBE_CLOSE_TIMEOUT, close).await;
    }))
}
