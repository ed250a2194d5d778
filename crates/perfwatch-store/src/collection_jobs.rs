//! Collection queue: one leased row per job.
//!
//! An unfinished job has its server as unique key, so each server has at most one. A job whose lease expired
//! may be claimed by any hub. All times are parameters; the queue has no clock.

use crate::collections::CollectTrigger;
use crate::error::StoreError;
use crate::settings::get_setting;
use crate::sql::{RowReader, SqlStatement, SqlValue, text_enum};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

text_enum! {
    /// State of a collection job.
    pub enum JobState {
        /// Waits for its time or a worker.
        Waiting = "waiting",
        /// Claimed by a hub.
        Active = "active",
        /// Finished with a snapshot.
        Completed = "completed",
        /// Failed after all attempts.
        Failed = "failed",
    }
}

/// Queued collection of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Number of the job, assigned by the database.
    pub id: i64,
    /// Server the job collects.
    pub server: Uuid,
    /// Trigger of the job: scheduled or manual.
    pub trigger: CollectTrigger,
    /// State of the job.
    pub state: JobState,
    /// Earliest start, Unix milliseconds.
    pub run_at_ms: i64,
    /// Number of attempts that were started.
    pub attempts: i64,
    /// Start of the last attempt, Unix milliseconds.
    pub started_ms: Option<i64>,
    /// Time at which the job completed or failed, Unix milliseconds.
    pub finished_ms: Option<i64>,
    /// Error of the last attempt.
    pub error: Option<String>,
}

/// Statistics of the queue. "Recently" is the period that the caller of [`CollectionJobs::stats`] gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Jobs that are due and not started.
    pub waiting: i64,
    /// Jobs that are not due yet.
    pub delayed: i64,
    /// Jobs that a hub has claimed.
    pub active: i64,
    /// Jobs that finished successfully.
    pub completed: i64,
    /// Jobs that failed after all attempts.
    pub failed: i64,
    /// Jobs that completed or failed recently.
    pub finished_recently: i64,
    /// Jobs that failed recently.
    pub failed_recently: i64,
    /// Sum of the durations of recently finished jobs, in milliseconds.
    pub duration_ms: i64,
    /// Maximum duration of recently finished jobs, in milliseconds.
    pub max_duration_ms: i64,
    /// Maximum time for which a waiting job has been due, in milliseconds.
    pub max_delay_ms: i64,
}

/// Times of a lease, Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Time of the claim.
    pub now_ms: i64,
    /// Expiry. Afterwards any hub may claim the job.
    pub until_ms: i64,
}

/// Number of jobs that a hub can start.
#[derive(Debug, Clone, Copy)]
pub struct WorkerCapacity {
    /// Maximum number of jobs.
    pub total: i64,
    /// Maximum number of jobs for failing servers, included in the total.
    pub failing: i64,
}

/// Queue of collection jobs, shared by all hubs.
#[derive(Debug)]
pub struct CollectionJobs;

/// Maximum number of jobs of a state that are read, before those of hidden servers are left out.
pub const MAX_LISTED_JOBS: i64 = 10_000;

const PAUSED: &str = "queue_paused";

/// Statement that reads jobs, with the columns in the order of [`JobRow::read`].
macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "SELECT id, server, trigger, state, run_at_ms, attempts, started_ms, finished_ms, error \
             FROM collection_job ",
            $rest
        )
    };
}

/// Statement that adds a job for an enabled and unblocked server.
macro_rules! insert_job {
    ($trigger:literal, $conflict:literal) => {
        concat!(
            "INSERT INTO collection_job (server, pending_key, trigger, state, run_at_ms, attempts) \
             SELECT id, id, '",
            $trigger,
            "', 'waiting', CAST($2 AS BIGINT), 0 FROM server \
             WHERE id = $1 AND enabled = 1 AND blocked_reason IS NULL ON CONFLICT (pending_key) DO ",
            $conflict
        )
    };
}

/// SQL flag of a job that will probably end in a timeout: the last collection of its server failed, and no
/// user waits for the job. Failures inside the hub do not count against the server.
macro_rules! is_failing {
    () => {
        "CAST(CASE WHEN server.last_cause IS NULL OR server.last_cause = 'internal' \
         OR collection_job.trigger = 'manual' THEN 0 ELSE 1 END AS BIGINT)"
    };
}

