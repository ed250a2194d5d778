//! Evaluators of all hosts, each behind its own lock, and the hosts that need a rehydration.

use perfwatch_model::HostId;
use perfwatch_rules::host_evaluator::HostEvaluator;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::Notify;

/// Maximum time, and number of intervals, of missed snapshots for which an evaluator continues. Scripts may send to all
/// hubs in turn: a replay for each of their snapshots would cost more than the snapshots that it misses matter.
const MAX_MISSED_MS: i64 = 10_000;
const MAX_MISSED_INTERVALS: i64 = 4;

/// Returns whether the evaluator must replay the snapshots that another hub evaluated.
fn is_behind(last_ms: i64, evaluated_elsewhere_ms: i64, interval_ms: u32) -> bool {
    let max_missed_ms = MAX_MISSED_MS.max(MAX_MISSED_INTERVALS * i64::from(interval_ms));
    last_ms < evaluated_elsewhere_ms.saturating_sub(max_missed_ms)
}

/// Earlier of two times, if there is any.
fn oldest(first: Option<i64>, second: Option<i64>) -> Option<i64> {
    first.into_iter().chain(second).min()
}

/// Evaluator of a host with its progress.
#[derive(Default)]
pub(crate) struct HostSlot {
    pub(crate) evaluator: HostEvaluator,
    /// [`EvaluatorSlots::target_revision`] for which the rules were set; another value means that the
    /// evaluator is stale.
    pub(crate) revision: i64,
    /// Number of emitted transitions that are not persisted yet.
    pub(crate) queued_transitions: usize,
    /// Data up to this time was evaluated before, by this hub or by its previous run. Milliseconds
    /// since 1970.
    pub(crate) evaluated_until_ms: i64,
    /// Time of the newest snapshot that another hub evaluated, milliseconds since 1970.
    pub(crate) evaluated_elsewhere_ms: i64,
    /// Time of the oldest snapshot that arrived while the evaluator was stale, milliseconds since 1970.
    missed_since_ms: Option<i64>,
    /// Time of the oldest of these snapshots that the replay in progress covers.
    replayed_since_ms: Option<i64>,
}

impl HostSlot {
    /// Records a snapshot that arrived while the evaluator was stale.
    pub(crate) fn record_missed(&mut self, at_ms: i64) {
        self.missed_since_ms = oldest(self.missed_since_ms, Some(at_ms));
    }

    /// Time of the oldest missed snapshot, from which a replay that begins now reads the history.
    pub(crate) fn begin_replay(&mut self) -> Option<i64> {
        self.replayed_since_ms = oldest(self.replayed_since_ms, self.missed_since_ms.take());
        self.replayed_since_ms
    }

    /// Ends a replay that also covers the snapshots from `covered_since_ms` on. Returns false if older
    /// snapshots were missed since it began.
    pub(crate) fn end_replay(&mut self, covered_since_ms: i64) -> bool {
        if self.missed_since_ms.is_some_and(|at_ms| at_ms < covered_since_ms) {
            return false;
        }
        (self.missed_since_ms, self.replayed_since_ms) = (None, None);
        true
    }

    /// Discards the evaluator if the host sent to another hub for some time.
    pub(crate) fn discard_if_behind(&mut self, interval_ms: u32) {
        if is_behind(self.evaluator.last_ms(), self.evaluated_elsewhere_ms, interval_ms) {
            self.evaluated_until_ms = self.evaluated_until_ms.max(self.evaluated_elsewhere_ms);
            self.evaluated_elsewhere_ms = 0;
            self.discard_evaluator();
        }
    }

    /// Discards the evaluator, so that a replay rebuilds it.
    pub(crate) fn discard_evaluator(&mut self) {
        (self.evaluator, self.revision) = (HostEvaluator::default(), 0);
    }
}

/// Slots by host, with the queue of stale hosts.
#[derive(Default)]
pub(crate) struct EvaluatorSlots {
    slots: RwLock<HashMap<HostId, Arc<Mutex<HostSlot>>>>,
    /// Increases when rules, tags or firing alerts change.
    target_revision: AtomicI64,
    stale_hosts: Mutex<HashSet<HostId>>,
    /// Notified when a host becomes stale.
    stale_notify: Notify,
}

/// Locks a slot. A panic during an evaluation does not disable the host.
pub(crate) fn lock_slot(slot: &Mutex<HostSlot>) -> MutexGuard<'_, HostSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EvaluatorSlots {
    /// Slot of a host; a new host gets an empty, stale slot.
    pub(crate) fn slot(&self, host: HostId) -> Arc<Mutex<HostSlot>> {
        if let Some(slot) = self.slots.read().unwrap_or_else(PoisonError::into_inner).get(&host) {
            return slot.clone();
        }
        self.slots.write().unwrap_or_else(PoisonError::into_inner).entry(host).or_default().clone()
    }

    pub(crate) fn remove(&self, host: HostId) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// Revision that a current slot has. Greater than 0, so that a new slot is stale.
    pub(crate) fn target_revision(&self) -> i64 {
        self.target_revision.load(Ordering::Acquire) + 1
    }

    /// Makes all hosts stale.
    pub(crate) fn invalidate_all(&self) {
        self.target_revision.fetch_add(1, Ordering::AcqRel);
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        self.stale_hosts.lock().unwrap_or_else(PoisonError::into_inner).extend(slots.keys());
        self.stale_notify.notify_one();
    }

    /// Makes a host stale.
    pub(crate) fn invalidate(&self, host: HostId) {
        lock_slot(&self.slot(host)).revision = 0;
        self.mark_stale(host);
    }

    /// Queues a stale host for rehydration.
    pub(crate) fn mark_stale(&self, host: HostId) {
        self.stale_hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
        self.stale_notify.notify_one();
    }

    /// Waits until a host was queued.
    pub(crate) async fn wait_for_stale(&self) {
        self.stale_notify.notified().await;
    }

    /// Removes and returns all queued hosts.
    pub(crate) fn drain_stale(&self) -> Vec<HostId> {
        let mut stale_hosts = self.stale_hosts.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *stale_hosts).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::is_behind;

    #[test]
    fn hosts_that_send_to_hubs_in_turn_are_not_replayed() {
        // Two hubs in turn at 2 s, four in turn at a minute, and a host that moved a minute ago.
        assert!(!is_behind(100_000, 102_000, 2_000));
        assert!(!is_behind(100_000, 100_000 + 3 * 60_000, 60_000));
        assert!(is_behind(100_000, 160_000, 2_000));
        assert!(is_behind(i64::MIN, 160_000, 2_000), "nothing was evaluated here");
        assert!(!is_behind(i64::MIN, i64::MIN, 2_000) && !is_behind(100_000, 0, 2_000));
    }
}
