//! All rules at one host: which of its columns each looks at, worked out once for each shape.

use crate::condition::{Condition, HubFigure, instance_fits};
use crate::rule::Rule;
use crate::track::{Moment, Told, Track, What, Why};
use perfwatch_model::{Shape, Snapshot, unscale};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// A figure that the hub adds to what a host sends: how far its clock is off, milliseconds.
pub const CLOCK_SKEW: &str = "clock.skew";

/// A figure that is made of two that a host sends: `load.5m` a processor.
pub const LOAD_PER_CORE: &str = "load.per_core";
/// What [`LOAD_PER_CORE`] is made of.
pub const LOAD_AND_CORES: [&str; 2] = ["load.5m", "cpu.cores"];

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
enum Source {
    Column(usize),
    ClockSkew,
    /// One column by another.
    Ratio(usize, usize),
}

/// The alerts of one host.
#[derive(Debug, Default)]
pub struct Watch {
    rules: Vec<Arc<Rule>>,
    tracks: Vec<Track>,
    shape: Option<Arc<Shape>>,
    /// Which track looks at what, for the shape.
    plan: Vec<(usize, Source)>,
    /// Tracks that look at nothing of the shape.
    absent: Vec<usize>,
    /// Where each track is, by rule and instance.
    places: HashMap<(Uuid, Box<str>), usize>,
    /// When the last snapshot was taken, and the time between it and the one before.
    last_ms: i64,
    rhythm_ms: i64,
}

/// A sender that does not say how often it sends is not taken to be rarer than this.
const RAREST_MS: i64 = 3_600_000;

impl Watch {
    /// These rules from now on. What they knew of unchanged series they still know; what fires by
    /// a rule that is gone ends.
    pub fn set_rules(&mut self, rules: Vec<Arc<Rule>>, now_ms: i64, told: &mut Vec<Told>) {
        let by_id: HashMap<Uuid, &Arc<Rule>> = rules.iter().map(|rule| (rule.id, rule)).collect();
        let keep = |mut track: Track| {
            let Some(rule) = by_id.get(&track.rule.id) else {
                told.extend(track.end(Why::RuleGone, now_ms));
                return None;
            };
            let fits = match rule.when.series() {
                Some((_, patterns)) => instance_fits(patterns, &track.instance),
                None => true,
            };
            if !fits {
                told.extend(track.end(Why::RuleGone, now_ms));
                return None;
            }
            if rule.when == track.rule.when && rule.for_ == track.rule.for_ {
                track.rule = (*rule).clone();
                return Some(track);
            }
            // Another question: it fires until the answer is no.
            let mut new = Track::new((*rule).clone(), &track.instance);
            if track.fires() {
                new.state = track.state;
            }
            Some(new)
        };
        self.tracks = std::mem::take(&mut self.tracks).into_iter().filter_map(keep).collect();
        self.rules = rules;
        self.find_places();
        // Those that need no column are there from the first moment.
        for rule in self.rules.clone() {
            if rule.when.series().is_none() {
                self.track(&rule, "");
            }
        }
        self.shape = None;
    }

    /// How much of the past these rules want that this watch has not seen, milliseconds; none where
    /// it knows all of them.
    pub fn needs_past(&self, rules: &[Arc<Rule>]) -> Option<i64> {
        let known = |rule: &Arc<Rule>| {
            self.rules.iter().any(|old| old.id == rule.id && old.when == rule.when && old.for_ == rule.for_)
        };
        rules.iter().filter(|rule| !known(rule)).map(|rule| rule.looks_back().ms()).max()
    }

    /// What it looks at.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The alert of a rule and an instance, new or known.
    fn track(&mut self, rule: &Arc<Rule>, instance: &str) -> usize {
        *self.places.entry((rule.id, instance.into())).or_insert_with(|| {
            self.tracks.push(Track::new(rule.clone(), instance));
            self.tracks.len() - 1
        })
    }

    fn find_places(&mut self) {
        let place = |(at, track): (usize, &Track)| ((track.rule.id, track.instance.clone()), at);
        self.places = self.tracks.iter().enumerate().map(place).collect();
    }

