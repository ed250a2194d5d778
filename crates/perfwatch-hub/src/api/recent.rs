//! `GET /api/metrics/recent?host=&metric=`: the last five minutes, as whole snapshots or as
//! columns of the metrics asked for.

use super::params;
use crate::app::App;
use crate::auth::Identity;
use crate::error::ApiError;
use crate::live::Accepted;
use crate::openapi::shapes;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use perfwatch_model::{HostId, unscale};
use serde_json::json;
use std::sync::Arc;

/// Snapshots in one answer; older ones by `before`.
const PAGE: usize = 300;

#[derive(Default)]
struct Wish {
    host: Option<String>,
    metrics: Vec<String>,
    before: Option<i64>,
}

/// The last five minutes of a host
///
/// Whole snapshots, or columns where `metric` names some.
#[utoipa::path(get, path = "/api/metrics/recent", tag = "live", params(
    ("host" = Option<String>, Query, description = "Id or name; with one host there is nothing to choose"),
    ("metric" = Option<String>, Query, description = "`cpu.usage,memory.used`"),
    ("before" = Option<i64>, Query, description = "Only older ones, milliseconds since 1970"),
), responses((status = 200, body = shapes::RecentAnswer), (status = 404)))]
pub(crate) async fn recent(
    State(app): State<Arc<App>>,
    identity: Identity,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let wish = parse(query.as_deref().unwrap_or_default())?;
    let id = which_host(&app, &identity, wish.host.as_deref())?;
    let mut window = app.live.recent(id, app.clock.wall_ms());
    window.retain(|accepted| wish.before.is_none_or(|before| accepted.snapshot.at_ms < before));
    let skipped = window.len().saturating_sub(PAGE);
    let before = (skipped > 0).then(|| window[skipped].snapshot.at_ms);
    let page = &window[skipped..];
    let text = if wish.metrics.is_empty() {
        whole(id, page, before)
    } else {
        columns(&app, id, page, &wish.metrics, before)?
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn parse(query: &str) -> Result<Wish, ApiError> {
    let mut wish = Wish::default();
    let bad = |why: String| ApiError::bad_request("bad_query", why);
    for (key, value) in params::pairs(Some(query))? {
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

fn which_host(app: &App, identity: &Identity, name: Option<&str>) -> Result<HostId, ApiError> {
    match name {
        Some(name) => Ok(params::host(app, identity, name)?.record.id),
        // With one host there is nothing to choose.
        None => match &params::hosts(app, identity)[..] {
            [only] => Ok(only.record.id),
            hosts => Err(ApiError::bad_request(
                "host_missing",
                format!("which of the {} hosts? ?host=NAME", hosts.len()),
            )),
        },
    }
}

fn whole(id: HostId, page: &[Arc<Accepted>], before: Option<i64>) -> String {
    let texts: Vec<String> = page.iter().map(|accepted| accepted.json()).collect();
    format!("{{\"host_id\":\"{id}\",\"snapshots\":[{}],\"before\":{}}}", texts.join(","), json!(before))
}

fn columns(
    app: &App,
    id: HostId,
    page: &[Arc<Accepted>],
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
            return Err(ApiError::not_found(format!("there is no metric {name:?}; see /api/v1/catalog")));
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
