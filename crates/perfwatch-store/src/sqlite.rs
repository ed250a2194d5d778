//! SQLite: one file in a folder of our own, one thread that writes (many calls to a commit),
//! readers beside it. WAL with a sync at each commit: what was answered survives a power cut.

mod apply;
mod file;
mod read;
mod writer;

use crate::append::{APPEND_QUEUE_CAPACITY, Append, store_closed};
use crate::shape_cache::ShapeCache;
use crate::sql::SqlValue;
use crate::store::*;
use file::{lock, migrate, prepare};
use perfwatch_model::{Clock, HostId, Shape, ShapeId, wire};
use perfwatch_tsdb::Tier;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::WriterJob;

/// Connections that read at one time.
const MAX_READERS: usize = 4;
/// Pages are this large: blobs of some ten kB fit well.
const PAGE_BYTES: u64 = 8_192;
/// Enough to seal and roll up what a large fleet sent in a minute.
const RESERVED_PAGES: u64 = (64 << 20) / PAGE_BYTES;
/// The one hub there is.
const LOCAL_HUB_ID: &str = "local";

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Where its files are.
    pub folder: PathBuf,
    /// What file and log together never exceed.
    pub budget_bytes: u64,
}

/// The adapter.
pub struct SqliteStore {
    shared: Arc<SqliteInner>,
    jobs: mpsc::Sender<WriterJob>,
    slots: Semaphore,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

pub(crate) use file::{new_file, open_backup, strip_secrets};

pub(crate) struct SqliteInner {
    path: PathBuf,
    /// Pages that may be in use before appends are refused; the rest of the file's pages
    /// belongs to sealing and roll-up.
    append_limit_pages: u64,
    /// Bytes of head rows, and what they may be: sealing them must find room in the reserve.
    head_bytes: AtomicU64,
    max_head_bytes: u64,
    clock: Arc<dyn Clock>,
    shapes: ShapeCache,
    readers: Mutex<Vec<Connection>>,
    /// None where it is only read.
    _lock: Option<File>,
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn store_error(folder: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Rejected(format!("history in {}: {why}", folder.display()))
}

fn table(tier: Tier) -> &'static str {
    match tier {
        Tier::Raw => "block_raw",
        Tier::Minute => "block_minute",
        Tier::Hour => "block_hour",
    }
}

impl SqliteOptions {
    /// The log between two checkpoints: a sixteenth of the budget, 16 MiB at most.
    fn wal_bytes(&self) -> u64 {
        (self.budget_bytes / 16).clamp(4 * PAGE_BYTES, 16 << 20)
    }

    /// What sealing and roll-up may take when appends may not any more: they must be done before
    /// anything can go. Of a small budget that is a larger part.
    fn reserve_pages(&self) -> u64 {
        let pages = self.pages();
        (pages / 16).max((pages / 4).min(RESERVED_PAGES))
    }

    fn pages(&self) -> u64 {
        (self.budget_bytes.saturating_sub(2 * self.wal_bytes()) / PAGE_BYTES).max(64)
    }
}

impl SqliteStore {
    /// Opens or makes the database and brings its tables up to date.
    ///
    /// # Errors
    /// A folder that can't be written or that another hub has, a database that a newer
    /// PerfWatch made, a file that is no database.
    pub fn open(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&options.folder).map_err(|error| store_error(&options.folder, &error))?;
        let lock = lock(&options.folder)?;
        Self::open_with(options, clock, Some(lock))
    }

    /// Opens the database beside a hub that may be running on it, to change ordinary rows.
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; no database there.
    pub fn open_beside(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        match lock(&options.folder) {
            Ok(lock) => Self::open_with(options, clock, Some(lock)),
            Err(error) if !options.folder.join("history.db").exists() => Err(error),
            Err(_) => Self::open_with(options, clock, None),
        }
    }

