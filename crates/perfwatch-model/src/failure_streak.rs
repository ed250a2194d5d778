//! Failures of a periodic task, of which the first is logged.

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
    use super::*;

    #[test]
    fn only_the_first_consecutive_failure_is_returned() {
        let mut failures = FailureStreak::default();
        let results = [Ok(()), Err(1), Err(2), Ok(()), Err(3)];
        let logged: Vec<Option<i32>> =
            results.iter().map(|result| failures.first_error(result).copied()).collect();
        assert_eq!(logged, [None, Some(1), None, None, Some(3)]);
    }
}
