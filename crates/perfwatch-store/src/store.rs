//! The storage port. Object-safe, so that the hub is compiled once for all engines.
//!
//! The store has three kinds of data. *Entities* (hosts, accounts, agents…) are ordinary rows. The *head* is
//! a log of accepted snapshots in the order of their arrival at a hub, many per commit. *Blocks* are sealed
//! columns of a host and tier. All changes except new head rows go through [`Store::commit`], which applies a
//! list of writes atomically.

use crate::error::{CommitError, StoreError};
use crate::range_set::RangeSet;
use crate::sql::{SqlStatement, SqlValue};
use perfwatch_model::Shape;
use perfwatch_model::{BootId, HostFacts, HostId, Snapshot};
use perfwatch_tsdb::plan::TierState;
use perfwatch_tsdb::{Block, Buckets, FormatError, Projection, Table, Tier};
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
}

/// A snapshot that is read back from the head after a start.
#[derive(Debug, Clone)]
pub struct HeadRow {
    /// Number of the commit that contains the snapshot.
    pub arrival: i64,
    /// Snapshot with its host.
    pub row: SnapshotRow,
}

/// Host as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRecord {
    /// Stable identifier of the host.
    pub id: HostId,
    /// Display name of the host.
    pub name: String,
    /// Facts of the newest snapshot that contained them.
    pub facts: Option<Arc<HostFacts>>,
    /// Time of the first snapshot, Unix milliseconds.
    pub first_seen_ms: i64,
    /// Time of the newest sealed snapshot, Unix milliseconds.
    pub last_snapshot_ms: Option<i64>,
    /// Collection interval in milliseconds.
    pub interval_ms: u32,
}

impl HostRecord {
    /// Deletes the host. Its history stays until retention deletes it.
    pub fn delete(id: HostId) -> SqlStatement {
        SqlStatement::new("DELETE FROM host WHERE id = $1", [id.0.into()]).require_row()
    }
}

/// Number of a block, unique within its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub i64);

/// Metadata of a block. Host, first time and id are its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// Number of the block.
    pub id: BlockId,
    /// Tier the block belongs to.
    pub tier: Tier,
    /// Host whose rows the block contains.
    pub host: HostId,
    /// Time of the first row, or start of the first bucket; Unix milliseconds.
    pub first_ms: i64,
    /// Time of the last row, or start of the last bucket; Unix milliseconds.
    pub last_ms: i64,
    /// Encoded size in bytes.
    pub bytes: u64,
}

/// A window that received rows after its last roll-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyWindow {
    /// Tier that received the rows.
    pub tier: Tier,
    /// Host of the rows.
    pub host: HostId,
    /// Start of the window ([`Tier::window_ms`]), Unix milliseconds.
    pub window_ms: i64,
    /// Changes with every mark, so that clearing an old mark does not clear a newer mark.
    pub stamp: i64,
}

/// Highest arrival of a host in a hub's head that is already sealed into a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealWatermark {
    /// Host of the sealed rows.
    pub host: HostId,
    /// Arrival number; rows of this commit and of earlier commits are sealed.
    pub arrival: i64,
}

/// Sequence numbers of a boot of a host that were accepted and sealed.
#[derive(Debug, Clone)]
pub struct SequenceRanges {
    /// Host that sent the snapshots.
    pub host: HostId,
    /// Boot the sequence numbers belong to.
    pub boot: BootId,
    /// Sequence numbers that were accepted.
    pub seqs: RangeSet,
    /// Time of the newest snapshot, Unix milliseconds.
    pub newest_ms: i64,
}

/// Per tier, the time before which rows have been deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionWatermarks {
    /// Unix milliseconds by [`Tier::id`]: raw, minute, hour.
    pub ms: [i64; 3],
}

