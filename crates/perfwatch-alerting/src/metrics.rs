//! Self-metrics of alerting.

use perfwatch_model::task_runs::TaskRuns;
use perfwatch_rules::hub_metric::HubMetric;
use perfwatch_store::outbox::NotificationState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time for which rules evaluate a value of the recorder, which measures every ten seconds.
const RECORDED_VALUES_TTL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NotificationLabels {
    outcome: &'static str,
}

/// Values of the recorder with the time of their record.
#[derive(Default)]
struct RecordedValues {
    at: Duration,
    values: Vec<(HubMetric, f64)>,
}

/// Counters of alerts and notifications. Clones share the counters.
#[derive(Clone, Default)]
pub struct AlertingMetrics {
    pub(crate) alerts_fired: Counter,
    pub(crate) alerts_resolved: Counter,
    pub(crate) notification_retries: Counter,
    notifications: Family<NotificationLabels, Counter>,
    /// Last runs of the tasks.
    pub tasks: TaskRuns,
    hub_values: Arc<Mutex<Vec<(HubMetric, f64)>>>,
    recorded_values: Arc<Mutex<RecordedValues>>,
}

impl AlertingMetrics {
    /// Registers all counters under the prefix of the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("alerts_fired", "Alerts that started firing", self.alerts_fired.clone());
        registry.register("alerts_resolved", "Alerts that were resolved", self.alerts_resolved.clone());
        registry.register("notifications", "Notifications by final outcome", self.notifications.clone());
        registry.register(
            "notification_retries",
            "Delivery attempts that failed and are retried",
            self.notification_retries.clone(),
        );
        // Every outcome is exported from the start, so that rates are defined.
        for state in [NotificationState::Sent, NotificationState::Failed, NotificationState::Suppressed] {
            drop(self.notifications.get_or_create(&NotificationLabels { outcome: state.name() }));
        }
    }

    /// Number of notifications since the start that were sent.
    pub fn sent_notifications(&self) -> u64 {
        self.notifications
            .get_or_create(&NotificationLabels { outcome: NotificationState::Sent.name() })
            .get()
    }

    /// Values that the `hub` rules evaluated last.
    pub fn hub_values(&self) -> Vec<(HubMetric, f64)> {
        self.hub_values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_hub_values(&self, values: Vec<(HubMetric, f64)>) {
        *self.hub_values.lock().unwrap_or_else(PoisonError::into_inner) = values;
    }

    /// Keeps the values that the recorder measured at a time of the monotonic clock, for the `hub` rules.
    pub fn set_recorded_values(&self, at: Duration, values: Vec<(HubMetric, f64)>) {
        *self.recorded_values.lock().unwrap_or_else(PoisonError::into_inner) = RecordedValues { at, values };
    }

    /// Values that the recorder measured a moment ago; none if it does not run any more.
    pub(crate) fn recorded_values(&self, now: Duration) -> Vec<(HubMetric, f64)> {
        let recorded = self.recorded_values.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = now.saturating_sub(recorded.at) <= RECORDED_VALUES_TTL;
        if is_current { recorded.values.clone() } else { Vec::new() }
    }

    /// Counts a notification that reached a final state.
    pub(crate) fn count_notification(&self, state: NotificationState) {
        self.notifications.get_or_create(&NotificationLabels { outcome: state.name() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_values_expire() {
        let metrics = AlertingMetrics::default();
        let seconds = Duration::from_secs;
        assert_eq!(metrics.recorded_values(seconds(5)), []);
        metrics.set_recorded_values(seconds(100), vec![(HubMetric::IngestRate, 2.5)]);
        assert_eq!(metrics.recorded_values(seconds(160)), [(HubMetric::IngestRate, 2.5)]);
        assert_eq!(metrics.recorded_values(seconds(161)), []);
    }
}
