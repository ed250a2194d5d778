//! SQLite store: one database file in a data directory, one writer thread with group commit, and concurrent
//! readers.
//!
//! WAL mode with a sync per commit: an acknowledged commit survives a power failure.

mod apply;
mod backup;
mod bind;
mod file;
mod inner;
mod read;
mod writer;

pub(crate) use backup::{columns, new_file, open_backup, strip_secrets};
pub use inner::SqliteOptions;

use crate::append::{APPEND_QUEUE_CAPACITY, Append, disk_budget_exhausted, store_closed};
use crate::error::{CommitError, StoreError};
use crate::hosts::HostRecord;
use crate::schema_versions::SchemaVersions;
use crate::sql::SqlValue;
use crate::store::*;
use crate::task_lease::{LeasedTask, TaskLease};
use crate::transaction::Transaction;
use file::{lock, migrate, prepare};
use inner::{
    BudgetSizes, FILE_NAME, LOCAL_HUB_ID, SqliteInner, corrupt_error, missing_database, open_error,
    store_error, unavailable,
};
use perfwatch_files::Directory;
use perfwatch_model::{Clock, HostId};
use perfwatch_tsdb::Tier;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::WriterJob;

/// Maximum number of concurrent read connections.
const MAX_READERS: usize = 4;

/// [`Store`] on an embedded SQLite database.
pub struct SqliteStore {
    inner: Arc<SqliteInner>,
    jobs: mpsc::Sender<WriterJob>,
    slots: Semaphore,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens or creates the database and runs pending migrations.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the data directory cannot be written or is in use by another hub, if the
    /// file is not a database, or if its schema is newer than this version supports.
    pub fn open(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let create = Directory::create_private(&options.folder);
        create.map_err(|error| store_error(&options.folder, &error))?;
        let lock = lock(&options.folder)?;
        Self::open_with(options, clock, Some(lock))
    }

    /// Opens the database to change entities while a hub may be running on it.
    ///
    /// # Errors
    /// Returns a [`StoreError`] as [`SqliteStore::open`] does, and if there is no database.
    pub fn open_shared(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        if !options.folder.join(FILE_NAME).exists() {
            return Err(missing_database(&options.folder));
        }
        match lock(&options.folder) {
            Ok(lock) => Self::open_with(options, clock, Some(lock)),
            Err(_) => Self::open_with(options, clock, None),
        }
    }

    fn open_with(
        options: &SqliteOptions,
        clock: Arc<dyn Clock>,
        lock: Option<File>,
    ) -> Result<Self, StoreError> {
        let folder = &options.folder;
        let path = folder.join(FILE_NAME);
        file::restrict_permissions(folder).map_err(|error| store_error(folder, &error))?;
        let mut connection = Connection::open(&path).map_err(|error| open_error(folder, &error))?;
        prepare(&connection, options).map_err(|error| open_error(folder, &error))?;
        if lock.is_some() {
            // The schema does not change under a running hub.
            migrate(&mut connection).map_err(|error| corrupt_error(folder, &error))?;
        }
        let sql = "SELECT coalesce(sum(length(payload)), 0) FROM head";
        let head_bytes = connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| open_error(folder, &error))?
            .cast_unsigned();
        let inner = SqliteInner { _lock: lock, ..SqliteInner::new(path, Some(options.sizes()), clock) };
        inner.head_bytes.store(head_bytes, Ordering::Relaxed);
        let inner = Arc::new(inner);
        apply::load_head_shapes(&connection, &inner).map_err(|error| open_error(folder, &error))?;
        let (jobs, queue) = mpsc::channel(APPEND_QUEUE_CAPACITY);
        let writer = writer::Writer::new(connection, inner.clone(), options.sizes().wal_bytes());
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| store_error(folder, &error))?;
        Ok(Self { inner, jobs, slots: Semaphore::new(MAX_READERS), thread: Mutex::new(Some(thread)) })
    }

    /// Reads the versions of the tables; changes nothing. A hub may be running on the database.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if there is no database, or if the file is not a database.
    pub fn schema_versions(folder: &Path) -> Result<SchemaVersions, StoreError> {
        let path = folder.join(FILE_NAME);
        if !path.exists() {
            return Err(missing_database(folder));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags);
        let connection = connection.map_err(|error| open_error(folder, &error))?;
        // Reads the header, which opening does not.
        let sql = "SELECT count(*) FROM sqlite_master";
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| open_error(folder, &error))?;
        Ok(file::schema_versions(&connection))
    }

    /// Opens the database read-only while a hub may be running on it.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if there is no database, or if it cannot be read.
    pub fn open_read_only(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        if !path.exists() {
            return Err(missing_database(folder));
        }
        let inner = SqliteInner::new(path, None, clock);
        // Reads the header, which `open` does not.
        let advise = |error| match error {
            StoreError::Unavailable(message) => corrupt_error(folder, &message),
            error => error,
        };
        let reader = inner.reader().map_err(advise).and_then(|reader| {
            let check = reader.query_row("SELECT count(*) FROM host", [], |row| row.get::<_, i64>(0));
            check.map_err(|error| open_error(folder, &error)).map(|_| reader)
        })?;
        inner.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        // The receiver is dropped, so writes are rejected.
        let (jobs, _) = mpsc::channel(1);
        Ok(Self {
            inner: Arc::new(inner),
            jobs,
            slots: Semaphore::new(MAX_READERS),
            thread: Mutex::new(None),
        })
    }

    /// Replaces the database by a backup. Returns the path of the previous database, which is renamed.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if a hub runs on the data directory, or if the file is not a backup that this
    /// version can read.
    pub fn restore(
        options: &SqliteOptions,
        from: &Path,
        clock: &dyn Clock,
    ) -> Result<Option<PathBuf>, StoreError> {
        backup::restore(options, from, clock)
    }

    async fn send<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> WriterJob) -> Result<T, StoreError> {
        let (reply, response) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| store_closed())?;
        response.await.map_err(|_| store_closed())
    }

    /// Runs a task on the connection of the writer thread, between commits.
    async fn write<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let job = |reply: oneshot::Sender<rusqlite::Result<T>>| {
            WriterJob::Run(Box::new(move |connection| {
                // The caller may have been canceled; the task is completed all the same.
                let _ = reply.send(task(connection));
            }))
        };
        self.send(job).await?.map_err(unavailable)
    }

    /// Runs a task on a read connection, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Connection, &SqliteInner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _slot = self.slots.acquire().await.map_err(|_| store_closed())?;
        let inner = self.inner.clone();
        let handle = tokio::task::spawn_blocking(move || {
            let mut connection = inner.reader()?;
            let result = task(&mut connection, &inner);
            inner.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        });
        handle.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

