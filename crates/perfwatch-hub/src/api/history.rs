//! History of one host: `series` for charts, `snapshot` at a point in time, `processes` over a range, and
//! `export` as streamed text.

use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use perfwatch_history::export::{EXPORT_MEMORY_BYTES, Export, Format, parse_tier, projection_for};
use perfwatch_history::read::ProcessUsage;
use perfwatch_history::series::SeriesRequest;
use perfwatch_history::series_json;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::schemas;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_model::{HostId, HostRef, fixed_point, json};
use perfwatch_overview::host_events::{HOST_EVENTS_MEMORY_BYTES, HostEventsRequest};
use perfwatch_overview::response::HostEventsResponse;
use perfwatch_tsdb::SeriesSelector;
use serde_json::json;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// Number of points per series if the request names none.
const DEFAULT_SERIES_LEN: usize = 600;
/// Maximum number of points per series.
const MAX_POINTS: usize = 10_000;
/// Maximum number of series selectors in one request.
const MAX_SERIES: usize = 200;
/// Maximum age of a snapshot at the requested time.
const MAX_SNAPSHOT_AGE_MS: i64 = 3_600_000;
/// Memory in bytes that a snapshot with its text needs, and the block that contains it.
const SNAPSHOT_MEMORY_BYTES: usize = 32 << 20;
/// Memory in bytes that process usage needs.
const PROCESSES_MEMORY_BYTES: usize = 48 << 20;
/// Maximum range of process usage: rows are read one by one, longer ranges would take too long.
const MAX_PROCESS_RANGE_MS: i64 = 31 * 86_400_000;

/// Parameters of the history routes.
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
    kinds: Option<String>,
}

/// Parses the parameters in `allowed`.
///
/// # Errors
/// Returns `invalid_query` for other parameters, numbers below 1 and too many series.
fn parse_query(query: Option<&str>, allowed: &[&str]) -> Result<SeriesQuery, ApiError> {
    let mut request = SeriesQuery::default();
    for (key, value) in params::query_pairs(query) {
        if !allowed.contains(&key.as_str()) {
            let message = format!("unknown parameter {key:?}; expected {}", allowed.join(", "));
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
                request
                    .names
                    .extend(value.split(',').filter(|name| !name.is_empty()).map(SeriesSelector::parse));
            }
            "points" => request.points = Some(number()?.clamp(10, MAX_POINTS)),
            "limit" => request.limit = Some(number()?),
            "from" => request.from = Some(value),
            "to" => request.to = Some(value),
            "at" => request.at = Some(value),
            "format" => request.format = Some(value),
            "kinds" => request.kinds = Some(value),
            _ => request.tier = Some(value),
        }
    }
    let mut seen = HashSet::new();
    request.names.retain(|name| seen.insert(name.clone()));
    if request.names.len() > MAX_SERIES {
        return Err(ApiError::bad_request(
            "invalid_query",
            format!("at most {MAX_SERIES} metrics per request"),
        ));
    }
    Ok(request)
}

