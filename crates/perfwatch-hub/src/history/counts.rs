//! What history did and takes, for the hub's own metrics.

use perfwatch_series::Tier;
use perfwatch_store::Usage;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

/// Counters that the tasks count up; clones count together.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) sealed: Counter,
    pub(crate) rolled: Counter,
    pub(crate) dropped: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) failed: Counter,
    bytes: Family<Part, Gauge>,
    usage: Arc<Mutex<Usage>>,
}

impl Counts {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("history_sealed", "Hosts whose rows were made a block", self.sealed.clone());
        r.register("history_rolled_up", "Windows that were rolled up", self.rolled.clone());
        r.register("history_dropped", "Blocks let go by retention or budget", self.dropped.clone());
        r.register("history_corrupt", "Blocks met that can't be read", self.corrupt.clone());
        r.register("history_failures", "Tasks that failed; they are tried again", self.failed.clone());
        r.register_with_unit(
            "history_disk",
            "What history takes, by part; total is file and log, or relations",
            Unit::Bytes,
            self.bytes.clone(),
        );
    }

    pub(super) fn set_usage(&self, usage: Usage) {
        let set = |part, bytes: u64| {
            self.bytes.get_or_create(&Part { part }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        };
        set("total", usage.disk_bytes);
        set("used", usage.used_bytes);
        set("head", usage.head_bytes);
        Tier::ALL.iter().zip(usage.tier_bytes).for_each(|(tier, bytes)| set(tier.name(), bytes));
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }

    /// As of a moment ago.
    pub(crate) fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
