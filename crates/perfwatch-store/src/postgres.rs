//! PostgreSQL 15 or later: for sites that outgrow one machine. A task that appends (many calls
//! to a commit), a pool for the rest. Ticks have partitions by time.

mod append;
mod apply;
mod backup;
mod partitions;
mod read;
mod tls;

use crate::append::{APPEND_QUEUE_CAPACITY, Append, disk_budget_exhausted, store_closed};
use crate::shape_cache::ShapeCache;
use crate::sql::{SqlValue, value_from_postgres};
use crate::store::*;
use append::Appender;
use deadpool_postgres::{GenericClient, Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use perfwatch_model::{Clock, HostId, ShapeId, wire};
use perfwatch_tsdb::Tier;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

mod migrations {
    refinery::embed_migrations!("migrations/postgres");
}

const POOL_SIZE: usize = 8;
/// One who waits longer than this for a connection is told to come again.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);
/// Of the budget, in hundredths: use above this lets detail go, size above the second refuses.
/// What is between and above is for what deleted rows leave until a vacuum has passed.
const EVICT_ABOVE_PERCENT: u64 = 70;
const REJECT_ABOVE_PERCENT: u64 = 85;
/// Head rows and what was left by them take no more than this part of the budget.
const HEAD_BUDGET_FRACTION: u64 = 4;
/// What deleted rows left is made usable again when it is this part of the budget.
const DEAD_ROWS_BUDGET_FRACTION: u64 = 32;
/// Its own tables and indices take some MB; below this there is no room beside them.
const MIN_BUDGET: u64 = 64 << 20;
/// The oldest server this works on (PostgreSQL's own number).
const MIN_SERVER_VERSION: i32 = 150_000;
/// Names the lock under which migrations run; any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x7065_7266_7761_7463;

/// The adapter.
pub struct PostgresStore {
    shared: Arc<PostgresInner>,
    appends: mpsc::Sender<Append>,
}

pub(crate) struct PostgresInner {
    pool: Pool,
    hub: String,
    budget_bytes: u64,
    /// As of the last look, and what was written since: at most that much.
    disk_bytes: AtomicU64,
    clock: Arc<dyn Clock>,
    shapes: ShapeCache,
    /// Shapes that are in the database, and when that was noted.
    touched_shapes: Mutex<HashMap<ShapeId, Duration>>,
    /// Partitions that are there, by their times.
    partitions: Mutex<Vec<Range<i64>>>,
    /// Bytes of this hub's head rows, and of those that were deleted since the last vacuum.
    head_live_bytes: AtomicU64,
    head_dead_bytes: AtomicU64,
    /// Bytes of minutes' and hours' blocks that were dropped since their vacuum.
    block_dead_bytes: AtomicU64,
    /// Rows were deleted since the last vacuum.
    has_dead_rows: AtomicBool,
    last_vacuum: Mutex<Duration>,
}

pub(crate) fn unavailable(error: &tokio_postgres::Error) -> StoreError {
    // The server's own words where there are any; "db error" says nothing.
    let text = error.as_db_error().map_or_else(|| error_chain(error), |error| error.message().to_owned());
    StoreError::Unavailable(text)
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn table(tier: Tier) -> &'static str {
    match tier {
        Tier::Raw => "block_raw",
        Tier::Minute => "block_minute",
        Tier::Hour => "block_hour",
    }
}

impl PostgresStore {
    /// Connects, and brings the tables up to date.
    ///
    /// # Errors
    /// No server there or too old a one, tables that a newer PerfWatch made.
    pub async fn connect(
        url: &str,
        hub: String,
        budget_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        if budget_bytes < MIN_BUDGET {
            let message = format!("hub.disk_budget: at least {} MB with PostgreSQL", MIN_BUDGET >> 20);
            return Err(StoreError::Rejected(message));
        }
        let shared = Arc::new(PostgresInner::new(url, hub, budget_bytes, clock)?);
        migrate(&shared).await?;
        let sql = "SELECT coalesce(sum(length(payload)), 0)::bigint FROM head WHERE hub = $1";
        let client = shared.client().await?;
        let live: i64 =
            client.query_one(sql, &[&shared.hub]).await.map_err(|error| unavailable(&error))?.get(0);
        shared.head_live_bytes.store(live.cast_unsigned(), Ordering::Relaxed);
        drop(client);
        let (appends, queue) = mpsc::channel(APPEND_QUEUE_CAPACITY);
        tokio::spawn(Appender::new(shared.clone()).run(queue));
        Ok(Self { shared, appends })
    }

    /// Fills empty tables from a backup.
    ///
    /// # Errors
    /// There is history already, or the file is no backup.
    pub async fn restore(&self, from: &Path) -> Result<(), StoreError> {
        backup::restore(&self.shared, from).await
    }
}

impl PostgresInner {
    fn new(url: &str, hub: String, budget_bytes: u64, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let refuse = |error: &dyn std::fmt::Display| StoreError::Rejected(format!("hub.store: {error}"));
        let (mut config, connector) = tls::parse_url(url).map_err(|why| refuse(&why))?;
        config
            .application_name("perfwatch")
            .connect_timeout(POOL_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30));
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, connector, how);
        let pool = Pool::builder(manager)
            .max_size(POOL_SIZE)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(POOL_TIMEOUT))
            .create_timeout(Some(POOL_TIMEOUT))
            .build()
            .map_err(|error| refuse(&error))?;
        Ok(Self {
            pool,
            hub,
            budget_bytes,
            disk_bytes: AtomicU64::new(0),
            clock,
            shapes: ShapeCache::default(),
            touched_shapes: Mutex::default(),
            partitions: Mutex::default(),
            head_live_bytes: AtomicU64::new(0),
            head_dead_bytes: AtomicU64::new(0),
            block_dead_bytes: AtomicU64::new(0),
            has_dead_rows: AtomicBool::new(false),
            last_vacuum: Mutex::default(),
        })
    }

    async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| StoreError::Unavailable(error_chain(&error)))
    }

    /// What the head takes of the disk.
    fn head_bytes(&self) -> u64 {
        self.head_live_bytes.load(Ordering::Relaxed) + self.head_dead_bytes.load(Ordering::Relaxed)
    }

    /// Makes sure that these shapes are in memory, as far as the database has them.
    async fn learn_all(
        &self,
        client: &impl GenericClient,
        ids: impl Iterator<Item = ShapeId>,
    ) -> Result<(), tokio_postgres::Error> {
        let missing: HashSet<ShapeId> = ids.filter(|id| self.shapes.get(*id).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<Vec<u8>> = missing.iter().map(|id| id.0.to_vec()).collect();
        for row in client.query("SELECT columns FROM shape WHERE id = ANY($1)", &[&missing]).await? {
            let columns: Vec<u8> = row.get(0);
            if let Ok(shape) = wire::decode_shape(columns.into()) {
                self.shapes.insert(Arc::new(shape));
            }
        }
        Ok(())
    }
}

