//! Collects the snapshots from which top consumers and movers of an alert are computed.

use perfwatch_history::History;
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Clock, HostId, Snapshot};
use perfwatch_rules::alert_instance::TransitionEvent;
use perfwatch_rules::explain::{ExplainRange, ExplainRow, Explanation, explain};
use perfwatch_store::BlockContent;
use perfwatch_tsdb::{Projection, Tier};
use std::sync::Arc;

/// Minimum length of the explained time.
const MIN_SPAN_MS: i64 = 10_000;
/// Maximum length of the explained time. With a baseline of four times this length, both are within
/// the recent window.
const MAX_SPAN_MS: i64 = 50_000;
/// Minimum number of recent rows. With fewer rows, stored history is read.
const MIN_ROWS: usize = 8;

/// Reads the snapshots around an alert from the recent window, or from history for hosts with a long
/// interval.
pub(crate) struct AlertExplainer {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hosts: Arc<HostRegistry>,
    pub(crate) live_feed: Arc<LiveFeed>,
    pub(crate) history: Arc<History>,
}

/// Time range of an explanation, baseline included. The start is exclusive, the end inclusive.
#[derive(Clone, Copy)]
struct ExplainedSpan {
    span_ms: i64,
    to_ms: i64,
}

impl ExplainedSpan {
    fn baseline_from_ms(self) -> i64 {
        self.to_ms - 5 * self.span_ms
    }

    fn contains(self, row: &Snapshot) -> bool {
        row.at_ms > self.baseline_from_ms() && row.at_ms <= self.to_ms
    }
}

impl AlertExplainer {
    /// Top consumers and movers of a fired alert; `None` for conditions without a metric, or without
    /// snapshots.
    pub(crate) async fn explain(&self, host: HostId, event: &TransitionEvent) -> Option<Explanation> {
        let (metric, _) = event.rule.condition.selector()?;
        let hold_ms =
            (event.observed_at_ms - event.pending_since_ms).max(event.rule.condition.lookback().ms());
        let mut span =
            ExplainedSpan { span_ms: hold_ms.clamp(MIN_SPAN_MS, MAX_SPAN_MS), to_ms: event.observed_at_ms };
        let from_ms = span.baseline_from_ms();
        let recent = self.live_feed.recent(host, from_ms, self.clock.wall_ms()).await;
        let mut rows: Vec<Arc<Snapshot>> =
            recent.snapshots.iter().map(|published| published.snapshot.clone()).collect();
        rows.retain(|row| span.contains(row));
        if rows.len() < MIN_ROWS {
            let interval_ms = i64::from(self.hosts.get(host)?.interval_ms());
            span.span_ms = span.span_ms.max(2 * interval_ms);
            rows = self.read_history(host, span).await?;
        }
        if rows.is_empty() {
            return None;
        }
        let range = ExplainRange {
            baseline_from_ms: span.baseline_from_ms(),
            from_ms: span.to_ms - span.span_ms,
            to_ms: span.to_ms,
        };
        let rows = rows.iter().map(|row| ExplainRow {
            at_ms: row.at_ms,
            shape: &row.shape,
            values: &row.values,
            processes: &row.processes,
        });
        Some(explain(metric, range, rows))
    }

    /// Reads complete snapshots from history; `None` if that fails: the alert is notified without an
    /// explanation.
    async fn read_history(&self, host: HostId, span: ExplainedSpan) -> Option<Vec<Arc<Snapshot>>> {
        let range = (span.baseline_from_ms() + 1, span.to_ms + 1);
        let projection = Arc::new(Projection::full());
        let series = self.history.read(host, Tier::Raw, range, &projection).await.ok()?;
        let mut rows: Vec<Arc<Snapshot>> =
            series.unsealed.iter().flat_map(|table| table.snapshots()).collect();
        rows.extend(series.sealed.slices.iter().flat_map(|slice| match &slice.content {
            Ok(BlockContent::Raw(table)) => table.snapshots(),
            _ => Vec::new(),
        }));
        rows.retain(|row| span.contains(row));
        Some(rows)
    }
}
