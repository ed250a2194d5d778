//! Evaluates all rules of a host. Columns are bound to alerts once per shape; the bindings of the last shapes are
//! kept for hosts whose snapshots alternate between shapes.

use crate::alert_instance::{AlertInstance, ObservationTime, ResolveReason, TransitionEvent, TransitionKind};
use crate::condition::{Condition, instance_matches};
use crate::hub_metric::HubMetric;
use crate::rule::Rule;
use perfwatch_model::{Shape, ShapeId, Snapshot, limit_table, limits, unscale};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// Derived metric: clock skew of the host as measured by the hub, in milliseconds.
pub const METRIC_CLOCK_SKEW: &str = "clock.skew";

/// Derived metric: `load.5m` per processor core.
pub const METRIC_LOAD_PER_CORE: &str = "load.per_core";
/// Input metrics of [`METRIC_LOAD_PER_CORE`].
pub const LOAD_PER_CORE_INPUTS: [&str; 2] = ["load.5m", "cpu.cores"];

/// Number of shapes of a host whose bindings are kept.
const MAX_BOUND_SHAPES: usize = 4;

/// Source of a value within a snapshot.
#[derive(Debug, Clone, Copy)]
enum ValueSource {
    Column(u32),
    ClockSkew,
    /// First column divided by the second.
    Ratio(u32, u32),
}

/// Alerts that the columns of a shape are bound to.
#[derive(Debug)]
struct BoundShape {
    id: ShapeId,
    /// Alert index and value source of each bound column.
    columns: Box<[(u32, ValueSource)]>,
    /// Indices of alerts whose instance is not in the shape.
    absent: Box<[u32]>,
    /// Number of alerts that `absent` takes into account.
    instance_count: usize,
}

/// Evaluates the rules of a host, snapshot by snapshot.
#[derive(Debug, Default)]
pub struct HostEvaluator {
    rules: Vec<Arc<Rule>>,
    instances: Vec<AlertInstance>,
    /// Shapes of the newest snapshots; the last one was used last.
    bound_shapes: VecDeque<BoundShape>,
    /// Index in `instances` by rule and instance; empty except while shapes are bound, because each host has its own.
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
        self.index.clear();
        // Conditions without a metric do not wait for a column.
        for rule in self.rules.clone() {
            if rule.condition.selector().is_none() {
                self.instance_index(&rule, "");
            }
        }
        self.bound_shapes.clear();
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

    /// Index of the alert of a rule and an instance; creates the alert if it does not exist. `None` if the
    /// host has as many alerts as it may have.
    fn instance_index(&mut self, rule: &Arc<Rule>, instance: &str) -> Option<usize> {
        let next = self.instances.len();
        if self.index.len() != next {
            let entry =
                |(index, alert): (usize, &AlertInstance)| ((alert.rule.id, alert.instance.clone()), index);
            self.index = self.instances.iter().enumerate().map(entry).collect();
        }
        match self.index.entry((rule.id, instance.into())) {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(_) if next >= limits::MAX_ALERTS_PER_HOST => {
                limit_table::ALERTS_PER_HOST.refuse();
                None
            }
            Entry::Vacant(entry) => {
                self.instances.push(AlertInstance::new(rule.clone(), instance));
                Some(*entry.insert(next))
            }
        }
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
        let Some(index) = self.instance_index(&rule, instance) else {
            return false;
        };
        if !self.instances[index].is_firing() {
            self.instances[index].restore(since_ms, fired_ms, peak_value);
        }
        self.bound_shapes.clear();
        true
    }

    /// Drops alerts of instances that are gone, except those of `absent` rules.
    fn drop_stale(&mut self) {
        let now_ms = self.last_ms;
        let previous_len = self.instances.len();
        self.instances.retain(|alert| !alert.is_stale(now_ms));
        if self.instances.len() != previous_len {
            self.index.clear();
            self.bound_shapes.clear();
        }
    }