    fn open_with(
        options: &SqliteOptions,
        clock: Arc<dyn Clock>,
        lock: Option<File>,
    ) -> Result<Self, StoreError> {
        let folder = &options.folder;
        let path = folder.join("history.db");
        file::restrict_permissions(folder).map_err(|error| store_error(folder, &error))?;
        let mut connection = Connection::open(&path).map_err(|error| store_error(folder, &error))?;
        prepare(&connection, options).map_err(|error| store_error(folder, &error))?;
        if lock.is_some() {
            // Under a hub that runs, its tables stay as they are.
            migrate(&mut connection).map_err(|error| store_error(folder, &error))?;
        }
        let sql = "SELECT coalesce(sum(length(payload)), 0) FROM head";
        let head_bytes = connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| store_error(folder, &error))?
            .cast_unsigned();
        let shared = Arc::new(SqliteInner {
            path,
            append_limit_pages: options.pages() - options.reserve_pages(),
            head_bytes: AtomicU64::new(head_bytes),
            max_head_bytes: options.reserve_pages() * PAGE_BYTES / 2,
            clock,
            shapes: ShapeCache::default(),
            readers: Mutex::default(),
            _lock: lock,
        });
        let (jobs, queue) = mpsc::channel(APPEND_QUEUE_CAPACITY);
        let writer = writer::Writer::new(connection, shared.clone(), options.wal_bytes());
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| store_error(folder, &error))?;
        Ok(Self { shared, jobs, slots: Semaphore::new(MAX_READERS), thread: Mutex::new(Some(thread)) })
    }

    /// Opens what is there to read it, beside a hub that may be running on it.
    ///
    /// # Errors
    /// No database there, or one that can't be read.
    pub fn open_to_read(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = folder.join("history.db");
        if !path.exists() {
            return Err(StoreError::Rejected(format!("there is no history in {}", folder.display())));
        }
        let shared = SqliteInner {
            path,
            append_limit_pages: 0,
            head_bytes: AtomicU64::new(0),
            max_head_bytes: 0,
            clock,
            shapes: ShapeCache::default(),
            readers: Mutex::default(),
            _lock: None,
        };
        shared.reader()?;
        // Nobody listens at the other end: writing is refused.
        let (jobs, _) = mpsc::channel(1);
        Ok(Self {
            shared: Arc::new(shared),
            jobs,
            slots: Semaphore::new(MAX_READERS),
            thread: Mutex::new(None),
        })
    }

    async fn send<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> WriterJob) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| store_closed())?;
        answer.await.map_err(|_| store_closed())
    }

    /// Runs on the writer's own connection, between commits.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let job = |reply: oneshot::Sender<rusqlite::Result<T>>| {
            WriterJob::Run(Box::new(move |connection| {
                // Nobody waits any more: the work is done all the same.
                let _ = reply.send(work(connection));
            }))
        };
        self.send(job).await?.map_err(unavailable)
    }

    /// Runs on a reader's connection, on a thread that may block.
    async fn query<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &SqliteInner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _slot = self.slots.acquire().await.map_err(|_| store_closed())?;
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = shared.reader()?;
            let result = work(&mut connection, &shared);
            shared.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        });
        task.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

