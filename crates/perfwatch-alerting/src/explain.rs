//! What was seen when an alert fired: the last minutes stand in memory; of a host that is seen
//! rarely, history is read.

use super::Alerting;
use perfwatch_model::{HostId, Snapshot};
use perfwatch_rules::alert_instance::TransitionEvent;
use perfwatch_rules::explain::{ExplainRange, ExplainRow, Explanation, explain};
use perfwatch_store::BlockContent;
use perfwatch_tsdb::{Projection, Tier};
use std::sync::Arc;

/// Of the time that the condition held: the time before is four times as long, and both are in
/// memory.
const MIN_SPAN_MS: i64 = 10_000;
const MAX_SPAN_MS: i64 = 50_000;
/// Fewer rows than this explain nothing.
const MIN_ROWS: usize = 8;

impl Alerting {
    /// What was seen; none for what is about no metric.
    pub(super) async fn explain(&self, host: HostId, told: &TransitionEvent) -> Option<Explanation> {
        let (metric, _) = told.rule.condition.selector()?;
        let held_ms = (told.observed_at_ms - told.pending_since_ms).max(told.rule.condition.lookback().ms());
        let mut window_ms = held_ms.clamp(MIN_SPAN_MS, MAX_SPAN_MS);
        let within = |row: &Arc<Snapshot>, window_ms: i64| {
            row.at_ms > told.observed_at_ms - 5 * window_ms && row.at_ms <= told.observed_at_ms
        };
        let recent = self.deps.live_feed.recent(host, self.now_ms());
        let mut rows: Vec<Arc<Snapshot>> = recent.iter().map(|accepted| accepted.snapshot.clone()).collect();
        rows.retain(|row| within(row, window_ms));
        if rows.len() < MIN_ROWS {
            let known = self.deps.hosts.get(host)?;
            let interval_ms = i64::from(known.interval_ms());
            window_ms = window_ms.max(2 * interval_ms);
            let range = (told.observed_at_ms - 5 * window_ms + 1, told.observed_at_ms + 1);
            let wanted = Arc::new(Projection::full());
            // Without it the alert goes out all the same.
            let joined = self.deps.history.read(host, Tier::Raw, range, &wanted).await.ok()?;
            rows = joined.unsealed.iter().flat_map(|table| table.snapshots()).collect();
            rows.extend(joined.sealed.slices.iter().flat_map(|piece| match &piece.content {
                Ok(BlockContent::Raw(table)) => table.snapshots(),
                _ => Vec::new(),
            }));
            rows.retain(|row| within(row, window_ms));
        }
        if rows.is_empty() {
            return None;
        }
        let range = ExplainRange {
            baseline_from_ms: told.observed_at_ms - 5 * window_ms,
            from_ms: told.observed_at_ms - window_ms,
            to_ms: told.observed_at_ms,
        };
        let rows = rows.iter().map(|row| ExplainRow {
            at_ms: row.at_ms,
            shape: &row.shape,
            values: &row.values,
            processes: &row.processes,
        });
        Some(explain(metric, range, rows))
    }
}