impl JobRow {
    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.int()?,
            server: row.id()?,
            trigger: row.parsed(CollectTrigger::parse)?,
            state: row.parsed(JobState::parse)?,
            run_at_ms: row.int()?,
            attempts: row.int()?,
            started_ms: row.opt_int()?,
            finished_ms: row.opt_int()?,
            error: row.opt_text()?,
        })
    }
}

impl CollectionJobs {
    /// Lists enabled and unblocked servers without an unfinished job, with their interval in milliseconds.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn unscheduled(store: &dyn Store) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let sql = "SELECT id, interval_ms FROM server WHERE enabled = 1 AND blocked_reason IS NULL \
             AND NOT EXISTS (SELECT 1 FROM collection_job WHERE collection_job.pending_key = server.id)";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok((row.id()?, row.int()?))
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// Time at which the next job becomes due or the next lease expires; `None` while the queue is empty or
    /// paused.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn next_due_ms(store: &dyn Store) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT min(CASE WHEN state = 'active' THEN leased_until_ms ELSE run_at_ms END) \
             FROM collection_job WHERE state IN ('waiting', 'active') \
             AND NOT EXISTS (SELECT 1 FROM setting WHERE name = $1 AND value = '1')";
        let rows = store.query(sql, vec![PAUSED.into()]).await?;
        rows.into_iter().next().map_or(Ok(None), |row| RowReader::new(row).opt_int())
    }

    /// Lists jobs that were claimed with a lease, and whether their server is failing.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn claimed_by(store: &dyn Store, lease: Uuid) -> Result<Vec<(JobRow, bool)>, StoreError> {
        let sql = concat!(
            "SELECT ",
            is_failing!(),
            ", collection_job.id, collection_job.server, collection_job.trigger, collection_job.state, \
             collection_job.run_at_ms, collection_job.attempts, collection_job.started_ms, \
             collection_job.finished_ms, collection_job.error \
             FROM collection_job JOIN server ON server.id = collection_job.server \
             WHERE collection_job.lease_id = $1 AND collection_job.state = 'active' \
             ORDER BY collection_job.run_at_ms, collection_job.id"
        );
        let read = |mut row: Vec<SqlValue>| {
            let failing = RowReader::new(row.drain(..1).collect()).flag()?;
            Ok((JobRow::read(row)?, failing))
        };
        store.query(sql, vec![lease.into()]).await?.into_iter().map(read).collect()
    }

    /// Reads one job; `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn get(store: &dyn Store, id: i64) -> Result<Option<JobRow>, StoreError> {
        let sql = select_jobs!("WHERE id = $1");
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(JobRow::read).transpose()
    }

    /// Lists jobs in a state: unfinished jobs in the order of their start, finished jobs newest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, state: JobState, limit: i64) -> Result<Vec<JobRow>, StoreError> {
        let sql = match state {
            JobState::Waiting | JobState::Active => {
                select_jobs!("WHERE state = $1 ORDER BY run_at_ms, id LIMIT $2")
            }
            JobState::Completed | JobState::Failed => {
                select_jobs!("WHERE state = $1 ORDER BY finished_ms DESC, id DESC LIMIT $2")
            }
        };
        store.query(sql, vec![state.into(), limit.into()]).await?.into_iter().map(JobRow::read).collect()
    }

    /// Returns whether the queue is paused.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn is_paused(store: &dyn Store) -> Result<bool, StoreError> {
        Ok(get_setting(store, PAUSED).await?.as_deref() == Some("1"))
    }

    /// Statistics of the queue; jobs that finished at or after `since_ms` count as recent.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn stats(store: &dyn Store, now_ms: i64, since_ms: i64) -> Result<JobCounts, StoreError> {
        let sql = "SELECT \
             COALESCE(sum(CASE WHEN state = 'waiting' AND run_at_ms <= $1 THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'waiting' AND run_at_ms > $1 THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'active' THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'completed' THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN finished_ms >= $2 THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN finished_ms >= $2 AND state = 'failed' THEN 1 ELSE 0 END), 0), \
             CAST(COALESCE(sum(CASE WHEN finished_ms >= $2 THEN finished_ms - started_ms ELSE 0 END), 0) \
             AS BIGINT), \
             COALESCE(max(CASE WHEN finished_ms >= $2 THEN finished_ms - started_ms ELSE 0 END), 0), \
             COALESCE(max(CASE WHEN state = 'waiting' AND run_at_ms <= $1 \
             THEN $1 - run_at_ms ELSE 0 END), 0) \
             FROM collection_job";
        let rows = store.query(sql, vec![now_ms.into(), since_ms.into()]).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(JobCounts::default()) };
        let mut row = RowReader::new(row);
        Ok(JobCounts {
            waiting: row.int()?,
            delayed: row.int()?,
            active: row.int()?,
            completed: row.int()?,
            failed: row.int()?,
            finished_recently: row.int()?,
            failed_recently: row.int()?,
            duration_ms: row.int()?,
            max_duration_ms: row.int()?,
            max_delay_ms: row.int()?,
        })
    }
}

