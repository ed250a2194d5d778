//! The port: object-safe, so that the hub is compiled once whatever stands behind it.
//!
//! Three kinds of things are kept. *Relational nouns* (hosts, accounts, agents). The *head*: a log of accepted
//! snapshots in the order of their arrival at one hub, many to a commit. *Blocks*: sealed
//! columns of one host and tier. All changes but new head rows go through [`Store::commit`],
//! which does a list of writes at once or none of them.

use crate::sql::{SqlStatement, SqlValue};
use perfwatch_model::Shape;
use perfwatch_model::{BootId, HostFacts, HostId, Snapshot};
use perfwatch_tsdb::plan::TierState;
use perfwatch_tsdb::{Block, Buckets, FormatError, Projection, Table, Tier};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future: nothing beside the statement it stands for.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One snapshot of one host.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    /// Whose.
    pub host: HostId,
    /// What.
    pub snapshot: Arc<Snapshot>,
}

/// A head row as it comes back at start.
#[derive(Debug, Clone)]
pub struct HeadRow {
    /// Number of the commit it arrived with.
    pub arrival: i64,
    /// The row.
    pub row: SnapshotRow,
}

/// A host as it is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRecord {
    /// Its identity.
    pub id: HostId,
    /// What people call it.
    pub name: String,
    /// What changes rarely about it.
    pub facts: Option<Arc<HostFacts>>,
    /// When the hub first heard of it, milliseconds since 1970.
    pub first_seen_ms: i64,
    /// Time of its newest sealed snapshot.
    pub last_at_ms: Option<i64>,
    /// How often it sent, milliseconds.
    pub interval_ms: u32,
}

impl HostRecord {
    /// Forgotten; what it sent stays until retention lets it go.
    pub fn delete(id: HostId) -> SqlStatement {
        SqlStatement::new("DELETE FROM host WHERE id = $1", [id.0.into()]).require_row()
    }
}

/// Why a store could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// May succeed later (no space, no connection): nothing was kept of the call.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Will not succeed until somebody acts.
    #[error("{0}")]
    Rejected(String),
}

/// Why a commit was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// What it builds on changed meanwhile: read again and try again.
    #[error("conflicting change")]
    Conflict,
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A block's name within its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub i64);

/// What is known of a block without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its name.
    pub id: BlockId,
    /// Its tier.
    pub tier: Tier,
    /// Whose.
    pub host: HostId,
    /// First row, or start of the first bucket.
    pub first_ms: i64,
    /// Last row, or start of the last bucket.
    pub last_ms: i64,
    /// Its size.
    pub bytes: u64,
}

/// A window that took in rows since it was rolled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyWindow {
    /// The tier that took them in.
    pub tier: Tier,
    /// Whose.
    pub host: HostId,
    /// Start of the window ([`Tier::window_ms`]).
    pub window_ms: i64,
    /// Changes with every mark: clearing an old one leaves a newer mark alone.
    pub stamp: i64,
}

/// Up to where a hub's head rows of a host are in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealWatermark {
    /// Whose.
    pub host: HostId,
    /// Rows that arrived with this commit or before.
    pub arrival: i64,
}

/// Which ticks of one boot were taken in.
#[derive(Debug, Clone)]
pub struct SequenceRanges {
    /// Whose.
    pub host: HostId,
    /// Which boot.
    pub boot: BootId,
    /// Their numbers.
    pub seqs: crate::RangeSet,
    /// Time of the newest, milliseconds since 1970.
    pub newest_ms: i64,
}

/// Before these times, a tier has let go of its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionWatermarks {
    /// Of ticks, minutes and hours, by [`Tier::number`].
    pub ms: [i64; 3],
}

/// One change.
#[derive(Debug, Clone)]
pub enum Write {
    /// The host's newest snapshot and rhythm.
    HostSeen(HostId, i64, u32),
    /// A new block, and what its columns are.
    PutBlock(Tier, HostId, Arc<Shape>, Block),
    /// A block goes; a [`CommitError::Conflict`] if it went already.
    DropBlock(BlockInfo),
    /// Head rows up to here are in blocks; a [`CommitError::Conflict`] where they are already: the
    /// answer to the commit that did it was lost.
    AdvanceSeal(SealWatermark),
    /// Ticks that were taken in, together with those that are known.
    RecordSequences(SequenceRanges),
    /// The window took in rows.
    MarkDirty(Tier, HostId, i64),
    /// The window is rolled up as of this stamp; a [`CommitError::Conflict`] where it took in more since,
    /// or another hub rolled it up.
    ClearDirty(DirtyWindow),
    /// A [`CommitError::Conflict`] unless the floors are these.
    ExpectWatermarks(RetentionWatermarks),
    /// A tier lets go of what is before this time; a [`CommitError::Conflict`] while a window
    /// that begins before it has rows that are not rolled up.
    AdvanceWatermark(Tier, i64),
    /// Rows of ordinary tables; a [`CommitError::Conflict`] where one is there already that
    /// must be the only one, or where none is that must be there.
    Sql(SqlStatement),
}

