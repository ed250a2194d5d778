//! What history did and takes, for the hub's own metrics.

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

/// Counters that the tasks count up; clones count together.
#[derive(Clone, Default)]
pub struct HistoryMetrics {
    pub blocks_sealed: Counter,
    pub rollups: Counter,
    pub blocks_dropped: Counter,
    pub corrupt_blocks: Counter,
    pub task_failures: Counter,
    bytes: Family<DiskUsageLabels, Gauge>,
    usage: Arc<Mutex<DiskUsage>>,
}

impl HistoryMetrics {
    pub fn register(&self, r: &mut Registry) {
        r.register("history_sealed", "Blocks sealed from the head.", self.blocks_sealed.clone());
        r.register("history_rolled_up", "Windows rolled up.", self.rollups.clone());
        r.register(
            "history_dropped",
            "Blocks deleted by retention or the disk budget.",
            self.blocks_dropped.clone(),
        );
        r.register("history_corrupt", "Blocks that could not be decoded.", self.corrupt_blocks.clone());
        r.register("history_failures", "Failed maintenance tasks.", self.task_failures.clone());
        r.register_with_unit(
            "history_disk",
            "What history takes, by part; total is file and log, or relations",
            Unit::Bytes,
            self.bytes.clone(),
        );
    }

    pub(super) fn set_usage(&self, usage: DiskUsage) {
        let set = |part, bytes: u64| {
            self.bytes.get_or_create(&DiskUsageLabels { part }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        };
        set("total", usage.disk_bytes);
        set("used", usage.used_bytes);
        set("head", usage.head_bytes);
        Tier::ALL.iter().zip(usage.tier_bytes).for_each(|(tier, bytes)| set(tier.name(), bytes));
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }

    /// As of a moment ago.
    pub fn usage(&self) -> DiskUsage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
