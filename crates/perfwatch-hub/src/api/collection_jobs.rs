//! `/api/v1/servers/metrics`: the collection queue and its jobs.

use crate::api::collections::connection_test_error;
use crate::app::App;
use crate::host_access::{self, HIDDEN_PATH};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_agentless::{QueueSeries, QueueStats, Server};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller};
use perfwatch_model::HostId;
use perfwatch_model::remote_collector::CollectionStage;
use perfwatch_store::Transaction;
use perfwatch_store::collection_jobs::{CollectionJobs, JobRow, JobState as StoredState, MAX_LISTED_JOBS};
use perfwatch_store::collections::CollectTrigger;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Queued or finished collection of a server.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionJobResponse {
    id: i64,
    server: Uuid,
    server_name: String,
    trigger: CollectTrigger,
    state: JobState,
    /// Earliest start, milliseconds since 1970.
    run_at_ms: i64,
    /// Number of started attempts.
    attempts: i64,
    started_ms: Option<i64>,
    finished_ms: Option<i64>,
    /// Error of the last attempt.
    error: Option<String>,
    /// Current stage of an active job; `null` if another hub runs it.
    stage: Option<CollectionStage>,
}

/// Jobs of the visible servers.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionJobListResponse {
    jobs: Vec<CollectionJobResponse>,
}

/// State of a collection job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    /// Due; waits for a worker.
    Waiting,
    /// Scheduled for a later time.
    Delayed,
    Active,
    Completed,
    Failed,
}

fn job_state(row: &JobRow, now_ms: i64) -> JobState {
    match row.state {
        StoredState::Active => JobState::Active,
        StoredState::Completed => JobState::Completed,
        StoredState::Failed => JobState::Failed,
        StoredState::Waiting if row.run_at_ms > now_ms => JobState::Delayed,
        StoredState::Waiting => JobState::Waiting,
    }
}

/// Queue statistics
#[utoipa::path(
    get, path = "/api/v1/servers/metrics/queue/stats", tag = "queue",
    responses((status = 200, body = QueueStats)),
)]
pub(crate) async fn stats(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<QueueStats>, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let is_visible = |server: Uuid| identity.can_view(&auth_snapshot, HostId(server));
    let filter = (!identity.host_tags.is_empty()).then_some(&is_visible as &(dyn Fn(Uuid) -> bool + Sync));
    Ok(Json(app.agentless.queue_stats(filter).await?))
}

