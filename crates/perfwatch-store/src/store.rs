//! The storage port. Object-safe, so that the hub is compiled once for all engines.
//!
//! The store has three kinds of data. *Entities* (hosts, accounts, agents…) are ordinary rows. The *head* is
//! a log of accepted snapshots in the order of their arrival at a hub, many per commit. *Blocks* are sealed
//! columns of a host and tier. All changes except new hosts and head rows go through
//! [`Store::commit`], which applies a [`Transaction`] atomically.

use crate::error::{CommitError, StoreError};
use crate::hosts::HostRecord;
use crate::read_bounds::ReadBounds;
use crate::read_size::ReadSize;
use crate::sql::SqlValue;
use crate::task_lease::{LeasedTask, TaskLease};
use crate::transaction::Transaction;
use crate::write::BlockInfo;
use bytes::Bytes;
use perfwatch_model::{HostId, Snapshot};
use perfwatch_tsdb::plan::TierState;
use perfwatch_tsdb::{Buckets, FormatError, Projection, Table, Tier};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future. Its cost is small beside the statement it runs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Snapshot of a host.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    /// Host that sent the snapshot.
    pub host: HostId,
    /// Snapshot in decoded form.
    pub snapshot: Arc<Snapshot>,
    /// Its encoding in wire format, if it is at hand.
    pub encoded: Option<Bytes>,
}

/// A snapshot that is read back from the head after a start.
#[derive(Debug, Clone)]
pub struct HeadSnapshot {
    /// Number of the commit that contains the snapshot.
    pub arrival: i64,
    /// Snapshot with its host.
    pub row: SnapshotRow,
}

/// Read request for a time range of a host.
#[derive(Debug, Clone)]
pub struct Query {
    /// Host that is read.
    pub host: HostId,
    /// Requested tier. Where it has no data, the tiers that have data are read.
    pub tier: Tier,
    /// Start of the range, Unix milliseconds, inclusive.
    pub from_ms: i64,
    /// End of the range, Unix milliseconds, exclusive.
    pub to_ms: i64,
    /// Series and parts to read.
    pub projection: Arc<Projection>,
    /// Limits of the read.
    pub bounds: ReadBounds,
}

/// Decoded rows of a block.
#[derive(Debug, Clone)]
pub enum BlockContent {
    /// Rows of the raw tier.
    Raw(Table),
    /// Buckets of a roll-up tier.
    Buckets(Buckets),
}

/// Part of a query result that comes from one block.
#[derive(Debug, Clone)]
pub struct BlockSlice {
    /// Block that was read.
    pub block: BlockInfo,
    /// Start of the segment the block was read for. Rows outside of the segment belong to other slices.
    pub from_ms: i64,
    /// End of the segment, exclusive.
    pub to_ms: i64,
    /// Decoded rows, or the reason for which the block is unreadable.
    pub content: Result<BlockContent, FormatError>,
}

/// Result of a query, consistent as of a single point in time.
#[derive(Debug, Clone, Default)]
pub struct QueryResult {
    /// Tier that was read for each segment of the range.
    pub plan: Vec<perfwatch_tsdb::plan::PlanSegment>,
    /// Slices in the order of time.
    pub slices: Vec<BlockSlice>,
    /// Watermarks and dirty windows of the host at the time of the read.
    pub state: TierState,
    /// Size of the slices, or the estimate of a measurement.
    pub size: ReadSize,
}

/// Disk space of a store in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Files, or relations with their indexes; compared with the disk budget.
    pub disk_bytes: u64,
    /// Bytes of `disk_bytes` that are in use. The remaining bytes are reused before the files grow.
    pub used_bytes: u64,
    /// Value of `used_bytes` that history should not exceed; retention deletes detail close to it. SQLite
    /// rejects appends above it, PostgreSQL above a higher share of the budget.
    pub target_bytes: u64,
    /// Size of the blocks by tier.
    pub tier_bytes: [u64; 3],
    /// Size of the head rows.
    pub head_bytes: u64,
}

/// Durable storage of the hub.
pub trait Store: Send + Sync {
    /// Name of the engine: `sqlite` or `postgres`.
    fn backend(&self) -> &'static str;

    /// Identifies this hub among the hubs that share the store; stable across restarts.
    fn hub_id(&self) -> &str;

    /// Appends rows to this hub's head atomically. Rows survive a crash once the call returns. Concurrent
    /// calls share a commit, whose arrival number is returned.
    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>>;
    /// Reads about `limit` of this hub's head rows after an arrival number, in order; empty at the end.
    fn read_head(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<HeadSnapshot>, StoreError>>;
    /// Returns whether the head is so large that rows should be sealed before they are due.
    fn is_head_over_limit(&self) -> bool;
    /// Size of this hub's head above which appends are rejected.
    fn max_head_bytes(&self) -> u64 {
        u64::MAX
    }
    /// Error with which an append would be rejected because of the disk budget, if it would be.
    fn append_rejection(&self) -> Option<StoreError> {
        None
    }
    /// Smallest disk budget that the engine can keep to.
    fn min_budget_bytes(&self) -> u64;
    /// Replaces the disk budget. If more is in use, it takes effect as data is deleted.
    fn set_budget(&self, bytes: u64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Deletes this hub's head rows with a lower arrival number.
    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Adds a host, or updates its name and facts.
    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Applies all writes of a transaction atomically.
    fn commit(&self, tx: Transaction) -> BoxFuture<'_, Result<(), CommitError>>;

    /// Reads rows with a statement that both engines understand, see [`SqlValue`].
    fn query(
        &self,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>>;

    /// Reads a time range of a host, consistent as of a single point in time, or only measures it; within
    /// the bounds of the query.
    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>>;
    /// Reads all blocks of a host and tier that have rows in a range, with all parts.
    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>>;

    /// Renews the leases of this hub, and acquires those that no other hub holds. Called every
    /// [`RENEWAL_INTERVAL`](crate::RENEWAL_INTERVAL).
    fn renew_leases(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Lease of a task, while this hub holds it; does not wait.
    fn lease(&self, task: LeasedTask) -> Option<TaskLease>;
    /// Releases all leases of this hub, so that other hubs acquire them at their next renewal.
    fn release_leases(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Free space of the file system if the store has its own files; does not wait.
    fn free_bytes(&self) -> Option<u64>;
    /// Measures the disk space of the store. The sizes of the tiers are measured, too, unless they are given: that
    /// reads the sizes of all blocks.
    fn disk_usage(&self, tier_bytes: Option<[u64; 3]>) -> BoxFuture<'_, Result<DiskUsage, StoreError>>;
    /// Makes freed space reusable, in steps that block no other call. Deletes the shapes that neither a block
    /// nor a head row uses, and sequence numbers that were not used since `before_ms`.
    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Writes a consistent copy of the store into a new SQLite file.
    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>>;
}
