//! Store adapter for paused Tokio time.

use perfwatch_model::HostId;
use perfwatch_store::{
    BlockSlice, BoxFuture, CommitError, DiskUsage, HeadSnapshot, HostRecord, LeasedTask, Query, QueryResult,
    SnapshotRow, SqlValue, SqliteStore, Store, StoreError, TaskLease, Transaction,
};
use perfwatch_tsdb::Tier;
use std::path::Path;

/// SQLite store whose writes keep paused Tokio time from advancing.
///
/// Paused time advances as soon as all tasks are idle. A task that waits for the writer thread of the store
/// counts as idle, but a blocking task does not: each write is accompanied by a blocking task.
pub(super) struct PausedStore(pub(super) SqliteStore);

/// Runs a call of the store together with a blocking task that lasts as long.
fn hold_time<T: Send + 'static>(call: BoxFuture<'_, T>) -> BoxFuture<'_, T> {
    Box::pin(async move {
        let (done_tx, done_rx) = std::sync::mpsc::channel::<()>();
        // The receiver returns as soon as the sender is dropped.
        let blocker = tokio::task::spawn_blocking(move || done_rx.recv().is_err());
        let result = call.await;
        drop(done_tx);
        assert!(blocker.await.unwrap());
        result
    })
}

impl Store for PausedStore {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn hub_id(&self) -> &str {
        self.0.hub_id()
    }

    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>> {
        hold_time(self.0.append(rows))
    }

    fn read_head(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<HeadSnapshot>, StoreError>> {
        self.0.read_head(after, limit)
    }

    fn is_head_over_limit(&self) -> bool {
        self.0.is_head_over_limit()
    }

    fn min_budget_bytes(&self) -> u64 {
        self.0.min_budget_bytes()
    }

    fn set_budget(&self, bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        hold_time(self.0.set_budget(bytes))
    }

    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        hold_time(self.0.truncate_head(before))
    }

    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        hold_time(self.0.upsert_host(host))
    }

    fn commit(&self, tx: Transaction) -> BoxFuture<'_, Result<(), CommitError>> {
        hold_time(self.0.commit(tx))
    }

    fn query(
        &self,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>> {
        self.0.query(sql, values)
    }

    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>> {
        self.0.read_range(query)
    }

    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>> {
        self.0.read_blocks(tier, host, from_ms, to_ms)
    }

    fn renew_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        hold_time(self.0.renew_leases())
    }

    fn lease(&self, task: LeasedTask) -> Option<TaskLease> {
        self.0.lease(task)
    }

    fn release_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        hold_time(self.0.release_leases())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.0.free_bytes()
    }

    fn disk_usage(&self, tier_bytes: Option<[u64; 3]>) -> BoxFuture<'_, Result<DiskUsage, StoreError>> {
        self.0.disk_usage(tier_bytes)
    }

    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        hold_time(self.0.vacuum(before_ms))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.backup(to)
    }
}
