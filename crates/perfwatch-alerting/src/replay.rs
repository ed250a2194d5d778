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

/// Stored rows of a host with the metrics of the rules, sorted by time. Empty if the recent window
/// covers the lookback.
pub(crate) async fn load_replay_rows(
    history: &History,
    host: HostId,
    rules: &[Arc<Rule>],
    now_ms: i64,
    lookback_ms: i64,
) -> Result<Vec<Arc<Snapshot>>, StoreError> {
    if lookback_ms <= IN_MEMORY_REPLAY_MS {
        return Ok(Vec::new());
    }
    let from_ms = now_ms.saturating_sub(lookback_ms);
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
