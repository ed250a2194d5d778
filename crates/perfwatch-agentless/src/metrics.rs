//! Self-metrics of agentless collection.

use perfwatch_model::task_runs::TaskRuns;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

const SUCCESS: OutcomeLabel = OutcomeLabel { outcome: "success" };
const FAILURE: OutcomeLabel = OutcomeLabel { outcome: "failure" };

/// Counters of SSH collections by outcome.
#[derive(Clone, Default)]
pub struct AgentlessMetrics {
    collections: Family<OutcomeLabel, Counter>,
    refused_tests: Counter,
    /// Last runs of the tasks.
    pub tasks: TaskRuns,
}

impl AgentlessMetrics {
    /// Registers the counters. Both outcomes are exposed from the start, as 0.
    pub fn register(&self, registry: &mut Registry) {
        for outcome in [SUCCESS, FAILURE] {
            drop(self.collections.get_or_create(&outcome));
        }
        let help = "SSH collections by outcome, tests and retries included";
        registry.register("ssh_collections", help, self.collections.clone());
        let help = "Connection tests that exceeded the share of their principal";
        registry.register("ssh_tests_refused", help, self.refused_tests.clone());
    }

    /// Counts a connection test that was refused.
    pub(crate) fn record_refused_test(&self) {
        self.refused_tests.inc();
    }

    /// Increments the counter of an outcome.
    pub(crate) fn record_collection(&self, succeeded: bool) {
        self.collections.get_or_create(if succeeded { &SUCCESS } else { &FAILURE }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_are_counted_by_outcome() {
        let (metrics, mut registry) = (AgentlessMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.record_collection(false);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("ssh_collections_total{outcome=\"success\"} 0"), "{text}");
        assert!(text.contains("ssh_collections_total{outcome=\"failure\"} 1"), "{text}");
    }
}