impl JobCounts {
    /// Counts unfinished and finished jobs of a list like [`CollectionJobs::stats`].
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a JobRow>, now_ms: i64, since_ms: i64) -> Self {
        let mut counts = Self::default();
        for row in rows {
            match row.state {
                JobState::Waiting if row.run_at_ms <= now_ms => {
                    counts.waiting += 1;
                    counts.max_delay_ms = counts.max_delay_ms.max(now_ms - row.run_at_ms);
                }
                JobState::Waiting => counts.delayed += 1,
                JobState::Active => counts.active += 1,
                JobState::Completed => counts.completed += 1,
                JobState::Failed => counts.failed += 1,
            }
            if let Some(finished_ms) = row.finished_ms.filter(|finished_ms| *finished_ms >= since_ms) {
                let duration_ms = finished_ms - row.started_ms.unwrap_or(finished_ms);
                counts.finished_recently += 1;
                counts.failed_recently += i64::from(row.state == JobState::Failed);
                counts.duration_ms += duration_ms;
                counts.max_duration_ms = counts.max_duration_ms.max(duration_ms);
            }
        }
        counts
    }
}

/// Writes of the collection queue, added to a [`Transaction`].
#[derive(Debug)]
pub struct CollectionJobRepository<'a>(&'a mut Transaction);

