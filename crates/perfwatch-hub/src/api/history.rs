//! The past of one host: `series` (for charts), `snapshot` (everything at one second),
//! `processes` (who used it over some time), `export` (as text, streamed).

use crate::app::App;
use crate::error::ApiError;
use crate::http::extract::Caller;
use crate::http::query;
use crate::openapi::schemas;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use perfwatch_history::export::{Export, Format, parse_tier, projection_for};
use perfwatch_history::read::{ProcessUsage, SeriesResult, SeriesValues};
use perfwatch_live::host_registry::Host;
use perfwatch_model::{HostRef, fixed_point, json};
use perfwatch_store::StoreError;
use perfwatch_tsdb::SeriesSelector;
use perfwatch_tsdb::query::average;
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;

/// Points a series has unless asked otherwise, and at most.
const DEFAULT_POINTS: usize = 600;
const MAX_POINTS: usize = 10_000;
/// Series named in one request.
const MAX_SERIES: usize = 200;
/// A snapshot this much older than the time asked for is no answer to it.
const MAX_SNAPSHOT_AGE_MS: i64 = 3_600_000;
/// A day of processes is read in one answer; more would be read row by row for long.
const MAX_PROCESS_RANGE_MS: i64 = 31 * 86_400_000;

/// What a query string may ask.
#[derive(Default)]
struct SeriesQuery {
    names: Vec<SeriesSelector>,
    from: Option<String>,
    to: Option<String>,
    at: Option<String>,
    points: Option<usize>,
    limit: Option<usize>,
    format: Option<String>,
    tier: Option<String>,
}

fn parse_query(query: Option<&str>, known: &[&str]) -> Result<SeriesQuery, ApiError> {
    let mut asked = SeriesQuery::default();
    for (key, value) in query::query_pairs(query)? {
        if !known.contains(&key.as_str()) {
            let message = format!("unknown parameter {key:?}; expected {}", known.join(", "));
            return Err(ApiError::bad_request("invalid_query", message));
        }
        let number = || {
            let number = value.parse::<usize>().ok().filter(|&number| number > 0);
            number.ok_or_else(|| {
                ApiError::bad_request("invalid_query", format!("{key}: must be a positive number"))
            })
        };
        match key.as_str() {
            "metric" => {
                asked
                    .names
                    .extend(value.split(',').filter(|name| !name.is_empty()).map(SeriesSelector::parse));
            }
            "points" => asked.points = Some(number()?.clamp(10, MAX_POINTS)),
            "limit" => asked.limit = Some(number()?),
            "from" => asked.from = Some(value),
            "to" => asked.to = Some(value),
            "at" => asked.at = Some(value),
            "format" => asked.format = Some(value),
            _ => asked.tier = Some(value),
        }
    }
    if asked.names.len() > MAX_SERIES {
        return Err(ApiError::bad_request(
            "invalid_query",
            format!("no more than {MAX_SERIES} metrics at once"),
        ));
    }
    Ok(asked)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn store_error(error: StoreError) -> ApiError {
    tracing::warn!(%error, "history query failed");
    ApiError::unavailable("store_unavailable", error.to_string(), 5)
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Query time series of a host
///
/// Times are milliseconds since 1970, RFC 3339, `now`, or a span before now as `-2h`.
#[utoipa::path(get, path = "/api/v1/hosts/{id}/series", tag = "hosts", params(
    ("id" = String, Path, description = "Id or name"),
    ("metric" = String, Query, description = "Names, groups or instances: `cpu.usage,memory.*,network.rx_bytes{eth0}`"),
    ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("points" = Option<usize>, Query, description = "10 to 10,000"),
), responses((status = 200, body = schemas::SeriesResponse)))]
pub(crate) async fn series(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = parse_query(query.as_deref(), &["metric", "from", "to", "points"])?;
    let host = query::host(&app, &identity, &id)?;
    if asked.names.is_empty() {
        return Err(ApiError::bad_request(
            "metric_required",
            "metric is required: ?metric=cpu.usage,memory.used or cpu.*",
        ));
    }
    for name in &asked.names {
        let known = name.metric.ends_with('*') || app.catalog.get(&name.metric).is_some();
        if !known && !perfwatch_model::wire::is_metric_name(&name.metric) {
            return Err(ApiError::bad_request(
                "invalid_query",
                format!("invalid metric name {:?}", name.metric),
            ));
        }
    }
    let range = query::range(asked.from.as_deref(), asked.to.as_deref(), app.clock.wall_ms())?;
    let points = asked.points.unwrap_or(DEFAULT_POINTS);
    let rhythm_ms = i64::from(host.interval_ms.max(host.record.interval_ms));
    let answer = app
        .history
        .series(host.record.id, asked.names, range, points, rhythm_ms)
        .await
        .map_err(store_error)?;
    Ok(json_text(write_series(&app, &host, range, &answer)))
}