/// Collections of the last 24 hours by time
#[utoipa::path(
    get, path = "/api/v1/servers/metrics/queue/series", tag = "queue",
    responses((status = 200, body = QueueSeries)),
)]
pub(crate) async fn series(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<QueueSeries>, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let is_visible = |server: Uuid| identity.can_view(&auth_snapshot, HostId(server));
    // Callers with the same host tags see the same servers until accounts or tags change.
    let scope = format!("{}:{}", auth_snapshot.revision(), identity.host_tags.join(","));
    let filter = (!identity.host_tags.is_empty()).then_some((&*scope, &is_visible as _));
    Ok(Json(app.agentless.queue_series(filter).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// State; default: waiting and delayed.
    state: Option<JobState>,
    /// Maximum number of jobs: 1 to 1,000, default 200.
    limit: Option<i64>,
}

/// List collection jobs
#[utoipa::path(
    get, path = "/api/v1/servers/metrics/queue/jobs", tag = "queue",
    params(JobsQuery),
    responses((status = 200, body = CollectionJobListResponse)),
)]
pub(crate) async fn jobs(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<JobsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<CollectionJobListResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let (store, now_ms) = (app.agentless.store(), app.clock.wall_ms());
    let limit = query.limit.unwrap_or(200).clamp(1, 1_000);
    let stored_state = match query.state {
        None | Some(JobState::Waiting | JobState::Delayed) => StoredState::Waiting,
        Some(JobState::Active) => StoredState::Active,
        Some(JobState::Completed) => StoredState::Completed,
        Some(JobState::Failed) => StoredState::Failed,
    };
    let names: HashMap<Uuid, String> = ServerRow::list(store)
        .await?
        .iter()
        .filter_map(|row| Some((row.id, Server::from_row(row)?.name)))
        .collect();
    let auth_snapshot = app.directory.snapshot();
    // Filtered below by visibility and state; one waiting job per server is possible.
    let rows = CollectionJobs::list(store, stored_state, MAX_LISTED_JOBS).await?;
    let jobs = rows.into_iter().filter(|row| identity.can_view(&auth_snapshot, HostId(row.server)));
    let is_in_state = |row: &JobRow| query.state.is_none_or(|state| state == job_state(row, now_ms));
    let hidden_paths = host_access::hidden_paths(&app, &identity).await?;
    let shown_error = |server: Uuid, error: String| match hidden_paths.contains(&server) {
        true => HIDDEN_PATH.to_owned(),
        false => error,
    };
    let to_response = |row: JobRow| CollectionJobResponse {
        state: job_state(&row, now_ms),
        server_name: names.get(&row.server).cloned().unwrap_or_default(),
        id: row.id,
        server: row.server,
        stage: app.agentless.running_stage(row.server).filter(|_| row.state == StoredState::Active),
        trigger: row.trigger,
        run_at_ms: row.run_at_ms,
        attempts: row.attempts,
        started_ms: row.started_ms,
        finished_ms: row.finished_ms,
        error: row.error.map(|error| shown_error(row.server, error)),
    };
    Ok(Json(CollectionJobListResponse {
        jobs: jobs.filter(is_in_state).take(usize::try_from(limit).unwrap_or(1)).map(to_response).collect(),
    }))
}

/// Result of a collection request.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectAllResponse {
    /// Number of servers that will be collected.
    requested: usize,
}

/// Collect all enabled agentless hosts now
#[utoipa::path(
    post, path = "/api/v1/servers/metrics/collect-all", tag = "queue",
    responses((status = 202, body = CollectAllResponse), (status = 409)),
)]
pub(crate) async fn collect_all(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
) -> Result<(StatusCode, Json<CollectAllResponse>), ApiError> {
    app.agentless.charge_collect_all(&actor.identity.share_key()).map_err(connection_test_error)?;
    let (auth_snapshot, now_ms) = (app.directory.snapshot(), app.clock.wall_ms());
    let rows = ServerRow::list(app.agentless.store()).await?;
    let is_collectable = |row: &&ServerRow| {
        row.enabled && row.blocked_reason.is_none() && actor.identity.can_view(&auth_snapshot, HostId(row.id))
    };
    let mut tx = Transaction::default();
    rows.iter().filter(is_collectable).for_each(|row| tx.collection_jobs().run_now(row.id, now_ms));
    let requested = tx.len();
    app.agentless
        .commit(tx, (&actor, actor.audit("server.collect_all", format!("{requested} servers"))))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(CollectAllResponse { requested })))
}

/// Collect now
#[utoipa::path(
    post, path = "/api/v1/servers/{id}/collect", tag = "queue",
    params(("id" = String, Path, description = "Id of the server")),
    responses((status = 202, body = CollectAllResponse), (status = 409)),
)]
pub(crate) async fn collect(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<CollectAllResponse>), ApiError> {
    let row = super::servers::find(&app, &actor.identity, &id).await?;
    if !row.enabled || row.blocked_reason.is_some() {
        let message = if row.enabled {
            "collection is blocked until the server is changed"
        } else {
            "the server is disabled"
        };
        return Err(ApiError::conflict("collection_disabled", message));
    }
    let tx = Transaction::build(|tx| tx.collection_jobs().run_now(row.id, app.clock.wall_ms()));
    app.agentless.commit(tx, (&actor, actor.audit("server.collect", format!("server {}", row.id)))).await?;
    Ok((StatusCode::ACCEPTED, Json(CollectAllResponse { requested: 1 })))
}