impl From<SqlStatement> for Write {
    fn from(change: SqlStatement) -> Self {
        Self::Sql(change)
    }
}

/// What to read of one host.
#[derive(Debug, Clone)]
pub struct Query {
    /// Whose.
    pub host: HostId,
    /// How fine it must be; where this is not there, what there is.
    pub tier: Tier,
    /// From here.
    pub from_ms: i64,
    /// To before here.
    pub to_ms: i64,
    /// Which series and parts.
    pub projection: Arc<Projection>,
}

/// The rows of one block.
#[derive(Debug, Clone)]
pub enum BlockContent {
    /// Ticks.
    Raw(Table),
    /// Buckets.
    Buckets(Buckets),
}

/// What one block answers to a query.
#[derive(Debug, Clone)]
pub struct BlockSlice {
    /// The block.
    pub block: BlockInfo,
    /// The stretch that it was read for: rows outside belong to other pieces.
    pub from_ms: i64,
    /// End of the stretch.
    pub to_ms: i64,
    /// Its rows, or why it can't be read.
    pub content: Result<BlockContent, FormatError>,
}

/// An answer, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct QueryResult {
    /// Who answered for which time.
    pub plan: Vec<perfwatch_tsdb::plan::PlanSegment>,
    /// Blocks in the order of their time.
    pub slices: Vec<BlockSlice>,
    /// What was known of the host's history.
    pub state: TierState,
}

/// What a store takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Files, or relations with their indices: what a budget is held against.
    pub disk_bytes: u64,
    /// Of that, what is in use: the rest is taken again before the disk is asked for more.
    pub used_bytes: u64,
    /// Where use comes near this, appends are refused so that the budget holds.
    pub append_limit_bytes: u64,
    /// Blocks by tier.
    pub tier_bytes: [u64; 3],
    /// Head rows.
    pub head_bytes: u64,
}

/// Durable memory.
pub trait Store: Send + Sync {
    /// `sqlite` or `postgres`.
    fn backend(&self) -> &'static str;

    /// Names this hub among those that share the store, across restarts.
    fn hub_id(&self) -> &str;

    /// Appends rows of one host or of many to this hub's head, all or none; when it is done they
    /// survive a crash. Calls that come together share a commit, whose number this returns.
    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>>;
    /// This hub's head rows after an arrival number, in order: about `most` of them, and none
    /// at the end.
    fn read_head(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<HeadRow>, StoreError>>;
    /// Whether the head takes so much that rows should be sealed before they are due.
    fn is_head_over_limit(&self) -> bool;
    /// Lets go of this hub's head rows that arrived before this number.
    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Adds a host or replaces what is remembered of it.
    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All hosts.
    fn list_hosts(&self) -> BoxFuture<'_, Result<Vec<HostRecord>, StoreError>>;

    /// Does all of these or none.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), CommitError>>;

    /// Rows of ordinary tables, by SQL that both databases understand (see [`Change`]).
    fn query(
        &self,
        sql: &'static str,
        cells: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>>;

    /// Reads a range of one host as of one moment.
    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>>;
    /// Every block of a host and tier that has rows in a range, whole.
    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>>;
    /// Blocks that end before a time, oldest first.
    fn oldest_blocks(
        &self,
        tier: Tier,
        before_ms: i64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<BlockInfo>, StoreError>>;

    /// Windows to roll up, oldest first; those that begin before a time.
    fn dirty_windows(
        &self,
        tier: Tier,
        before_ms: i64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<DirtyWindow>, StoreError>>;
    /// Up to where each host is sealed, in this hub's head.
    fn seal_watermarks(&self) -> BoxFuture<'_, Result<Vec<SealWatermark>, StoreError>>;
    /// Which ticks were taken in and sealed.
    fn sequence_ranges(&self) -> BoxFuture<'_, Result<Vec<SequenceRanges>, StoreError>>;
    /// Before when each tier let go.
    fn retention_watermarks(&self) -> BoxFuture<'_, Result<RetentionWatermarks, StoreError>>;

    /// Takes or keeps a lease for this hub; false while another one has it.
    fn acquire_lease(&self, name: &'static str, for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// What is left on the file system, where it is ours; costs nothing to ask.
    fn free_bytes(&self) -> Option<u64>;
    /// What is taken on disk.
    fn disk_usage(&self) -> BoxFuture<'_, Result<DiskUsage, StoreError>>;
    /// Makes freed space usable again, in steps that block nobody; also lets go of shapes and
    /// seen ticks that nothing needs since `before_ms`.
    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Writes everything, as of one moment, into a new SQLite file.
    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>>;
}
