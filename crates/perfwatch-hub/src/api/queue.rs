//! `/api/v1/servers/metrics`: looks that are to be made, are being made, and were made.

use super::body::JsonBody;
use super::params;
use crate::app::App;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use crate::servers::Servers;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_model::HostId;
use perfwatch_store::jobs::{JobRow, Jobs};
use perfwatch_store::people::AuditEntry;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{Change, Write};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// What rates are of.
const LATELY_MS: i64 = 3_600_000;

/// How the queue stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueJson {
    paused: bool,
    /// Due, and not begun.
    waiting: i64,
    /// Not due yet.
    delayed: i64,
    active: i64,
    completed: i64,
    failed: i64,
    /// Looks at one time, of this hub.
    workers: usize,
    /// Connections that this hub holds for the next look.
    held: usize,
    /// Done within the last hour.
    done_last_hour: i64,
    /// Of those, failed.
    failed_last_hour: i64,
    /// Mean time of one of those, milliseconds.
    mean_ms: Option<i64>,
    longest_ms: i64,
    /// How late those that are due are, at most, milliseconds.
    late_ms: i64,
    now_ms: i64,
}

/// A look that is to be made, or was.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobJson {
    id: i64,
    server: Uuid,
    name: String,
    /// `schedule` or `asked`.
    reason: String,
    state: JobState,
    /// Not before.
    run_ms: i64,
    /// How often it was begun.
    tries: i64,
    started_ms: Option<i64>,
    done_ms: Option<i64>,
    /// Why it did not go well, last time.
    error: Option<String>,
}

/// Looks.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobsJson {
    jobs: Vec<JobJson>,
}

/// Where a look stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    /// Due, and not begun.
    Waiting,
    /// Not due yet.
    Delayed,
    Active,
    Completed,
    Failed,
}

fn state(row: &JobRow, now_ms: i64) -> JobState {
    match row.state.as_str() {
        "active" => JobState::Active,
        "completed" => JobState::Completed,
        "failed" => JobState::Failed,
        _ if row.run_ms > now_ms => JobState::Delayed,
        _ => JobState::Waiting,
    }
}

/// How the queue stands
#[utoipa::path(get, path = "/api/v1/servers/metrics/queue/stats", tag = "queue", responses((status = 200, body = QueueJson)))]
pub(crate) async fn stats(State(app): State<Arc<App>>) -> Result<Json<QueueJson>, ApiError> {
    let (store, now_ms) = (app.servers.store(), app.clock.wall_ms());
    let counts = Jobs::counts(store, now_ms, now_ms - LATELY_MS).await?;
    Ok(Json(QueueJson {
        paused: Jobs::paused(store).await?,
        waiting: counts.waiting,
        delayed: counts.delayed,
        active: counts.active,
        completed: counts.completed,
        failed: counts.failed,
        workers: app.servers.workers(),
        held: app.servers.held(),
        done_last_hour: counts.lately,
        failed_last_hour: counts.failed_lately,
        mean_ms: (counts.lately > 0).then(|| counts.took_ms / counts.lately),
        longest_ms: counts.longest_ms,
        late_ms: counts.late_ms,
        now_ms,
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobFilter {
    /// Which ones; those to be made without.
    state: Option<JobState>,
    /// 1,000 at most.
    limit: Option<i64>,
}

/// Looks: what is to be made in its order, what was made newest first
#[utoipa::path(get, path = "/api/v1/servers/metrics/queue/jobs", tag = "queue", params(JobFilter),
    responses((status = 200, body = JobsJson)))]
pub(crate) async fn jobs(
    State(app): State<Arc<App>>,
    identity: Identity,
    filter: Result<Query<JobFilter>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<JobsJson>, ApiError> {
    let Query(filter) = filter.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let (store, now_ms) = (app.servers.store(), app.clock.wall_ms());
    let limit = filter.limit.unwrap_or(200).clamp(1, 1_000);
    let name = match filter.state {
        None | Some(JobState::Waiting | JobState::Delayed) => "waiting",
        Some(JobState::Active) => "active",
        Some(JobState::Completed) => "completed",
        Some(JobState::Failed) => "failed",
    };
    let names: HashMap<Uuid, String> = ServerRow::all(store)
        .await?
        .iter()
        .filter_map(|row| Some((row.id, Servers::record(row)?.name)))
        .collect();
    let everyone = app.people.now();
    // Some are not for them to see, or of another state: there are as many as there may be servers.
    let rows = Jobs::list(store, name, 10_000).await?;
    let jobs = rows.into_iter().filter(|row| identity.sees(&everyone, HostId(row.server)));
    let wanted = |row: &JobRow| filter.state.is_none_or(|wanted| wanted == state(row, now_ms));
    let show = |row: JobRow| JobJson {
        state: state(&row, now_ms),
        name: names.get(&row.server).cloned().unwrap_or_default(),
        id: row.id,
        server: row.server,
        reason: row.reason,
        run_ms: row.run_ms,
        tries: row.tries,
        started_ms: row.started_ms,
        done_ms: row.done_ms,
        error: row.error,
    };
    Ok(Json(JobsJson {
        jobs: jobs.filter(wanted).take(usize::try_from(limit).unwrap_or(1)).map(show).collect(),
    }))
}

async fn commit(app: &App, changes: Vec<Change>, entry: AuditEntry) -> Result<(), ApiError> {
    let entry = AuditEntry { at_ms: app.clock.wall_ms(), ..entry }.add();
    app.servers.commit(changes.into_iter().chain([entry]).map(Write::Sql).collect()).await?;
    app.servers.wake(None);
    Ok(())
}

/// How many looks will be made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Asked {
    asked: usize,
}

/// Looks at all servers that one may see and that are switched on, now
#[utoipa::path(post, path = "/api/v1/servers/metrics/collect-all", tag = "queue",
    responses((status = 202, body = Asked), (status = 409)))]
