//! Errors of the store, and which of them a periodic task logs.

use crate::read_size::ReadSize;

/// Failure of a store operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Temporary failure (no space, no connection). Nothing of the call was stored; a retry may succeed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Permanent failure until an operator acts.
    #[error("{0}")]
    Rejected(String),
    /// The read exceeds its limits.
    #[error("the result would have {} values of {} series", .0.cells, .0.series)]
    TooLarge(ReadSize),
}

/// Failure of a commit ([`Store::commit`](crate::Store::commit)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A row that the writes build on was changed by another commit. Read it again, then retry.
    #[error("conflicting change")]
    Conflict,
    /// Failure of the store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}
