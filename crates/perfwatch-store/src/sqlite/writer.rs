//! Writer thread: combines queued calls into one commit, then replies to all of them.

use super::apply;
use super::inner::{BUSY_TIMEOUT, LOCAL_HUB_ID, SqliteInner, unavailable};
use crate::append::{
    Append, AppendResult, ErrorLatch, GROUP_COMMIT_DELAY, MAX_COMMIT_ROWS, disk_budget_exhausted,
};
use crate::error::CommitError;
use crate::head_payload;
use crate::transaction::Change;
use crate::write::Write;
use perfwatch_model::{Shape, ShapeId, wire};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Maximum time that a checkpoint waits for readers. A backup reads for long and must not delay writes.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(50);

pub(super) type WriterTask = Box<dyn FnOnce(&mut Connection) + Send>;

pub(super) enum WriterJob {
    Append(Append),
    Commit(Vec<Change>, oneshot::Sender<Result<(), CommitError>>),
    Run(WriterTask),
}

impl WriterJob {
    fn rows(&self) -> usize {
        if let Self::Append(append) = self { append.rows } else { 1 }
    }
}

pub(super) struct Writer {
    connection: Connection,
    inner: Arc<SqliteInner>,
    wal_bytes: u64,
    /// Pages in use after the last commit.
    used_pages: u64,
    error_latch: ErrorLatch,
}

/// A call that receives its reply after the commit.
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

    fn send(self, result: AppendResult) {
        // A caller that was canceled sends the rows again and they are recognized as duplicates.
        match self {
            Self::Append(reply) => drop(reply.send(result)),
            Self::Commit(reply) => drop(reply.send(result.map(|_| ()).map_err(CommitError::Store))),
        }
    }
}

/// State of a commit.
struct Batch<'a> {
    inner: &'a SqliteInner,
    /// True if appends are rejected because of the disk budget.
    over_budget: bool,
    /// Encoded rows of all appends.
    rows: Vec<u8>,
    /// Shapes of the rows.
    head_shapes: HashSet<ShapeId>,
    pending: Vec<PendingReply>,
    rejected: Vec<oneshot::Sender<AppendResult>>,
    /// Size of the head row.
    head_bytes: u64,
}

impl Writer {
    pub(super) fn new(connection: Connection, inner: Arc<SqliteInner>, wal_bytes: u64) -> Self {
        let used_pages = used_pages(&connection);
        Self { connection, inner, wal_bytes, used_pages, error_latch: ErrorLatch::default() }
    }

    /// Runs until the store is closed.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<WriterJob>) {
        let mut last_commit = Duration::ZERO;
        while let Some(first) = queue.blocking_recv() {
            let since = self.inner.clock.monotonic().saturating_sub(last_commit);
            if matches!(first, WriterJob::Append(_)) && since < GROUP_COMMIT_DELAY {
                std::thread::sleep(GROUP_COMMIT_DELAY.saturating_sub(since));
            }
            let mut rows = first.rows();
            let mut jobs = vec![first];
            while rows < MAX_COMMIT_ROWS
                && let Ok(job) = queue.try_recv()
            {
                rows += job.rows();
                jobs.push(job);
            }
            self.process(jobs);
            last_commit = self.inner.clock.monotonic();
        }
        // Leaves a single file without a log.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn process(&mut self, jobs: Vec<WriterJob>) {
        let mut batch = Vec::new();
        let mut tasks: Vec<WriterTask> = Vec::new();
        for job in jobs {
            match job {
                WriterJob::Run(task) => tasks.push(task),
                job => batch.push(job),
            }
        }
        if !batch.is_empty() {
            self.commit(batch);
        }
        for task in tasks {
            task(&mut self.connection);
        }
        self.used_pages = used_pages(&self.connection);
        self.inner.rejects_appends.store(self.over_budget(), Ordering::Relaxed);
        self.limit_wal();
    }

    fn commit(&mut self, jobs: Vec<WriterJob>) {
        let mut jobs = jobs.into_iter();
        let mut batch = Batch {
            inner: &self.inner,
            over_budget: self.over_budget(),
            rows: Vec::new(),
            head_shapes: HashSet::new(),
            pending: Vec::new(),
            rejected: Vec::new(),
            head_bytes: 0,
        };
        let result = batch.write(&mut self.connection, &mut jobs);
        let Batch { head_shapes, mut pending, rejected, head_bytes, .. } = batch;
        if let Ok(arrival) = result {
            self.inner.shape_use.record_append(head_shapes, arrival);
            self.inner.head_bytes.fetch_add(head_bytes, Ordering::Relaxed);
        }
        // Jobs that were not reached before an error fail with it.
        pending.extend(jobs.filter_map(PendingReply::from_job));
        for reply in rejected {
            let _ = reply.send(Err(disk_budget_exhausted()));
        }
        let result = result.map_err(unavailable);
        self.error_latch.record(&result);
        for reply in pending {
            reply.send(result.clone());
        }
    }

    /// Returns whether appends are rejected: the remaining space of the budget is reserved for sealing and
    /// roll-up.
    fn over_budget(&self) -> bool {
        self.used_pages > self.inner.append_limit_pages.load(Ordering::Relaxed)
            || self.inner.head_bytes.load(Ordering::Relaxed) > self.inner.max_head_bytes()
    }

    /// Truncates a log that exceeds its limit. Readers prevent SQLite from reusing it, so this waits briefly
    /// for them.
    fn limit_wal(&self) {
        let mut wal = self.inner.path.clone().into_os_string();
        wal.push("-wal");
        if std::fs::metadata(wal).is_ok_and(|meta| meta.len() > self.wal_bytes) {
            let checkpoint = self
                .connection
                .busy_timeout(CHECKPOINT_TIMEOUT)
                .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
                .and_then(|()| self.connection.busy_timeout(BUSY_TIMEOUT));
            if let Err(error) = checkpoint {
                tracing::debug!(%error, "WAL checkpoint failed");
            }
        }
    }
}

