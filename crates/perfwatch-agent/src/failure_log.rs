//! Log of failed requests: a persistent failure is logged once, a new reason immediately.

use std::time::Duration;

/// Minimum time between two messages with the same reason during one outage.
const REPEAT_INTERVAL: Duration = Duration::from_secs(600);
/// Maximum number of remembered reasons.
const MAX_REASONS: usize = 16;

/// Consecutive failures and the reasons that were logged.
#[derive(Default)]
pub(crate) struct FailureLog {
    /// Number of consecutive failed attempts.
    pub(crate) attempts: u32,
    /// Reasons without variable numbers, with the monotonic time of their message; the last is current.
    logged: Vec<(String, Duration)>,
}

impl FailureLog {
    /// Counts a failure. Returns true if its reason differs from the previous reason and was not logged
    /// recently.
    pub(crate) fn record(&mut self, reason: &str, now: Duration) -> bool {
        self.attempts = self.attempts.saturating_add(1);
        let key = reason_key(reason);
        if self.logged.last().is_some_and(|(last, _)| *last == key) {
            return false;
        }
        let previous = self.logged.iter().position(|(logged, _)| *logged == key);
        let previous_at = previous.map(|index| self.logged.remove(index).1);
        let is_new = previous_at.is_none_or(|at| now.saturating_sub(at) >= REPEAT_INTERVAL);
        if self.logged.len() == MAX_REASONS {
            self.logged.remove(0);
        }
        self.logged.push((key, previous_at.filter(|_| !is_new).unwrap_or(now)));
        is_new
    }

    /// Ends the outage. Returns the number of failed attempts.
    pub(crate) fn reset(&mut self) -> u32 {
        self.logged.clear();
        std::mem::take(&mut self.attempts)
    }
}

/// Reason without numbers that change at each attempt, such as "try again in 12 s". The status of the
/// response is part of the reason.
fn reason_key(reason: &str) -> String {
    let status_len = if reason.starts_with("HTTP ") { reason.len().min("HTTP 000".len()) } else { 0 };
    let (status, text) = reason.split_at_checked(status_len).unwrap_or(("", reason));
    status.chars().chain(text.chars().filter(|c| !c.is_ascii_digit())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_reason_is_logged_once() {
        let mut log = FailureLog::default();
        let mut logged = Vec::new();
        for (at_s, reason) in [
            (0, "connection refused"),
            (1, "connection refused"),
            (2, "HTTP 413 body larger than 20000 bytes"),
            (3, "HTTP 413 body larger than 10000 bytes"),
            (4, "HTTP 502 body larger than 10000 bytes"),
            (5, "connection refused"),
            (6, "HTTP 413 body larger than 5000 bytes"),
            (700, "connection refused"),
        ] {
            if log.record(reason, Duration::from_secs(at_s)) {
                logged.push(at_s);
            }
        }
        assert_eq!(logged, [0, 2, 4, 700]);
        assert_eq!(log.reset(), 8);
        assert!(log.record("connection refused", Duration::from_secs(701)));
    }
}
