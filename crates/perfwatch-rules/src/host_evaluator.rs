//! All rules at one host: which of its columns each looks at, worked out once for each shape.

use crate::alert_instance::{AlertInstance, ObservationTime, ResolveReason, TransitionEvent, TransitionKind};
use crate::condition::{Condition, HubMetric, instance_matches};
use crate::rule::Rule;
use perfwatch_model::{Shape, Snapshot, unscale};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// A figure that the hub adds to what a host sends: how far its clock is off, milliseconds.
pub const METRIC_CLOCK_SKEW: &str = "clock.skew";

/// A figure that is made of two that a host sends: `load.5m` a processor.
pub const METRIC_LOAD_PER_CORE: &str = "load.per_core";
/// What [`LOAD_PER_CORE`] is made of.
pub const LOAD_PER_CORE_INPUTS: [&str; 2] = ["load.5m", "cpu.cores"];

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
enum ValueSource {
    Column(usize),
    ClockSkew,
    /// One column by another.
    Ratio(usize, usize),
}

/// The alerts of one host.
#[derive(Debug, Default)]
pub struct HostEvaluator {
    rules: Vec<Arc<Rule>>,
    instances: Vec<AlertInstance>,
    shape: Option<Arc<Shape>>,
    /// Which track looks at what, for the shape.
    bind_shape: Vec<(usize, ValueSource)>,
    /// Tracks that look at nothing of the shape.
    absent: Vec<usize>,
    /// Where each track is, by rule and instance.
    index: HashMap<(Uuid, Box<str>), usize>,
    /// When the last snapshot was taken, and the time between it and the one before.
    last_ms: i64,
    interval_ms: i64,
}

/// A sender that does not say how often it sends is not taken to be rarer than this.
const MAX_INTERVAL_MS: i64 = 3_600_000;

impl HostEvaluator {
    /// These rules from now on. What they knew of unchanged series they still know; what fires by
    /// a rule that is gone ends.
    pub fn set_rules(&mut self, rules: Vec<Arc<Rule>>, now_ms: i64, told: &mut Vec<TransitionEvent>) {
        let by_id: HashMap<Uuid, &Arc<Rule>> = rules.iter().map(|rule| (rule.id, rule)).collect();
        let keep = |mut track: AlertInstance| {
            let Some(rule) = by_id.get(&track.rule.id) else {
                told.extend(track.resolve(ResolveReason::RuleDeleted, now_ms));
                return None;
            };
            let fits = match rule.condition.selector() {
                Some((_, patterns)) => instance_matches(patterns, &track.instance),
                None => true,
            };
            if !fits {
                told.extend(track.resolve(ResolveReason::RuleDeleted, now_ms));
                return None;
            }
            if rule.condition == track.rule.condition && rule.hold_for == track.rule.hold_for {
                track.rule = (*rule).clone();
                return Some(track);
            }
            // Another question: it fires until the answer is no.
            let mut new = AlertInstance::new((*rule).clone(), &track.instance);
            if track.is_firing() {
                new.state = track.state;
            }
            Some(new)
        };
        self.instances = std::mem::take(&mut self.instances).into_iter().filter_map(keep).collect();
        self.rules = rules;
        self.rebuild_index();
        // Those that need no column are there from the first moment.
        for rule in self.rules.clone() {
            if rule.condition.selector().is_none() {
                self.instance_index(&rule, "");
            }
        }
        self.shape = None;
    }

    /// How much of the past these rules want that this watch has not seen, milliseconds; none where
    /// it knows all of them.
    pub fn required_replay_ms(&self, rules: &[Arc<Rule>]) -> Option<i64> {
        let known = |rule: &Arc<Rule>| {
            self.rules.iter().any(|old| {
                old.id == rule.id && old.condition == rule.condition && old.hold_for == rule.hold_for
            })
        };
        rules.iter().filter(|rule| !known(rule)).map(|rule| rule.lookback().ms()).max()
    }

    /// What it looks at.
    pub fn instances(&self) -> &[AlertInstance] {
        &self.instances
    }

