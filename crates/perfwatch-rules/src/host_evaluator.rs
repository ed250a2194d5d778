//! Evaluates all rules of a host. Columns are bound to alerts once per shape.

use crate::alert_instance::{AlertInstance, ObservationTime, ResolveReason, TransitionEvent, TransitionKind};
use crate::condition::{Condition, HubMetric, instance_matches};
use crate::rule::Rule;
use perfwatch_model::{Shape, Snapshot, unscale};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Derived metric: clock skew of the host as measured by the hub, in milliseconds.
pub const METRIC_CLOCK_SKEW: &str = "clock.skew";

/// Derived metric: `load.5m` per processor core.
pub const METRIC_LOAD_PER_CORE: &str = "load.per_core";
/// Input metrics of [`METRIC_LOAD_PER_CORE`].
pub const LOAD_PER_CORE_INPUTS: [&str; 2] = ["load.5m", "cpu.cores"];

/// Source of a value within a snapshot.
#[derive(Debug, Clone, Copy)]
enum ValueSource {
    Column(usize),
    ClockSkew,
    /// First column divided by the second.
    Ratio(usize, usize),
}

/// Evaluates the rules of a host, snapshot by snapshot.
#[derive(Debug, Default)]
pub struct HostEvaluator {
    rules: Vec<Arc<Rule>>,
    instances: Vec<AlertInstance>,
    shape: Option<Arc<Shape>>,
    /// Alert index and value source of each bound column, for `shape`.
    bindings: Vec<(usize, ValueSource)>,
    /// Indices of alerts whose instance is not in `shape`.
    absent: Vec<usize>,
    /// Index in `instances` by rule and instance.
    index: HashMap<(Uuid, Box<str>), usize>,
    /// Time of the newest snapshot, in milliseconds since 1970.
    last_ms: i64,
}

impl HostEvaluator {
    /// Replaces the rules. Alerts of unchanged rules keep their state; alerts of deleted rules are
    /// resolved. An alert of a changed rule keeps firing until the new condition is clear.
    pub fn set_rules(&mut self, rules: Vec<Arc<Rule>>, now_ms: i64, events: &mut Vec<TransitionEvent>) {
        let by_id: HashMap<Uuid, &Arc<Rule>> = rules.iter().map(|rule| (rule.id, rule)).collect();
        let update = |mut alert: AlertInstance| {
            let is_selected = |rule: &&&Arc<Rule>| match rule.condition.selector() {
                Some((_, patterns)) => instance_matches(patterns, &alert.instance),
                None => true,
            };
            let Some(rule) = by_id.get(&alert.rule.id).filter(is_selected) else {
                events.extend(alert.resolve(ResolveReason::RuleDeleted, now_ms));
                return None;
            };
            if has_same_evaluation(rule, &alert.rule) {
                alert.rule = (*rule).clone();
                return Some(alert);
            }
            // The window of the old condition does not apply; a firing alert waits for a clear value.
            let mut replacement = AlertInstance::new((*rule).clone(), &alert.instance);
            if alert.is_firing() {
                replacement.state = alert.state;
            }
            Some(replacement)
        };
        self.instances = std::mem::take(&mut self.instances).into_iter().filter_map(update).collect();
        self.rules = rules;
        self.rebuild_index();
        // Conditions without a metric do not wait for a column.
        for rule in self.rules.clone() {
            if rule.condition.selector().is_none() {
                self.instance_index(&rule, "");
            }
        }
        self.shape = None;
    }

    /// History that new and changed rules need, in milliseconds; `None` if all rules are unchanged.
    pub fn required_replay_ms(&self, rules: &[Arc<Rule>]) -> Option<i64> {
        let is_unchanged = |rule: &Arc<Rule>| {
            self.rules.iter().any(|old| old.id == rule.id && has_same_evaluation(old, rule))
        };
        rules.iter().filter(|rule| !is_unchanged(rule)).map(|rule| rule.lookback().ms()).max()
    }

    /// Alerts of the host in all phases.
    pub fn instances(&self) -> &[AlertInstance] {
        &self.instances
    }

    /// Index of the alert of a rule and an instance; creates the alert if it does not exist.
    fn instance_index(&mut self, rule: &Arc<Rule>, instance: &str) -> usize {
        *self.index.entry((rule.id, instance.into())).or_insert_with(|| {
            self.instances.push(AlertInstance::new(rule.clone(), instance));
            self.instances.len() - 1
        })
    }

    fn rebuild_index(&mut self) {
        let entry =
            |(index, alert): (usize, &AlertInstance)| ((alert.rule.id, alert.instance.clone()), index);
        self.index = self.instances.iter().enumerate().map(entry).collect();
    }

