//! What the hub remembers: the [`Store`] port, and SQLite and PostgreSQL behind it.
//!
//! A store keeps what it is given, durably and at once or not at all; what is given when (seal,
//! roll up, let go) is the hub's. The names of tables, columns and migrations are the same in
//! both databases.

pub mod accounts;
pub mod alerts;
mod append;
mod block_reader;
pub mod collection_jobs;
mod head_payload;
mod location;
mod postgres;
mod range_set;
pub mod servers;
pub mod settings;
mod shape_cache;
mod sql;
mod sqlite;
mod store;

pub use location::{StoreUrl, StoreUrlError};
pub use postgres::PostgresStore;
pub use range_set::RangeSet;
pub use sql::{SqlStatement, SqlValue};
pub use sqlite::{SqliteOptions, SqliteStore};
pub use store::{
    BlockContent, BlockId, BlockInfo, BlockSlice, BoxFuture, CommitError, DirtyWindow, DiskUsage, HeadRow,
    HostRecord, Query, QueryResult, RetentionWatermarks, SealWatermark, SequenceRanges, SnapshotRow, Store,
    StoreError, Write,
};
