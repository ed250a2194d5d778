//! Schedules the collection jobs of all servers, claims those that are due with a lease, and starts
//! them in the worker pool.

use crate::schedule::next_run_ms;
use crate::types::{MAX_COLLECTION_TIME, ignore_conflict};
use crate::worker::{Worker, WorkerPool};
use perfwatch_model::remote_collector::CollectionStage;
use perfwatch_model::task_runs::TaskRuns;
use perfwatch_model::{Clock, FailureStreak};
use perfwatch_store::collection_jobs::{CollectionJobs, JobRow, Lease};
use perfwatch_store::{Store, StoreError, Transaction};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Duration of a lease: longer than any collection. An expired lease belongs to a stopped hub.
const LEASE_TTL: Duration = MAX_COLLECTION_TIME.saturating_add(Duration::from_secs(30));
/// Maximum time between two reads of the queue: other hubs add jobs too.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Delay after the queue could not be read.
const ERROR_BACKOFF: Duration = Duration::from_secs(5);
/// Time for which completed jobs are listed.
const COMPLETED_JOB_RETENTION_MS: i64 = 24 * 3_600_000;
/// Time for which failed jobs are listed.
const FAILED_JOB_RETENTION_MS: i64 = 7 * 24 * 3_600_000;
/// Time for which the collection history contains successful collections.
const SUCCESSFUL_COLLECTION_RETENTION_MS: i64 = 2 * 24 * 3_600_000;
/// Time for which the collection history contains failed collections.
const COLLECTION_RETENTION_MS: i64 = 30 * 24 * 3_600_000;

/// Scheduler of the collection queue.
pub(crate) struct CollectionScheduler {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    worker: Worker,
    pool: WorkerPool,
    /// Notified when a job was added or changed, or a worker became free.
    queue_changed: Notify,
    /// Last runs of the tasks.
    pub(crate) tasks: TaskRuns,
}

impl CollectionScheduler {
    pub(crate) fn new(
        (store, clock): (Arc<dyn Store>, Arc<dyn Clock>),
        worker: Worker,
        workers: usize,
        tasks: TaskRuns,
    ) -> Self {
        Self { store, clock, worker, pool: WorkerPool::new(workers), queue_changed: Notify::new(), tasks }
    }

    /// Current stage of the job of a server; `None` unless it runs on this hub.
    pub(crate) fn running_stage(&self, server: Uuid) -> Option<CollectionStage> {
        self.worker.running.get(server)
    }

    /// Reads the queue without delay.
    pub(crate) fn wake(&self) {
        self.queue_changed.notify_one();
    }

    /// Claims and starts jobs until the hub stops.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken, tasks: TaskTracker) {
        let mut released = false;
        let mut failures = FailureStreak::default();
        while !stop.is_cancelled() {
            let started = self.clock.monotonic();
            let polled = self.poll_queue(&mut released, &stop, &tasks).await;
            let run = (self.clock.wall_ms(), self.clock.monotonic().saturating_sub(started));
            let error = polled.as_ref().err().map(ToString::to_string);
            self.tasks.record("collection_queue", polled.as_ref().ok().copied(), run, error);
            if let Some(error) = failures.first_error(&polled) {
                tracing::warn!(%error, "failed to claim collection jobs");
            }
            let delay = polled.unwrap_or(ERROR_BACKOFF);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
                () = self.queue_changed.notified() => {}
            }
        }
        // Other hubs claim the jobs before their leases expire.
        if let Err(error) = self.release_all().await {
            tracing::warn!(error = %error, "failed to release collection jobs");
        }
    }

    /// Returns all active jobs of this hub to the queue.
    async fn release_all(&self) -> Result<(), StoreError> {
        let tx = Transaction::build(|tx| tx.collection_jobs().release_all(self.store.hub_id()));
        ignore_conflict(self.store.commit(tx).await)
    }

    /// Claims due jobs, after the jobs that a previous process of this hub left active were released once.
    async fn poll_queue(
        self: &Arc<Self>,
        released: &mut bool,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Duration, StoreError> {
        if !*released {
            self.release_all().await?;
            *released = true;
        }
        self.claim_and_spawn(stop, tasks).await
    }

    /// Claims due jobs up to the capacity of the workers and starts them. Returns the time until the next
    /// job may be due.
    async fn claim_and_spawn(
        self: &Arc<Self>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Duration, StoreError> {
        let capacity = self.pool.capacity();
        // A finished worker notifies the scheduler.
        if capacity.total == 0 {
            return Ok(POLL_INTERVAL);
        }
        let store = &*self.store;
        let now_ms = self.clock.wall_ms();
        let Some(next_ms) = CollectionJobs::next_due_ms(store).await? else { return Ok(POLL_INTERVAL) };
        if next_ms > now_ms {
            let delay = Duration::from_millis(u64::try_from(next_ms - now_ms).unwrap_or_default());
            return Ok(delay.min(POLL_INTERVAL));
        }
        let times =
            Lease { now_ms, until_ms: now_ms + i64::try_from(LEASE_TTL.as_millis()).unwrap_or(i64::MAX) };
        let lease = Uuid::now_v7();
        let claim = |tx: &mut Transaction| tx.collection_jobs().claim(store.hub_id(), lease, times, capacity);
        ignore_conflict(store.commit(Transaction::build(claim)).await)?;
        let jobs = CollectionJobs::claimed_by(store, lease).await?;
        let delay = if jobs.is_empty() { POLL_INTERVAL } else { Duration::ZERO };
        for (job, failing) in jobs {
            self.spawn_job(job, lease, failing, stop, tasks);
        }
        Ok(delay)
    }

    fn spawn_job(
        self: &Arc<Self>,
        job: JobRow,
        lease: Uuid,
        failing: bool,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let permit = self.pool.acquire(failing);
        let (scheduler, stop) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                // An interrupted job is repeated after the next start, or by another hub.
                () = stop.cancelled() => {}
                result = scheduler.worker.run_job(&job, lease) => if let Err(error) = result {
                    tracing::warn!(
                        job.id, server.id = %job.server, error = %error, "failed to record a collection"
                    );
                }
            }
            drop(permit);
            scheduler.wake();
        });
    }

    /// Adds the missing jobs of enabled servers.
    pub(crate) async fn schedule_missing(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.wall_ms();
        let unscheduled = CollectionJobs::unscheduled(&*self.store).await?;
        if unscheduled.is_empty() {
            return Ok(());
        }
        let mut tx = Transaction::default();
        for (server, interval_ms) in unscheduled {
            tx.collection_jobs().schedule(server, next_run_ms(server, interval_ms, now_ms));
        }
        ignore_conflict(self.store.commit(tx).await)?;
        self.wake();
        Ok(())
    }

    /// Deletes finished jobs and collections after their retention.
    pub(crate) async fn purge(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.wall_ms();
        let mut tx = Transaction::default();
        tx.collection_jobs().purge(now_ms - COMPLETED_JOB_RETENTION_MS, now_ms - FAILED_JOB_RETENTION_MS);
        tx.collections().purge(now_ms - SUCCESSFUL_COLLECTION_RETENTION_MS, now_ms - COLLECTION_RETENTION_MS);
        ignore_conflict(self.store.commit(tx).await)
    }
}