    /// Time of the newest snapshot, in milliseconds since 1970; 0 before the first.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Resolves firing alerts that `is_open` rejects, without an event: another hub recorded the end.
    pub fn retain_firing(&mut self, is_open: impl Fn(&AlertInstance) -> bool) {
        for alert in self.instances.iter_mut().filter(|alert| alert.is_firing()) {
            if !is_open(alert) {
                alert.resolve(ResolveReason::ConditionCleared, 0);
            }
        }
    }

    /// Restores a firing alert from the store. Returns `false` if its rule does not exist.
    pub fn restore(
        &mut self,
        rule: Uuid,
        instance: &str,
        (since_ms, fired_ms): (i64, i64),
        peak_value: Option<f64>,
    ) -> bool {
        let Some(rule) = self.rules.iter().find(|candidate| candidate.id == rule).cloned() else {
            return false;
        };
        let index = self.instance_index(&rule, instance);
        if !self.instances[index].is_firing() {
            self.instances[index].restore(since_ms, fired_ms, peak_value);
        }
        self.shape = None;
        true
    }

    /// Binds the columns of a shape to alerts, creating alerts for new instances.
    fn bind_shape(&mut self, shape: &Arc<Shape>) {
        self.bindings.clear();
        // Stale instances are dropped, except those of `absent` rules.
        let now_ms = self.last_ms;
        let previous_len = self.instances.len();
        self.instances.retain(|alert| !alert.is_stale(now_ms));
        if self.instances.len() != previous_len {
            self.rebuild_index();
        }
        for rule in self.rules.clone() {
            let Some((metric, patterns)) = rule.condition.selector() else { continue };
            if metric == METRIC_CLOCK_SKEW {
                let alert = self.instance_index(&rule, "");
                self.bindings.push((alert, ValueSource::ClockSkew));
            }
            if metric == METRIC_LOAD_PER_CORE
                && let [Some(load), Some(cores)] =
                    LOAD_PER_CORE_INPUTS.map(|name| shape.column_index(name, ""))
            {
                let alert = self.instance_index(&rule, "");
                self.bindings.push((alert, ValueSource::Ratio(load, cores)));
            }
            for (index, column) in shape.columns().iter().enumerate() {
                if column.metric == metric && instance_matches(patterns, &column.instance) {
                    let alert = self.instance_index(&rule, &column.instance);
                    self.bindings.push((alert, ValueSource::Column(index)));
                }
            }
        }
        let mut is_bound = vec![false; self.instances.len()];
        self.bindings.iter().for_each(|(alert, _)| is_bound[*alert] = true);
        let is_absent =
            |alert: &usize| !is_bound[*alert] && self.instances[*alert].rule.condition.selector().is_some();
        self.absent = (0..self.instances.len()).filter(is_absent).collect();
        self.shape = Some(shape.clone());
    }

    /// Evaluates a snapshot of the host. Snapshots must arrive in the order of time.
    pub fn evaluate_snapshot(
        &mut self,
        snapshot: &Snapshot,
        skew_ms: Option<i64>,
        age_ms: i64,
        events: &mut Vec<TransitionEvent>,
    ) {
        if self.shape.as_ref().is_none_or(|shape| !Arc::ptr_eq(shape, &snapshot.shape)) {
            self.bind_shape(&snapshot.shape);
        }
        self.last_ms = self.last_ms.max(snapshot.at_ms);
        let interval_ms = i64::from(snapshot.interval_ms);
        let time = ObservationTime { at_ms: snapshot.at_ms, interval_ms, age_ms };
        let columns = snapshot.shape.columns();
        let column = |index: usize| unscale(*snapshot.values.get(index)?, columns[index].decimals);
        for (alert, source) in &self.bindings {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds fit into 52 bits")]
            let value = match *source {
                ValueSource::Column(index) => column(index),
                ValueSource::ClockSkew => skew_ms.map(|skew| skew.unsigned_abs() as f64),
                ValueSource::Ratio(numerator, denominator) => column(numerator)
                    .zip(column(denominator))
                    .and_then(|(numerator, denominator)| ratio(numerator, denominator)),
            };
            events.extend(self.instances[*alert].evaluate(value, time));
        }
        for alert in &self.absent {
            events.extend(self.instances[*alert].evaluate_absent(time));
        }
    }