/// Number of pages in use; 0 if it cannot be read.
fn used_pages(connection: &Connection) -> u64 {
    // Prepared once: this runs after every commit.
    let pages = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let used = pages("PRAGMA page_count").and_then(|all| Ok(all - pages("PRAGMA freelist_count")?));
    used.unwrap_or_default().cast_unsigned()
}

impl Batch<'_> {
    /// Commits the jobs in one transaction. Returns the arrival number of the appended rows.
    fn write(
        &mut self,
        connection: &mut Connection,
        jobs: &mut impl Iterator<Item = WriterJob>,
    ) -> rusqlite::Result<i64> {
        // Takes the write lock immediately: a command that writes beside the hub is waited for.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in jobs {
            match job {
                WriterJob::Append(append) if self.over_budget => self.rejected.push(append.reply),
                WriterJob::Append(append) => {
                    self.pending.push(PendingReply::Append(append.reply));
                    self.rows.extend_from_slice(&append.bytes);
                    for shape in append.shapes {
                        self.add_head_shape(&transaction, &shape)?;
                    }
                }
                WriterJob::Commit(changes, reply) => {
                    self.pending.push(PendingReply::Commit(reply));
                    for change in &changes {
                        if let Change::History(Write::PutBlock(_, _, shape, _)) = change {
                            self.add_shape(&transaction, shape)?;
                        }
                    }
                    if !apply_all(&transaction, self.inner, changes)?
                        && let Some(PendingReply::Commit(reply)) = self.pending.pop()
                    {
                        let _ = reply.send(Err(CommitError::Conflict));
                    }
                }
                WriterJob::Run(_) => {}
            }
        }
        let mut arrival = 0;
        if !self.rows.is_empty() {
            let payload = head_payload::compress_payload(&self.rows);
            transaction
                .prepare_cached("INSERT INTO head (hub, payload) VALUES (?1, ?2)")?
                .execute((LOCAL_HUB_ID, &payload))?;
            arrival = transaction.last_insert_rowid();
            self.head_bytes = payload.len() as u64;
        }
        transaction.commit()?;
        Ok(arrival)
    }

    /// Writes the shape of a head row if the head does not use it yet.
    fn add_head_shape(&mut self, transaction: &Transaction<'_>, shape: &Arc<Shape>) -> rusqlite::Result<()> {
        let id = shape.id();
        if !self.head_shapes.insert(id) || self.inner.shape_use.is_in_head(id) {
            return Ok(());
        }
        self.add_shape(transaction, shape)?;
        transaction
            .prepare_cached("INSERT OR IGNORE INTO head_shape (hub, shape) VALUES (?1, ?2)")?
            .execute((LOCAL_HUB_ID, id.0))?;
        Ok(())
    }

    /// Writes the shape if it is new.
    fn add_shape(&self, transaction: &Transaction<'_>, shape: &Arc<Shape>) -> rusqlite::Result<()> {
        let id = shape.id();
        let exists = transaction.prepare_cached("SELECT 1 FROM shape WHERE id = ?1")?.exists([id.0])?;
        if !exists {
            transaction
                .prepare_cached("INSERT INTO shape (id, columns) VALUES (?1, ?2)")?
                .execute((id.0, &wire::encode_shape(shape)[..]))?;
            self.inner.shapes.insert(shape.clone());
        }
        Ok(())
    }
}

/// Applies a list of changes; rolls all of them back and returns false if one conflicts.
fn apply_all(
    transaction: &Transaction<'_>,
    inner: &SqliteInner,
    changes: Vec<Change>,
) -> rusqlite::Result<bool> {
    transaction.execute_batch("SAVEPOINT writes")?;
    for change in changes {
        if !apply::apply(transaction, inner, change)? {
            transaction.execute_batch("ROLLBACK TO writes; RELEASE writes")?;
            return Ok(false);
        }
    }
    transaction.execute_batch("RELEASE writes")?;
    Ok(true)
}
