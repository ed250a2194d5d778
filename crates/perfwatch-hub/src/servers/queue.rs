//! Plans looks and makes those that are due: a few at a time, each in a task of its own, each try
//! written down with what follows from it in one commit.

use super::looking::{Kind, LONGEST, Manner, Outcome};
use super::{Server, Servers};
use perfwatch_model::remote::Stage;
use perfwatch_store::jobs::{Hands, JobRow, Jobs, Lease};
use perfwatch_store::servers::{LookRow, ServerRow};
use perfwatch_store::{CommitError, StoreError, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Waits between tries; meanwhile nobody is held up by it.
const AGAIN_MS: [i64; 3] = [5_000, 10_000, 20_000];
/// Longer than any look: what is leased longer was left behind.
const LEASE: Duration = LONGEST.saturating_add(Duration::from_secs(30));
/// The store is asked at least this often: other hubs plan too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Connections are held over to the next look where it is near.
const HOLD_MOST: Duration = Duration::from_secs(150);
/// How long what went well is listed, and what did not.
const KEEP_COMPLETED_MS: i64 = 24 * 3_600_000;
const KEEP_FAILED_MS: i64 = 7 * 24 * 3_600_000;
/// The same for each server's history.
const KEEP_OK_LOOKS_MS: i64 = 2 * 24 * 3_600_000;
const KEEP_LOOKS_MS: i64 = 30 * 24 * 3_600_000;
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// Looks at one time. Hosts that don't answer take long: of several hands, they get half at most.
struct Workers {
    all: Arc<Semaphore>,
    troubled: Arc<Semaphore>,
}

/// Free again when it is dropped.
type Hand = (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>);

impl Workers {
    fn new(workers: usize) -> Self {
        let semaphore = |count: usize| Arc::new(Semaphore::new(count));
        Self { all: semaphore(workers), troubled: semaphore((workers / 2).max(1)) }
    }

    fn free(&self) -> Hands {
        let free = |hands: &Semaphore| i64::try_from(hands.available_permits()).unwrap_or(i64::MAX);
        Hands { all: free(&self.all), troubled: free(&self.troubled) }
    }

    /// For one that was claimed within [`Self::free`].
    fn take(&self, troubled: bool) -> Hand {
        let take = |hands: &Arc<Semaphore>| hands.clone().try_acquire_owned().ok();
        (take(&self.all), troubled.then(|| take(&self.troubled)).flatten())
    }
}

/// The next time that a server has after `after_ms`: each has its own place in the interval, so that
/// they don't all come at once, after a restart either.
pub(crate) fn next_run_ms(server: Uuid, interval_ms: i64, after_ms: i64) -> i64 {
    let interval_ms = interval_ms.max(1_000);
    // The random part of a UUIDv7 (RFC 9562, 5.7).
    let random = i64::from_be_bytes(server.as_bytes()[8..].try_into().unwrap_or_default()) & i64::MAX;
    let phase_ms = random % interval_ms;
    phase_ms + ((after_ms - phase_ms).div_euclid(interval_ms) + 1) * interval_ms
}

impl Servers {
    /// Starts the queue; what this hub had begun before it ended is begun anew.
    pub(crate) fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (servers, token, tracker) = (self.clone(), stop.clone(), tasks.clone());
        tasks.spawn(async move { servers.work(&token, &tracker).await });
        let (servers, token) = (self.clone(), stop.clone());
        tasks.spawn(async move { servers.keep(&token).await });
        let (servers, token, tracker) = (self.clone(), stop.clone(), tasks.clone());
        tasks.spawn(async move { servers.follow(&token, &tracker).await });
    }

    async fn work(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        let hands = Workers::new(self.workers);
        let mut began = false;
        while !stop.is_cancelled() {
            let wait = match self.round(&hands, &mut began, stop, tasks).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "queue");
                    LOOK_EVERY * 5
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.due.notified() => {}
            }
        }
        // Others need not wait for the leases to run out.
        if let Err(error) = self.give_back().await {
            tracing::warn!(%error, "queue");
        }
    }

    async fn give_back(&self) -> Result<(), StoreError> {
        let back = Write::Sql(Jobs::give_back(self.rooms.store.hub()));
        self.rooms.store.commit(vec![back]).await.or_else(unless_conflict)
    }

    /// Begins what is due, as far as hands are free; how long until there may be more.
    async fn round(
        self: &Arc<Self>,
        hands: &Workers,
        began: &mut bool,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Duration, StoreError> {
        let store = &*self.rooms.store;
        if !*began {
            self.give_back().await?;
            *began = true;
        }
        // A free hand wakes this up.
        if hands.free().all == 0 {
            return Ok(LOOK_EVERY);
        }
        let now_ms = self.rooms.clock.wall_ms();
        let Some(next_ms) = Jobs::next_ms(store).await? else { return Ok(LOOK_EVERY) };
        if next_ms > now_ms {
            let wait = Duration::from_millis(u64::try_from(next_ms - now_ms).unwrap_or_default());
            return Ok(wait.min(LOOK_EVERY));
        }
        let times = Lease { now_ms, until_ms: now_ms + i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX) };
        let lease = Uuid::now_v7();
        let claim = Write::Sql(Jobs::claim(store.hub(), lease, times, hands.free()));
        store.commit(vec![claim]).await.or_else(unless_conflict)?;
        let jobs = Jobs::claimed(store, lease).await?;
        let none = jobs.is_empty();
        for (job, troubled) in jobs {
            let hand = hands.take(troubled);
            let (servers, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                // One that is stopped is begun anew by the next start, or by another hub.
                let work = servers.run(&job, lease);
                tokio::select! {
                    () = stop.cancelled() => {}
                    done = work => if let Err(error) = done {
                        tracing::warn!(job.id, server = %job.server, %error, "a look could not be written down");
                    }
                }
                drop(hand);
                servers.due.notify_one();
            });
        }
        Ok(if none { LOOK_EVERY } else { Duration::ZERO })
    }

    /// One try.
    async fn run(&self, job: &JobRow, lease: Uuid) -> Result<(), CommitError> {
        let store = &*self.rooms.store;
        // Without the server, the job is gone too.
        let Some(row) = ServerRow::one(store, job.server).await? else { return Ok(()) };
        let why_not = match (&row.refused, row.enabled, Self::record(&row)) {
            (None, true, Some(server)) => Ok(server),
            (Some(_), ..) => Err("it is not tried any more until somebody acts"),
            (_, false, _) => Err("it was switched off"),
            (_, _, None) => Err("its record can't be read"),
        };
        let server = match why_not {
            Ok(server) => server,
            Err(why) => {
                let done = Jobs::finish(job.id, lease, self.rooms.clock.wall_ms(), Some(why));
                return ignore_late(store.commit(vec![done.into()]).await);
            }
        };
        let interval = Duration::from_millis(u64::try_from(server.interval.ms()).unwrap_or_default());
        let manner = Manner {
            kind: if job.reason == "asked" { Kind::Asked } else { Kind::Scheduled },
            tries: job.tries,
            interval,
            hold: if interval <= HOLD_MOST { interval + Duration::from_secs(20) } else { Duration::ZERO },
            carried: ServerRow::carried(store, row.id).await?,
        };
        let outcome = self.look(&row, manner).await?;
        self.write_down(job, lease, (&row, &server), outcome).await
    }

    async fn write_down(
        &self,
        job: &JobRow,
        lease: Uuid,
        (row, server): (&ServerRow, &Server),
        outcome: Outcome,
    ) -> Result<(), CommitError> {
        let now_ms = self.rooms.clock.wall_ms();
        let failure = outcome.failure.as_ref();
        // Whether a login was refused or only slow is not known: it is not tried in a row.
        let again = failure.filter(|failure| !failure.cause.is_final() && failure.stage != Stage::Login);
        let wait_ms = usize::try_from(job.tries - 1).ok().and_then(|done| AGAIN_MS.get(done));
        let mut changes = outcome.changes;
        match (again, wait_ms) {
            (Some(failure), Some(wait_ms)) => {
                changes.push(Jobs::again(job.id, lease, now_ms + wait_ms, &failure.message));
            }
            _ => {
                let error = failure.map(|failure| failure.message.as_str());
                changes.push(Jobs::finish(job.id, lease, now_ms, error));
                // As it is now: it may have been changed meanwhile, and then it is looked at at once.
                let now = ServerRow::one(&*self.rooms.store, row.id).await?;
                let run_ms = match now {
                    Some(now) if now.version == row.version => next_run_ms(row.id, now.interval_ms, now_ms),
                    _ => now_ms,
                };
                changes.push(Jobs::plan(row.id, run_ms));
            }
        }
        if let Some(failure) = failure {
            tracing::info!(server = %row.id, server.name, tries = job.tries, why = failure.message, "a look failed");
        }
        ignore_late(self.rooms.store.commit(changes.into_iter().map(Write::Sql).collect()).await)
    }

    /// Plans what nobody planned, and lets go of what is old.
    pub(super) async fn plan(&self) -> Result<(), StoreError> {
        let store = &*self.rooms.store;
        let now_ms = self.rooms.clock.wall_ms();
        let unplanned = Jobs::unplanned(store).await?;
        if unplanned.is_empty() {
            return Ok(());
        }
        let plan =
            |(server, interval_ms): (Uuid, i64)| Jobs::plan(server, next_run_ms(server, interval_ms, now_ms));
        store
            .commit(unplanned.into_iter().map(|one| plan(one).into()).collect())
            .await
            .or_else(unless_conflict)?;
        self.due.notify_one();
        Ok(())
    }

    /// Lets go of what is old.
    pub(super) async fn clean(&self) -> Result<(), StoreError> {
        let now_ms = self.rooms.clock.wall_ms();
        let old = [
            Jobs::clean(now_ms - KEEP_COMPLETED_MS, now_ms - KEEP_FAILED_MS),
            LookRow::forget(now_ms - KEEP_OK_LOOKS_MS, now_ms - KEEP_LOOKS_MS),
        ];
        self.rooms.store.commit(old.map(Write::Sql).into()).await.or_else(unless_conflict)
    }

    pub(super) const CLEAN_EVERY: Duration = CLEAN_EVERY;
}

pub(super) fn unless_conflict(error: CommitError) -> Result<(), StoreError> {
    match error {
        CommitError::Conflict => Ok(()),
        CommitError::Store(error) => Err(error),
    }
}

/// Its lease was over: whoever has it now writes it down.
fn ignore_late(result: Result<(), CommitError>) -> Result<(), CommitError> {
    match result {
        Err(CommitError::Conflict) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_its_own_place_in_the_interval() {
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