async fn migrate(shared: &PostgresInner) -> Result<(), StoreError> {
    let mut object = shared.client().await?;
    let client: &mut Client = &mut object;
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int4", &[])
        .await
        .map_err(|error| unavailable(&error))?
        .get(0);
    if version < MIN_SERVER_VERSION {
        return Err(StoreError::Rejected(format!(
            "PostgreSQL 15 or later is needed; this is {}",
            version / 10_000
        )));
    }
    // Hubs that start together wait for one another here.
    client
        .execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(|error| unavailable(&error))?;
    let done = migrate_locked(client).await;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(|error| unavailable(&error))?;
    done
}

async fn migrate_locked(client: &mut Client) -> Result<(), StoreError> {
    let newest =
        migrations::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
    let there = match client.query_opt("SELECT max(version) FROM refinery_schema_history", &[]).await {
        Ok(row) => row.and_then(|row| row.get::<_, Option<i32>>(0)),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        Err(error) => return Err(unavailable(&error)),
    };
    if there > newest {
        return Err(StoreError::Rejected(format!(
            "database schema version {} is newer than this PerfWatch supports ({}); upgrade PerfWatch",
            there.unwrap_or_default(),
            newest.unwrap_or_default()
        )));
    }
    let report = migrations::migrations::runner().run_async(client).await;
    report.map(|_| ()).map_err(|error| StoreError::Rejected(error.to_string()))
}