/// Query time series of a host
///
/// Times are milliseconds since 1970, RFC 3339, `now`, or an offset from now such as `-2h`.
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/series", tag = "hosts",
    params(
        ("id" = String, Path, description = "Id or name of the host"),
        ("metric" = String, Query, description = "Selectors: `cpu.usage,memory.*,network.rx_bytes{eth0}`"),
        ("from" = Option<String>, Query, description = "Start of the range; default: one hour before `to`"),
        ("to" = Option<String>, Query, description = "End of the range; default: now"),
        ("points" = Option<usize>, Query, description = "Number of points: 10 to 10,000, default 600"),
    ),
    responses((status = 200, body = schemas::SeriesResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn series(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let find = |app: &App| {
        let host = host_access::host(app, &identity, &id)?;
        Ok((host.record.id, i64::from(host.interval_ms())))
    };
    read_series(&app, reader, query.as_deref(), find).await
}

/// Reads the series of a query from the history of the host with an expected interval that `find` returns.
pub(super) async fn read_series(
    app: &App,
    reader: Reader,
    query: Option<&str>,
    find: impl FnOnce(&App) -> Result<(HostId, i64), ApiError>,
) -> Result<Response, ApiError> {
    let request = parse_query(query, &["metric", "from", "to", "points"])?;
    let (host, interval_ms) = find(app)?;
    if request.names.is_empty() {
        return Err(ApiError::bad_request(
            "metric_required",
            "metric is required: ?metric=cpu.usage,memory.used or cpu.*",
        ));
    }
    for name in &request.names {
        let is_known = name.metric.ends_with('*') || app.catalog.get(&name.metric).is_some();
        if !is_known && !perfwatch_model::wire::is_metric_name(&name.metric) {
            return Err(ApiError::bad_request(
                "invalid_query",
                format!("invalid metric name {:?}", name.metric),
            ));
        }
    }
    let range = params::range(request.from.as_deref(), request.to.as_deref(), app.clock.wall_ms())?;
    let points = request.points.unwrap_or(DEFAULT_SERIES_LEN);
    let request = SeriesRequest {
        host,
        selectors: request.names,
        range,
        max_points: points,
        interval_ms,
        held: Some(reader.permit()),
    };
    let plan = app.history.plan_series(request).await?;
    reader.reserve(plan.memory_bytes()).await?;
    let result = app.history.read_series(plan).await?;
    Ok(reader.respond(series_json::write(&app.catalog, host, range, &result)))
}

/// Get the snapshot at a point in time
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/snapshot", tag = "hosts",
    params(
        ("id" = String, Path, description = "Id or name of the host"),
        ("at" = Option<String>, Query, description = "Point in time; default: now"),
    ),
    responses((status = 200, body = schemas::SnapshotResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn snapshot(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let request = parse_query(query.as_deref(), &["at"])?;
    let host = host_access::host(&app, &identity, &id)?;
    let now_ms = app.clock.wall_ms();
    let at_ms = request.at.as_deref().map_or(Ok(now_ms), |at| params::time_ms("at", at, now_ms))?;
    reader.reserve(SNAPSHOT_MEMORY_BYTES).await?;
    let result = app
        .history
        .snapshot_at(host.record.id, at_ms, MAX_SNAPSHOT_AGE_MS, Some(reader.permit()))
        .await?
        .ok_or_else(|| ApiError::not_found("no data for this host in the hour before that time"))?;
    let name = HostRef { id: Some(host.record.id), name: host.record.name };
    let mut text = String::with_capacity(8 << 10);
    let _ = write!(
        text,
        "{{\"at_ms\":{},\"resolution_ms\":{},\"snapshot\":",
        result.snapshot.at_ms,
        if result.width_ms > 0 { result.width_ms } else { i64::from(result.snapshot.interval_ms) }
    );
    json::write_snapshot(&mut text, host.record.id, &name, &result.snapshot);
    text.push('}');
    Ok(reader.respond(text))
}

/// Top processes over a time range
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/processes", tag = "hosts",
    params(
        ("id" = String, Path, description = "Id or name of the host"),
        ("from" = Option<String>, Query, description = "Start of the range; default: one hour before `to`"),
        ("to" = Option<String>, Query, description = "End of the range; default: now"),
        ("limit" = Option<usize>, Query, description = "Maximum number of processes: 1 to 1,000, default 50"),
    ),
    responses((status = 200, body = schemas::ProcessesResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn processes(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let request = parse_query(query.as_deref(), &["from", "to", "limit"])?;
    let host = host_access::host(&app, &identity, &id)?;
    let range = params::range(request.from.as_deref(), request.to.as_deref(), app.clock.wall_ms())?;
    if range.1 - range.0 > MAX_PROCESS_RANGE_MS {
        return Err(ApiError::bad_request("invalid_range", "the range for processes is limited to 31 days"));
    }
    reader.reserve(PROCESSES_MEMORY_BYTES).await?;
    let (processes, covered_ms) = app.history.processes(host.record.id, range, Some(reader.permit())).await?;
    let total = processes.len();
    let limit = request.limit.unwrap_or(50).min(1_000);
    let processes: Vec<_> =
        processes.iter().take(limit).map(|process| process_json(process, covered_ms)).collect();
    let body = json!({
        "host_id": host.record.id, "from_ms": range.0, "to_ms": range.1,
        "covered_ms": covered_ms, "total": total, "processes": processes,
    });
    Ok(reader.respond(body.to_string()))
}

/// Usage of one process. The mean is over the time covered by rows, including rows in which the process
/// was not among the top processes.
#[expect(clippy::cast_precision_loss, reason = "the mean is rounded to two decimals")]
fn process_json(process: &ProcessUsage, covered_ms: i64) -> serde_json::Value {
    let mean = process.cpu_tenths_ms as f64 / (covered_ms.max(1) as f64) / 10.0;
    let mut cpu = String::new();
    fixed_point::write_rounded(&mut cpu, mean, 2);
    json!({
        "pid": process.last.pid, "parent_pid": process.last.parent_pid, "name": process.last.name, "user": process.last.user,
        "command": process.last.command, "started_ms": process.last.started_ms,
        "first_ms": process.first_ms, "last_ms": process.last_ms, "rows": process.rows,
        "cpu_percent_mean": cpu.parse::<f64>().unwrap_or_default(),
        "cpu_percent_max": f64::from(process.cpu_tenths_max) / 10.0,
        "memory_bytes_max": process.memory_max,
        "read_bytes": process.read_bytes, "write_bytes": process.write_bytes,
    })
}

/// List events of a host
///
/// Alerts, gaps, reboots, changed facts, and for administrators changes by users.
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/events", tag = "hosts",
    params(
        ("id" = String, Path, description = "Id or name of the host"),
        ("from" = Option<String>, Query, description = "Start of the range; default: one hour before `to`"),
        ("to" = Option<String>, Query, description = "End of the range; default: now"),
        ("kinds" = Option<String>, Query, description = "Kinds: `alert,gap`; default: all"),
    ),
    responses((status = 200, body = HostEventsResponse), (status = 409)),
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<HostEventsResponse>, ApiError> {
    let request = parse_query(query.as_deref(), &["from", "to", "kinds"])?;
    let host = host_access::host(&app, &identity, &id)?;
    let range = params::range(request.from.as_deref(), request.to.as_deref(), app.clock.wall_ms())?;
    let request = HostEventsRequest::new(host, range, request.kinds.as_deref(), reader.permit())
        .map_err(|(code, message)| ApiError::bad_request(code, message))?;
    reader.reserve(HOST_EVENTS_MEMORY_BYTES).await?;
    Ok(Json(app.overview.host_events(&identity, request).await?))
}

/// Export history as CSV or JSON lines
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/export", tag = "hosts",
    params(
        ("id" = String, Path, description = "Id or name of the host"),
        ("format" = Option<String>, Query, description = "Format: `csv` or `jsonl`"),
        ("metric" = Option<String>, Query, description = "Selectors; default: all metrics"),
        ("from" = Option<String>, Query, description = "Start of the range; default: one hour before `to`"),
        ("to" = Option<String>, Query, description = "End of the range; default: now"),
        ("tier" = Option<String>, Query, description = "Resolution: `raw`, `1m` or `1h`"),
    ),
    responses(
        (status = 200, content((String = "text/csv"), (String = "application/jsonl"))),
        (status = 409),
    ),
)]
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let request = parse_query(query.as_deref(), &["format", "metric", "from", "to", "tier"])?;
    let host = host_access::host(&app, &identity, &id)?;
    let (from_ms, to_ms) =
        params::range(request.from.as_deref(), request.to.as_deref(), app.clock.wall_ms())?;
    let invalid = |message| ApiError::bad_request("invalid_query", message);
    let format =
        Format::parse(request.format.as_deref()).ok_or_else(|| invalid("format: must be csv or jsonl"))?;
    let (content_type, extension) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::JsonLines => ("application/jsonl", "jsonl"),
    };
    let tier = parse_tier(request.tier.as_deref()).ok_or_else(|| invalid("tier: must be raw, 1m or 1h"))?;
    reader.reserve(EXPORT_MEMORY_BYTES).await?;
    let projection = projection_for(request.names, format);
    let exported = (host.record.id, host.record.name.clone());
    let export = Export::new(app.history.clone(), exported, tier, projection, format, (from_ms, to_ms))
        .with_permits(reader.memory());
    let name: String = host
        .record
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    let disposition = format!("attachment; filename=\"{name}.{extension}\"");
    let headers =
        [(header::CONTENT_TYPE, content_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    let host_id = host.record.id;
    let chunks = futures_util::stream::unfold(export, move |mut export| {
        let (app, identity) = (app.clone(), identity.clone());
        async move {
            // A download may take hours: access may have ended.
            let is_permitted = identity
                .refresh(&app.directory)
                .is_some_and(|identity| identity.can_view(&app.directory.snapshot(), host_id));
            let chunk = match app.rate_limiters.reads.begin(&identity).await {
                _ if !is_permitted => Err("access to the host ended".to_owned()),
                Ok(_read) => export.next().await?.map_err(|error| error.to_string()),
                Err(error) => Err(error.message().to_owned()),
            };
            Some((chunk.map_err(std::io::Error::other), export))
        }
    });
    // An error ends the download.
    let chunks = chunks.scan(false, |has_failed, chunk: std::io::Result<String>| {
        let is_last = std::mem::replace(has_failed, chunk.is_err());
        std::future::ready((!is_last).then_some(chunk))
    });
    // The compression layer polls the stream again after its end.
    Ok((headers, Body::from_stream(chunks.fuse())).into_response())
}
