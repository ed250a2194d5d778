//! The queue: a row for each look that is to be made, leased by whoever makes it. A row that is not
//! done has its server as key, so there is one at a time; a lease that ran out is anyone's.
//!
//! Every time is handed in: the queue has no clock.

use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::{Store, StoreError};
use uuid::Uuid;

/// Work to do, or that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its number.
    pub id: i64,
    /// Which server.
    pub server: Uuid,
    /// `schedule` or `asked`.
    pub trigger: String,
    /// `waiting`, `active`, `completed`, `failed`.
    pub state: String,
    /// Not before, milliseconds since 1970.
    pub run_at_ms: i64,
    /// How often it was begun.
    pub attempts: i64,
    /// When it was begun last.
    pub started_ms: Option<i64>,
    /// When it was done.
    pub finished_ms: Option<i64>,
    /// Why it did not go well, last time.
    pub error: Option<String>,
}

/// How many there are, and how fast they go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Due, and not begun.
    pub waiting: i64,
    /// Not due yet.
    pub delayed: i64,
    /// Begun.
    pub active: i64,
    /// Went well.
    pub completed: i64,
    /// Did not.
    pub failed: i64,
    /// Of the done ones, done lately.
    pub finished_recently: i64,
    /// Of those, failed.
    pub failed_recently: i64,
    /// How long those took together, milliseconds.
    pub duration_ms: i64,
    /// The longest of them.
    pub max_duration_ms: i64,
    /// How late those that are due are, milliseconds, at most.
    pub max_delay_ms: i64,
}

/// From when to when something is taken.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Now, milliseconds since 1970.
    pub now_ms: i64,
    /// From then on it is anyone's again.
    pub until_ms: i64,
}

/// How many are taken.
#[derive(Debug, Clone, Copy)]
pub struct WorkerCapacity {
    /// Together.
    pub total: i64,
    /// Of those, at servers whose last look came to nothing.
    pub failing: i64,
}

/// The queue.
#[derive(Debug)]
pub struct CollectionJobs;

const PAUSED: &str = "queue_paused";

/// What is read of jobs, as [`JobRow::read`] takes it.
macro_rules! job_columns {
    () => {
        "SELECT id, server, reason, state, run_ms, tries, started_ms, done_ms, error FROM job "
    };
}

/// Whether a look will likely take long: the last one came to nothing, and nobody waits for this one.
/// What went wrong at a hub says nothing of the server.
macro_rules! is_failing {
    () => {
        "CAST(CASE WHEN server.last_cause IS NULL OR server.last_cause = 'internal' OR job.reason = 'asked' THEN 0 ELSE 1 END AS BIGINT)"
    };
}

impl JobRow {
    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut cells = RowReader::new(row);
        Ok(Self {
            id: cells.int()?,
            server: cells.id()?,
            trigger: cells.text()?,
            state: cells.text()?,
            run_at_ms: cells.int()?,
            attempts: cells.int()?,
            started_ms: cells.opt_int()?,
            finished_ms: cells.opt_int()?,
            error: cells.opt_text()?,
        })
    }
}

impl CollectionJobs {
    /// A look at a time, where none is planned.
    pub fn schedule(server: Uuid, run_ms: i64) -> SqlStatement {
        let sql = "INSERT INTO job (server, live_key, reason, state, run_ms, tries) \
             SELECT id, id, 'schedule', 'waiting', CAST($2 AS BIGINT), 0 FROM server WHERE id = $1 AND enabled = 1 AND refused IS NULL \
             ON CONFLICT (live_key) DO NOTHING";
        SqlStatement::new(sql, [server.into(), run_ms.into()])
    }

    /// The same; one that is planned and not begun is moved there.
    pub fn reschedule(server: Uuid, run_ms: i64) -> SqlStatement {
        let sql = "INSERT INTO job (server, live_key, reason, state, run_ms, tries) \
             SELECT id, id, 'schedule', 'waiting', CAST($2 AS BIGINT), 0 FROM server WHERE id = $1 AND enabled = 1 AND refused IS NULL \
             ON CONFLICT (live_key) DO UPDATE SET run_ms = excluded.run_ms, tries = 0 WHERE job.state = 'waiting'";
        SqlStatement::new(sql, [server.into(), run_ms.into()])
    }

