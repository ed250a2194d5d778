//! Plans looks and makes those that are due: a few at a time, each in a task of its own, each try
//! written down with what follows from it in one commit.

use super::runner::{CollectOptions, CollectionReport, MAX_COLLECTION_TIME};
use super::{Agentless, Server};
use perfwatch_model::remote_collector::CollectionStage;
use perfwatch_store::collection_jobs::{CollectionJobs, JobRow, Lease, WorkerCapacity};
use perfwatch_store::collections::CollectionRow;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, StoreError, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Waits between tries; meanwhile nobody is held up by it.
const RETRY_DELAYS_MS: [i64; 3] = [5_000, 10_000, 20_000];
/// Longer than any look: what is leased longer was left behind.
const LEASE_DURATION: Duration = MAX_COLLECTION_TIME.saturating_add(Duration::from_secs(30));
/// The store is asked at least this often: other hubs plan too.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Connections are held over to the next look where it is near.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(150);
/// How long what went well is listed, and what did not.
const COMPLETED_JOB_RETENTION_MS: i64 = 24 * 3_600_000;
const FAILED_JOB_RETENTION_MS: i64 = 7 * 24 * 3_600_000;
/// The same for each server's history.
const SUCCESSFUL_COLLECTION_RETENTION_MS: i64 = 2 * 24 * 3_600_000;
const COLLECTION_RETENTION_MS: i64 = 30 * 24 * 3_600_000;
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Looks at one time. Hosts that don't answer take long: of several hands, they get half at most.
struct WorkerPool {
    all: Arc<Semaphore>,
    failing: Arc<Semaphore>,
}

/// Free again when it is dropped.
type WorkerPermit = (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>);

impl WorkerPool {
    fn new(workers: usize) -> Self {
        let semaphore = |count: usize| Arc::new(Semaphore::new(count));
        Self { all: semaphore(workers), failing: semaphore((workers / 2).max(1)) }
    }

    fn capacity(&self) -> WorkerCapacity {
        let free = |hands: &Semaphore| i64::try_from(hands.available_permits()).unwrap_or(i64::MAX);
        WorkerCapacity { total: free(&self.all), failing: free(&self.failing) }
    }

    /// For one that was claimed within [`Self::free`].
    fn acquire(&self, troubled: bool) -> WorkerPermit {
        let take = |hands: &Arc<Semaphore>| hands.clone().try_acquire_owned().ok();
        (take(&self.all), troubled.then(|| take(&self.failing)).flatten())
    }
}

/// The next time that a server has after `after_ms`: each has its own place in the interval, so that
/// they don't all come at once, after a restart either.
pub fn next_run_ms(server: Uuid, interval_ms: i64, after_ms: i64) -> i64 {
    let interval_ms = interval_ms.max(1_000);
    // The random part of a UUIDv7 (RFC 9562, 5.7).
    let random = i64::from_be_bytes(server.as_bytes()[8..].try_into().unwrap_or_default()) & i64::MAX;
    let phase_ms = random % interval_ms;
    phase_ms + ((after_ms - phase_ms).div_euclid(interval_ms) + 1) * interval_ms
}

