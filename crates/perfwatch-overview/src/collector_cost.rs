//! Cost of collectors: the mean duration of their runs over the hosts that send now.

use perfwatch_live::LiveFeed;
use perfwatch_model::unscale;
use std::collections::BTreeMap;

/// Metric of the duration of a collector.
const METRIC: &str = "agent.collector.duration";
/// Hosts whose newest snapshots are read. More would change the mean little.
const MAX_HOSTS: usize = 500;
/// Collectors that are listed; an agent cannot add more.
const MAX_COLLECTORS: usize = 100;

/// Mean duration of a run by collector, milliseconds, from the newest snapshots.
pub fn mean_cost_ms(live_feed: &LiveFeed) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for published in live_feed.latest_per_host().into_iter().take(MAX_HOSTS) {
        let snapshot = &published.snapshot;
        for (column, value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
            let is_duration = &*column.metric == METRIC;
            let Some(duration) = unscale(*value, column.decimals).filter(|_| is_duration) else { continue };
            if sums.len() == MAX_COLLECTORS && !sums.contains_key(&*column.instance) {
                continue;
            }
            let (sum, count) = sums.entry(column.instance.to_string()).or_default();
            *sum += duration;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect()
}
