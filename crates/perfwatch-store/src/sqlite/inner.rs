//! State that the writer thread and the readers of a SQLite store share.

use crate::error::StoreError;
use crate::shape_cache::ShapeCache;
use crate::shape_use::ShapeUse;
use perfwatch_model::{Clock, Shape, ShapeId, wire};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Database file in the data directory.
pub(super) const FILE_NAME: &str = "history.db";
/// Page size in bytes; suits blobs of some 10 kB.
pub(super) const PAGE_BYTES: u64 = 8_192;
/// Maximum reserve of a small budget; suffices for sealing and roll-up of what a large fleet sends in a
/// minute.
const MAX_RESERVED_PAGES: u64 = (64 << 20) / PAGE_BYTES;
/// Id of the only hub that uses a SQLite store.
pub(super) const LOCAL_HUB_ID: &str = "local";
/// Maximum time that a statement waits for a lock of another process.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of a SQLite store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Data directory of the hub.
    pub folder: PathBuf,
    /// Disk budget in bytes: maximum size of the database file and its log together.
    pub budget_bytes: u64,
}

/// Sizes that follow from a disk budget in bytes.
#[derive(Clone, Copy)]
pub(super) struct BudgetSizes(pub(super) u64);

impl SqliteOptions {
    pub(super) fn sizes(&self) -> BudgetSizes {
        BudgetSizes(self.budget_bytes)
    }
}

impl BudgetSizes {
    /// Maximum size of the log between two checkpoints: a sixteenth of the budget, at most 16 MiB.
    pub(super) fn wal_bytes(self) -> u64 {
        (self.0 / 16).clamp(4 * PAGE_BYTES, 16 << 20)
    }

    /// Pages that sealing and roll-up may use after appends are rejected, because data can only be deleted
    /// after its roll-up. A larger share of a small budget.
    fn reserve_pages(self) -> u64 {
        let pages = self.pages();
        (pages / 16).max((pages / 4).min(MAX_RESERVED_PAGES))
    }

    /// Maximum size of the head: sealed rows must fit into the reserve.
    fn max_head_bytes(self) -> u64 {
        self.reserve_pages() * PAGE_BYTES / 2
    }

    pub(super) fn pages(self) -> u64 {
        (self.0.saturating_sub(2 * self.wal_bytes()) / PAGE_BYTES).max(64)
    }
}

pub(super) struct SqliteInner {
    pub(super) path: PathBuf,
    /// Number of used pages above which appends are rejected. The remaining pages are reserved for sealing
    /// and roll-up.
    pub(super) append_limit_pages: AtomicU64,
    /// Size of the head rows, and its limit: sealed rows must fit into the reserve.
    pub(super) head_bytes: AtomicU64,
    pub(super) max_head_bytes: AtomicU64,
    /// Maximum size of the database file.
    pub(super) max_pages: AtomicU64,
    /// True while appends are rejected because of the disk budget.
    pub(super) rejects_appends: AtomicBool,
    pub(super) shape_use: ShapeUse,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shapes: ShapeCache,
    /// Read connections that are idle.
    pub(super) readers: Mutex<Vec<Connection>>,
    /// Lock of the data directory; `None` for stores that are opened read-only or beside a running hub.
    pub(super) _lock: Option<File>,
}

#[expect(clippy::needless_pass_by_value, reason = "signature of map_err")]
pub(super) fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

pub(super) fn store_error(folder: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Rejected(format!("history in {}: {error}", folder.display()))
}

/// Error of a directory without a database. A command must not create one in a wrong directory.
pub(super) fn missing_database(folder: &Path) -> StoreError {
    let message = "no PerfWatch database; pass the data directory of the hub (--data, PERFWATCH_DATA), or \
        start the hub first";
    store_error(folder, &message)
}

/// Error of opening a database, with advice if the file is corrupt.
pub(super) fn open_error(folder: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => corrupt_error(folder, &error.to_string()),
        _ => store_error(folder, error),
    }
}

/// Adds advice to the message of a corrupt database.
pub(super) fn corrupt_error(folder: &Path, message: &str) -> StoreError {
    let is_corrupt = ["malformed", "not a database", "corrupt"].iter().any(|text| message.contains(text));
    if !is_corrupt {
        return store_error(folder, &message);
    }
    let path = folder.join(FILE_NAME);
    let path = path.display();
    store_error(
        folder,
        &format!(
            "the database is corrupt ({message}). Restore a backup: perfwatch restore FILE (the corrupt file \
             is renamed); recover the readable part: sqlite3 {path} .recover; or move {path}* away and start \
             with an empty database"
        ),
    )
}

impl SqliteInner {
    /// State of a database of these sizes; no rows may be appended without a budget.
    pub(super) fn new(path: PathBuf, budget: Option<BudgetSizes>, clock: Arc<dyn Clock>) -> Self {
        let inner = Self {
            path,
            append_limit_pages: AtomicU64::new(0),
            head_bytes: AtomicU64::new(0),
            max_head_bytes: AtomicU64::new(0),
            max_pages: AtomicU64::new(0),
            rejects_appends: AtomicBool::new(false),
            shape_use: ShapeUse::default(),
            clock,
            shapes: ShapeCache::default(),
            readers: Mutex::default(),
            _lock: None,
        };
        if let Some(budget) = budget {
            inner.set_budget(budget);
        }
        inner
    }

    /// Applies a disk budget to the rows that are appended from now on.
    pub(super) fn set_budget(&self, budget: BudgetSizes) {
        self.append_limit_pages.store(budget.pages() - budget.reserve_pages(), Ordering::Relaxed);
        self.max_head_bytes.store(budget.max_head_bytes(), Ordering::Relaxed);
        self.max_pages.store(budget.pages(), Ordering::Relaxed);
    }

    /// Maximum size of the head in bytes.
    pub(super) fn max_head_bytes(&self) -> u64 {
        self.max_head_bytes.load(Ordering::Relaxed)
    }

    /// An idle read connection, or a new connection.
    pub(super) fn reader(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(unavailable)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(unavailable)?;
        // Each commit of the writer invalidates the cache: it serves one read, and the kernel has the pages, too.
        connection.execute_batch("PRAGMA cache_size=-512; PRAGMA temp_store=MEMORY").map_err(unavailable)?;
        Ok(connection)
    }

    /// A shape from the cache or the database.
    pub(super) fn shape(
        &self,
        connection: &Connection,
        id: ShapeId,
    ) -> Result<Option<Arc<Shape>>, StoreError> {
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

    pub(super) fn file_bytes(&self) -> u64 {
        let size = |suffix: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            std::fs::metadata(path).map(|meta| meta.len()).unwrap_or_default()
        };
        size("") + size("-wal") + size("-shm")
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(self.path.parent()?).ok()?;
        Some(stat.f_bavail * stat.f_frsize)
    }
}