    /// A look now, because somebody asks. One that is planned is made now; of one that is being
    /// made, there is no second.
    pub fn run_now(server: Uuid, now_ms: i64) -> SqlStatement {
        let sql = "INSERT INTO job (server, live_key, reason, state, run_ms, tries) \
             SELECT id, id, 'asked', 'waiting', CAST($2 AS BIGINT), 0 FROM server WHERE id = $1 AND enabled = 1 AND refused IS NULL \
             ON CONFLICT (live_key) DO UPDATE SET run_ms = excluded.run_ms, reason = excluded.reason, tries = 0 \
             WHERE job.state = 'waiting' AND job.run_ms > excluded.run_ms";
        SqlStatement::new(sql, [server.into(), now_ms.into()])
    }

    /// What is planned is not.
    pub fn cancel(server: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM job WHERE live_key = $1 AND state = 'waiting'", [server.into()])
    }

    /// Servers that should be looked at and for which nothing is planned.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn unscheduled(store: &dyn Store) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let sql = "SELECT id, interval_ms FROM server WHERE enabled = 1 AND refused IS NULL \
             AND NOT EXISTS (SELECT 1 FROM job WHERE job.live_key = server.id)";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok((cells.id()?, cells.int()?))
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// When there is something to do next: a look that is due, a lease that runs out. None while
    /// the queue is paused.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn next_due_ms(store: &dyn Store) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT min(CASE WHEN state = 'active' THEN leased_ms ELSE run_ms END) FROM job \
             WHERE state IN ('waiting', 'active') \
             AND NOT EXISTS (SELECT 1 FROM setting WHERE name = $1 AND value = '1')";
        let rows = store.query(sql, vec![PAUSED.into()]).await?;
        rows.into_iter().next().map_or(Ok(None), |row| RowReader::new(row).opt_int())
    }

    /// Takes what is due, the longest overdue first; of those in trouble no more than so many. Said
    /// again on the row itself, so that of two who take at one moment one gets it.
    pub fn claim(hub: &str, lease: Uuid, times: Lease, most: WorkerCapacity) -> SqlStatement {
        let sql = concat!(
            "UPDATE job SET state = 'active', hub = $6, lease = $1, leased_ms = $3, started_ms = $2, tries = tries + 1 \
             WHERE id IN (SELECT id FROM (SELECT id, run_ms, troubled, row_number() OVER (PARTITION BY troubled ORDER BY run_ms, id) AS place \
             FROM (SELECT job.id AS id, job.run_ms AS run_ms, ",
            is_failing!(),
            " AS troubled FROM job JOIN server ON server.id = job.server \
             WHERE (job.state = 'waiting' AND job.run_ms <= $2) OR (job.state = 'active' AND job.leased_ms <= $2)) due) placed \
             WHERE (troubled = 0 OR place <= $7) \
             AND NOT EXISTS (SELECT 1 FROM setting WHERE name = $5 AND value = '1') ORDER BY run_ms, id LIMIT $4) \
             AND ((state = 'waiting' AND run_ms <= $2) OR (state = 'active' AND leased_ms <= $2))"
        );
        let Lease { now_ms, until_ms } = times;
        let cells = [
            lease.into(),
            now_ms.into(),
            until_ms.into(),
            most.total.into(),
            PAUSED.into(),
            hub.into(),
            most.failing.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// What was taken by this lease, and whether it is in trouble.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn claimed_by(store: &dyn Store, lease: Uuid) -> Result<Vec<(JobRow, bool)>, StoreError> {
        let sql = concat!(
            "SELECT ",
            is_failing!(),
            ", job.id, job.server, job.reason, job.state, job.run_ms, job.tries, job.started_ms, job.done_ms, job.error \
             FROM job JOIN server ON server.id = job.server \
             WHERE job.lease = $1 AND job.state = 'active' ORDER BY job.run_ms, job.id"
        );
        let read = |mut row: Vec<SqlValue>| {
            let troubled = RowReader::new(row.drain(..1).collect()).int()? != 0;
            Ok((JobRow::read(row)?, troubled))
        };
        store.query(sql, vec![lease.into()]).await?.into_iter().map(read).collect()
    }

    /// Done; a conflict where somebody else has it by now, or it is gone.
    pub fn finish(id: i64, lease: Uuid, now_ms: i64, error: Option<&str>) -> SqlStatement {
        let sql = "UPDATE job SET state = $4, live_key = NULL, lease = NULL, leased_ms = NULL, done_ms = $3, error = $5 \
             WHERE id = $1 AND lease = $2 AND state = 'active'";
        let state = if error.is_none() { "completed" } else { "failed" };
        SqlStatement::new(sql, [id.into(), lease.into(), now_ms.into(), state.into(), error.into()])
            .require_row()
    }

    /// Tried again at a time; until then nobody has it.
    pub fn retry_at(id: i64, lease: Uuid, run_ms: i64, error: &str) -> SqlStatement {
        let sql = "UPDATE job SET state = 'waiting', lease = NULL, leased_ms = NULL, run_ms = $3, error = $4 \
             WHERE id = $1 AND lease = $2 AND state = 'active'";
        SqlStatement::new(sql, [id.into(), lease.into(), run_ms.into(), error.into()]).require_row()
    }

    /// What a hub had begun and will not end, since it ended itself: as if it had not.
    pub fn release_all(hub: &str) -> SqlStatement {
        let sql = "UPDATE job SET state = 'waiting', lease = NULL, leased_ms = NULL, tries = tries - 1 \
             WHERE hub = $1 AND state = 'active'";
        SqlStatement::new(sql, [hub.into()])
    }

    /// A failed one counts no longer as one; a conflict where it is none.
    pub fn retry(id: i64) -> SqlStatement {
        SqlStatement::new("DELETE FROM job WHERE id = $1 AND state = 'failed'", [id.into()]).require_row()
    }

    /// One.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn get(store: &dyn Store, id: i64) -> Result<Option<JobRow>, StoreError> {
        let sql = concat!(job_columns!(), "WHERE id = $1");
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(JobRow::read).transpose()
    }

    /// Those in a state: what is to be done in its order, what was done newest first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store, state: &str, limit: i64) -> Result<Vec<JobRow>, StoreError> {
        let sql = match state {
            "waiting" | "active" => concat!(job_columns!(), "WHERE state = $1 ORDER BY run_ms, id LIMIT $2"),
            _ => concat!(job_columns!(), "WHERE state = $1 ORDER BY done_ms DESC, id DESC LIMIT $2"),
        };
        store.query(sql, vec![state.into(), limit.into()]).await?.into_iter().map(JobRow::read).collect()
    }

    /// Lets go of done ones: of those that went well before one time, and of others before another.
    pub fn purge(completed_before_ms: i64, failed_before_ms: i64) -> SqlStatement {
        let sql = "DELETE FROM job WHERE (state = 'completed' AND done_ms < $1) OR (state = 'failed' AND done_ms < $2)";
        SqlStatement::new(sql, [completed_before_ms.into(), failed_before_ms.into()])
    }

    /// Nobody begins anything, at any hub.
    pub fn set_paused(paused: bool) -> SqlStatement {
        crate::settings::put_setting(PAUSED, if paused { "1" } else { "0" })
    }

    /// Whether nobody does.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn is_paused(store: &dyn Store) -> Result<bool, StoreError> {
        Ok(crate::settings::get_setting(store, PAUSED).await?.as_deref() == Some("1"))
    }

    /// How it stands; `since_ms` says what lately is.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn stats(store: &dyn Store, now_ms: i64, since_ms: i64) -> Result<JobCounts, StoreError> {
        let sql = "SELECT \
             COALESCE(sum(CASE WHEN state = 'waiting' AND run_ms <= $1 THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'waiting' AND run_ms > $1 THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'active' THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'completed' THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN done_ms >= $2 THEN 1 ELSE 0 END), 0), \
             COALESCE(sum(CASE WHEN done_ms >= $2 AND state = 'failed' THEN 1 ELSE 0 END), 0), \
             CAST(COALESCE(sum(CASE WHEN done_ms >= $2 THEN done_ms - started_ms ELSE 0 END), 0) AS BIGINT), \
             COALESCE(max(CASE WHEN done_ms >= $2 THEN done_ms - started_ms ELSE 0 END), 0), \
             COALESCE(max(CASE WHEN state = 'waiting' AND run_ms <= $1 THEN $1 - run_ms ELSE 0 END), 0) FROM job";
        let rows = store.query(sql, vec![now_ms.into(), since_ms.into()]).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(JobCounts::default()) };
        let mut cells = RowReader::new(row);
        Ok(JobCounts {
            waiting: cells.int()?,
            delayed: cells.int()?,
            active: cells.int()?,
            completed: cells.int()?,
            failed: cells.int()?,
            finished_recently: cells.int()?,
            failed_recently: cells.int()?,
            duration_ms: cells.int()?,
            max_duration_ms: cells.int()?,
            max_delay_ms: cells.int()?,
        })
    }
}