impl CollectionJobRepository<'_> {
    /// Adds a scheduled job unless the server has an unfinished job.
    pub fn schedule(&mut self, server: Uuid, run_at_ms: i64) {
        self.0
            .push(SqlStatement::new(insert_job!("scheduled", "NOTHING"), [server.into(), run_at_ms.into()]));
    }

    /// Adds a scheduled job, or moves the server's waiting job to the time.
    pub fn reschedule(&mut self, server: Uuid, run_at_ms: i64) {
        let sql = insert_job!(
            "scheduled",
            "UPDATE SET run_at_ms = excluded.run_at_ms, attempts = 0 WHERE collection_job.state = 'waiting'"
        );
        self.0.push(SqlStatement::new(sql, [server.into(), run_at_ms.into()]));
    }

    /// Adds a manual job that is due now, or makes the server's waiting job due now. No effect on an active
    /// job.
    pub fn run_now(&mut self, server: Uuid, now_ms: i64) {
        let sql = insert_job!(
            "manual",
            "UPDATE SET run_at_ms = excluded.run_at_ms, trigger = excluded.trigger, attempts = 0 \
             WHERE collection_job.state = 'waiting' AND collection_job.run_at_ms > excluded.run_at_ms"
        );
        self.0.push(SqlStatement::new(sql, [server.into(), now_ms.into()]));
    }

    /// Deletes the waiting job of a server.
    pub fn cancel(&mut self, server: Uuid) {
        let sql = "DELETE FROM collection_job WHERE pending_key = $1 AND state = 'waiting'";
        self.0.push(SqlStatement::new(sql, [server.into()]));
    }

    /// Claims due jobs up to the capacity, the longest overdue first. The condition is repeated on the
    /// updated row, so that of two hubs that claim concurrently only one gets a job.
    pub fn claim(&mut self, hub: &str, lease: Uuid, times: Lease, capacity: WorkerCapacity) {
        let sql = concat!(
            "UPDATE collection_job SET state = 'active', hub = $6, lease_id = $1, leased_until_ms = $3, \
             started_ms = $2, attempts = attempts + 1 \
             WHERE id IN (SELECT id FROM (SELECT id, run_at_ms, failing, \
             row_number() OVER (PARTITION BY failing ORDER BY run_at_ms, id) AS position \
             FROM (SELECT collection_job.id AS id, collection_job.run_at_ms AS run_at_ms, ",
            is_failing!(),
            " AS failing FROM collection_job JOIN server ON server.id = collection_job.server \
             WHERE (collection_job.state = 'waiting' AND collection_job.run_at_ms <= $2) \
             OR (collection_job.state = 'active' AND collection_job.leased_until_ms <= $2)) due) ranked \
             WHERE (failing = 0 OR position <= $7) \
             AND NOT EXISTS (SELECT 1 FROM setting WHERE name = $5 AND value = '1') \
             ORDER BY run_at_ms, id LIMIT $4) \
             AND ((state = 'waiting' AND run_at_ms <= $2) OR (state = 'active' AND leased_until_ms <= $2))"
        );
        let Lease { now_ms, until_ms } = times;
        let values = [
            lease.into(),
            now_ms.into(),
            until_ms.into(),
            capacity.total.into(),
            PAUSED.into(),
            hub.into(),
            capacity.failing.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Finishes a job: completed, or failed with an error; a conflict if the lease was lost.
    pub fn finish(&mut self, id: i64, lease: Uuid, now_ms: i64, error: Option<&str>) {
        let sql = "UPDATE collection_job SET state = $4, pending_key = NULL, lease_id = NULL, \
             leased_until_ms = NULL, finished_ms = $3, error = $5 \
             WHERE id = $1 AND lease_id = $2 AND state = 'active'";
        let state = if error.is_none() { JobState::Completed } else { JobState::Failed };
        self.0.push(
            SqlStatement::new(sql, [id.into(), lease.into(), now_ms.into(), state.into(), error.into()])
                .require_row(),
        );
    }

    /// Returns a failed job to the queue for its next attempt; a conflict if the lease was lost.
    pub fn retry_at(&mut self, id: i64, lease: Uuid, run_at_ms: i64, error: &str) {
        let sql = "UPDATE collection_job SET state = 'waiting', lease_id = NULL, leased_until_ms = NULL, \
             run_at_ms = $3, error = $4 WHERE id = $1 AND lease_id = $2 AND state = 'active'";
        self.0.push(
            SqlStatement::new(sql, [id.into(), lease.into(), run_at_ms.into(), error.into()]).require_row(),
        );
    }

    /// Returns all active jobs of a hub that shuts down. Their attempts do not count.
    pub fn release_all(&mut self, hub: &str) {
        let sql = "UPDATE collection_job SET state = 'waiting', lease_id = NULL, leased_until_ms = NULL, \
             attempts = attempts - 1 WHERE hub = $1 AND state = 'active'";
        self.0.push(SqlStatement::new(sql, [hub.into()]));
    }

    /// Deletes a failed job that a new job replaces; a conflict if it is not failed.
    pub fn delete_failed(&mut self, id: i64) {
        let sql = "DELETE FROM collection_job WHERE id = $1 AND state = 'failed'";
        self.0.push(SqlStatement::new(sql, [id.into()]).require_row());
    }

    /// Deletes completed jobs that finished before one time, and failed jobs that finished before another.
    pub fn purge(&mut self, completed_before_ms: i64, failed_before_ms: i64) {
        let sql = "DELETE FROM collection_job WHERE (state = 'completed' AND finished_ms < $1) \
             OR (state = 'failed' AND finished_ms < $2)";
        self.0.push(SqlStatement::new(sql, [completed_before_ms.into(), failed_before_ms.into()]));
    }

    /// Pauses or resumes the queue on all hubs. Active jobs are not interrupted.
    pub fn set_paused(&mut self, paused: bool) {
        self.0.settings().put(PAUSED, if paused { "1" } else { "0" });
    }
}

impl Transaction {
    /// Repository of the collection queue.
    pub fn collection_jobs(&mut self) -> CollectionJobRepository<'_> {
        CollectionJobRepository(self)
    }
}
