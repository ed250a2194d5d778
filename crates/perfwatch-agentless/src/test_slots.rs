//! Shares of connection tests. A test may hang for minutes, and reports whether a port is open: each
//! principal runs few at a time and few per hour.

use crate::types::ConnectionTestError;
use perfwatch_model::{limit_table, limits};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time after which a principal may start another test beyond the burst.
const TEST_REFILL_INTERVAL: Duration = Duration::from_secs(10);

/// Tests of a principal.
#[derive(Default)]
struct PrincipalTests {
    running: usize,
    /// Number of tests that count for the burst, as of `counted_at`.
    recent: u32,
    counted_at: Duration,
}

impl PrincipalTests {
    /// Forgets tests as time passes.
    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.counted_at);
        let refilled = u32::try_from(elapsed.as_secs() / TEST_REFILL_INTERVAL.as_secs()).unwrap_or(u32::MAX);
        self.recent = self.recent.saturating_sub(refilled);
        self.counted_at = match self.recent {
            0 => now,
            _ => self.counted_at + TEST_REFILL_INTERVAL * refilled,
        };
    }
}

/// Running and recent connection tests by principal.
#[derive(Clone, Default)]
pub(crate) struct TestSlots(Arc<Mutex<HashMap<String, PrincipalTests>>>);

/// Place of a running test; free again when dropped.
pub(crate) struct TestSlot {
    slots: TestSlots,
    principal: String,
}

/// Tests that a request for the collection of all servers counts as: it writes one job per server.
const MAX_TESTS_OF_COLLECT_ALL: u32 = 20;

impl TestSlots {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, PrincipalTests>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request for the collection of all servers.
    ///
    /// # Errors
    /// Returns [`ConnectionTestError::TooManyTests`] if the share of the principal is used.
    pub(crate) fn charge_collect_all(
        &self,
        principal: &str,
        now: Duration,
    ) -> Result<(), ConnectionTestError> {
        let mut principals = self.lock();
        let tests = principals.entry(principal.to_owned()).or_default();
        tests.refill(now);
        if tests.recent + MAX_TESTS_OF_COLLECT_ALL > limits::MAX_CONNECTION_TEST_BURST {
            limit_table::CONNECTION_TEST_BURST.refuse();
            return Err(ConnectionTestError::TooManyTests);
        }
        tests.recent += MAX_TESTS_OF_COLLECT_ALL;
        Ok(())
    }

    /// Takes a place for a test of a principal.
    ///
    /// # Errors
    /// Returns [`ConnectionTestError::TooManyTests`] if the share of the principal is used.
    pub(crate) fn acquire(&self, principal: &str, now: Duration) -> Result<TestSlot, ConnectionTestError> {
        let mut principals = self.lock();
        principals.retain(|_, tests| {
            tests.refill(now);
            tests.running > 0 || tests.recent > 0
        });
        let running: usize = principals.values().map(|tests| tests.running).sum();
        let tests = principals.entry(principal.to_owned()).or_default();
        let exceeded = [
            (running >= limits::MAX_CONNECTION_TESTS, &limit_table::CONNECTION_TESTS),
            (
                tests.running >= limits::MAX_CONNECTION_TESTS_PER_PRINCIPAL,
                &limit_table::CONNECTION_TESTS_PER_PRINCIPAL,
            ),
            (tests.recent >= limits::MAX_CONNECTION_TEST_BURST, &limit_table::CONNECTION_TEST_BURST),
        ];
        if let Some((_, limit)) = exceeded.into_iter().find(|(is_exceeded, _)| *is_exceeded) {
            limit.refuse();
            return Err(ConnectionTestError::TooManyTests);
        }
        if tests.recent == 0 {
            tests.counted_at = now;
        }
        tests.running += 1;
        tests.recent += 1;
        Ok(TestSlot { slots: self.clone(), principal: principal.to_owned() })
    }
}

impl Drop for TestSlot {
    fn drop(&mut self) {
        if let Some(tests) = self.slots.lock().get_mut(&self.principal) {
            tests.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request writes a job for every server.
    #[test]
    fn requests_for_all_collections_are_bounded_per_principal() {
        let slots = TestSlots::default();
        let charge =
            |principal, now_s| slots.charge_collect_all(principal, Duration::from_secs(now_s)).is_ok();
        assert_eq!([0; 4].map(|now_s| charge("user:mallory", now_s)), [true, true, true, false]);
        assert!(charge("user:alice", 0) && slots.acquire("user:mallory", Duration::ZERO).is_err());
        assert!(!charge("user:mallory", 199) && charge("user:mallory", 201));
    }

    /// Finding L6: hanging tests of an operator took all slots.
    #[test]
    fn hanging_tests_of_one_principal_do_not_block_others() {
        let slots = TestSlots::default();
        let hanging: Vec<TestSlot> =
            (0..3).map(|_| slots.acquire("user:mallory", Duration::ZERO).ok().unwrap()).collect();
        assert_eq!(
            slots.acquire("user:mallory", Duration::ZERO).err(),
            Some(ConnectionTestError::TooManyTests)
        );
        assert!(slots.acquire("user:alice", Duration::ZERO).is_ok());
        drop(hanging);
        assert!(slots.acquire("user:mallory", Duration::ZERO).is_ok());
    }

    /// Finding L6: connection tests scanned the ports of a network.
    #[test]
    fn tests_of_a_principal_are_limited_over_time() {
        let slots = TestSlots::default();
        let started =
            |now: Duration| (0..1_000).filter(|_| slots.acquire("user:mallory", now).is_ok()).count();
        assert_eq!(started(Duration::ZERO), 60);
        assert_eq!(started(Duration::from_secs(9)), 0);
        assert_eq!(started(Duration::from_secs(31)), 3);
        assert_eq!(started(Duration::from_secs(10_000)), 60);
        assert!(slots.acquire("user:alice", Duration::ZERO).is_ok());
    }
}
