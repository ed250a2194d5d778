//! `GET /api/v1/live`: live messages over plain HTTP, for browsers whose proxy passes no WebSocket.

use crate::app::App;
use crate::host_access;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use perfwatch_alerting::visible_incidents;
use perfwatch_auth::Identity;
use perfwatch_http::schemas;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_live::message;
use perfwatch_model::limits;
use std::sync::Arc;
use std::time::Duration;

/// Time for which a poll counts as an open page of the host.
const VIEWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct PollQuery {
    host: Option<String>,
    metrics: Vec<String>,
    processes: bool,
    since_ms: i64,
}

/// Live messages over HTTP
///
/// Returns the messages that a new WebSocket subscription receives: the backfill since a time, and the
/// numbers of open incidents.
#[utoipa::path(
    get, path = "/api/v1/live", tag = "live",
    params(
        ("host" = Option<String>, Query, description = "Id or name of a host; without it, no backfill"),
        ("metric" = Option<String>, Query, description = "Metrics: `cpu.*,memory.used`; empty for all"),
        ("processes" = Option<bool>, Query, description = "Whether to include the top processes"),
        ("since" = Option<i64>, Query, description = "Only snapshots after this time (ms since 1970)"),
    ),
    responses((status = 200, body = schemas::LivePollResponse), (status = 404)),
)]
pub(crate) async fn live_poll(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let request = parse(query.as_deref())?;
    let mut messages = match &request.host {
        Some(name) => backfill(&app, &identity, name, &request).await?,
        None => Vec::new(),
    };
    let revision = *app.alerting.subscribe().borrow();
    let (alerts, auth_snapshot) = (app.alerting.snapshot(), app.directory.snapshot());
    let visible = visible_incidents(&alerts.incidents, revision, &identity, &auth_snapshot);
    messages.push(message::incident_counts(visible.revision, visible.counts));
    let text = format!("{{\"messages\":[{}]}}", messages.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn parse(query: Option<&str>) -> Result<PollQuery, ApiError> {
    let mut request = PollQuery::default();
    let invalid = |message: String| ApiError::bad_request("invalid_query", message);
    for (key, value) in params::query_pairs(query) {
        match key.as_str() {
            "host" => request.host = Some(value),
            "metric" => {
                request.metrics.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
            "processes" => request.processes = value == "true",
            "since" => {
                let error = |_| invalid("since: must be milliseconds since 1970".to_owned());
                request.since_ms = value.parse().map_err(error)?;
            }
            _ => {
                let expected = "expected host, metric, processes, since";
                return Err(invalid(format!("unknown parameter {key:?}; {expected}")));
            }
        }
    }
    if request.metrics.len() > limits::MAX_SELECTORS {
        return Err(invalid(format!("metric: at most {} metrics", limits::MAX_SELECTORS)));
    }
    Ok(request)
}

/// Backfill messages of a host. The poll counts as an open page, so that agentless hosts are polled often.
async fn backfill(
    app: &Arc<App>,
    identity: &Identity,
    name: &str,
    request: &PollQuery,
) -> Result<Vec<String>, ApiError> {
    let id = host_access::host(app, identity, name)?.record.id;
    let share = app.live_feed.client_shares().get(identity.share_key());
    let (viewer, stop) = (app.live_feed.viewers().add(id, &share), app.stop.clone());
    app.tasks.spawn(async move {
        let _ = tokio::time::timeout(VIEWER_TIMEOUT, stop.cancelled()).await;
        drop(viewer);
    });
    let selection = app.live_feed.selections().get(request.metrics.clone(), request.processes, &share);
    let selection = selection
        .ok_or_else(|| ApiError::too_many("too many different selections of your account", VIEWER_TIMEOUT))?;
    let from_ms = request.since_ms.saturating_add(1);
    let mut recent = app.live_feed.recent(id, from_ms, app.clock.wall_ms()).await;
    Ok(message::backfill_of_host(&mut recent.snapshots, &selection))
}
