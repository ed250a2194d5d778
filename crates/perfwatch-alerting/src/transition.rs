//! Alert transitions on their way from the evaluators to the incidents.

use perfwatch_model::HostId;
use perfwatch_rules::alert_instance::TransitionEvent;
use uuid::Uuid;

/// Maximum number of transitions that wait to be persisted. If the queue is full, the evaluator of the
/// host is discarded and rehydrated later.
pub(crate) const TRANSITION_QUEUE_CAPACITY: usize = 50_000;

/// Transition of an alert with its host.
pub(crate) struct HostTransition {
    pub(crate) host: HostId,
    pub(crate) event: TransitionEvent,
    /// Time of the newest data of the host that the evaluator has seen, Unix milliseconds.
    pub(crate) evaluated_until_ms: i64,
}

/// Nil id, under which the alerts of the hub itself are evaluated and stored.
pub(crate) fn hub_host_id() -> HostId {
    HostId(Uuid::nil())
}