    /// Evaluates the `no_data` rules. `silent_ms` is the time without snapshots. If `has_reported` is
    /// false (no snapshot since the hub started), it is a lower limit only, and evaluation waits until
    /// it exceeds the grace period.
    #[expect(clippy::cast_precision_loss, reason = "days in milliseconds fit into 52 bits")]
    pub fn evaluate_no_data(
        &mut self,
        silent_ms: i64,
        has_reported: bool,
        now_ms: i64,
        events: &mut Vec<TransitionEvent>,
    ) {
        let time = ObservationTime { at_ms: now_ms, interval_ms: 1_000, age_ms: 0 };
        for alert in &mut self.instances {
            let Condition::NoData { grace } = alert.rule.condition else { continue };
            let is_known = has_reported || silent_ms > grace.ms();
            events.extend(alert.evaluate(is_known.then_some(silent_ms as f64 / 1_000.0), time));
        }
    }

    /// Evaluates the `hub` rules on the self-metrics of the hub.
    pub fn evaluate_hub(
        &mut self,
        metrics: &[(HubMetric, f64)],
        now_ms: i64,
        events: &mut Vec<TransitionEvent>,
    ) {
        let time = ObservationTime { at_ms: now_ms, interval_ms: 5_000, age_ms: 0 };
        for alert in &mut self.instances {
            if let Condition::Hub { hub_metric, .. } = alert.rule.condition {
                let value = metrics.iter().find(|(metric, _)| *metric == hub_metric).map(|(_, value)| *value);
                events.extend(alert.evaluate(value, time));
            }
        }
    }
}

/// Returns whether two versions of a rule evaluate alike: same condition and hold time.
fn has_same_evaluation(rule: &Rule, other: &Rule) -> bool {
    rule.condition == other.condition && rule.hold_for == other.hold_for
}

/// Quotient of two values; `None` if the denominator is not positive.
pub fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