    /// Binds the columns of a shape to alerts, creating alerts for new instances.
    fn bind_columns(&mut self, shape: &Shape) -> Box<[(u32, ValueSource)]> {
        // Only while a shape is bound: each host would have a table of its own.
        let rules = self.rules.clone();
        let mut rules_by_metric: HashMap<&str, Vec<&Arc<Rule>>> = HashMap::new();
        for rule in &rules {
            if let Some((metric, _)) = rule.condition.selector() {
                rules_by_metric.entry(metric).or_default().push(rule);
            }
        }
        let load = LOAD_PER_CORE_INPUTS.map(|name| shape.column_index(name, "").and_then(index_u32));
        let derived = [
            (METRIC_CLOCK_SKEW, Some(ValueSource::ClockSkew)),
            (METRIC_LOAD_PER_CORE, load[0].zip(load[1]).map(|(load, cores)| ValueSource::Ratio(load, cores))),
        ];
        let columns = shape.columns().iter().enumerate();
        let columns = columns.map(|(index, column)| {
            (&*column.metric, &*column.instance, index_u32(index).map(ValueSource::Column))
        });
        let derived = derived.into_iter().map(|(metric, source)| (metric, "", source));
        let mut bound = Vec::new();
        for (metric, instance, source) in columns.chain(derived) {
            let (Some(source), Some(rules)) = (source, rules_by_metric.get(metric)) else { continue };
            for rule in rules {
                let patterns = rule.condition.selector().and_then(|(_, patterns)| patterns);
                let is_derived = !matches!(source, ValueSource::Column(_));
                if (is_derived || instance_matches(patterns, instance))
                    && let Some(alert) = self.instance_index(rule, instance).and_then(index_u32)
                {
                    bound.push((alert, source));
                }
            }
        }
        bound.into()
    }

    /// Makes a shape the last of the bound shapes.
    fn bind_shape(&mut self, shape: &Shape) {
        let id = shape.id();
        if let Some(index) = self.bound_shapes.iter().rposition(|bound| bound.id == id) {
            // Usually the last one, which stays where it is.
            if index + 1 < self.bound_shapes.len()
                && let Some(bound) = self.bound_shapes.remove(index)
            {
                self.bound_shapes.push_back(bound);
            }
        } else {
            self.drop_stale();
            let columns = self.bind_columns(shape);
            self.index = HashMap::new();
            self.instances.shrink_to_fit();
            self.bound_shapes.push_back(BoundShape {
                id,
                columns,
                absent: Box::default(),
                instance_count: 0,
            });
            if self.bound_shapes.len() > MAX_BOUND_SHAPES {
                self.bound_shapes.pop_front();
            }
        }
        let Some(bound) = self.bound_shapes.back_mut() else { return };
        // Another shape may have created alerts since.
        if bound.instance_count != self.instances.len() {
            let mut is_bound = vec![false; self.instances.len()];
            bound.columns.iter().for_each(|(alert, _)| is_bound[*alert as usize] = true);
            let is_absent = |alert: &usize| {
                !is_bound[*alert] && self.instances[*alert].rule.condition.selector().is_some()
            };
            let absent = (0..self.instances.len()).filter(is_absent);
            bound.absent = absent.filter_map(index_u32).collect();
            bound.instance_count = self.instances.len();
        }
    }

    /// Evaluates a snapshot of the host. Snapshots must arrive in the order of time.
    pub fn evaluate_snapshot(
        &mut self,
        snapshot: &Snapshot,
        skew_ms: Option<i64>,
        age_ms: i64,
        events: &mut Vec<TransitionEvent>,
    ) {
        self.bind_shape(&snapshot.shape);
        self.last_ms = self.last_ms.max(snapshot.at_ms);
        let interval_ms = i64::from(snapshot.interval_ms);
        let time = ObservationTime { at_ms: snapshot.at_ms, interval_ms, age_ms };
        let columns = snapshot.shape.columns();
        let column = |index: u32| {
            let index = index as usize;
            unscale(*snapshot.values.get(index)?, columns[index].decimals)
        };
        let Some(bound) = self.bound_shapes.back() else { return };
        for (alert, source) in &bound.columns {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds fit into 52 bits")]
            let value = match *source {
                ValueSource::Column(index) => column(index),
                ValueSource::ClockSkew => skew_ms.map(|skew| skew.unsigned_abs() as f64),
                ValueSource::Ratio(numerator, denominator) => column(numerator)
                    .zip(column(denominator))
                    .and_then(|(numerator, denominator)| ratio(numerator, denominator)),
            };
            events.extend(self.instances[*alert as usize].evaluate(value, time));
        }
        for alert in &bound.absent {
            events.extend(self.instances[*alert as usize].evaluate_absent(time));
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

/// Index of a column or an alert as bound shapes contain it, which each host has.
fn index_u32(index: usize) -> Option<u32> {
    u32::try_from(index).ok()
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
#[path = "host_evaluator_tests.rs"]
mod tests;