    /// The alert of a rule and an instance, new or known.
    fn instance_index(&mut self, rule: &Arc<Rule>, instance: &str) -> usize {
        *self.index.entry((rule.id, instance.into())).or_insert_with(|| {
            self.instances.push(AlertInstance::new(rule.clone(), instance));
            self.instances.len() - 1
        })
    }

    fn rebuild_index(&mut self) {
        let place = |(at, track): (usize, &AlertInstance)| ((track.rule.id, track.instance.clone()), at);
        self.index = self.instances.iter().enumerate().map(place).collect();
    }

    /// When its newest snapshot was taken; 0 if there was none.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Ends, without a word, what fires here but is not known to fire: another hub saw the end of it.
    pub fn retain_firing(&mut self, known: impl Fn(&AlertInstance) -> bool) {
        for track in self.instances.iter_mut().filter(|track| track.is_firing()) {
            if !known(track) {
                track.resolve(ResolveReason::ConditionCleared, 0);
            }
        }
    }

    /// An alert that was known to fire before; false where no rule asks any more.
    pub fn restore(
        &mut self,
        rule: Uuid,
        instance: &str,
        (since_ms, fired_ms): (i64, i64),
        worst: Option<f64>,
    ) -> bool {
        let Some(rule) = self.rules.iter().find(|known| known.id == rule).cloned() else { return false };
        let track = self.instance_index(&rule, instance);
        if !self.instances[track].is_firing() {
            self.instances[track].restore(since_ms, fired_ms, worst);
        }
        self.shape = None;
        true
    }

    fn bind_shape(&mut self, shape: &Arc<Shape>) {
        self.bind_shape.clear();
        // Instances that went long ago are forgotten, but for rules about just that.
        let now_ms = self.last_ms;
        let before = self.instances.len();
        self.instances.retain(|track| !track.is_stale(now_ms));
        if self.instances.len() != before {
            self.rebuild_index();
        }
        for rule in self.rules.clone() {
            let Some((metric, patterns)) = rule.condition.selector() else { continue };
            if metric == METRIC_CLOCK_SKEW {
                let track = self.instance_index(&rule, "");
                self.bind_shape.push((track, ValueSource::ClockSkew));
            }
            if metric == METRIC_LOAD_PER_CORE
                && let [Some(load), Some(cores)] =
                    LOAD_PER_CORE_INPUTS.map(|name| shape.column_index(name, ""))
            {
                let track = self.instance_index(&rule, "");
                self.bind_shape.push((track, ValueSource::Ratio(load, cores)));
            }
            for (at, column) in shape.columns().iter().enumerate() {
                if column.metric == metric && instance_matches(patterns, &column.instance) {
                    let track = self.instance_index(&rule, &column.instance);
                    self.bind_shape.push((track, ValueSource::Column(at)));
                }
            }
        }
        let mut planned = vec![false; self.instances.len()];
        self.bind_shape.iter().for_each(|(track, _)| planned[*track] = true);
        let looks = |at: &usize| !planned[*at] && self.instances[*at].rule.condition.selector().is_some();
        self.absent = (0..self.instances.len()).filter(looks).collect();
        self.shape = Some(shape.clone());
    }

    /// Takes in a snapshot of the host, in the order of their time.
    pub fn observe(
        &mut self,
        snapshot: &Snapshot,
        skew_ms: Option<i64>,
        lag_ms: i64,
        told: &mut Vec<TransitionEvent>,
    ) {
        if self.shape.as_ref().is_none_or(|shape| !Arc::ptr_eq(shape, &snapshot.shape)) {
            self.bind_shape(&snapshot.shape);
        }
        let apart_ms = snapshot.at_ms.saturating_sub(self.last_ms);
        if self.last_ms > 0 && apart_ms > 0 {
            self.interval_ms = apart_ms.min(MAX_INTERVAL_MS);
        }
        self.last_ms = self.last_ms.max(snapshot.at_ms);
        // Scripts don't say how often they send: as often as they do.
        let told_ms = i64::from(snapshot.interval_ms);
        let interval_ms = if told_ms > 0 { told_ms } else { self.interval_ms };
        let moment = ObservationTime { at_ms: snapshot.at_ms, interval_ms, age_ms: lag_ms };
        let columns = snapshot.shape.columns();
        let column = |at: usize| unscale(*snapshot.values.get(at)?, columns[at].decimals);
        for (track, source) in &self.bind_shape {
            #[expect(clippy::cast_precision_loss, reason = "to a millisecond")]
            let value = match *source {
                ValueSource::Column(at) => column(at),
                ValueSource::ClockSkew => skew_ms.map(|skew| skew.unsigned_abs() as f64),
                ValueSource::Ratio(part, whole) => {
                    column(part).zip(column(whole)).and_then(|(part, whole)| ratio(part, whole))
                }
            };
            told.extend(self.instances[*track].observe(value, moment));
        }
        for track in &self.absent {
            told.extend(self.instances[*track].observe_absent(moment));
        }
    }

