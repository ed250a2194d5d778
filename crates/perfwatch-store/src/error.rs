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

/// Consecutive failures of a periodic task. Only the first one is logged: a store that stays unavailable
/// must not fill the log.
#[derive(Debug, Default)]
pub struct FailureStreak {
    is_failing: bool,
}

impl FailureStreak {
    /// Records the result of a run. Returns its error if the run before succeeded.
    pub fn first_error<'a, T, E>(&mut self, result: &'a Result<T, E>) -> Option<&'a E> {
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        result.as_ref().err().filter(|_| !was_failing)
    }
}

#[cfg(test)]
mod tests {
    use super::FailureStreak;

    #[test]
    fn only_the_first_consecutive_failure_is_returned() {
        let mut failures = FailureStreak::default();
        let results = [Ok(()), Err(1), Err(2), Ok(()), Err(3)];
        let logged: Vec<Option<i32>> =
            results.iter().map(|result| failures.first_error(result).copied()).collect();
        assert_eq!(logged, [None, Some(1), None, None, Some(3)]);
    }
}
