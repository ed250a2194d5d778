//! Real services for tests, ended with the test: PostgreSQL with a pooler, OpenSSH, Redis, and servers that record
//! HTTP requests and mails.

#![expect(clippy::unwrap_used, reason = "a test cannot continue without its services")]

mod corruption;
mod pgbouncer;
mod postgres;
pub mod recorder;
pub mod redis;
pub mod redis_sentinel;
pub mod sshd;

pub use corruption::{Mutation, corrupt};
pub use postgres::Postgres;

use std::time::Duration;

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Checks of [`wait_until`], at least 30 s: test machines may be slow.
const MAX_POLLS: u32 = 1_500;

/// Polls a condition for at least 30 s; returns whether it became true.
fn wait_until(mut check: impl FnMut() -> bool) -> bool {
    for _ in 0..MAX_POLLS {
        if check() {
            return true;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    false
}
