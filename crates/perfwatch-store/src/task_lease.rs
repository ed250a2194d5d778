//! Leases of the tasks that a single hub of a database runs at a time.
//!
//! A hub renews all its leases together, every [`RENEWAL_INTERVAL`]. A hub that stops releases them; those of a hub
//! that was killed, suspended or cut off expire after [`LEASE_TTL`]. Times are of the clock of the database and of
//! the monotonic clock of the holder, so that the wall clocks of the hubs do not matter. Every new holder gets a new
//! token. A transaction that requires a lease is rejected if its token has changed: a holder that was suspended
//! writes nothing afterwards, even before it notices that it lost the lease.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time after which another hub may run the tasks of a hub that does not renew its leases.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(7);
/// Interval at which a hub renews its leases and acquires those that are free.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(2);

/// Task that a single hub of a database runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeasedTask {
    /// Stores the availability of days that are over.
    AvailabilityDays,
    /// Rolls up, deletes and vacuums history.
    HistoryMaintenance,
    /// Evaluates rules for hosts that send nothing.
    NoDataEvaluation,
    /// Delivers notifications.
    NotificationDispatch,
}

impl LeasedTask {
    /// All tasks, in the order of their names, in which every hub locks their rows.
    pub const ALL: [Self; 4] = [
        Self::AvailabilityDays,
        Self::HistoryMaintenance,
        Self::NoDataEvaluation,
        Self::NotificationDispatch,
    ];

    /// Name of the lease in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AvailabilityDays => "availability_days",
            Self::HistoryMaintenance => "history_maintenance",
            Self::NoDataEvaluation => "no_data_evaluation",
            Self::NotificationDispatch => "notification_dispatch",
        }
    }
}

/// Right of this hub to run a task; see [`Transaction::require_lease`](crate::Transaction::require_lease).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLease {
    pub(crate) task: LeasedTask,
    /// Changes with every new holder.
    pub(crate) token: i64,
}

impl TaskLease {
    /// Lease of an embedded database, which has a single hub.
    pub(crate) fn of_single_hub(task: LeasedTask) -> Self {
        Self { task, token: 0 }
    }
}

/// Leases that this hub holds, each until a time of the monotonic clock.
#[derive(Default)]
pub(crate) struct HeldLeases(Mutex<HashMap<LeasedTask, (TaskLease, Duration)>>);

impl HeldLeases {
    /// Replaces the leases by those that are valid until a time.
    pub(crate) fn replace(&self, leases: impl IntoIterator<Item = TaskLease>, until: Duration) {
        let held = leases.into_iter().map(|lease| (lease.task, (lease, until))).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Lease of a task, if this hub holds it.
    pub(crate) fn get(&self, task: LeasedTask, now: Duration) -> Option<TaskLease> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&task).filter(|(_, until)| now < *until).map(|(lease, _)| *lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_end_unless_they_are_renewed() {
        let held = HeldLeases::default();
        let [first, second] = [LeasedTask::NoDataEvaluation, LeasedTask::NotificationDispatch];
        let lease = TaskLease { task: first, token: 3 };
        held.replace([lease], Duration::from_secs(7));
        assert_eq!(held.get(first, Duration::from_millis(6_999)), Some(lease));
        assert_eq!(held.get(first, Duration::from_secs(7)), None);
        assert_eq!(held.get(second, Duration::ZERO), None);
        held.replace([], Duration::from_secs(9));
        assert_eq!(held.get(first, Duration::ZERO), None, "another hub holds it");
    }

    #[test]
    fn names_are_ordered() {
        let names = LeasedTask::ALL.map(LeasedTask::name);
        assert!(names.is_sorted(), "{names:?}");
    }
}