fn write_series(app: &App, host: &Host, (from_ms, to_ms): (i64, i64), answer: &SeriesResult) -> String {
    let mut out = String::with_capacity(256 + answer.series.len() * answer.at_ms.len() * 8);
    let list = |out: &mut String, key: &str, count: usize, item: &mut dyn FnMut(&mut String, usize)| {
        let _ = write!(out, ",\"{key}\":[");
        for at in 0..count {
            if at > 0 {
                out.push(',');
            }
            item(out, at);
        }
        out.push(']');
    };
    // Writing to a String can't fail.
    let _ = write!(
        out,
        "{{\"host_id\":\"{}\",\"from_ms\":{from_ms},\"to_ms\":{to_ms},\"tier\":\"{}\",\"step_ms\":{}",
        host.record.id,
        answer.tier.name(),
        answer.step_ms
    );
    list(&mut out, "t", answer.at_ms.len(), &mut |out, at| {
        let _ = write!(out, "{}", answer.at_ms[at]);
    });
    list(&mut out, "gaps", answer.gaps.len(), &mut |out, at| {
        let gap = &answer.gaps[at];
        let _ = write!(
            out,
            "{{\"from_ms\":{},\"to_ms\":{},\"why\":\"{}\"}}",
            gap.from_ms,
            gap.to_ms,
            gap.kind.name()
        );
    });
    list(&mut out, "series", answer.series.len(), &mut |out, at| {
        let series = &answer.series[at];
        let unit = app.catalog.get(&series.metric).map(|def| def.unit);
        let name = json!({ "metric": series.metric, "instance": series.instance, "unit": unit }).to_string();
        out.push_str(name.trim_end_matches('}'));
        match &series.values {
            SeriesValues::Ticks(values) => list(out, "v", values.len(), &mut |out, row| {
                fixed_point::write_scaled(out, values[row], series.decimals);
            }),
            SeriesValues::Points(points) => {
                let figures = points.stats();
                let decimals = points.decimals();
                list(out, "v", answer.point_indices.len(), &mut |out, at| {
                    match average(&figures[answer.point_indices[at]], decimals) {
                        // Two digits more than the samples have.
                        Some(mean) => fixed_point::write_rounded(out, mean, decimals + 2),
                        None => out.push_str("null"),
                    }
                });
                list(out, "min", answer.point_indices.len(), &mut |out, at| {
                    fixed_point::write_scaled(out, figures[answer.point_indices[at]].min, decimals);
                });
                list(out, "max", answer.point_indices.len(), &mut |out, at| {
                    fixed_point::write_scaled(out, figures[answer.point_indices[at]].max, decimals);
                });
            }
        }
        out.push('}');
    });
    out.push('}');
    out
}

/// Get the snapshot at a point in time
#[utoipa::path(get, path = "/api/v1/hosts/{id}/snapshot", tag = "hosts", params(
    ("id" = String, Path, description = "Id or name"), ("at" = Option<String>, Query),
), responses((status = 200, body = schemas::SnapshotResponse)))]
pub(crate) async fn snapshot(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = parse_query(query.as_deref(), &["at"])?;
    let host = query::host(&app, &identity, &id)?;
    let now_ms = app.clock.wall_ms();
    let at_ms = asked.at.as_deref().map_or(Ok(now_ms), |at| query::time_ms("at", at, now_ms))?;
    let found = app
        .history
        .snapshot_at(host.record.id, at_ms, MAX_SNAPSHOT_AGE_MS)
        .await
        .map_err(store_error)?
        .ok_or_else(|| ApiError::not_found("no data for this host in the hour before that time"))?;
    let name = HostRef { id: Some(host.record.id), name: host.record.name };
    let mut text = String::with_capacity(8 << 10);
    let _ = write!(
        text,
        "{{\"at_ms\":{},\"resolution_ms\":{},\"snapshot\":",
        found.snapshot.at_ms,
        if found.width_ms > 0 { found.width_ms } else { i64::from(found.snapshot.interval_ms) }
    );
    json::write_snapshot(&mut text, host.record.id, &name, &found.snapshot);
    text.push('}');
    Ok(json_text(text))
}