    /// When its newest snapshot was taken; 0 if there was none.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Ends, without a word, what fires here but is not known to fire: another hub saw the end of it.
    pub fn forget_unless(&mut self, known: impl Fn(&Track) -> bool) {
        for track in self.tracks.iter_mut().filter(|track| track.fires()) {
            if !known(track) {
                track.end(Why::Clear, 0);
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
        let track = self.track(&rule, instance);
        if !self.tracks[track].fires() {
            self.tracks[track].restore(since_ms, fired_ms, worst);
        }
        self.shape = None;
        true
    }

    fn plan(&mut self, shape: &Arc<Shape>) {
        self.plan.clear();
        // Instances that went long ago are forgotten, but for rules about just that.
        let now_ms = self.last_ms;
        let before = self.tracks.len();
        self.tracks.retain(|track| !track.is_stale(now_ms));
        if self.tracks.len() != before {
            self.find_places();
        }
        for rule in self.rules.clone() {
            let Some((metric, patterns)) = rule.when.series() else { continue };
            if metric == CLOCK_SKEW {
                let track = self.track(&rule, "");
                self.plan.push((track, Source::ClockSkew));
            }
            if metric == LOAD_PER_CORE
                && let [Some(load), Some(cores)] = LOAD_AND_CORES.map(|name| shape.find(name, ""))
            {
                let track = self.track(&rule, "");
                self.plan.push((track, Source::Ratio(load, cores)));
            }
            for (at, column) in shape.columns().iter().enumerate() {
                if column.metric == metric && instance_fits(patterns, &column.instance) {
                    let track = self.track(&rule, &column.instance);
                    self.plan.push((track, Source::Column(at)));
                }
            }
        }
        let mut planned = vec![false; self.tracks.len()];
        self.plan.iter().for_each(|(track, _)| planned[*track] = true);
        let looks = |at: &usize| !planned[*at] && self.tracks[*at].rule.when.series().is_some();
        self.absent = (0..self.tracks.len()).filter(looks).collect();
        self.shape = Some(shape.clone());
    }

    /// Takes in a snapshot of the host, in the order of their time.
    pub fn observe(&mut self, snapshot: &Snapshot, skew_ms: Option<i64>, lag_ms: i64, told: &mut Vec<Told>) {
        if self.shape.as_ref().is_none_or(|shape| !Arc::ptr_eq(shape, &snapshot.shape)) {
            self.plan(&snapshot.shape);
        }
        let apart_ms = snapshot.at_ms.saturating_sub(self.last_ms);
        if self.last_ms > 0 && apart_ms > 0 {
            self.rhythm_ms = apart_ms.min(RAREST_MS);
        }
        self.last_ms = self.last_ms.max(snapshot.at_ms);
        // Scripts don't say how often they send: as often as they do.
        let told_ms = i64::from(snapshot.interval_ms);
        let interval_ms = if told_ms > 0 { told_ms } else { self.rhythm_ms };
        let moment = Moment { at_ms: snapshot.at_ms, interval_ms, lag_ms };
        let columns = snapshot.shape.columns();
        let column = |at: usize| unscale(*snapshot.values.get(at)?, columns[at].decimals);
        for (track, source) in &self.plan {
            #[expect(clippy::cast_precision_loss, reason = "to a millisecond")]
            let value = match *source {
                Source::Column(at) => column(at),
                Source::ClockSkew => skew_ms.map(|skew| skew.unsigned_abs() as f64),
                Source::Ratio(part, whole) => {
                    column(part).zip(column(whole)).and_then(|(part, whole)| ratio(part, whole))
                }
            };
            told.extend(self.tracks[*track].observe(value, moment));
        }
        for track in &self.absent {
            told.extend(self.tracks[*track].absent(moment));
        }
    }

    /// How long the host has been silent, milliseconds; `heard` is whether anything ever came
    /// since somebody listens: if not, it was silent for that long at least.
    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    pub fn listen(&mut self, silent_ms: i64, heard: bool, now_ms: i64, told: &mut Vec<Told>) {
        let moment = Moment { at_ms: now_ms, interval_ms: 1_000, lag_ms: 0 };
        for track in &mut self.tracks {
            let Condition::Silent { grace } = track.rule.when else { continue };
            let known = heard || silent_ms > grace.ms();
            told.extend(track.observe(known.then_some(silent_ms as f64 / 1_000.0), moment));
        }
    }

    /// Figures of the hub itself.
    pub fn observe_hub(&mut self, figures: &[(HubFigure, f64)], now_ms: i64, told: &mut Vec<Told>) {
        let moment = Moment { at_ms: now_ms, interval_ms: 5_000, lag_ms: 0 };
        for track in &mut self.tracks {
            if let Condition::Hub { figure, .. } = track.rule.when {
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
pub fn still_true(told: &mut Vec<Told>, known_ms: i64) {
    let mut kept: Vec<Told> = Vec::new();
    for one in std::mem::take(told) {
        let same = |other: &Told| other.rule.id == one.rule.id && other.instance == one.instance;
        let open = |other: &Told| same(other) && other.what == What::Fired;
        match (one.what, kept.iter().rposition(open)) {
            (What::Past, _) if one.at_ms <= known_ms => {}
            (What::Resolved(_), Some(at)) => {
                kept.remove(at);
                if one.at_ms > known_ms {
                    kept.push(Told { what: What::Past, ..one });
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
    use perfwatch_model::{BootId, Column, Span};

    fn rule(id: u128, when: &str) -> Arc<Rule> {
        let when = serde_json::from_str(when).unwrap();
        let id = Uuid::from_u128(id);
        Arc::new(Rule { id, when, for_: Span::default(), ..crate::defaults::rules().remove(0) })
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
        let (mut watch, mut told) = (Watch::default(), Vec::new());
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
        assert_eq!((told[0].what, &*told[0].instance), (What::Resolved(Why::Gone), "/"));
    }

    #[test]
    fn rules_change_under_an_alert() {
        let cpu = |threshold: f64| {
            rule(1, &format!(r#"{{"kind":"value","metric":"cpu.usage","threshold":{threshold}}}"#))
        };
        let (mut watch, mut told) = (Watch::default(), Vec::new());
        watch.set_rules(vec![cpu(50.0)], 0, &mut told);
        let shape = shape(&[("cpu.usage", "")]);
        watch.observe(&snapshot(&shape, 0, &[700]), None, 0, &mut told);
        assert_eq!(told.pop().unwrap().what, What::Fired);
        watch.set_rules(vec![cpu(60.0)], 0, &mut told);
        watch.observe(&snapshot(&shape, 1, &[700]), None, 0, &mut told);
        assert!(told.is_empty(), "it fires on");
        watch.set_rules(vec![cpu(80.0)], 0, &mut told);
        watch.observe(&snapshot(&shape, 2, &[700]), None, 0, &mut told);
        assert_eq!(told.pop().unwrap().what, What::Resolved(Why::Clear));
        watch.observe(&snapshot(&shape, 3, &[900]), None, 0, &mut told);
        told.clear();
        watch.set_rules(Vec::new(), 0, &mut told);
        assert_eq!(told.pop().unwrap().what, What::Resolved(Why::RuleGone));
    }

    #[test]
    fn a_replay_tells_only_what_is_so_now() {
        let cpu = rule(1, r#"{"kind":"value","metric":"cpu.usage","threshold":50}"#);
        let shape = shape(&[("cpu.usage", "")]);
        let replay = |restored: bool, values: &[i64], known_ms: i64| {
            let (mut watch, mut told) = (Watch::default(), Vec::new());
            watch.set_rules(vec![cpu.clone()], 0, &mut told);
            if restored {
                watch.restore(cpu.id, "", (1_000_000_000, 1_000_000_000), None);
            }
            for (s, value) in (1..).zip(values) {
                watch.observe(&snapshot(&shape, s, &[*value]), None, 0, &mut told);
            }
            still_true(&mut told, known_ms);
            told.iter().map(|told| told.what).collect::<Vec<_>>()
        };
        let resolved = What::Resolved(Why::Clear);
        let all = i64::MAX;
        assert_eq!(replay(false, &[100, 900, 100], all), []);
        assert_eq!(replay(false, &[100, 900, 100], 0), [What::Past], "nobody saw it then");
        assert_eq!(replay(false, &[900, 100, 900], all), [What::Fired]);
        assert_eq!(replay(true, &[900, 100, 900, 100], all), [resolved]);
        assert_eq!(replay(true, &[900, 100, 900], all), [resolved, What::Fired]);
        assert_eq!(replay(true, &[900], all), []);
    }

    #[test]
    fn silence_is_told_once_and_ends() {
        let (mut watch, mut told) = (Watch::default(), Vec::new());
        watch.set_rules(vec![rule(1, r#"{"kind":"silent","grace":"30s"}"#)], 0, &mut told);
        for s in 0..100_i64 {
            watch.listen(s * 1_000, true, 1_000_000 + s * 1_000, &mut told);
        }
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].at_ms, 1_031_000);
        watch.listen(500, true, 1_200_000, &mut told);
        assert_eq!(told[1].what, What::Resolved(Why::Clear));
        assert!(
            watch.restore(Uuid::from_u128(1), "", (5, 6), None)
                && !watch.restore(Uuid::from_u128(9), "", (5, 6), None)
        );
    }
}
