//! `GET /api/metrics/recent?host=&metric=`: the recent window of a host as snapshots or as columns of the
//! requested metrics.

use crate::app::App;
use crate::host_access;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use perfwatch_auth::Identity;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::schemas;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_live::recent_page::{self, PAGE_MEMORY_BYTES};
use perfwatch_model::HostId;
use std::collections::HashSet;
use std::sync::Arc;

/// Maximum number of metrics in one request.
const MAX_METRICS: usize = 200;

#[derive(Default)]
struct RecentQuery {
    host: Option<String>,
    metrics: HashSet<String>,
    before: Option<i64>,
}

/// Recent snapshots of a host (last 5 minutes)
///
/// Returns full snapshots, or columns if `metric` is given.
#[utoipa::path(
    get, path = "/api/metrics/recent", tag = "live",
    params(
        ("host" = Option<String>, Query, description = "Id or name; optional if there is one host"),
        ("metric" = Option<String>, Query, description = "Metrics: `cpu.usage,memory.used`"),
        ("before" = Option<i64>, Query, description = "Only snapshots before this time (ms since 1970)"),
    ),
    responses((status = 200, body = schemas::RecentResponse), (status = 404)),
)]
pub(crate) async fn recent(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let request = parse(query.as_deref().unwrap_or_default())?;
    let id = resolve_host(&app, &identity, request.host.as_deref())?;
    let mut recent = app.live_feed.recent(id, i64::MIN, app.clock.wall_ms()).await;
    let window = &mut recent.snapshots;
    window.retain(|published| request.before.is_none_or(|before| published.snapshot.at_ms < before));
    reader.reserve(PAGE_MEMORY_BYTES).await?;
    let text = match request.metrics.is_empty() {
        true => recent_page::snapshots_page(id, window),
        false => recent_page::columns_page(id, window, &request.metrics, &app.catalog)
            .map_err(|name| ApiError::not_found(format!("unknown metric {name:?}; see /api/v1/catalog")))?,
    };
    Ok(reader.respond(text))
}

fn parse(query: &str) -> Result<RecentQuery, ApiError> {
    let mut request = RecentQuery::default();
    let invalid = |message: String| ApiError::bad_request("invalid_query", message);
    for (key, value) in params::query_pairs(Some(query)) {
        match key.as_str() {
            "host" => request.host = Some(value),
            "metric" => {
                request.metrics.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
            "before" => {
                request.before = Some(
                    value
                        .parse()
                        .map_err(|_| invalid("before: must be milliseconds since 1970".to_owned()))?,
                );
            }
            _ => {
                return Err(invalid(format!("unknown parameter {key:?}; expected host, metric, before")));
            }
        }
    }
    if request.metrics.len() > MAX_METRICS {
        return Err(invalid(format!("at most {MAX_METRICS} metrics per request")));
    }
    Ok(request)
}

fn resolve_host(app: &App, identity: &Identity, name: Option<&str>) -> Result<HostId, ApiError> {
    match name {
        Some(name) => Ok(host_access::host(app, identity, name)?.record.id),
        // Optional if only one host is visible.
        None => match &host_access::hosts(app, identity)[..] {
            [only] => Ok(only.record.id),
            hosts => Err(ApiError::bad_request(
                "host_required",
                format!("host is required ({} hosts): ?host=NAME", hosts.len()),
            )),
        },
    }
}