/// Top processes over a time range
#[utoipa::path(get, path = "/api/v1/hosts/{id}/processes", tag = "hosts", params(
    ("id" = String, Path, description = "Id or name"),
    ("from" = Option<String>, Query), ("to" = Option<String>, Query), ("limit" = Option<usize>, Query),
), responses((status = 200, body = schemas::ProcessesResponse)))]
pub(crate) async fn processes(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = parse_query(query.as_deref(), &["from", "to", "limit"])?;
    let host = query::host(&app, &identity, &id)?;
    let range = query::range(asked.from.as_deref(), asked.to.as_deref(), app.clock.wall_ms())?;
    if range.1 - range.0 > MAX_PROCESS_RANGE_MS {
        return Err(ApiError::bad_request("invalid_range", "the range for processes is limited to 31 days"));
    }
    let (uses, covered_ms) = app.history.processes(host.record.id, range).await.map_err(store_error)?;
    let total = uses.len();
    let limit = asked.limit.unwrap_or(50).min(1_000);
    let shown: Vec<_> = uses.iter().take(limit).map(|sum| process_json(sum, covered_ms)).collect();
    let body = json!({
        "host_id": host.record.id, "from_ms": range.0, "to_ms": range.1,
        "covered_ms": covered_ms, "total": total, "processes": shown,
    });
    Ok(json_text(body.to_string()))
}

/// Rates are over the time that there are rows of, whether the process was among the largest
/// in all of it or not.
#[expect(clippy::cast_precision_loss, reason = "an average is not exact")]
fn process_json(sum: &ProcessUsage, covered_ms: i64) -> serde_json::Value {
    let mean = sum.cpu_tenths_ms as f64 / (covered_ms.max(1) as f64) / 10.0;
    let mut cpu = String::new();
    fixed_point::write_rounded(&mut cpu, mean, 2);
    json!({
        "pid": sum.last.pid, "name": sum.last.name, "user": sum.last.user, "command": sum.last.command,
        "started_ms": sum.last.started_ms, "first_ms": sum.first_ms, "last_ms": sum.last_ms, "rows": sum.rows,
        "cpu_percent_mean": cpu.parse::<f64>().unwrap_or_default(),
        "cpu_percent_max": f64::from(sum.cpu_tenths_max) / 10.0,
        "memory_bytes_max": sum.memory_max,
        "read_bytes": sum.read_bytes, "written_bytes": sum.write_bytes,
    })
}

/// Export history as CSV or JSON lines
#[utoipa::path(get, path = "/api/v1/hosts/{id}/export", tag = "hosts", params(
    ("id" = String, Path, description = "Id or name"),
    ("format" = Option<String>, Query, description = "`csv` or `jsonl`"),
    ("metric" = Option<String>, Query), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("tier" = Option<String>, Query, description = "`raw`, `1m` or `1h`"),
), responses((status = 200, content((String = "text/csv"), (String = "application/jsonl")))))]
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = parse_query(query.as_deref(), &["format", "metric", "from", "to", "tier"])?;
    let host = query::host(&app, &identity, &id)?;
    let (from_ms, to_ms) = query::range(asked.from.as_deref(), asked.to.as_deref(), app.clock.wall_ms())?;
    let bad = |what| ApiError::bad_request("invalid_query", what);
    let format = Format::parse(asked.format.as_deref()).ok_or_else(|| bad("format: csv or jsonl"))?;
    let (kind, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::JsonLines => ("application/jsonl", "jsonl"),
    };
    let export = Export {
        history: app.history.clone(),
        host: host.record.id,
        name: host.record.name.clone(),
        tier: parse_tier(asked.tier.as_deref()).ok_or_else(|| bad("tier: raw, 1m or 1h"))?,
        wanted: projection_for(asked.names, format),
        format,
        from_ms,
        to_ms,
        header_written: false,
    };
    let name: String = host
        .record
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    let disposition = format!("attachment; filename=\"{name}.{ending}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    let pieces = futures_util::stream::unfold(export, |mut export| async move {
        let piece = export.next().await?;
        Some((piece.map_err(|error| std::io::Error::other(error.to_string())), export))
    });
    // Who compresses asks once more after the end.
    Ok((headers, Body::from_stream(pieces.fuse())).into_response())
}
