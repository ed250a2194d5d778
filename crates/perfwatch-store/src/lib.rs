//! Storage of the hub: the [`Store`] port with its implementations for SQLite and PostgreSQL, and the SQL of
//! all entities.
//!
//! A store applies each call durably and atomically. When to seal, roll up and delete is decided by the
//! history module of the hub. Tables, columns and migrations have the same names in both engines.

pub mod accounts;
pub mod agents;
pub mod alert_times;
mod append;
pub mod audit;
mod block_reader;
pub mod collection_jobs;
pub mod collections;
pub mod definitions;
mod error;
mod head_payload;
pub mod host_last_seen;
mod hosts;
pub mod incidents;
mod metadata;
pub mod outbox;
mod postgres;
mod read_bounds;
mod read_size;
pub mod revision;
pub mod saved_views;
pub mod schema;
mod schema_versions;
pub mod servers;
pub mod settings;
mod shape_cache;
mod shape_use;
pub mod shares;
mod sql;
mod sqlite;
pub mod status_pages;
mod store;
mod task_lease;
mod transaction;
mod write;

pub use error::{CommitError, StoreError};
pub use hosts::{HostRecord, HostRepository, SharePrincipal};
pub use postgres::PostgresStore;
pub use read_bounds::{HeldPermits, ReadBounds, SizeCounter};
pub use read_size::ReadSize;
pub use schema_versions::SchemaVersions;
pub use sql::SqlValue;
pub use sqlite::{SqliteOptions, SqliteStore};
pub use store::{
    BlockContent, BlockSlice, BoxFuture, DiskUsage, HeadSnapshot, Query, QueryResult, SnapshotRow, Store,
};
pub use task_lease::{LeasedTask, RENEWAL_INTERVAL, TaskLease};
pub use transaction::Transaction;
pub use write::{BlockId, BlockInfo, DirtyWindow, RetentionWatermarks, SealWatermark, SequenceRanges, Write};