/// Reduces the transitions of a replay. Pairs of fired and resolved up to `recorded_until_ms` were
/// recorded when they occurred and are dropped; later pairs become backfill. Unpaired transitions are
/// retained.
pub fn retain_active_transitions(events: &mut Vec<TransitionEvent>, recorded_until_ms: i64) {
    let mut retained: Vec<TransitionEvent> = Vec::new();
    for event in std::mem::take(events) {
        let is_matching_start = |other: &TransitionEvent| {
            other.rule.id == event.rule.id
                && other.instance == event.instance
                && other.kind == TransitionKind::Fired
        };
        match (event.kind, retained.iter().rposition(is_matching_start)) {
            (TransitionKind::Backfilled, _) if event.observed_at_ms <= recorded_until_ms => {}
            (TransitionKind::Resolved(_), Some(start)) => {
                retained.remove(start);
                if event.observed_at_ms > recorded_until_ms {
                    retained.push(TransitionEvent { kind: TransitionKind::Backfilled, ..event });
                }
            }
            _ => retained.push(event),
        }
    }
    *events = retained;
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Column, HumanDuration};

    fn rule(id: u128, condition: &str) -> Arc<Rule> {
        Arc::new(Rule {
            id: Uuid::from_u128(id),
            condition: serde_json::from_str(condition).unwrap(),
            hold_for: HumanDuration::default(),
            ..crate::builtin_rules::builtin_rules().remove(0)
        })
    }

    fn shape(columns: &[(&'static str, &str)]) -> Arc<Shape> {
        let column = |(metric, instance): &(&'static str, &str)| Column {
            metric: (*metric).into(),
            dimension: "".into(),
            instance: (*instance).into(),
            decimals: 1,
        };
        Arc::new(Shape::new(columns.iter().map(column).collect()))
    }

    fn snapshot(shape: &Arc<Shape>, s: i64, values: &[i64]) -> Snapshot {
        Snapshot {
            boot: BootId::default(),
            seq: s.unsigned_abs(),
            at_ms: 1_000_000_000 + s * 1_000,
            interval_ms: 1_000,
            shape: shape.clone(),
            values: values.to_vec(),
            processes: vec![],
            facts: None,
            errors: vec![],
        }
    }

    #[test]
    fn each_instance_has_its_own_alert() {
        let full = rule(
            1,
            r#"{"kind":"threshold","metric":"filesystem.used_percent","instance":"!/boot*","threshold":90}"#,
        );
        let skew = rule(2, r#"{"kind":"threshold","metric":"clock.skew","threshold":5000}"#);
        let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
        evaluator.set_rules(vec![full, skew], 0, &mut events);
        let columns = [
            ("filesystem.used_percent", "/"),
            ("filesystem.used_percent", "/boot"),
            ("filesystem.used_percent", "/srv"),
        ];
        let full_shape = shape(&columns);
        evaluator.evaluate_snapshot(
            &snapshot(&full_shape, 0, &[950, 990, 100]),
            Some(-9_000),
            0,
            &mut events,
        );
        let fired: Vec<&str> = events.iter().map(|event| &*event.instance).collect();
        assert_eq!(fired, ["/", ""]);
        // An unmounted filesystem resolves its alert after the timeout.
        events.clear();
        let reduced_shape = shape(&columns[2..]);
        for s in 1..400 {
            evaluator.evaluate_snapshot(&snapshot(&reduced_shape, s, &[100]), None, 0, &mut events);
        }
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].kind, &*events[0].instance),
            (TransitionKind::Resolved(ResolveReason::InstanceGone), "/")
        );
    }

    #[test]
    fn rule_change_keeps_or_resolves_alerts() {
        let cpu = |threshold: f64| {
            rule(1, &format!(r#"{{"kind":"threshold","metric":"cpu.usage","threshold":{threshold}}}"#))
        };
        let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
        evaluator.set_rules(vec![cpu(50.0)], 0, &mut events);
        let shape = shape(&[("cpu.usage", "")]);
        evaluator.evaluate_snapshot(&snapshot(&shape, 0, &[700]), None, 0, &mut events);
        assert_eq!(events.pop().unwrap().kind, TransitionKind::Fired);
        evaluator.set_rules(vec![cpu(60.0)], 0, &mut events);
        evaluator.evaluate_snapshot(&snapshot(&shape, 1, &[700]), None, 0, &mut events);
        assert!(events.is_empty(), "still firing");
        evaluator.set_rules(vec![cpu(80.0)], 0, &mut events);
        evaluator.evaluate_snapshot(&snapshot(&shape, 2, &[700]), None, 0, &mut events);
        assert_eq!(events.pop().unwrap().kind, TransitionKind::Resolved(ResolveReason::ConditionCleared));
        evaluator.evaluate_snapshot(&snapshot(&shape, 3, &[900]), None, 0, &mut events);
        events.clear();
        evaluator.set_rules(Vec::new(), 0, &mut events);
        assert_eq!(events.pop().unwrap().kind, TransitionKind::Resolved(ResolveReason::RuleDeleted));
    }

    #[test]
    fn replay_emits_only_active_transitions() {
        let cpu = rule(1, r#"{"kind":"threshold","metric":"cpu.usage","threshold":50}"#);
        let shape = shape(&[("cpu.usage", "")]);
        let replay = |is_restored: bool, values: &[i64], recorded_until_ms: i64| {
            let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
            evaluator.set_rules(vec![cpu.clone()], 0, &mut events);
            if is_restored {
                evaluator.restore(cpu.id, "", (1_000_000_000, 1_000_000_000), None);
            }
            for (s, value) in (1..).zip(values) {
                evaluator.evaluate_snapshot(&snapshot(&shape, s, &[*value]), None, 0, &mut events);
            }
            retain_active_transitions(&mut events, recorded_until_ms);
            events.iter().map(|event| event.kind).collect::<Vec<_>>()
        };
        let resolved = TransitionKind::Resolved(ResolveReason::ConditionCleared);
        let forever = i64::MAX;
        assert_eq!(replay(false, &[100, 900, 100], forever), []);
        assert_eq!(replay(false, &[100, 900, 100], 0), [TransitionKind::Backfilled], "not recorded before");
        assert_eq!(replay(false, &[900, 100, 900], forever), [TransitionKind::Fired]);
        assert_eq!(replay(true, &[900, 100, 900, 100], forever), [resolved]);
        assert_eq!(replay(true, &[900, 100, 900], forever), [resolved, TransitionKind::Fired]);
        assert_eq!(replay(true, &[900], forever), []);
    }

    #[test]
    fn no_data_fires_once_and_resolves() {
        let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
        evaluator.set_rules(vec![rule(1, r#"{"kind":"no_data","grace":"30s"}"#)], 0, &mut events);
        for s in 0..100_i64 {
            evaluator.evaluate_no_data(s * 1_000, true, 1_000_000 + s * 1_000, &mut events);
        }
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].observed_at_ms, 1_031_000);
        evaluator.evaluate_no_data(500, true, 1_200_000, &mut events);
        assert_eq!(events[1].kind, TransitionKind::Resolved(ResolveReason::ConditionCleared));
        assert!(
            evaluator.restore(Uuid::from_u128(1), "", (5, 6), None)
                && !evaluator.restore(Uuid::from_u128(9), "", (5, 6), None)
        );
    }
}
