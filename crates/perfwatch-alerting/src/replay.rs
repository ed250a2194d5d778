//! Input of a replay: stored snapshots, and the alerts that fire according to the store.

use crate::active_incidents::Alert;
use crate::definitions::AlertDefinitions;
use crate::state::AlertingSnapshot;
use perfwatch_history::History;
use perfwatch_model::{HostId, Snapshot, limits};
use perfwatch_rules::Rule;
use perfwatch_rules::alert_instance::{ResolveReason, TransitionEvent, TransitionKind};
use perfwatch_rules::host_evaluator::{HostEvaluator, LOAD_PER_CORE_INPUTS};
use perfwatch_store::{BlockContent, StoreError};
use perfwatch_tsdb::{Projection, SeriesSelector, Tier};
use std::collections::HashSet;
use std::sync::Arc;

/// Length of history that the recent window covers, less the time in which its oldest rows expire.
const IN_MEMORY_REPLAY_MS: i64 = limits::RECENT_WINDOW_MS - 30_000;
/// Maximum length of history that is replayed from raw rows. A longer lookback is replayed from minutes,
/// because raw rows of days would be hundreds of thousands.
const MAX_RAW_REPLAY_MS: i64 = 12 * 3_600_000;

/// History that a replay covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplayRange {
    /// Start, in milliseconds since 1970.
    pub(crate) from_ms: i64,
    /// History that the rules need, in milliseconds.
    pub(crate) lookback_ms: i64,
}

