//! `POST /api/v1/rules/backtest`: evaluation of a rule on stored history.

use super::rules::invalid_rule;
use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::State;
use perfwatch_alerting::backtester;
use perfwatch_http::body::JsonBody;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_rules::backtest::FiringInterval;
use perfwatch_rules::rule::Rule;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Maximum range of a backtest: 31 days.
const MAX_RANGE_MS: i64 = 31 * 86_400_000;
/// Memory in bytes that a backtest reserves.
const BACKTEST_MEMORY_BYTES: usize = 64 << 20;

/// Rule and range of a backtest.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BacktestRequest {
    rule: Rule,
    /// Start: milliseconds since 1970, RFC 3339, or an offset; default `-7d`.
    from: Option<String>,
    /// End of the range; default: now.
    to: Option<String>,
}

/// Result of a backtest for one host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostBacktestResponse {
    host: Uuid,
    name: String,
    /// Number of evaluated values.
    value_count: usize,
    /// Evaluated on minute averages instead of raw samples.
    downsampled: bool,
    firing_intervals: Vec<FiringInterval>,
}

/// Result of a backtest.
#[derive(Serialize, ToSchema)]
pub(crate) struct BacktestResponse {
    from_ms: i64,
    to_ms: i64,
    /// Number of firing intervals of all hosts.
    firing_count: usize,
    /// Evaluated hosts, most firing intervals first.
    hosts: Vec<HostBacktestResponse>,
    /// Number of hosts that were skipped because the time limit was reached, or of too many values.
    skipped_hosts: usize,
    /// Threshold with at most about one firing interval per day and host; `null` if the rule meets this.
    suggested_threshold: Option<f64>,
    duration_ms: u64,
}

/// Backtest a rule
#[utoipa::path(
    post, path = "/api/v1/rules/backtest", tag = "rules",
    request_body = BacktestRequest,
    responses((status = 200, body = BacktestResponse), (status = 422)),
)]
pub(crate) async fn backtest(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    JsonBody(request): JsonBody<BacktestRequest>,
) -> Result<Json<BacktestResponse>, ApiError> {
    let started = app.clock.monotonic();
    request.rule.validate().map_err(|error| invalid_rule(&error))?;
    if let Some(reason) = backtester::unsupported_reason(&request.rule) {
        return Err(ApiError::unprocessable("backtest_unsupported", reason));
    }
    let now_ms = app.clock.wall_ms();
    let range = params::range(request.from.as_deref().or(Some("-7d")), request.to.as_deref(), now_ms)?;
    if range.1 - range.0 > MAX_RANGE_MS {
        return Err(ApiError::unprocessable("range_too_long", "the range must be at most 31 days"));
    }
    reader.reserve(BACKTEST_MEMORY_BYTES).await?;
    let auth_snapshot = app.directory.snapshot();
    let mut hosts = host_access::hosts(&app, &identity);
    hosts
        .retain(|host| request.rule.hosts.matches(host.record.id.0, auth_snapshot.host_tags(host.record.id)));
    // Active hosts first: the time limit may skip the rest.
    hosts.sort_by_key(|host| Reverse(host.last_seen_ms));
    let recording_host = backtester::recording_host(&request.rule);
    recording_host.map_or(Ok(()), |_| host_access::require_all_hosts(&identity))?;
    let ids = recording_host.map_or_else(|| hosts.iter().map(|host| host.record.id).collect(), |id| vec![id]);
    let result = app.alerting.backtest(request.rule, ids, range).await?;
    let mut hosts: Vec<HostBacktestResponse> = result
        .hosts
        .into_iter()
        .map(|host| HostBacktestResponse {
            host: host.host.0,
            name: app.hosts.name(host.host),
            value_count: host.value_count,
            downsampled: host.downsampled,
            firing_intervals: host.firing_intervals,
        })
        .collect();
    hosts.sort_by_key(|host| Reverse(host.firing_intervals.len()));
    let duration = app.clock.monotonic().saturating_sub(started).as_millis();
    Ok(Json(BacktestResponse {
        from_ms: range.0,
        to_ms: range.1,
        firing_count: result.firing_count,
        hosts,
        skipped_hosts: result.skipped_hosts,
        suggested_threshold: result.suggested_threshold,
        duration_ms: u64::try_from(duration).unwrap_or_default(),
    }))
}
