//! `/api/v1/system`: status of the hub, its own series, tasks, connections and requests.

use super::proxy_check::location;
use crate::app::App;
use crate::host_access;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::{Extension, Json};
use perfwatch_http::proxy_check::find_user_faults;
use perfwatch_http::public_address::RequestAddress;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::{AllHosts, ApiError, Caller};
use perfwatch_metrics::recorder::RECORD_INTERVAL;
use perfwatch_metrics::response::{ConnectionListResponse, RouteListResponse, TaskListResponse};
use perfwatch_metrics::status::{SystemResponse, VisibleHosts};
use perfwatch_model::HostId;
use std::sync::Arc;

/// Hub status
#[utoipa::path(
    get, path = "/api/v1/system", tag = "hub",
    params(("location" = Option<String>, Query, description = "URL of the dashboard in the browser")),
    responses((status = 200, body = SystemResponse)),
)]
pub(crate) async fn system(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Extension(request): Extension<RequestAddress>,
    RawQuery(query): RawQuery,
) -> Json<SystemResponse> {
    let hosts = match identity.host_tags.is_empty() {
        true => VisibleHosts::All(app.hosts.count()),
        false => VisibleHosts::Some(host_access::hosts(&app, &identity).len()),
    };
    let address = app.public_address();
    let faults = find_user_faults(address, &request, location(query.as_deref()).as_deref());
    let services = (&*app.metrics, &*app.history, &*app.alerting);
    let times = (app.clock.monotonic().saturating_sub(app.started), app.clock.wall_ms());
    Json(SystemResponse::new(services, times, hosts, (address.notification_base_url.clone(), faults)))
}

/// Query time series of the hubs
#[utoipa::path(
    get, path = "/api/v1/system/series", tag = "hub",
    params(
        ("metric" = String, Query, description = "Selectors: `hub.cpu.usage,hub.ingest.*`"),
        ("from" = Option<String>, Query, description = "Start of the range; default: one hour before `to`"),
        ("to" = Option<String>, Query, description = "End of the range; default: now"),
        ("points" = Option<usize>, Query, description = "Number of points: 10 to 10,000, default 600"),
    ),
    responses((status = 200, body = perfwatch_http::schemas::SeriesResponse), (status = 422)),
)]
pub(crate) async fn hub_series(
    State(app): State<Arc<App>>,
    _: AllHosts,
    reader: Reader,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let interval_ms = i64::try_from(RECORD_INTERVAL.as_millis()).unwrap_or_default();
    super::history::read_series(&app, reader, query.as_deref(), |_| Ok((HostId::HUBS, interval_ms))).await
}

/// List background tasks of the hub
#[utoipa::path(
    get, path = "/api/v1/system/tasks", tag = "hub",
    responses((status = 200, body = TaskListResponse)),
)]
pub(crate) async fn list_tasks(State(app): State<Arc<App>>, _: AllHosts) -> Json<TaskListResponse> {
    Json(app.metrics.list_tasks())
}

/// List open WebSocket connections
#[utoipa::path(
    get, path = "/api/v1/system/connections", tag = "hub",
    responses((status = 200, body = ConnectionListResponse)),
)]
pub(crate) async fn list_connections(
    State(app): State<Arc<App>>,
    _: AllHosts,
) -> Json<ConnectionListResponse> {
    Json(app.metrics.list_connections(app.clock.wall_ms()))
}

/// List requests of the last hour by route
#[utoipa::path(
    get, path = "/api/v1/system/routes", tag = "hub",
    responses((status = 200, body = RouteListResponse)),
)]
pub(crate) async fn list_routes(State(app): State<Arc<App>>, _: AllHosts) -> Json<RouteListResponse> {
    Json(app.metrics.routes.list(app.clock.monotonic(), app.started))
}
