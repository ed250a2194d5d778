//! `GET /api/metrics/recent?host=&metric=`: the last five minutes, as whole snapshots or as
//! columns of the metrics asked for.

use crate::app::App;
use crate::error::ApiError;
use crate::http::extract::Caller;
use crate::http::query;
use crate::openapi::schemas;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use perfwatch_auth::Identity;
use perfwatch_live::PublishedSnapshot;
use perfwatch_model::{HostId, unscale};
use serde_json::json;
use std::sync::Arc;

/// Snapshots in one answer; older ones by `before`.
const PAGE: usize = 300;

#[derive(Default)]
struct RecentQuery {
    host: Option<String>,
    metrics: Vec<String>,
    before: Option<i64>,
}

/// Recent snapshots of a host (last 5 minutes)
///
/// Whole snapshots, or columns where `metric` names some.
#[utoipa::path(get, path = "/api/metrics/recent", tag = "live", params(
    ("host" = Option<String>, Query, description = "Id or name; with one host there is nothing to choose"),
    ("metric" = Option<String>, Query, description = "`cpu.usage,memory.used`"),
    ("before" = Option<i64>, Query, description = "Only older ones, milliseconds since 1970"),
), responses((status = 200, body = schemas::RecentResponse), (status = 404)))]
pub(crate) async fn recent(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let wish = parse(query.as_deref().unwrap_or_default())?;
    let id = resolve_host(&app, &identity, wish.host.as_deref())?;
    let mut window = app.live_feed.recent(id, app.clock.wall_ms());
    window.retain(|accepted| wish.before.is_none_or(|before| accepted.snapshot.at_ms < before));
    let skipped = window.len().saturating_sub(PAGE);
    let before = (skipped > 0).then(|| window[skipped].snapshot.at_ms);
    let page = &window[skipped..];
    let text = if wish.metrics.is_empty() {
        full_snapshots_json(id, page, before)
    } else {
        columns(&app, id, page, &wish.metrics, before)?
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn parse(query: &str) -> Result<RecentQuery, ApiError> {
    let mut wish = RecentQuery::default();
    let bad = |why: String| ApiError::bad_request("invalid_query", why);
    for (key, value) in query::query_pairs(Some(query))? {
        match key.as_str() {
            "host" => wish.host = Some(value),
            "metric" => {
                wish.metrics.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
            "before" => {
                wish.before =
                    Some(value.parse().map_err(|_| bad("before: milliseconds since 1970".to_owned()))?);
            }
            _ => {
                return Err(bad(format!("there is no parameter {key:?}; there are host, metric, before")));
            }
        }
    }
    Ok(wish)
}

fn resolve_host(app: &App, identity: &Identity, name: Option<&str>) -> Result<HostId, ApiError> {
    match name {
        Some(name) => Ok(query::host(app, identity, name)?.record.id),
        // With one host there is nothing to choose.
        None => match &query::hosts(app, identity)[..] {
            [only] => Ok(only.record.id),
            hosts => Err(ApiError::bad_request(
                "host_required",
                format!("host is required ({} hosts): ?host=NAME", hosts.len()),
            )),
        },
    }
}

fn full_snapshots_json(id: HostId, page: &[Arc<PublishedSnapshot>], before: Option<i64>) -> String {
    let texts: Vec<String> = page.iter().map(|accepted| accepted.to_json()).collect();
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
    for (at, accepted) in page.iter().enumerate() {
        let snapshot = &accepted.snapshot;
        for (column, &value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
            if !metrics.iter().any(|name| *name == column.metric) {
                continue;
            }
            let found = series
                .iter()
                .position(|(metric, instance, _)| *metric == column.metric && **instance == *column.instance);
            let index = found.unwrap_or_else(|| {
                series.push((column.metric.to_string(), column.instance.to_string(), vec![None; page.len()]));
                series.len() - 1
            });
            series[index].2[at] = unscale(value, column.decimals);
        }
    }
    for name in metrics {
        if app.catalog.get(name).is_none() && !series.iter().any(|(metric, ..)| metric == name) {
            return Err(ApiError::not_found(format!("unknown metric {name:?}; see /api/v1/catalog")));
        }
    }
    let times: Vec<i64> = page.iter().map(|accepted| accepted.snapshot.at_ms).collect();
    let series: Vec<_> = series
        .into_iter()
        .map(|(metric, instance, values)| {
            let unit = app.catalog.get(&metric).map(|def| def.unit);
            json!({ "metric": metric, "instance": instance, "unit": unit, "values": values })
        })
        .collect();
    Ok(json!({ "host_id": id, "times": times, "series": series, "before": before }).to_string())
}