    /// How long the host has been silent, milliseconds; `heard` is whether anything ever came
    /// since somebody listens: if not, it was silent for that long at least.
    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    pub fn observe_no_data(
        &mut self,
        silent_ms: i64,
        heard: bool,
        now_ms: i64,
        told: &mut Vec<TransitionEvent>,
    ) {
        let moment = ObservationTime { at_ms: now_ms, interval_ms: 1_000, age_ms: 0 };
        for track in &mut self.instances {
            let Condition::NoData { grace } = track.rule.condition else { continue };
            let known = heard || silent_ms > grace.ms();
            told.extend(track.observe(known.then_some(silent_ms as f64 / 1_000.0), moment));
        }
    }

    /// Figures of the hub itself.
    pub fn observe_hub(
        &mut self,
        figures: &[(HubMetric, f64)],
        now_ms: i64,
        told: &mut Vec<TransitionEvent>,
    ) {
        let moment = ObservationTime { at_ms: now_ms, interval_ms: 5_000, age_ms: 0 };
        for track in &mut self.instances {
            if let Condition::Hub { hub_metric: figure, .. } = track.rule.condition {
                let value = figures.iter().find(|(known, _)| *known == figure).map(|(_, value)| *value);
                told.extend(track.observe(value, moment));
            }
        }
    }
}