impl Agentless {
    /// Starts the queue; what this hub had begun before it ended is begun anew.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (servers, token, tracker) = (self.clone(), stop.clone(), tasks.clone());
        tasks.spawn(async move { servers.run_scheduler(&token, &tracker).await });
        let (servers, token) = (self.clone(), stop.clone());
        tasks.spawn(async move { servers.run_reconciler(&token).await });
        let (servers, token, tracker) = (self.clone(), stop.clone(), tasks.clone());
        tasks.spawn(async move { servers.run_on_demand(&token, &tracker).await });
    }

    async fn run_scheduler(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        let hands = WorkerPool::new(self.workers);
        let mut began = false;
        while !stop.is_cancelled() {
            let wait = match self.claim_and_spawn(&hands, &mut began, stop, tasks).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "failed to claim collection jobs");
                    POLL_INTERVAL * 5
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notified() => {}
            }
        }
        // Others need not wait for the leases to run out.
        if let Err(error) = self.release_all().await {
            tracing::warn!(%error, "failed to release collection jobs");
        }
    }

    async fn release_all(&self) -> Result<(), StoreError> {
        let back = Write::Sql(CollectionJobs::release_all(self.deps.store.hub_id()));
        self.deps.store.commit(vec![back]).await.or_else(ignore_conflict)
    }

    /// Begins what is due, as far as hands are free; how long until there may be more.
    async fn claim_and_spawn(
        self: &Arc<Self>,
        hands: &WorkerPool,
        began: &mut bool,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Duration, StoreError> {
        let store = &*self.deps.store;
        if !*began {
            self.release_all().await?;
            *began = true;
        }
        // A free hand wakes this up.
        if hands.capacity().total == 0 {
            return Ok(POLL_INTERVAL);
        }
        let now_ms = self.deps.clock.wall_ms();
        let Some(next_ms) = CollectionJobs::next_due_ms(store).await? else { return Ok(POLL_INTERVAL) };
        if next_ms > now_ms {
            let wait = Duration::from_millis(u64::try_from(next_ms - now_ms).unwrap_or_default());
            return Ok(wait.min(POLL_INTERVAL));
        }
        let times = Lease {
            now_ms,
            until_ms: now_ms + i64::try_from(LEASE_DURATION.as_millis()).unwrap_or(i64::MAX),
        };
        let lease = Uuid::now_v7();
        let claim = Write::Sql(CollectionJobs::claim(store.hub_id(), lease, times, hands.capacity()));
        store.commit(vec![claim]).await.or_else(ignore_conflict)?;
        let jobs = CollectionJobs::claimed_by(store, lease).await?;
        let none = jobs.is_empty();
        for (job, troubled) in jobs {
            let hand = hands.acquire(troubled);
            let (servers, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                // One that is stopped is begun anew by the next start, or by another hub.
                let work = servers.run_job(&job, lease);
                tokio::select! {
                    () = stop.cancelled() => {}
                    done = work => if let Err(error) = done {
                        tracing::warn!(job.id, server = %job.server, %error, "failed to record a collection");
                    }
                }
                drop(hand);
                servers.wake.notify_one();
            });
        }
        Ok(if none { POLL_INTERVAL } else { Duration::ZERO })
    }

    /// One try.
    async fn run_job(&self, job: &JobRow, lease: Uuid) -> Result<(), CommitError> {
        let store = &*self.deps.store;
        // Without the server, the job is gone too.
        let Some(row) = ServerRow::get(store, job.server).await? else { return Ok(()) };
        let why_not = match (&row.blocked_reason, row.enabled, Self::from_row(&row)) {
            (None, true, Some(server)) => Ok(server),
            (Some(_), ..) => Err("blocked until the server is changed"),
            (_, false, _) => Err("disabled"),
            (_, _, None) => Err("server record is unreadable"),
        };
        let server = match why_not {
            Ok(server) => server,
            Err(why) => {
                let done = CollectionJobs::finish(job.id, lease, self.deps.clock.wall_ms(), Some(why));
                return ignore_expired_lease(store.commit(vec![done.into()]).await);
            }
        };
        let interval = Duration::from_millis(u64::try_from(server.interval.ms()).unwrap_or_default());
        let manner = CollectOptions {
            trigger: job.trigger,
            attempt: job.attempts,
            interval,
            keep_alive: if interval <= MAX_KEEP_ALIVE {
                interval + Duration::from_secs(20)
            } else {
                Duration::ZERO
            },
            counter_state: ServerRow::counter_state(store, row.id).await?,
        };
        let outcome = self.collect(&row, manner).await?;
        self.record_result(job, lease, (&row, &server), outcome).await
    }

    async fn record_result(
        &self,
        job: &JobRow,
        lease: Uuid,
        (row, server): (&ServerRow, &Server),
        outcome: CollectionReport,
    ) -> Result<(), CommitError> {
        let now_ms = self.deps.clock.wall_ms();
        let failure = outcome.failure.as_ref();
        // Whether a login was refused or only slow is not known: it is not tried in a row.
        let again = failure.filter(|failure| {
            !failure.cause.is_permanent() && failure.stage != CollectionStage::Authenticate
        });
        let wait_ms = usize::try_from(job.attempts - 1).ok().and_then(|done| RETRY_DELAYS_MS.get(done));
        let mut changes = outcome.statements;
        match (again, wait_ms) {
            (Some(failure), Some(wait_ms)) => {
                changes.push(CollectionJobs::retry_at(job.id, lease, now_ms + wait_ms, &failure.message));
            }
            _ => {
                let error = failure.map(|failure| failure.message.as_str());
                changes.push(CollectionJobs::finish(job.id, lease, now_ms, error));
                // As it is now: it may have been changed meanwhile, and then it is looked at at once.
                let now = ServerRow::get(&*self.deps.store, row.id).await?;
                let run_ms = match now {
                    Some(now) if now.version == row.version => next_run_ms(row.id, now.interval_ms, now_ms),
                    _ => now_ms,
                };
                changes.push(CollectionJobs::schedule(row.id, run_ms));
            }
        }
        if let Some(failure) = failure {
            tracing::info!(server = %row.id, server.name, tries = job.attempts, why = failure.message, "SSH collection failed");
        }
        ignore_expired_lease(self.deps.store.commit(changes.into_iter().map(Write::Sql).collect()).await)
    }

    /// Plans what nobody planned, and lets go of what is old.
    pub(super) async fn schedule_missing(&self) -> Result<(), StoreError> {
        let store = &*self.deps.store;
        let now_ms = self.deps.clock.wall_ms();
        let unplanned = CollectionJobs::unscheduled(store).await?;
        if unplanned.is_empty() {
            return Ok(());
        }
        let plan = |(server, interval_ms): (Uuid, i64)| {
            CollectionJobs::schedule(server, next_run_ms(server, interval_ms, now_ms))
        };
        store
            .commit(unplanned.into_iter().map(|one| plan(one).into()).collect())
            .await
            .or_else(ignore_conflict)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Lets go of what is old.
    pub(super) async fn purge(&self) -> Result<(), StoreError> {
        let now_ms = self.deps.clock.wall_ms();
        let old = [
            CollectionJobs::purge(now_ms - COMPLETED_JOB_RETENTION_MS, now_ms - FAILED_JOB_RETENTION_MS),
            CollectionRow::purge(
                now_ms - SUCCESSFUL_COLLECTION_RETENTION_MS,
                now_ms - COLLECTION_RETENTION_MS,
            ),
        ];
        self.deps.store.commit(old.map(Write::Sql).into()).await.or_else(ignore_conflict)
    }

    pub(super) const CLEAN_EVERY: Duration = PURGE_INTERVAL;
}

pub(super) fn ignore_conflict(error: CommitError) -> Result<(), StoreError> {
    match error {
        CommitError::Conflict => Ok(()),
        CommitError::Store(error) => Err(error),
    }
}

/// Its lease was over: whoever has it now writes it down.
fn ignore_expired_lease(result: Result<(), CommitError>) -> Result<(), CommitError> {
    match result {
        Err(CommitError::Conflict) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_is_spread_over_the_interval() {
        let now_ms = 1_795_255_200_123;
        let servers: Vec<Uuid> = (0..1_000).map(|_| Uuid::now_v7()).collect();
        let mut tenths = [0_usize; 10];
        for server in servers {
            let first_ms = next_run_ms(server, 60_000, now_ms);
            assert!(first_ms > now_ms && first_ms <= now_ms + 60_000);
            // The same whenever it is asked, and one interval on when it is reached.
            assert_eq!(next_run_ms(server, 60_000, first_ms - 1), first_ms);
            assert_eq!(next_run_ms(server, 60_000, first_ms), first_ms + 60_000);
            tenths[usize::try_from((first_ms - now_ms - 1) / 6_000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }
}
