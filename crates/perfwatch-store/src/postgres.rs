//! PostgreSQL store (version 15 or later), for installations that outgrow one machine.
//!
//! One task appends with group commit; all other calls use a connection pool. Raw blocks are in time
//! partitions.

mod append;
mod apply;
mod backup;
mod error;
mod inner;
mod leases;
mod migrate;
mod partitions;
mod read;
mod replica;
mod shapes;
mod statements;

use crate::append::{APPEND_QUEUE_CAPACITY, Append, disk_budget_exhausted, store_closed};
use crate::error::{CommitError, StoreError};
use crate::hosts::HostRecord;
use crate::schema_versions::SchemaVersions;
use crate::sql::{SqlValue, value_from_postgres};
use crate::store::*;
use crate::task_lease::{LeasedTask, TaskLease};
use crate::transaction::Transaction;
use append::Appender;
use inner::{MIN_BUDGET_BYTES, PostgresInner};
use perfwatch_model::{Clock, HostId};
use perfwatch_tsdb::Tier;
use replica::Replica;
use statements::{Parameter, Statements as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};

/// [`Store`] on a PostgreSQL database.
pub struct PostgresStore {
    inner: Arc<PostgresInner>,
    appends: mpsc::Sender<Append>,
    replica: Option<Replica>,
}

impl PostgresStore {
    /// Connects and runs pending migrations.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the server cannot be reached or is too old, if the budget is too small, or
    /// if the schema is newer than this version supports.
    pub async fn connect(
        url: &str,
        hub: String,
        budget_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        if budget_bytes < MIN_BUDGET_BYTES {
            let message = format!("hub.disk_budget: at least {} MB with PostgreSQL", MIN_BUDGET_BYTES >> 20);
            return Err(StoreError::Rejected(message));
        }
        let inner = Arc::new(PostgresInner::new(url, hub, budget_bytes, clock)?);
        Self::start(inner).await
    }

    /// Connects to a database that a hub has already used.
    ///
    /// # Errors
    /// Returns a [`StoreError`] as [`PostgresStore::connect`] does, and if the database has no tables.
    pub async fn connect_existing(
        url: &str,
        hub: String,
        budget_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let inner = Arc::new(PostgresInner::new(url, hub, budget_bytes.max(MIN_BUDGET_BYTES), clock)?);
        let client = inner.client().await?;
        let sql = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
        let has_tables: bool = client.fetch_one(sql, &[]).await?.get(0);
        drop(client);
        if !has_tables {
            let message = "the database has no PerfWatch tables; check the name of the database (--store, \
                PERFWATCH_HUB_STORE), or start the hub first";
            return Err(StoreError::Rejected(message.to_owned()));
        }
        Self::start(inner).await
    }

    /// Reads the versions of the tables; changes nothing.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the server cannot be reached or is too old, or if the address is invalid.
    pub async fn schema_versions(url: &str, clock: Arc<dyn Clock>) -> Result<SchemaVersions, StoreError> {
        let inner = PostgresInner::new(url, String::new(), MIN_BUDGET_BYTES, clock)?;
        let client = inner.client().await?;
        migrate::check_server(&client).await?;
        migrate::schema_versions(&client).await
    }

    async fn start(inner: Arc<PostgresInner>) -> Result<Self, StoreError> {
        migrate::migrate(&inner).await?;
        let sql = "SELECT coalesce(sum(length(payload)), 0)::bigint FROM head WHERE hub = $1";
        let client = inner.client().await?;
        let live: i64 = client.fetch_one(sql, &[&inner.hub]).await?.get(0);
        inner.head_live_bytes.store(live.cast_unsigned(), Ordering::Relaxed);
        shapes::load_head_shapes(&inner, &client).await?;
        drop(client);
        let (appends, queue) = mpsc::channel(APPEND_QUEUE_CAPACITY);
        tokio::spawn(Appender::new(inner.clone()).run(queue));
        Ok(Self { inner, appends, replica: None })
    }

