//! What was seen when an alert fired: the last minutes stand in memory; of a host that is seen
//! rarely, history is read.

use super::Alerting;
use perfwatch_alert::explain::{Explanation, Row, explain};
use perfwatch_alert::track::Told;
use perfwatch_model::{HostId, Snapshot};
use perfwatch_series::{Tier, Wanted};
use perfwatch_store::Content;
use std::sync::Arc;

/// Of the time that the condition held: the time before is four times as long, and both are in
/// memory.
const LEAST_MS: i64 = 10_000;
const MOST_MS: i64 = 50_000;
/// Fewer rows than this explain nothing.
const ROWS: usize = 8;

impl Alerting {
    /// What was seen; none for what is about no metric.
    pub(super) async fn explain(&self, host: HostId, told: &Told) -> Option<Explanation> {
        let (metric, _) = told.rule.when.series()?;
        let held_ms = (told.at_ms - told.since_ms).max(told.rule.when.looks_back().ms());
        let mut window_ms = held_ms.clamp(LEAST_MS, MOST_MS);
        let within = |row: &Arc<Snapshot>, window_ms: i64| {
            row.at_ms > told.at_ms - 5 * window_ms && row.at_ms <= told.at_ms
        };
        let recent = self.rooms.live.recent(host, self.now_ms());
        let mut rows: Vec<Arc<Snapshot>> = recent.iter().map(|accepted| accepted.snapshot.clone()).collect();
        rows.retain(|row| within(row, window_ms));
        if rows.len() < ROWS {
            let known = self.rooms.fleet.get(host)?;
            let interval_ms = i64::from(known.rhythm_ms());
            window_ms = window_ms.max(2 * interval_ms);
            let range = (told.at_ms - 5 * window_ms + 1, told.at_ms + 1);
            let wanted = Arc::new(Wanted::everything());
            // Without it the alert goes out all the same.
            let joined = self.rooms.history.join(host, Tier::Raw, range, &wanted).await.ok()?;
            rows = joined.open.iter().flat_map(|table| table.snapshots()).collect();
            rows.extend(joined.reading.pieces.iter().flat_map(|piece| match &piece.content {
                Ok(Content::Ticks(table)) => table.snapshots(),
                _ => Vec::new(),
            }));
            rows.retain(|row| within(row, window_ms));
        }
        if rows.is_empty() {
            return None;
        }
        let times = (told.at_ms - 5 * window_ms, told.at_ms - window_ms, told.at_ms);
        let rows = rows.iter().map(|row| Row {
            at_ms: row.at_ms,
            shape: &row.shape,
            values: &row.values,
            processes: &row.processes,
        });
        Some(explain(metric, times, rows))
    }
}
