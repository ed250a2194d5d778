//! State that the tasks of a PostgreSQL store share: connection pool, caches and counters of disk space.

use super::statements::Statements as _;
use crate::error::StoreError;
use crate::shape_cache::ShapeCache;
use crate::shape_use::ShapeUse;
use crate::task_lease::HeldLeases;
use deadpool_postgres::{Object, Pool};
use perfwatch_model::{Clock, ShapeId, wire};
use perfwatch_postgres::{connection_error, connection_pool};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

/// Minimum disk budget. Empty tables and indexes already take some MB.
pub(super) const MIN_BUDGET_BYTES: u64 = 64 << 20;
/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Share of the budget that history should use, percent: the base of the eviction thresholds of
/// retention. The rest is for space of deleted rows until a vacuum.
pub(super) const TARGET_USE_PERCENT: u64 = 70;
/// Size in percent of the budget above which appends are rejected.
pub(super) const REJECT_ABOVE_PERCENT: u64 = 85;

pub(super) struct PostgresInner {
    pub(super) pool: Pool,
    pub(super) hub: String,
    /// Holder of leases: a process. A hub that starts again does not continue the tasks of the process before.
    pub(super) lease_holder: String,
    pub(super) leases: HeldLeases,
    budget_bytes: AtomicU64,
    /// Size at the last measurement plus the bytes written since; an upper bound.
    pub(super) disk_bytes: AtomicU64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shapes: ShapeCache,
    pub(super) shape_use: ShapeUse,
    /// Held while shapes are added to or deleted from `head_shape` of this hub.
    pub(super) head_shapes_lock: tokio::sync::Mutex<()>,
    /// Time ranges of the existing partitions, Unix milliseconds.
    pub(super) partitions: Mutex<Vec<Range<i64>>>,
    /// Size of this hub's head rows.
    pub(super) head_live_bytes: AtomicU64,
    /// Size of head rows that were deleted since the last vacuum.
    pub(super) head_dead_bytes: AtomicU64,
    /// Size of minute and hour blocks that were deleted since the last vacuum.
    pub(super) block_dead_bytes: AtomicU64,
    /// True if rows were deleted since the last vacuum.
    pub(super) has_dead_rows: AtomicBool,
    /// True if blocks of a single host were deleted, whose partitions are not dropped.
    pub(super) compaction_due: AtomicBool,
    pub(super) last_vacuum: Mutex<Duration>,
}

impl PostgresInner {
    pub(super) fn new(
        url: &str,
        hub: String,
        budget_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let pool = connection_pool(url, CONNECT_TIMEOUT)
            .map_err(|error| StoreError::Rejected(format!("hub.store: {error}")))?;
        Ok(Self {
            pool,
            lease_holder: format!("{hub} {}", Uuid::now_v7()),
            leases: HeldLeases::default(),
            hub,
            budget_bytes: AtomicU64::new(budget_bytes),
            disk_bytes: AtomicU64::new(0),
            clock,
            shapes: ShapeCache::default(),
            shape_use: ShapeUse::default(),
            head_shapes_lock: tokio::sync::Mutex::default(),
            partitions: Mutex::default(),
            head_live_bytes: AtomicU64::new(0),
            head_dead_bytes: AtomicU64::new(0),
            block_dead_bytes: AtomicU64::new(0),
            has_dead_rows: AtomicBool::new(false),
            compaction_due: AtomicBool::new(false),
            last_vacuum: Mutex::default(),
        })
    }

    pub(super) async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| StoreError::Unavailable(connection_error(&error)))
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_budget(&self, bytes: u64) {
        self.budget_bytes.store(bytes.max(MIN_BUDGET_BYTES), Ordering::Relaxed);
    }

    /// Returns whether the disk budget has no space for appends.
    pub(super) fn is_over_budget(&self) -> bool {
        self.disk_bytes.load(Ordering::Relaxed) > self.budget_bytes() / 100 * REJECT_ABOVE_PERCENT
    }

    /// Maximum disk space of the head: a quarter of the budget.
    pub(super) fn max_head_bytes(&self) -> u64 {
        self.budget_bytes() / 4
    }

    /// Maximum space of deleted rows before it is vacuumed: a 32nd of the budget.
    pub(super) fn max_dead_bytes(&self) -> u64 {
        self.budget_bytes() / 32
    }

    /// Disk space of the head: live rows, and deleted rows until the next vacuum.
    pub(super) fn head_bytes(&self) -> u64 {
        self.head_live_bytes.load(Ordering::Relaxed) + self.head_dead_bytes.load(Ordering::Relaxed)
    }

    /// Loads missing shapes from the database into the cache.
    pub(super) async fn load_shapes(
        &self,
        client: &Client,
        ids: impl Iterator<Item = ShapeId>,
    ) -> Result<(), Error> {
        let missing: HashSet<ShapeId> = ids.filter(|id| self.shapes.get(*id).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<Vec<u8>> = missing.iter().map(|id| id.0.to_vec()).collect();
        for row in client.fetch_all("SELECT columns FROM shape WHERE id = ANY($1)", &[&missing]).await? {
            let columns: Vec<u8> = row.get(0);
            if let Ok(shape) = wire::decode_shape(columns.into()) {
                self.shapes.insert(Arc::new(shape));
            }
        }
        Ok(())
    }
}
