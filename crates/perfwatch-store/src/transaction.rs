//! Change list of a commit. Each entity module adds an accessor that returns its repository, so that this
//! module does not depend on the entities.

use crate::sql::SqlStatement;
use crate::task_lease::TaskLease;
use crate::write::Write;

/// Writes that one commit applies atomically, in the order in which they were added.
///
/// Each entity has a typed repository that adds its writes: `tx.accounts().insert(&account)`. Writes to
/// history are converted from a list of [`Write`].
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    changes: Vec<Change>,
}

/// One change of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Change of history: blocks, windows and watermarks.
    History(Write),
    /// Statement on an entity; a [`crate::CommitError::Conflict`] if it violates a unique key, or if it
    /// requires a row and affects none.
    Entity(SqlStatement),
    /// Check that this hub still holds a lease; a [`crate::CommitError::Conflict`] otherwise.
    Lease(TaskLease),
}

impl Transaction {
    /// Builds a transaction with a closure that adds the writes.
    pub fn build(add_writes: impl FnOnce(&mut Self)) -> Self {
        let mut transaction = Self::default();
        add_writes(&mut transaction);
        transaction
    }

    /// Rejects the commit unless this hub still holds the lease. No other hub acquires the lease until the commit ends.
    pub fn require_lease(&mut self, lease: TaskLease) {
        self.changes.push(Change::Lease(lease));
    }

    /// Number of writes, at least one per repository call.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether a commit would change nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Moves the writes of another transaction to the end of this one.
    pub fn append(&mut self, mut other: Self) {
        self.changes.append(&mut other.changes);
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    pub(crate) fn push(&mut self, statement: SqlStatement) {
        self.changes.push(Change::Entity(statement));
    }

    pub(crate) fn push_all<const N: usize>(&mut self, statements: [SqlStatement; N]) {
        self.changes.extend(statements.map(Change::Entity));
    }
}

impl From<Vec<Write>> for Transaction {
    fn from(writes: Vec<Write>) -> Self {
        Self { changes: writes.into_iter().map(Change::History).collect() }
    }
}
