//! `GET /api/metrics/recent?host=&metric=`: the recent window of a host as snapshots or as columns of the
//! requested metrics.

use crate::app::App;
use crate::host_access;
use crate::openapi::schemas;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use perfwatch_auth::Identity;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_live::PublishedSnapshot;
use perfwatch_model::{HostId, unscale};
use serde_json::json;
use std::sync::Arc;

/// Maximum number of snapshots in one response; older snapshots follow with `before`.
const MAX_SNAPSHOTS: usize = 300;

#[derive(Default)]
struct RecentQuery {
    host: Option<String>,
    metrics: Vec<String>,
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
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let request = parse(query.as_deref().unwrap_or_default())?;
    let id = resolve_host(&app, &identity, request.host.as_deref())?;
    let mut window = app.live_feed.recent(id, app.clock.wall_ms());
    window.retain(|published| request.before.is_none_or(|before| published.snapshot.at_ms < before));
    let skipped = window.len().saturating_sub(MAX_SNAPSHOTS);
    let before = (skipped > 0).then(|| window[skipped].snapshot.at_ms);
    let page = &window[skipped..];
    let text = if request.metrics.is_empty() {
        full_snapshots_json(id, page, before)
    } else {
        columns(&app, id, page, &request.metrics, before)?
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
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

fn full_snapshots_json(id: HostId, page: &[Arc<PublishedSnapshot>], before: Option<i64>) -> String {
    let texts: Vec<String> = page.iter().map(|published| published.to_json()).collect();
    format!("{{\"host_id\":\"{id}\",\"snapshots\":[{}],\"before\":{}}}", texts.join(","), json!(before))
}

fn columns(
    app: &App,
    id: HostId,
    page: &[Arc<PublishedSnapshot>],
    metrics: &[String],
    before: Option<i64>,
) -> Result<String, ApiError> {
    let mut series: Vec<(String, String, Vec<Option<f64>>)> = Vec::new();
    for (row, published) in page.iter().enumerate() {
        let snapshot = &published.snapshot;
        for (column, &value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
            if !metrics.iter().any(|name| *name == column.metric) {
                continue;
            }
            let existing = series
                .iter()
                .position(|(metric, instance, _)| *metric == column.metric && **instance == *column.instance);
            let index = existing.unwrap_or_else(|| {
                series.push((column.metric.to_string(), column.instance.to_string(), vec![None; page.len()]));
                series.len() - 1
            });
            series[index].2[row] = unscale(value, column.decimals);
        }
    }
    for name in metrics {
        if app.catalog.get(name).is_none() && !series.iter().any(|(metric, ..)| metric == name) {
            return Err(ApiError::not_found(format!("unknown metric {name:?}; see /api/v1/catalog")));
        }
    }
    let times: Vec<i64> = page.iter().map(|published| published.snapshot.at_ms).collect();
    let series: Vec<_> = series
        .into_iter()
        .map(|(metric, instance, values)| {
            let unit = app.catalog.get(&metric).map(|def| def.unit);
            json!({ "metric": metric, "instance": instance, "unit": unit, "values": values })
        })
        .collect();
    Ok(json!({ "host_id": id, "times": times, "series": series, "before": before }).to_string())
}
