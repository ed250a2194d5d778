//! The one thread that writes: takes what waits, makes one commit of it, answers all.

use super::{LOCAL_HUB_ID, SqliteInner, apply, unavailable};
use crate::append::{
    Append, AppendResult, ErrorLatch, GROUP_COMMIT_DELAY, MAX_COMMIT_ROWS, disk_budget_exhausted,
};
use crate::head_payload;
use crate::store::{CommitError, Write};
use perfwatch_model::{Shape, ShapeId, wire};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A shape is noted as used this often.
const SHAPE_NOTED: Duration = Duration::from_secs(3_600);

pub(super) type WriterTask = Box<dyn FnOnce(&mut Connection) + Send>;

pub(super) enum WriterJob {
    Append(Append),
    Commit(Vec<Write>, oneshot::Sender<Result<(), CommitError>>),
    Run(WriterTask),
}

pub(super) struct Writer {
    connection: Connection,
    shared: Arc<SqliteInner>,
    wal_bytes: u64,
    error_latch: ErrorLatch,
    /// Shapes that are in the database, and when that was noted.
    touched_shapes: HashMap<ShapeId, Duration>,
}

/// What an answer is given for once the commit is made.
enum PendingReply {
    Append(oneshot::Sender<AppendResult>),
    Commit(oneshot::Sender<Result<(), CommitError>>),
}

impl PendingReply {
    fn from_job(job: WriterJob) -> Option<Self> {
        match job {
            WriterJob::Append(append) => Some(Self::Append(append.reply)),
            WriterJob::Commit(_, reply) => Some(Self::Commit(reply)),
            WriterJob::Run(_) => None,
        }
    }
}

impl Writer {
    pub(super) fn new(connection: Connection, shared: Arc<SqliteInner>, wal_bytes: u64) -> Self {
        Self {
            connection,
            shared,
            wal_bytes,
            error_latch: ErrorLatch::default(),
            touched_shapes: HashMap::new(),
        }
    }