/// One by another, where there is another.
pub fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// What a replay of the past says: what began and ended until `known_ms` was written down when it
/// was; what did later is of the past, and what is so still is told.
pub fn retain_active_transitions(told: &mut Vec<TransitionEvent>, known_ms: i64) {
    let mut kept: Vec<TransitionEvent> = Vec::new();
    for one in std::mem::take(told) {
        let same = |other: &TransitionEvent| other.rule.id == one.rule.id && other.instance == one.instance;
        let open = |other: &TransitionEvent| same(other) && other.kind == TransitionKind::Fired;
        match (one.kind, kept.iter().rposition(open)) {
            (TransitionKind::Backfilled, _) if one.observed_at_ms <= known_ms => {}
            (TransitionKind::Resolved(_), Some(at)) => {
                kept.remove(at);
                if one.observed_at_ms > known_ms {
                    kept.push(TransitionEvent { kind: TransitionKind::Backfilled, ..one });
                }
            }
            _ => kept.push(one),
        }
    }
    *told = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Column, HumanDuration};

    fn rule(id: u128, when: &str) -> Arc<Rule> {
        let when = serde_json::from_str(when).unwrap();
        let id = Uuid::from_u128(id);
        Arc::new(Rule {
            id,
            condition: when,
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
            r#"{"kind":"value","metric":"filesystem.used_percent","instance":"!/boot*","threshold":90}"#,
        );
        let skew = rule(2, r#"{"kind":"value","metric":"clock.skew","threshold":5000}"#);
        let (mut watch, mut told) = (HostEvaluator::default(), Vec::new());
        watch.set_rules(vec![full, skew], 0, &mut told);
        let columns = [
            ("filesystem.used_percent", "/"),
            ("filesystem.used_percent", "/boot"),
            ("filesystem.used_percent", "/srv"),
        ];
        let three = shape(&columns);
        watch.observe(&snapshot(&three, 0, &[950, 990, 100]), Some(-9_000), 0, &mut told);
        let fired: Vec<&str> = told.iter().map(|told| &*told.instance).collect();
        assert_eq!(fired, ["/", ""]);
        // The mount goes: its alert ends when it has been gone for long enough.
        told.clear();
        let one = shape(&columns[2..]);
        for s in 1..400 {
            watch.observe(&snapshot(&one, s, &[100]), None, 0, &mut told);
        }
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].kind, &*told[0].instance),
            (TransitionKind::Resolved(ResolveReason::InstanceGone), "/")
        );
    }

    #[test]
    fn rules_change_under_an_alert() {
        let cpu = |threshold: f64| {
            rule(1, &format!(r#"{{"kind":"value","metric":"cpu.usage","threshold":{threshold}}}"#))
        };
        let (mut watch, mut told) = (HostEvaluator::default(), Vec::new());
        watch.set_rules(vec![cpu(50.0)], 0, &mut told);
        let shape = shape(&[("cpu.usage", "")]);
        watch.observe(&snapshot(&shape, 0, &[700]), None, 0, &mut told);
        assert_eq!(told.pop().unwrap().kind, TransitionKind::Fired);
        watch.set_rules(vec![cpu(60.0)], 0, &mut told);
        watch.observe(&snapshot(&shape, 1, &[700]), None, 0, &mut told);
        assert!(told.is_empty(), "it fires on");
        watch.set_rules(vec![cpu(80.0)], 0, &mut told);
        watch.observe(&snapshot(&shape, 2, &[700]), None, 0, &mut told);
        assert_eq!(told.pop().unwrap().kind, TransitionKind::Resolved(ResolveReason::ConditionCleared));
        watch.observe(&snapshot(&shape, 3, &[900]), None, 0, &mut told);
        told.clear();
        watch.set_rules(Vec::new(), 0, &mut told);
        assert_eq!(told.pop().unwrap().kind, TransitionKind::Resolved(ResolveReason::RuleDeleted));
    }

    #[test]
    fn a_replay_tells_only_what_is_so_now() {
        let cpu = rule(1, r#"{"kind":"value","metric":"cpu.usage","threshold":50}"#);
        let shape = shape(&[("cpu.usage", "")]);
        let replay = |restored: bool, values: &[i64], known_ms: i64| {
            let (mut watch, mut told) = (HostEvaluator::default(), Vec::new());
            watch.set_rules(vec![cpu.clone()], 0, &mut told);
            if restored {
                watch.restore(cpu.id, "", (1_000_000_000, 1_000_000_000), None);
            }
            for (s, value) in (1..).zip(values) {
                watch.observe(&snapshot(&shape, s, &[*value]), None, 0, &mut told);
            }
            retain_active_transitions(&mut told, known_ms);
            told.iter().map(|told| told.kind).collect::<Vec<_>>()
        };
        let resolved = TransitionKind::Resolved(ResolveReason::ConditionCleared);
        let all = i64::MAX;
        assert_eq!(replay(false, &[100, 900, 100], all), []);
        assert_eq!(replay(false, &[100, 900, 100], 0), [TransitionKind::Backfilled], "nobody saw it then");
        assert_eq!(replay(false, &[900, 100, 900], all), [TransitionKind::Fired]);
        assert_eq!(replay(true, &[900, 100, 900, 100], all), [resolved]);
        assert_eq!(replay(true, &[900, 100, 900], all), [resolved, TransitionKind::Fired]);
        assert_eq!(replay(true, &[900], all), []);
    }

    #[test]
    fn silence_is_told_once_and_ends() {
        let (mut watch, mut told) = (HostEvaluator::default(), Vec::new());
        watch.set_rules(vec![rule(1, r#"{"kind":"silent","grace":"30s"}"#)], 0, &mut told);
        for s in 0..100_i64 {
            watch.observe_no_data(s * 1_000, true, 1_000_000 + s * 1_000, &mut told);
        }
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].observed_at_ms, 1_031_000);
        watch.observe_no_data(500, true, 1_200_000, &mut told);
        assert_eq!(told[1].kind, TransitionKind::Resolved(ResolveReason::ConditionCleared));
        assert!(
            watch.restore(Uuid::from_u128(1), "", (5, 6), None)
                && !watch.restore(Uuid::from_u128(9), "", (5, 6), None)
        );
    }
}