    /// Reads ranges of history on a streaming replica of the database whenever it has all rows of the primary.
    /// Connects with the first read.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the URL is invalid.
    pub fn with_replica(self, url: &str) -> Result<Self, StoreError> {
        Ok(Self { replica: Some(Replica::new(url)?), ..self })
    }

    /// Fills an empty database from a backup.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database has data, or if the file is not a backup.
    pub async fn restore(&self, from: &Path) -> Result<(), StoreError> {
        backup::restore(&self.inner, from).await
    }
}

impl Store for PostgresStore {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn hub_id(&self) -> &str {
        &self.inner.hub
    }

    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async move {
            if self.inner.is_over_budget() {
                return Err(disk_budget_exhausted());
            }
            if self.inner.head_bytes() > self.inner.max_head_bytes() {
                let message = "head is full; sealing in progress".to_owned();
                return Err(StoreError::Unavailable(message));
            }
            let (reply, response) = oneshot::channel();
            self.appends.send(Append::new(&rows, reply)).await.map_err(|_| store_closed())?;
            response.await.map_err(|_| store_closed())?
        })
    }

    fn read_head(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<HeadSnapshot>, StoreError>> {
        Box::pin(read::head(&self.inner, after, limit))
    }

    fn is_head_over_limit(&self) -> bool {
        self.inner.head_bytes() > self.inner.max_head_bytes() / 2
    }

    fn append_rejection(&self) -> Option<StoreError> {
        self.inner.is_over_budget().then(disk_budget_exhausted)
    }

    fn max_head_bytes(&self) -> u64 {
        self.inner.max_head_bytes()
    }

    fn min_budget_bytes(&self) -> u64 {
        MIN_BUDGET_BYTES
    }

    fn set_budget(&self, bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.set_budget(bytes);
        Box::pin(std::future::ready(Ok(())))
    }

    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let client = self.inner.client().await?;
            apply::truncate_head(&self.inner, &client, before).await?;
            Ok(shapes::release_head_shapes(&self.inner, &client, before).await?)
        })
    }

    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let client = self.inner.client().await?;
            Ok(apply::upsert_host(&client, &host).await?)
        })
    }

    fn commit(&self, tx: Transaction) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(apply::commit(&self.inner, tx.into_changes()))
    }

    fn query(
        &self,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>> {
        Box::pin(async move {
            let client = self.inner.client().await?;
            let values: Vec<&dyn Parameter> = values.iter().map(|value| value as _).collect();
            let rows = client.fetch_all(sql, &values).await?;
            Ok(rows
                .iter()
                .map(|row| (0..row.len()).map(|column| value_from_postgres(row, column)).collect())
                .collect())
        })
    }

    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>> {
        Box::pin(async move {
            match &self.replica {
                Some(replica) => replica.read_range(&self.inner, &query).await,
                None => read::read_range(&self.inner, &query).await,
            }
        })
    }

    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>> {
        Box::pin(read::blocks(&self.inner, tier, host, from_ms, to_ms))
    }

    fn renew_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(leases::renew(&self.inner))
    }

    fn lease(&self, task: LeasedTask) -> Option<TaskLease> {
        self.inner.leases.get(task, self.inner.clock.monotonic())
    }

    fn release_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(leases::release(&self.inner))
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn disk_usage(&self, tier_bytes: Option<[u64; 3]>) -> BoxFuture<'_, Result<DiskUsage, StoreError>> {
        Box::pin(async move {
            let usage = read::usage(&self.inner, tier_bytes).await?;
            self.inner.disk_bytes.store(usage.disk_bytes, Ordering::Relaxed);
            Ok(usage)
        })
    }

    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(apply::vacuum(&self.inner, before_ms))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let to = to.to_owned();
        Box::pin(async move { backup::backup(&self.inner, &to).await })
    }
}