/// Pause the collection queue
#[utoipa::path(
    post, path = "/api/v1/servers/metrics/queue/pause", tag = "queue",
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let tx = Transaction::build(|tx| tx.collection_jobs().set_paused(true));
    app.agentless.commit(tx, (&actor, actor.audit("queue.pause", "queue".to_owned()))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resume the collection queue
#[utoipa::path(
    post, path = "/api/v1/servers/metrics/queue/resume", tag = "queue",
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let tx = Transaction::build(|tx| tx.collection_jobs().set_paused(false));
    app.agentless.commit(tx, (&actor, actor.audit("queue.resume", "queue".to_owned()))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Selection of the finished jobs to delete.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CleanQueueRequest {
    /// `completed` or `failed`; default: both.
    state: Option<JobState>,
}

/// Delete finished jobs
#[utoipa::path(
    post, path = "/api/v1/servers/metrics/queue/clean", tag = "queue",
    request_body = CleanQueueRequest,
    responses((status = 204), (status = 409), (status = 422)),
)]
pub(crate) async fn clean(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<CleanQueueRequest>,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let after_all_ms = app.clock.wall_ms() + 1;
    let (completed_before_ms, failed_before_ms) = match request.state {
        None => (after_all_ms, after_all_ms),
        Some(JobState::Completed) => (after_all_ms, 0),
        Some(JobState::Failed) => (0, after_all_ms),
        Some(_) => {
            return Err(ApiError::unprocessable("invalid_state", "state: must be completed or failed"));
        }
    };
    let tx = Transaction::build(|tx| tx.collection_jobs().purge(completed_before_ms, failed_before_ms));
    let entry = actor.audit_change("queue.clean", "queue".to_owned(), None, Some(&request));
    app.agentless.commit(tx, (&actor, entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Retry a failed job
#[utoipa::path(
    post, path = "/api/v1/servers/metrics/queue/jobs/{id}/retry", tag = "queue",
    params(("id" = i64, Path, description = "Id of the collection job")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let missing = || ApiError::not_found(format!("job {id:?} not found"));
    let job = CollectionJobs::get(app.agentless.store(), id.parse().map_err(|_| missing())?)
        .await?
        .ok_or_else(missing)?;
    let row =
        super::servers::find(&app, &actor.identity, &job.server.to_string()).await.map_err(|_| missing())?;
    if job.state != StoredState::Failed {
        return Err(ApiError::conflict("job_not_failed", "only failed jobs can be retried"));
    }
    if !row.enabled || row.blocked_reason.is_some() {
        let message = "the server is disabled or blocked";
        return Err(ApiError::conflict("collection_disabled", message));
    }
    let mut tx = Transaction::default();
    tx.collection_jobs().delete_failed(job.id);
    tx.collection_jobs().run_now(row.id, app.clock.wall_ms());
    app.agentless.commit(tx, (&actor, actor.audit("job.retry", format!("server {}", row.id)))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Retry all failed jobs of enabled hosts
#[utoipa::path(
    post, path = "/api/v1/servers/metrics/queue/retry", tag = "queue",
    responses((status = 202, body = CollectAllResponse), (status = 409)),
)]
pub(crate) async fn retry_all(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
) -> Result<(StatusCode, Json<CollectAllResponse>), ApiError> {
    app.agentless.charge_collect_all(&actor.identity.share_key()).map_err(connection_test_error)?;
    let (auth_snapshot, mut tx) = (app.directory.snapshot(), Transaction::default());
    let is_visible = |server: Uuid| actor.identity.can_view(&auth_snapshot, HostId(server));
    let requested = app.agentless.retry_failed(is_visible, &mut tx).await?;
    app.agentless.commit(tx, (&actor, actor.audit("job.retry_all", format!("{requested} servers")))).await?;
    Ok((StatusCode::ACCEPTED, Json(CollectAllResponse { requested })))
}