impl Drop for SqliteStore {
    /// Waits until queued writes are committed.
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.jobs = closed;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Store for SqliteStore {
    fn backend(&self) -> &'static str {
        "sqlite"
    }

    fn hub_id(&self) -> &str {
        LOCAL_HUB_ID
    }

    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async move { self.send(|reply| WriterJob::Append(Append::new(&rows, reply))).await? })
    }

    fn read_head(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<HeadSnapshot>, StoreError>> {
        Box::pin(self.read(move |connection, inner| read::head(connection, inner, after, limit)))
    }

    fn is_head_over_limit(&self) -> bool {
        self.inner.head_bytes.load(Ordering::Relaxed) > self.inner.max_head_bytes() / 2
    }

    fn append_rejection(&self) -> Option<StoreError> {
        self.inner.rejects_appends.load(Ordering::Relaxed).then(disk_budget_exhausted)
    }

    fn max_head_bytes(&self) -> u64 {
        self.inner.max_head_bytes()
    }

    fn min_budget_bytes(&self) -> u64 {
        16 << 20
    }

    fn set_budget(&self, bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        let inner = self.inner.clone();
        inner.set_budget(BudgetSizes(bytes));
        Box::pin(self.write(move |connection| file::limit_pages(connection, &inner)))
    }

    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        let inner = self.inner.clone();
        Box::pin(self.write(move |connection| {
            let sql = "SELECT coalesce(sum(length(payload)), 0) FROM head WHERE hub = ?1 AND arrival < ?2";
            let deleted: i64 =
                connection.prepare_cached(sql)?.query_row((LOCAL_HUB_ID, before), |row| row.get(0))?;
            connection
                .prepare_cached("DELETE FROM head WHERE hub = ?1 AND arrival < ?2")?
                .execute((LOCAL_HUB_ID, before))?;
            // Only the writer thread, which runs this task, changes the value.
            let head_bytes = inner.head_bytes.load(Ordering::Relaxed);
            inner.head_bytes.store(head_bytes.saturating_sub(deleted.cast_unsigned()), Ordering::Relaxed);
            apply::release_head_shapes(connection, &inner, before)
        }))
    }

    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |connection| apply::upsert_host(connection, &host)))
    }

    fn commit(&self, tx: Transaction) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move { self.send(|reply| WriterJob::Commit(tx.into_changes(), reply)).await? })
    }

    fn query(
        &self,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>> {
        Box::pin(self.read(move |connection, _| read::rows(connection, sql, &values).map_err(unavailable)))
    }

    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>> {
        Box::pin(self.read(move |connection, inner| read::read_range(connection, inner, &query)))
    }

    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>> {
        Box::pin(
            self.read(move |connection, inner| read::blocks(connection, inner, tier, host, from_ms, to_ms)),
        )
    }

    fn renew_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let now_ms = self.inner.clock.wall_ms();
        Box::pin(self.write(move |connection| {
            // The only hub needs no lease; the write shows that the database accepts writes.
            let sql = "INSERT INTO lease (name, holder, until_ms) VALUES ('write_check', ?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET until_ms = excluded.until_ms";
            connection.prepare_cached(sql)?.execute((LOCAL_HUB_ID, now_ms)).map(|_| ())
        }))
    }

    fn lease(&self, task: LeasedTask) -> Option<TaskLease> {
        Some(TaskLease::of_single_hub(task))
    }

    fn release_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn disk_usage(&self, tier_bytes: Option<[u64; 3]>) -> BoxFuture<'_, Result<DiskUsage, StoreError>> {
        Box::pin(
            self.read(move |connection, inner| {
                read::usage(connection, inner, tier_bytes).map_err(unavailable)
            }),
        )
    }

    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        let inner = self.inner.clone();
        Box::pin(self.write(move |connection| {
            // A file that was larger than a new budget has shrunk since.
            file::limit_pages(connection, &inner)?;
            apply::vacuum(connection, &inner, before_ms)
        }))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let to = to.to_owned();
        Box::pin(self.read(move |connection, _| backup::backup(connection, &to)))
    }
}
