//! The port: object-safe, so that the hub is compiled once whatever stands behind it.

use perfwatch_model::{HostFacts, HostId, Snapshot};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future: nothing beside the statement it stands for.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One snapshot of one host.
#[derive(Debug, Clone)]
pub struct Row {
    /// Whose.
    pub host: HostId,
    /// What.
    pub snapshot: Arc<Snapshot>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Kept from now on.
    New,
    /// This `(host, boot, seq)` was kept before.
    Repeat,
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
}

/// Why a store could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// May succeed later (no space, no connection): nothing was kept of the call.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// Durable memory.
pub trait Store: Send + Sync {
    /// Keeps rows, all or none. When the future is done, they survive a crash as far as the
    /// store survives one; each row's answer stands at its place.
    fn append(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>>;
    /// Adds a host or replaces what is remembered of it.
    fn put_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All hosts.
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostRecord>, StoreError>>;
}