/// One change of a commit.
#[derive(Debug, Clone)]
pub enum Write {
    /// Updates the time of the host's newest snapshot and its collection interval, both in milliseconds.
    HostSeen(HostId, i64, u32),
    /// Adds a block, and its shape if it is new.
    PutBlock(Tier, HostId, Arc<Shape>, Block),
    /// Deletes a block; a [`CommitError::Conflict`] if it was deleted already.
    DropBlock(BlockInfo),
    /// Marks head rows as sealed; a [`CommitError::Conflict`] if they are marked already, because the
    /// response to the first commit was lost.
    AdvanceSeal(SealWatermark),
    /// Merges accepted sequence numbers into the stored ranges.
    RecordSequences(SequenceRanges),
    /// Marks the window that begins at this time as dirty.
    MarkDirty(Tier, HostId, i64),
    /// Clears the mark of a window that was rolled up; a [`CommitError::Conflict`] if the window received
    /// more rows since, or was rolled up by another hub.
    ClearDirty(DirtyWindow),
    /// A [`CommitError::Conflict`] unless the retention watermarks have these values.
    ExpectWatermarks(RetentionWatermarks),
    /// Advances a retention watermark; a [`CommitError::Conflict`] while a window that begins before it has
    /// rows that are not rolled up.
    AdvanceWatermark(Tier, i64),
    /// Statement on an entity; a [`CommitError::Conflict`] if it violates a unique key, or if it requires a
    /// row and affects none.
    Sql(SqlStatement),
}

impl From<SqlStatement> for Write {
    fn from(statement: SqlStatement) -> Self {
        Self::Sql(statement)
    }
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
}

/// Disk space of a store in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Files, or relations with their indexes; compared with the disk budget.
    pub disk_bytes: u64,
    /// Bytes of `disk_bytes` that are in use. The remaining bytes are reused before the files grow.
    pub used_bytes: u64,
    /// Limit of `used_bytes` above which appends are rejected, so that the budget holds.
    pub append_limit_bytes: u64,
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
    fn read_head(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<HeadRow>, StoreError>>;
    /// Returns whether the head is so large that rows should be sealed before they are due.
    fn is_head_over_limit(&self) -> bool;
    /// Deletes this hub's head rows with a lower arrival number.
    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Adds a host, or updates its name and facts.
    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Lists all hosts by id.
    fn list_hosts(&self) -> BoxFuture<'_, Result<Vec<HostRecord>, StoreError>>;

    /// Applies all writes atomically.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), CommitError>>;

    /// Reads rows with a statement that both engines understand, see [`SqlStatement`].
    fn query(
        &self,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>>;

    /// Reads a time range of a host, consistent as of a single point in time.
    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>>;
    /// Reads all blocks of a host and tier that have rows in a range, with all parts.
    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>>;
    /// Lists blocks that end before a time, oldest first.
    fn oldest_blocks(
        &self,
        tier: Tier,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlockInfo>, StoreError>>;

    /// Lists windows to roll up that begin before a time, oldest first.
    fn dirty_windows(
        &self,
        tier: Tier,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DirtyWindow>, StoreError>>;
    /// Lists the seal watermarks of this hub's head.
    fn seal_watermarks(&self) -> BoxFuture<'_, Result<Vec<SealWatermark>, StoreError>>;
    /// Lists the accepted and sealed sequence numbers of all hosts.
    fn sequence_ranges(&self) -> BoxFuture<'_, Result<Vec<SequenceRanges>, StoreError>>;
    /// Reads the retention watermarks of all tiers.
    fn retention_watermarks(&self) -> BoxFuture<'_, Result<RetentionWatermarks, StoreError>>;

    /// Acquires or renews a lease for this hub; false while another hub holds it.
    fn acquire_lease(&self, name: &'static str, for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Free space of the file system if the store has its own files; does not wait.
    fn free_bytes(&self) -> Option<u64>;
    /// Measures the disk space of the store.
    fn disk_usage(&self) -> BoxFuture<'_, Result<DiskUsage, StoreError>>;
    /// Makes freed space reusable, in steps that block no other call. Deletes shapes and sequence numbers
    /// that were not used since `before_ms`.
    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Writes a consistent copy of the store into a new SQLite file.
    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>>;
}
