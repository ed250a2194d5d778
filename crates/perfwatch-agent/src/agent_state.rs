//! State that the ticker and the pusher share: spool, facts, and the requests of the hub.

use crate::spool::Spool;
use perfwatch_model::CollectorRequests;
use perfwatch_model::wire::FactsMessage;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// State that the ticker and the pusher share.
pub(crate) struct AgentState {
    pub(crate) spool: Mutex<Spool>,
    /// Newest host facts, sent when the hub requests them.
    pub(crate) facts: Mutex<Option<FactsMessage>>,
    /// Notified when a snapshot was spooled or the agent stops.
    pub(crate) wake: Condvar,
    pub(crate) stop: AtomicBool,
    /// Set when the hub revoked this agent; both threads stop.
    pub(crate) revoked: AtomicBool,
    /// Configured collection interval in milliseconds; the hub can only ask for a longer interval.
    pub(crate) min_interval_ms: u64,
    /// Collection interval in milliseconds; responses of the hub can change it.
    pub(crate) interval_ms: AtomicU64,
    /// Newest requests of the hub about collectors; they only reduce the configured ones.
    pub(crate) collector_requests: Mutex<Arc<CollectorRequests>>,
}

impl AgentState {
    /// State of an agent with this configured interval.
    pub(crate) fn new(spool: Spool, interval_ms: u64) -> Self {
        Self {
            facts: Mutex::new(None),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            min_interval_ms: interval_ms,
            interval_ms: AtomicU64::new(interval_ms),
            collector_requests: Mutex::default(),
            spool: Mutex::new(spool),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.is_revoked()
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Requests of the hub about collectors.
    pub(crate) fn collector_requests(&self) -> Arc<CollectorRequests> {
        self.collector_requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the requests of the hub about collectors; returns whether they changed.
    pub(crate) fn replace_collector_requests(&self, requests: &CollectorRequests) -> bool {
        let mut current = self.collector_requests.lock().unwrap_or_else(PoisonError::into_inner);
        let is_changed = **current != *requests;
        if is_changed {
            *current = Arc::new(requests.clone());
        }
        is_changed
    }

    /// Sleeps for `time`, or until the agent stops.
    pub(crate) fn sleep(&self, time: Duration) {
        let guard = self.lock();
        let _ = self.wake.wait_timeout_while(guard, time, |_| !self.is_stopping());
    }
}