impl ReplayRange {
    /// Range for rules that need a history of `lookback_ms` (`None` if the evaluator has their state), and for
    /// snapshots that arrived before the replay. It begins at the newest evaluated snapshot, which may be old: a
    /// host that spooled during an outage of the hub continues from there, and older snapshots change nothing.
    /// `None` if nothing is replayed.
    pub(crate) fn new(
        lookback_ms: Option<i64>,
        evaluated_until_ms: i64,
        missed_since_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<Self> {
        let evaluated_ms = (evaluated_until_ms > 0).then(|| evaluated_until_ms.min(now_ms));
        let first_ms = match (evaluated_ms, lookback_ms) {
            (Some(evaluated_ms), Some(_)) => evaluated_ms,
            (Some(evaluated_ms), None) => missed_since_ms?.max(evaluated_ms),
            (None, Some(_)) => missed_since_ms.unwrap_or(now_ms).min(now_ms),
            (None, None) => missed_since_ms?,
        };
        let lookback_ms = lookback_ms.unwrap_or_default();
        let from_ms = first_ms.saturating_sub(lookback_ms);
        let from_ms = match from_ms >= in_memory_since_ms(now_ms) {
            true => from_ms,
            // As much as the recent window has: an instance that is missing for this time is gone.
            false => from_ms.min(first_ms.saturating_sub(limits::RECENT_WINDOW_MS)),
        };
        Some(Self { from_ms, lookback_ms })
    }
}

/// Time from which on the recent window covers everything.
pub(crate) fn in_memory_since_ms(now_ms: i64) -> i64 {
    now_ms.saturating_sub(IN_MEMORY_REPLAY_MS)
}

/// Stored rows of a host with the metrics of the rules, sorted by time. Empty if the recent window
/// covers the range.
pub(crate) async fn load_replay_rows(
    history: &History,
    host: HostId,
    rules: &[Arc<Rule>],
    range: ReplayRange,
    now_ms: i64,
) -> Result<Vec<Arc<Snapshot>>, StoreError> {
    let ReplayRange { from_ms, lookback_ms } = range;
    if from_ms >= in_memory_since_ms(now_ms) {
        return Ok(Vec::new());
    }
    let selector = |metric: &str| SeriesSelector { metric: metric.to_owned(), instance: None };
    let mut series: HashSet<SeriesSelector> =
        rules.iter().filter_map(|rule| Some(selector(rule.condition.selector()?.0))).collect();
    series.extend(LOAD_PER_CORE_INPUTS.map(selector));
    let projection = Projection { sequences: true, ..Projection::of_series(series.into_iter().collect()) };
    let tier = if lookback_ms > MAX_RAW_REPLAY_MS { Tier::Minute } else { Tier::Raw };
    let series = history.read(host, tier, (from_ms, i64::MAX), &Arc::new(projection)).await?;
    let collect_rows = move || {
        let mut rows: Vec<Arc<Snapshot>> =
            series.unsealed.iter().flat_map(|table| table.snapshots()).collect();
        for slice in &series.sealed.slices {
            match &slice.content {
                Ok(BlockContent::Raw(table)) => rows.extend(table.snapshots()),
                Ok(BlockContent::Buckets(buckets)) => {
                    let to_snapshot = |row| {
                        Arc::new(perfwatch_history::read::bucket_snapshot(buckets, row, slice.block.tier))
                    };
                    rows.extend((0..buckets.start_ms.len()).map(to_snapshot));
                }
                Err(_) => {}
            }
        }
        rows.retain(|row| row.at_ms >= from_ms);
        rows.sort_by_key(|row| row.at_ms);
        rows
    };
    perfwatch_history::run_blocking(collect_rows).await
}

/// Makes the firing alerts of an evaluator those of the store. Returns resolutions of alerts whose rule
/// no longer exists.
pub(crate) fn restore_firing(
    evaluator: &mut HostEvaluator,
    state: &AlertingSnapshot,
    host: HostId,
    now_ms: i64,
) -> Vec<TransitionEvent> {
    let firing = state.incidents.host_alerts(host);
    evaluator.retain_firing(|instance| {
        firing.iter().any(|alert| alert.rule == instance.rule.id && alert.body.instance == *instance.instance)
    });
    let mut events = Vec::new();
    for alert in firing {
        let times = (alert.body.pending_since_ms, alert.fired_ms);
        if !evaluator.restore(alert.rule, &alert.body.instance, times, alert.body.peak_value) {
            events.push(orphaned_transition(&state.definitions, &alert, ResolveReason::RuleDeleted, now_ms));
        }
    }
    events
}

/// Resolution of an alert that no evaluator covers any more.
pub(crate) fn orphaned_transition(
    definitions: &AlertDefinitions,
    alert: &Alert,
    reason: ResolveReason,
    now_ms: i64,
) -> TransitionEvent {
    let rule = definitions.rule(alert.rule).cloned().unwrap_or_else(|| Arc::new(alert.reconstruct_rule()));
    TransitionEvent {
        rule,
        instance: alert.body.instance.as_str().into(),
        kind: TransitionKind::Resolved(reason),
        pending_since_ms: alert.body.pending_since_ms,
        fired_ms: alert.fired_ms,
        observed_at_ms: now_ms,
        value: None,
        peak_value: alert.body.peak_value,
    }
}

#[cfg(test)]
mod tests {
    use super::ReplayRange;

    #[test]
    fn range_begins_at_the_newest_evaluated_snapshot() {
        let from_ms = |lookback_ms, evaluated_until_ms, missed_since_ms| {
            let range = ReplayRange::new(lookback_ms, evaluated_until_ms, missed_since_ms, 1_000);
            range.map(|range| range.from_ms)
        };
        assert_eq!(from_ms(Some(60), 0, None), Some(940), "a new host");
        assert_eq!(from_ms(Some(60), 0, Some(500)), Some(440), "its first snapshots are old");
        assert_eq!(from_ms(Some(60), 700, None), Some(640), "an outage");
        assert_eq!(from_ms(Some(60), 700, Some(500)), Some(640), "older snapshots change nothing");
        assert_eq!(from_ms(Some(60), 2_000, None), Some(940), "a time in the future");
        assert_eq!(from_ms(None, 700, Some(800)), Some(800));
        assert_eq!(from_ms(None, 700, Some(500)), Some(700));
        assert_eq!(from_ms(None, 700, None), None);
    }
}
