//! What the hub must have: the rows that it accepted, and the alerts of the pure evaluators on these rows.

use super::receivers::rules;
use perfwatch_model::{BootId, HostId, Snapshot, limits};
use perfwatch_rules::alert_instance::{AlertInstance, TransitionEvent, TransitionKind};
use perfwatch_rules::host_evaluator::HostEvaluator;
use perfwatch_rules::state_machine::AlertPhase;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Longest window of the rules.
const LOOKBACK_MS: i64 = 60_000;
/// Age of rows up to which a replay reads the recent window instead of the history.
const MAX_RECENT_MS: i64 = 270_000;

/// Boot and sequence number of a row.
pub(super) type RowKey = (BootId, u64);

pub(super) fn row_key(row: &Snapshot) -> RowKey {
    (row.boot, row.seq)
}

/// Alert with its times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AlertRecord {
    pub(super) fired_ms: i64,
    pub(super) resolved_ms: Option<i64>,
    pub(super) rule: Uuid,
    pub(super) instance: String,
    /// Whether the alert was recorded without a notification; `None` for either.
    pub(super) is_backfilled: Option<bool>,
}

impl AlertRecord {
    /// Returns whether both are the same alert.
    pub(super) fn matches(&self, other: &Self) -> bool {
        let is_either = self.is_backfilled.is_none() || other.is_backfilled.is_none();
        let other = match is_either {
            true => Self { is_backfilled: self.is_backfilled, ..other.clone() },
            false => other.clone(),
        };
        *self == other
    }
}

/// Rows and alerts of a host.
pub(super) struct HostReference {
    pub(super) host: HostId,
    /// Accepted rows, as the hub stores them.
    pub(super) rows: BTreeMap<RowKey, Arc<Snapshot>>,
    /// Rows of failed submissions, which may be stored or not.
    pub(super) uncertain: BTreeMap<RowKey, Arc<Snapshot>>,
    pub(super) alerts: Vec<AlertRecord>,
    evaluator: HostEvaluator,
    /// Set while the alerts of accepted rows may not be stored yet: a hub that is killed may lose them.
    pub(super) is_in_doubt: bool,
    /// Set if rows were accepted in another order than that of their times. A replay sorts them.
    is_disordered: bool,
}

fn new_evaluator() -> HostEvaluator {
    let mut evaluator = HostEvaluator::default();
    evaluator.set_rules(rules(), 0, &mut Vec::new());
    evaluator
}

impl HostReference {
    pub(super) fn new(host: HostId) -> Self {
        Self {
            host,
            rows: BTreeMap::new(),
            uncertain: BTreeMap::new(),
            alerts: Vec::new(),
            evaluator: new_evaluator(),
            is_in_doubt: false,
            is_disordered: false,
        }
    }

    /// Accepts the rows that are new, and evaluates them. Returns their number.
    pub(super) fn accept(&mut self, rows: &[Arc<Snapshot>], now_ms: i64) -> usize {
        let mut count = 0;
        for row in rows {
            if self.rows.contains_key(&row_key(row)) {
                continue;
            }
            self.uncertain.remove(&row_key(row));
            self.is_disordered |= row.at_ms <= self.evaluator.last_ms();
            self.is_in_doubt = true;
            let mut events = Vec::new();
            self.evaluator.evaluate_snapshot(row, None, now_ms - row.at_ms, &mut events);
            events.iter().for_each(|event| self.record(event));
            self.rows.insert(row_key(row), row.clone());
            count += 1;
        }
        count
    }

    /// Records a submission without a result.
    pub(super) fn record_failed(&mut self, rows: Vec<Arc<Snapshot>>) {
        let new_rows = rows.into_iter().filter(|row| !self.rows.contains_key(&row_key(row)));
        let new_rows: Vec<_> = new_rows.map(|row| (row_key(&row), row)).collect();
        self.uncertain.extend(new_rows);
    }

    /// Accepts the uncertain rows that a restarted hub has, and forgets the others.
    pub(super) fn resolve_uncertain(&mut self, stored: &BTreeMap<RowKey, Arc<Snapshot>>, now_ms: i64) {
        let uncertain = std::mem::take(&mut self.uncertain);
        let accepted: Vec<_> = uncertain.keys().filter_map(|key| stored.get(key).cloned()).collect();
        self.accept(&accepted, now_ms);
    }

    fn record(&mut self, event: &TransitionEvent) {
        let resolved_ms = match event.kind {
            TransitionKind::Fired => None,
            TransitionKind::Resolved(_) | TransitionKind::Backfilled => {
                Some(event.observed_at_ms.max(event.fired_ms))
            }
        };
        let is_backfilled = Some(event.kind == TransitionKind::Backfilled);
        if resolved_ms.is_some() && is_backfilled == Some(false) {
            let is_resolved_alert = |alert: &&mut AlertRecord| {
                alert.rule == event.rule.id
                    && alert.instance == *event.instance
                    && alert.resolved_ms.is_none()
            };
            let alert = self.alerts.iter_mut().find(is_resolved_alert);
            alert.expect("a firing alert was resolved").resolved_ms = resolved_ms;
            return;
        }
        let (rule, instance) = (event.rule.id, event.instance.to_string());
        self.alerts.push(AlertRecord {
            fired_ms: event.fired_ms,
            resolved_ms,
            rule,
            instance,
            is_backfilled,
        });
    }

    /// Continues with the alerts of a restarted hub, and with the state that its replay leads to.
    pub(super) fn adopt(&mut self, alerts: Vec<AlertRecord>, now_ms: i64) {
        self.evaluator = new_evaluator();
        for alert in alerts.iter().filter(|alert| alert.resolved_ms.is_none()) {
            let times = (alert.fired_ms, alert.fired_ms);
            assert!(self.evaluator.restore(alert.rule, &alert.instance, times, None));
        }
        let mut rows: Vec<&Arc<Snapshot>> = self.rows.values().collect();
        rows.sort_by_key(|row| (row.at_ms, row_key(row)));
        let newest_ms = rows.last().map_or(0, |row| row.at_ms).min(now_ms);
        let from_ms = match newest_ms - LOOKBACK_MS {
            from_ms if from_ms >= now_ms - MAX_RECENT_MS => now_ms - limits::RECENT_WINDOW_MS,
            _ => newest_ms - limits::RECENT_WINDOW_MS,
        };
        for row in rows.into_iter().filter(|row| row.at_ms >= from_ms) {
            self.evaluator.evaluate_snapshot(row, None, now_ms - row.at_ms, &mut Vec::new());
        }
        (self.alerts, self.is_in_doubt, self.is_disordered) = (alerts, false, false);
    }

    /// Returns whether a replay may lead to another state: it sorts rows by time, and the start of a breach in
    /// backfilled rows is not stored before the breach is over.
    pub(super) fn differs_in_replay(&self) -> bool {
        let is_unreported = |alert: &AlertInstance| {
            matches!(alert.state.phase, AlertPhase::Firing { .. }) && !alert.is_firing()
        };
        self.is_disordered || self.evaluator.instances().iter().any(is_unreported)
    }

    /// Time of the newest accepted row.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.rows.values().map(|row| row.at_ms).max()
    }

    /// Alerts in the order of their times.
    pub(super) fn sorted_alerts(&self) -> Vec<AlertRecord> {
        let mut alerts = self.alerts.clone();
        alerts.sort();
        alerts
    }
}
