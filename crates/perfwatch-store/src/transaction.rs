//! Change list of a commit. Each entity module adds an accessor that returns its repository.

use crate::sql::SqlStatement;
use crate::write::Write;

/// Writes that one commit applies atomically, in the order in which they were added.
///
/// Each entity has a typed repository that adds its writes: `tx.accounts().insert(&account)`.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    writes: Vec<Write>,
}

impl Transaction {
    /// Builds a transaction with a closure that adds the writes.
    pub fn build(add_writes: impl FnOnce(&mut Self)) -> Self {
        let mut transaction = Self::default();
        add_writes(&mut transaction);
        transaction
    }

    /// Number of writes, at least one per repository call.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Returns whether a commit would change nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Moves the writes of another transaction to the end of this one.
    pub fn append(&mut self, mut other: Self) {
        self.writes.append(&mut other.writes);
    }

    /// Returns the list of writes, for [`crate::Store::commit`].
    pub fn into_writes(self) -> Vec<Write> {
        self.writes
    }

    pub(crate) fn push(&mut self, statement: SqlStatement) {
        self.writes.push(Write::Sql(statement));
    }

    pub(crate) fn push_all<const N: usize>(&mut self, statements: [SqlStatement; N]) {
        self.writes.extend(statements.map(Write::Sql));
    }
}

impl Extend<Write> for Transaction {
    fn extend<T: IntoIterator<Item = Write>>(&mut self, writes: T) {
        self.writes.extend(writes);
    }
}

impl IntoIterator for Transaction {
    type Item = Write;
    type IntoIter = std::vec::IntoIter<Write>;

    fn into_iter(self) -> Self::IntoIter {
        self.writes.into_iter()
    }
}

impl From<Vec<Write>> for Transaction {
    fn from(writes: Vec<Write>) -> Self {
        Self { writes }
    }
}

/// Statements that a repository adds.
pub(crate) fn statements<const N: usize>(add_writes: impl FnOnce(&mut Transaction)) -> [SqlStatement; N] {
    let mut writes = Transaction::build(add_writes).writes.into_iter();
    std::array::from_fn(|_| match writes.next() {
        Some(Write::Sql(statement)) => statement,
        _ => SqlStatement::new("", []),
    })
}

/// Statement that a repository adds.
pub(crate) fn statement(add_writes: impl FnOnce(&mut Transaction)) -> SqlStatement {
    let [statement] = statements(add_writes);
    statement
}
