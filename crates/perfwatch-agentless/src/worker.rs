//! Workers of the collection queue: their concurrency limit, and the processing of a claimed job.

use crate::progress::RunningStages;
use crate::runner::CollectionRunner;
use crate::schedule::next_run_ms;
use crate::server::Server;
use crate::types::{CollectOptions, CollectionReport};
use perfwatch_model::Clock;
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage};
use perfwatch_store::collection_jobs::{JobRow, WorkerCapacity};
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// Delays before the retries of a failed job. A delayed job occupies no worker.
const RETRY_DELAYS_MS: [i64; 3] = [5_000, 10_000, 20_000];
/// Maximum collection interval for which the connection stays open until the next collection.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(150);
/// Time for which a connection stays open beyond the collection interval.
const KEEP_ALIVE_GRACE_PERIOD: Duration = Duration::from_secs(20);

/// Concurrency limit of collections. Servers that do not answer take long, so failing servers get at
/// most half of the workers.
pub(crate) struct WorkerPool {
    total: Arc<Semaphore>,
    failing: Arc<Semaphore>,
}

/// Permit to run a job; released on drop.
#[must_use]
pub(crate) struct WorkerPermit {
    _total: Option<OwnedSemaphorePermit>,
    _failing: Option<OwnedSemaphorePermit>,
}

impl WorkerPool {
    pub(crate) fn new(workers: usize) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits));
        Self { total: semaphore(workers), failing: semaphore((workers / 2).max(1)) }
    }

    /// Number of jobs that can be claimed now.
    pub(crate) fn capacity(&self) -> WorkerCapacity {
        let available = |permits: &Semaphore| i64::try_from(permits.available_permits()).unwrap_or(i64::MAX);
        WorkerCapacity { total: available(&self.total), failing: available(&self.failing) }
    }

    /// Acquires the permit of a job that was claimed within [`Self::capacity`].
    pub(crate) fn acquire(&self, failing: bool) -> WorkerPermit {
        let acquire = |permits: &Arc<Semaphore>| permits.clone().try_acquire_owned().ok();
        WorkerPermit {
            _total: acquire(&self.total),
            _failing: if failing { acquire(&self.failing) } else { None },
        }
    }
}

/// Reason why a claimed job is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum SkipReason {
    #[error("blocked until the server is changed")]
    Blocked,
    #[error("disabled")]
    Disabled,
    #[error("server record is unreadable")]
    Unreadable,
}

fn check_runnable(row: &ServerRow) -> Result<Server, SkipReason> {
    if row.blocked_reason.is_some() {
        return Err(SkipReason::Blocked);
    }
    if !row.enabled {
        return Err(SkipReason::Disabled);
    }
    Server::from_row(row).ok_or(SkipReason::Unreadable)
}

/// Claimed job, with its server as of the start of the attempt.
struct ClaimedJob<'a> {
    job: &'a JobRow,
    lease: Uuid,
    row: &'a ServerRow,
    server: &'a Server,
}

/// Processes claimed jobs: runs the collection and records its result.
pub(crate) struct Worker {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    runner: Arc<CollectionRunner>,
    /// Stages of the jobs that run on this hub.
    pub(crate) running: RunningStages,
}