    /// Until the store is closed.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<WriterJob>) {
        let mut last = Duration::ZERO;
        while let Some(first) = queue.blocking_recv() {
            let since = self.shared.clock.monotonic().saturating_sub(last);
            if matches!(first, WriterJob::Append(_)) && since < GROUP_COMMIT_DELAY {
                std::thread::sleep(GROUP_COMMIT_DELAY.saturating_sub(since));
            }
            let mut jobs = vec![first];
            let rows = |job: &WriterJob| if let WriterJob::Append(append) = job { append.rows } else { 1 };
            let mut sum = rows(&jobs[0]);
            while sum < MAX_COMMIT_ROWS
                && let Ok(job) = queue.try_recv()
            {
                sum += rows(&job);
                jobs.push(job);
            }
            self.process(jobs);
            last = self.shared.clock.monotonic();
        }
        // Leaves one file behind.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn process(&mut self, jobs: Vec<WriterJob>) {
        let mut together = Vec::new();
        let mut alone: Vec<WriterTask> = Vec::new();
        for job in jobs {
            match job {
                WriterJob::Run(work) => alone.push(work),
                job => together.push(job),
            }
        }
        if !together.is_empty() {
            self.commit(together);
        }
        for work in alone {
            work(&mut self.connection);
        }
        self.limit_wal();
    }

    fn commit(&mut self, jobs: Vec<WriterJob>) {
        let full = self.over_budget();
        let now = self.shared.clock.monotonic();
        let mut fresh = Vec::new();
        let (mut waiting, mut refused) = (Vec::new(), Vec::new());
        let mut head_bytes = 0;
        let mut jobs = jobs.into_iter();
        let result = (|| {
            // Whoever else writes (a command beside the hub) is waited for, not collided with.
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut rows = Vec::new();
            for job in jobs.by_ref() {
                match job {
                    WriterJob::Append(append) if full => refused.push(append.reply),
                    WriterJob::Append(append) => {
                        waiting.push(PendingReply::Append(append.reply));
                        rows.extend_from_slice(&append.bytes);
                        for shape in append.shapes {
                            note(&transaction, &self.shared, &self.touched_shapes, &mut fresh, &shape, now)?;
                        }
                    }
                    WriterJob::Commit(writes, reply) => {
                        waiting.push(PendingReply::Commit(reply));
                        for write in &writes {
                            if let Write::PutBlock(_, _, shape, _) = write {
                                note(
                                    &transaction,
                                    &self.shared,
                                    &self.touched_shapes,
                                    &mut fresh,
                                    shape,
                                    now,
                                )?;
                            }
                        }
                        if !apply_all(&transaction, writes)?
                            && let Some(PendingReply::Commit(reply)) = waiting.pop()
                        {
                            let _ = reply.send(Err(CommitError::Conflict));
                        }
                    }
                    WriterJob::Run(_) => {}
                }
            }
            let mut arrival = 0;
            if !rows.is_empty() {
                let payload = head_payload::compress_rows(&rows);
                transaction
                    .prepare_cached("INSERT INTO head (hub, payload) VALUES (?1, ?2)")?
                    .execute((LOCAL_HUB_ID, &payload))?;
                arrival = transaction.last_insert_rowid();
                head_bytes = payload.len() as u64;
            }
            transaction.commit()?;
            Ok(arrival)
        })();
        if result.is_ok() {
            self.touched_shapes.extend(fresh.into_iter().map(|shape| (shape, now)));
            self.shared.head_bytes.fetch_add(head_bytes, Ordering::Relaxed);
        }
        // Those that an error left behind are told of it too.
        waiting.extend(jobs.filter_map(PendingReply::from_job));
        for reply in refused {
            let _ = reply.send(Err(disk_budget_exhausted()));
        }
        let result = result.map_err(unavailable);
        self.error_latch.record(&result);
        reply(&result, waiting);
    }

    /// Whether appends must wait: what is left of the budget belongs to sealing and roll-up.
    fn over_budget(&self) -> bool {
        let number = |pragma: &str| {
            self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap_or_default()
        };
        let used = number("page_count") - number("freelist_count");
        used.cast_unsigned() > self.shared.append_limit_pages
            || self.shared.head_bytes.load(Ordering::Relaxed) > self.shared.max_head_bytes
    }

    /// Readers may keep the log from being reused: past its bound, waits for them a little.
    fn limit_wal(&self) {
        let mut wal = self.shared.path.clone().into_os_string();
        wal.push("-wal");
        if std::fs::metadata(wal).is_ok_and(|meta| meta.len() > self.wal_bytes) {
            // A backup reads for long; nobody who writes waits for it.
            let patience = |ms| self.connection.busy_timeout(Duration::from_millis(ms));
            let checkpoint = patience(50)
                .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
                .and_then(|()| patience(5_000));
            if let Err(error) = checkpoint {
                tracing::debug!(%error, "WAL checkpoint failed");
            }
        }
    }
}

/// Makes sure that a shape is in the database, and that it is known to be in use.
fn note(
    transaction: &Transaction<'_>,
    shared: &SqliteInner,
    noted: &HashMap<ShapeId, Duration>,
    fresh: &mut Vec<ShapeId>,
    shape: &Arc<Shape>,
    now: Duration,
) -> rusqlite::Result<()> {
    let id = shape.id();
    if noted.get(&id).is_some_and(|at| now.saturating_sub(*at) < SHAPE_NOTED) || fresh.contains(&id) {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT INTO shape (id, columns, used_ms) VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET used_ms = excluded.used_ms",
        )?
        .execute((id.0, &wire::encode_shape(shape)[..], shared.clock.wall_ms()))?;
    shared.shapes.insert(shape.clone());
    fresh.push(id);
    Ok(())
}

/// Applies a list of writes or, where it conflicts, none of it.
fn apply_all(transaction: &Transaction<'_>, writes: Vec<Write>) -> rusqlite::Result<bool> {
    transaction.execute_batch("SAVEPOINT list")?;
    for write in writes {
        if !apply::apply(transaction, write)? {
            transaction.execute_batch("ROLLBACK TO list; RELEASE list")?;
            return Ok(false);
        }
    }
    transaction.execute_batch("RELEASE list")?;
    Ok(true)
}

fn reply(result: &AppendResult, waiting: Vec<PendingReply>) {
    for waiting in waiting {
        // Who does not wait any more asks again, and is told that it was kept.
        match waiting {
            PendingReply::Append(reply) => {
                drop(reply.send(result.clone()));
            }
            PendingReply::Commit(reply) => {
                drop(reply.send(result.clone().map(|_| ()).map_err(CommitError::Store)));
            }
        }
    }
}