pub(crate) async fn collect_all(
    State(app): State<Arc<App>>,
    doer: Doer,
) -> Result<(StatusCode, Json<Asked>), ApiError> {
    let (everyone, now_ms) = (app.people.now(), app.clock.wall_ms());
    let rows = ServerRow::all(app.servers.store()).await?;
    let theirs = |row: &&ServerRow| {
        row.enabled && row.refused.is_none() && doer.identity.sees(&everyone, HostId(row.id))
    };
    let changes: Vec<Change> = rows.iter().filter(theirs).map(|row| Jobs::hurry(row.id, now_ms)).collect();
    let asked = changes.len();
    commit(&app, changes, doer.did("queue.collect_all", format!("{asked} servers"))).await?;
    Ok((StatusCode::ACCEPTED, Json(Asked { asked })))
}

/// Looks at a server now
#[utoipa::path(post, path = "/api/v1/servers/{id}/collect", tag = "queue", params(("id" = String, Path)),
    responses((status = 202, body = Asked), (status = 409)))]
pub(crate) async fn collect(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Asked>), ApiError> {
    let row = super::servers::find(&app, &doer.identity, &id).await?;
    if !row.enabled || row.refused.is_some() {
        let why =
            if row.enabled { "it is not tried any more until it is changed" } else { "it is switched off" };
        return Err(ApiError::conflict("not_looked_at", why));
    }
    let change = Jobs::hurry(row.id, app.clock.wall_ms());
    commit(&app, vec![change], doer.did("queue.collect", format!("server {}", row.id))).await?;
    Ok((StatusCode::ACCEPTED, Json(Asked { asked: 1 })))
}

/// No look is begun any more, at any hub, until the queue is resumed
#[utoipa::path(post, path = "/api/v1/servers/metrics/queue/pause", tag = "queue", responses((status = 204), (status = 409)))]
pub(crate) async fn pause(State(app): State<Arc<App>>, doer: Doer) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    commit(&app, vec![Jobs::pause(true)], doer.did("queue.pause", "queue".to_owned())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Looks are made again
#[utoipa::path(post, path = "/api/v1/servers/metrics/queue/resume", tag = "queue", responses((status = 204), (status = 409)))]
pub(crate) async fn resume(State(app): State<Arc<App>>, doer: Doer) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    commit(&app, vec![Jobs::pause(false)], doer.did("queue.resume", "queue".to_owned())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which done looks are let go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CleanWish {
    /// `completed`, `failed`, or both without.
    state: Option<JobState>,
}

/// Lets go of looks that are done
#[utoipa::path(post, path = "/api/v1/servers/metrics/queue/clean", tag = "queue", request_body = CleanWish,
    responses((status = 204), (status = 409), (status = 422)))]
pub(crate) async fn clean(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<CleanWish>,
) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    let all = app.clock.wall_ms() + 1;
    let change = match wish.state {
        None => Jobs::clean(all, all),
        Some(JobState::Completed) => Jobs::clean(all, 0),
        Some(JobState::Failed) => Jobs::clean(0, all),
        Some(_) => return Err(ApiError::unprocessable("invalid_state", "state: completed, failed, or none")),
    };
    commit(&app, vec![change], doer.did("queue.clean", "queue".to_owned())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a look that failed again, now
#[utoipa::path(post, path = "/api/v1/servers/metrics/queue/jobs/{id}/retry", tag = "queue", params(("id" = i64, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let missing = || ApiError::not_found(format!("there is no job {id:?}"));
    let job =
        Jobs::one(app.servers.store(), id.parse().map_err(|_| missing())?).await?.ok_or_else(missing)?;
    let row =
        super::servers::find(&app, &doer.identity, &job.server.to_string()).await.map_err(|_| missing())?;
    if job.state != "failed" {
        return Err(ApiError::conflict("not_failed", "only a look that failed is made again"));
    }
    if !row.enabled || row.refused.is_some() {
        let why = "its server is switched off, or is not tried any more until it is changed";
        return Err(ApiError::conflict("not_looked_at", why));
    }
    let changes = vec![Jobs::retry(job.id), Jobs::hurry(row.id, app.clock.wall_ms())];
    commit(&app, changes, doer.did("queue.retry", format!("server {}", row.id))).await?;
    Ok(StatusCode::NO_CONTENT)
}