impl Worker {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, runner: Arc<CollectionRunner>) -> Self {
        Self { store, clock, runner, running: RunningStages::default() }
    }

    /// Runs one attempt of a claimed job.
    pub(crate) async fn run_job(&self, job: &JobRow, lease: Uuid) -> Result<(), CommitError> {
        // The jobs of a deleted server are deleted too.
        let Some(row) = ServerRow::get(&*self.store, job.server).await? else { return Ok(()) };
        let server = match check_runnable(&row) {
            Ok(server) => server,
            Err(reason) => {
                let (now_ms, error) = (self.clock.wall_ms(), reason.to_string());
                let finish =
                    |tx: &mut Transaction| tx.collection_jobs().finish(job.id, lease, now_ms, Some(&error));
                return self.commit(Transaction::build(finish)).await;
            }
        };
        let interval = Duration::from_millis(u64::try_from(server.interval.ms()).unwrap_or_default());
        let stays_open = interval <= MAX_KEEP_ALIVE;
        let options = CollectOptions {
            trigger: job.trigger,
            attempt: job.attempts,
            interval,
            keep_alive: if stays_open { interval + KEEP_ALIVE_GRACE_PERIOD } else { Duration::ZERO },
            counter_state: ServerRow::counter_state(&*self.store, row.id).await?,
            observer: Some(Arc::new(self.running.observe(row.id))),
        };
        let report = self.runner.collect(&row, options).await?;
        self.record_result(&ClaimedJob { job, lease, row: &row, server: &server }, report).await
    }

    /// Commits the result of the collection together with the next state of the job.
    async fn record_result(
        &self,
        claimed: &ClaimedJob<'_>,
        report: CollectionReport,
    ) -> Result<(), CommitError> {
        let ClaimedJob { job, lease, row, server } = *claimed;
        let now_ms = self.clock.wall_ms();
        let failure = report.failure.as_ref();
        let mut tx = report.tx;
        let retry_delay_ms = failure.and_then(|failure| retry_delay_ms(failure, job.attempts));
        if let (Some(failure), Some(delay_ms)) = (failure, retry_delay_ms) {
            tx.collection_jobs().retry_at(job.id, lease, now_ms + delay_ms, &failure.message);
        } else {
            let error = failure.map(|failure| failure.message.as_str());
            tx.collection_jobs().finish(job.id, lease, now_ms, error);
            tx.collection_jobs().schedule(row.id, self.next_run_ms(row, now_ms).await?);
        }
        if let Some(failure) = failure {
            tracing::info!(
                server.id = %row.id,
                server.name,
                attempts = job.attempts,
                error = failure.message,
                "SSH collection failed"
            );
        }
        self.commit(tx).await
    }

    /// Time of the next scheduled collection: now if the server was changed in the meantime.
    async fn next_run_ms(&self, row: &ServerRow, now_ms: i64) -> Result<i64, StoreError> {
        let current = ServerRow::get(&*self.store, row.id).await?;
        let unchanged = current.filter(|current| current.version == row.version);
        Ok(unchanged.map_or(now_ms, |current| next_run_ms(row.id, current.interval_ms, now_ms)))
    }

    /// Commits the result of a job. After the lease expired, the hub that holds it now records the result.
    async fn commit(&self, tx: Transaction) -> Result<(), CommitError> {
        match self.store.commit(tx).await {
            Err(CommitError::Conflict) => Ok(()),
            result => result,
        }
    }
}

/// Delay before the next attempt; `None` for a permanent failure or after the last attempt.
///
/// A failed login is not retried: a timeout may be a slow rejection.
fn retry_delay_ms(failure: &CollectionFailure, attempts: i64) -> Option<i64> {
    if failure.cause.is_permanent() || failure.stage == CollectionStage::Authenticate {
        return None;
    }
    RETRY_DELAYS_MS.get(usize::try_from(attempts - 1).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::collection_failure;
    use perfwatch_model::remote_collector::FailureCause;

    #[test]
    fn failing_servers_get_half_of_the_workers() {
        let pool = WorkerPool::new(4);
        let capacity = || (pool.capacity().total, pool.capacity().failing);
        assert_eq!(capacity(), (4, 2));
        let failing = [pool.acquire(true), pool.acquire(true)];
        assert_eq!(capacity(), (2, 0));
        let healthy = pool.acquire(false);
        assert_eq!(capacity(), (1, 0));
        drop(failing);
        assert_eq!(capacity(), (3, 2));
        drop(healthy);
        assert_eq!(capacity(), (4, 2));
        // A single worker serves failing servers too.
        assert_eq!(WorkerPool::new(1).capacity().failing, 1);
    }

    #[test]
    fn temporary_failures_are_retried_three_times() {
        let delays = |cause, stage| -> Vec<Option<i64>> {
            let failure = collection_failure(cause, stage, "failed");
            (1..=4).map(|attempts| retry_delay_ms(&failure, attempts)).collect()
        };
        let delays_ms = [Some(5_000), Some(10_000), Some(20_000), None];
        assert_eq!(delays(FailureCause::TimedOut, CollectionStage::Connect), delays_ms);
        assert_eq!(delays(FailureCause::HostKeyChanged, CollectionStage::Handshake), [None; 4]);
        assert_eq!(delays(FailureCause::TimedOut, CollectionStage::Authenticate), [None; 4]);
    }

    #[test]
    fn blocked_and_disabled_servers_are_skipped() {
        let row = ServerRow::new(Uuid::from_u128(1), "{}".to_owned(), None);
        assert_eq!(check_runnable(&row), Err(SkipReason::Disabled));
        let enabled = ServerRow { enabled: true, ..row };
        assert_eq!(check_runnable(&enabled), Err(SkipReason::Unreadable));
        let blocked =
            ServerRow { blocked_reason: Some("authentication_failed".to_owned()), enabled: false, ..enabled };
        assert_eq!(check_runnable(&blocked), Err(SkipReason::Blocked));
    }
}
