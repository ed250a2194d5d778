//! Settings of sessions.

use std::time::Duration;

/// Lifetimes of browser sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLifetimes {
    /// A session expires after this time without requests.
    pub idle_timeout: Duration,
    /// A session expires at this age.
    pub max_age: Duration,
}

impl Default for SessionLifetimes {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(7 * 86_400), max_age: Duration::from_secs(30 * 86_400) }
    }
}