impl Drop for SqliteStore {
    /// What was handed in is written before this returns.
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.jobs = closed;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl SqliteInner {
    fn reader(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(unavailable)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(unavailable)?;
        connection.execute_batch("PRAGMA cache_size=-8192; PRAGMA temp_store=MEMORY").map_err(unavailable)?;
        Ok(connection)
    }

    /// A shape, from memory or from the database.
    fn shape(&self, connection: &Connection, id: ShapeId) -> Result<Option<Arc<Shape>>, StoreError> {
        if let Some(shape) = self.shapes.get(id) {
            return Ok(Some(shape));
        }
        let columns: Option<Vec<u8>> = connection
            .prepare_cached("SELECT columns FROM shape WHERE id = ?1")
            .and_then(|mut statement| statement.query_row([id.0], |row| row.get(0)).optional())
            .map_err(unavailable)?;
        Ok(columns
            .and_then(|columns| wire::decode_shape(columns.into()).ok())
            .map(|shape| self.shapes.insert(Arc::new(shape))))
    }

    fn file_bytes(&self) -> u64 {
        let size = |suffix: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            std::fs::metadata(path).map(|meta| meta.len()).unwrap_or_default()
        };
        size("") + size("-wal") + size("-shm")
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(self.path.parent()?).ok()?;
        Some(stat.f_bavail * stat.f_frsize)
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

    fn read_head(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<HeadRow>, StoreError>> {
        Box::pin(self.query(move |connection, shared| read::head(connection, shared, after, most)))
    }

    fn is_head_over_limit(&self) -> bool {
        self.shared.head_bytes.load(Ordering::Relaxed) > self.shared.max_head_bytes / 2
    }

    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        let shared = self.shared.clone();
        Box::pin(self.write(move |connection| {
            let sql = "SELECT coalesce(sum(length(payload)), 0) FROM head WHERE hub = ?1 AND arrival < ?2";
            let gone: i64 =
                connection.prepare_cached(sql)?.query_row((LOCAL_HUB_ID, before), |row| row.get(0))?;
            connection
                .prepare_cached("DELETE FROM head WHERE hub = ?1 AND arrival < ?2")?
                .execute((LOCAL_HUB_ID, before))?;
            // Only the writer, on whose thread this is, changes it.
            let before = shared.head_bytes.load(Ordering::Relaxed);
            shared.head_bytes.store(before.saturating_sub(gone.cast_unsigned()), Ordering::Relaxed);
            Ok(())
        }))
    }

    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |connection| apply::put_host(connection, &host)))
    }

    fn list_hosts(&self) -> BoxFuture<'_, Result<Vec<HostRecord>, StoreError>> {
        Box::pin(self.query(|connection, _| read::hosts(connection).map_err(unavailable)))
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move { self.send(|reply| WriterJob::Commit(writes, reply)).await? })
    }

    fn query(
        &self,
        sql: &'static str,
        cells: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>> {
        Box::pin(self.query(move |connection, _| read::rows(connection, sql, &cells).map_err(unavailable)))
    }

    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>> {
        Box::pin(self.query(move |connection, shared| read::read_range(connection, shared, &query)))
    }

    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>> {
        Box::pin(
            self.query(move |connection, shared| {
                read::blocks(connection, shared, tier, host, from_ms, to_ms)
            }),
        )
    }

    fn oldest_blocks(
        &self,
        tier: Tier,
        before_ms: i64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<BlockInfo>, StoreError>> {
        Box::pin(self.query(move |connection, _| {
            read::oldest_blocks(connection, tier, before_ms, most).map_err(unavailable)
        }))
    }

    fn dirty_windows(
        &self,
        tier: Tier,
        before_ms: i64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<DirtyWindow>, StoreError>> {
        Box::pin(self.query(move |connection, _| {
            read::dirty_windows(connection, tier, before_ms, most).map_err(unavailable)
        }))
    }

    fn seal_watermarks(&self) -> BoxFuture<'_, Result<Vec<SealWatermark>, StoreError>> {
        Box::pin(self.query(|connection, _| read::seal_watermarks(connection).map_err(unavailable)))
    }

    fn sequence_ranges(&self) -> BoxFuture<'_, Result<Vec<SequenceRanges>, StoreError>> {
        Box::pin(self.query(|connection, _| read::sequence_ranges(connection).map_err(unavailable)))
    }

    fn retention_watermarks(&self) -> BoxFuture<'_, Result<RetentionWatermarks, StoreError>> {
        Box::pin(self.query(|connection, _| read::retention_watermarks(connection).map_err(unavailable)))
    }

    fn acquire_lease(&self, name: &'static str, for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        let now_ms = self.shared.clock.wall_ms();
        Box::pin(self.write(move |connection| {
            let taken = connection
                .prepare_cached(
                    "INSERT INTO lease (name, holder, until_ms) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE \
                     SET holder = excluded.holder, until_ms = excluded.until_ms \
                     WHERE lease.holder = excluded.holder OR lease.until_ms < ?4",
                )?
                .execute((name, LOCAL_HUB_ID, now_ms + for_ms, now_ms))?;
            Ok(taken > 0)
        }))
    }

    fn free_bytes(&self) -> Option<u64> {
        self.shared.free_bytes()
    }

    fn disk_usage(&self) -> BoxFuture<'_, Result<DiskUsage, StoreError>> {
        Box::pin(self.query(|connection, shared| read::usage(connection, shared).map_err(unavailable)))
    }

    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        let shared = self.shared.clone();
        Box::pin(self.write(move |connection| apply::vacuum(connection, &shared, before_ms)))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let to = to.to_owned();
        Box::pin(self.query(move |connection, _| read::backup(connection, &to)))
    }
}