impl Store for PostgresStore {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn hub_id(&self) -> &str {
        &self.shared.hub
    }

    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async move {
            if self.shared.disk_bytes.load(Ordering::Relaxed)
                > self.shared.budget_bytes / 100 * REJECT_ABOVE_PERCENT
            {
                return Err(disk_budget_exhausted());
            }
            if self.shared.head_bytes() > self.shared.budget_bytes / HEAD_BUDGET_FRACTION {
                let message = "head is full; sealing in progress".to_owned();
                return Err(StoreError::Unavailable(message));
            }
            let (reply, answer) = oneshot::channel();
            self.appends.send(Append::new(&rows, reply)).await.map_err(|_| store_closed())?;
            answer.await.map_err(|_| store_closed())?
        })
    }

    fn read_head(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<HeadRow>, StoreError>> {
        Box::pin(read::head(&self.shared, after, most))
    }

    fn is_head_over_limit(&self) -> bool {
        self.shared.head_bytes() > self.shared.budget_bytes / HEAD_BUDGET_FRACTION / 2
    }

    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let client = self.shared.client().await?;
            apply::truncate_head(&self.shared, &client, before).await.map_err(|error| unavailable(&error))
        })
    }

    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let client = self.shared.client().await?;
            apply::put_host(&client, &host).await.map_err(|error| unavailable(&error))
        })
    }

    fn list_hosts(&self) -> BoxFuture<'_, Result<Vec<HostRecord>, StoreError>> {
        Box::pin(read::hosts(&self.shared))
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(apply::commit(&self.shared, writes))
    }

    fn query(
        &self,
        sql: &'static str,
        cells: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>> {
        Box::pin(async move {
            let client = self.shared.client().await?;
            let values: Vec<&(dyn ToSql + Sync)> = cells.iter().map(|cell| cell as _).collect();
            let rows = client.query(sql, &values).await.map_err(|error| unavailable(&error))?;
            Ok(rows
                .iter()
                .map(|row| (0..row.len()).map(|at| value_from_postgres(row, at)).collect())
                .collect())
        })
    }

    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>> {
        Box::pin(read::read_range(&self.shared, query))
    }

    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>> {
        Box::pin(read::blocks(&self.shared, tier, host, from_ms, to_ms))
    }

    fn oldest_blocks(
        &self,
        tier: Tier,
        before_ms: i64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<BlockInfo>, StoreError>> {
        Box::pin(read::oldest_blocks(&self.shared, tier, before_ms, most))
    }

    fn dirty_windows(
        &self,
        tier: Tier,
        before_ms: i64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<DirtyWindow>, StoreError>> {
        Box::pin(read::dirty_windows(&self.shared, tier, before_ms, most))
    }

    fn seal_watermarks(&self) -> BoxFuture<'_, Result<Vec<SealWatermark>, StoreError>> {
        Box::pin(read::seal_watermarks(&self.shared))
    }

    fn sequence_ranges(&self) -> BoxFuture<'_, Result<Vec<SequenceRanges>, StoreError>> {
        Box::pin(read::sequence_ranges(&self.shared))
    }

    fn retention_watermarks(&self) -> BoxFuture<'_, Result<RetentionWatermarks, StoreError>> {
        Box::pin(async move {
            let client = self.shared.client().await?;
            read::retention_watermarks(&client, "").await.map_err(|error| unavailable(&error))
        })
    }

    fn acquire_lease(&self, name: &'static str, for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let client = self.shared.client().await?;
            // By the server's clock, which all hubs share.
            let sql = "WITH now AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) \
                 INSERT INTO lease (name, holder, until_ms) SELECT $1, $2, now.ms + $3 FROM now \
                 ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms \
                 WHERE lease.holder = excluded.holder OR lease.until_ms < excluded.until_ms - $3";
            let taken = client.execute(sql, &[&name, &self.shared.hub, &for_ms]).await;
            Ok(taken.map_err(|error| unavailable(&error))? > 0)
        })
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn disk_usage(&self) -> BoxFuture<'_, Result<DiskUsage, StoreError>> {
        Box::pin(async move {
            let usage = read::usage(&self.shared).await?;
            self.shared.disk_bytes.store(usage.disk_bytes, Ordering::Relaxed);
            Ok(usage)
        })
    }

    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(apply::vacuum(&self.shared, before_ms))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let to = to.to_owned();
        Box::pin(async move { backup::backup(&self.shared, &to).await })
    }
}
