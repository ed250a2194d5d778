//! Prometheus metrics of the history tasks.

use crate::task::HistoryTask;
use perfwatch_model::task_runs::TaskRuns;
use perfwatch_store::DiskUsage;
use perfwatch_tsdb::Tier;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DiskUsageLabels {
    part: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeletionLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TaskLabels {
    task: &'static str,
}

/// Reason why a block is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeletionReason {
    /// The block is older than the retention of its tier.
    Retention,
    /// The store approaches its disk budget.
    DiskBudget,
}

impl DeletionReason {
    const ALL: [Self; 2] = [Self::Retention, Self::DiskBudget];

    fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::DiskBudget => "disk_budget",
        }
    }
}

/// Metrics of the history tasks. Clones share their values.
#[derive(Clone, Default)]
pub struct HistoryMetrics {
    pub(crate) blocks_sealed: Counter,
    pub(crate) rollups: Counter,
    pub(crate) corrupt_blocks: Counter,
    blocks_deleted: Family<DeletionLabels, Counter>,
    task_failures: Family<TaskLabels, Counter>,
    size_bytes: Family<DiskUsageLabels, Gauge>,
    usage: Arc<Mutex<DiskUsage>>,
    /// Last runs of the tasks.
    pub tasks: TaskRuns,
}

impl HistoryMetrics {
    /// Registers the metrics. Counters with labels start at zero for each value of the label.
    pub fn register(&self, r: &mut Registry) {
        DeletionReason::ALL.into_iter().for_each(|reason| self.record_deleted(reason, 0));
        for task in HistoryTask::ALL {
            self.task_failures.get_or_create(&TaskLabels { task: task.name() }).inc_by(0);
        }
        // The registry appends a period to each description.
        r.register("tsdb_blocks_sealed", "Blocks sealed from the head", self.blocks_sealed.clone());
        r.register("tsdb_rollups", "Windows rolled up", self.rollups.clone());
        r.register(
            "tsdb_blocks_deleted",
            "Blocks deleted by retention or the disk budget",
            self.blocks_deleted.clone(),
        );
        r.register("tsdb_blocks_corrupt", "Blocks that could not be decoded", self.corrupt_blocks.clone());
        r.register("tsdb_task_failures", "Failed maintenance tasks", self.task_failures.clone());
        r.register_with_unit(
            "tsdb_size",
            "Disk usage by part (total, used, raw, minute, hour, head)",
            Unit::Bytes,
            self.size_bytes.clone(),
        );
    }

    pub(crate) fn record_deleted(&self, reason: DeletionReason, count: usize) {
        self.blocks_deleted.get_or_create(&DeletionLabels { reason: reason.name() }).inc_by(count as u64);
    }

    pub(crate) fn record_failure(&self, task: HistoryTask) {
        self.task_failures.get_or_create(&TaskLabels { task: task.name() }).inc();
    }

    pub(crate) fn set_usage(&self, usage: DiskUsage) {
        let set = |part, bytes: u64| {
            let gauge = self.size_bytes.get_or_create(&DiskUsageLabels { part });
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        };
        set("total", usage.disk_bytes);
        set("used", usage.used_bytes);
        set("head", usage.head_bytes);
        for (tier, bytes) in Tier::ALL.into_iter().zip(usage.tier_bytes) {
            let part = match tier {
                Tier::Raw => "raw",
                Tier::Minute => "minute",
                Tier::Hour => "hour",
            };
            set(part, bytes);
        }
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }

    /// Last measured disk usage, a few seconds old at most; zero until the first measurement.
    pub fn usage(&self) -> DiskUsage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_standard_names_and_labels() {
        let (metrics, mut registry) = (HistoryMetrics::default(), Registry::with_prefix("perfwatch"));
        metrics.register(&mut registry);
        metrics.record_deleted(DeletionReason::DiskBudget, 3);
        metrics.record_failure(HistoryTask::Rollup);
        metrics.set_usage(DiskUsage { tier_bytes: [1, 2, 3], ..DiskUsage::default() });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "# HELP perfwatch_tsdb_blocks_sealed Blocks sealed from the head.",
            "perfwatch_tsdb_blocks_sealed_total 0",
            "perfwatch_tsdb_rollups_total 0",
            "perfwatch_tsdb_blocks_deleted_total{reason=\"retention\"} 0",
            "perfwatch_tsdb_blocks_deleted_total{reason=\"disk_budget\"} 3",
            "perfwatch_tsdb_blocks_corrupt_total 0",
            "perfwatch_tsdb_task_failures_total{task=\"rollup\"} 1",
            "perfwatch_tsdb_task_failures_total{task=\"seal\"} 0",
            "perfwatch_tsdb_size_bytes{part=\"hour\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
