//! One rule at one series: values come in, a figure is made of them, the state is stepped.

use crate::condition::Condition;
use crate::forecast;
use crate::rule::Rule;
use crate::step::{Patience, Phase, State, Transition, Verdict, step};
use crate::window::{Aggregate, Window};
use std::sync::Arc;

/// What was observed longer ago than this is of the past: it goes into the books, and nobody is
/// woken by it.
pub const LATE_MS: i64 = 120_000;
/// An instance that its host does not name for so long is gone, and what was wrong with it.
const GONE_MS: i64 = 300_000;
/// A break in the observations proves nothing if it is longer than this, and than some of them.
const LEAST_GAP_MS: i64 = 30_000;
/// A forecast further off than this is none, in hours.
const NEVER_H: f64 = 24.0 * 365.0;

/// Why an alert ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The condition does not hold any more.
    Clear,
    /// What it was about is gone.
    Gone,
    /// Nobody asks any more.
    RuleGone,
    /// The host was removed.
    HostGone,
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It fires.
    Fired,
    /// It fires no more.
    Resolved(Why),
    /// It fired and resolved before anybody here knew.
    Past,
}

/// Something to write down, and perhaps to tell.
#[derive(Debug, Clone)]
pub struct Told {
    /// By which rule.
    pub rule: Arc<Rule>,
    /// Of which instance; empty where there are none.
    pub instance: Box<str>,
    /// What.
    pub what: What,
    /// Since when the condition held, milliseconds since 1970 by the host's clock.
    pub since_ms: i64,
    /// When it fired.
    pub fired_ms: i64,
    /// When this was observed.
    pub at_ms: i64,
    /// The figure then.
    pub figure: Option<f64>,
    /// The furthest beyond while it fired.
    pub worst: Option<f64>,
}

/// An observation's time.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Milliseconds since 1970, by the clock of what is observed.
    pub at_ms: i64,
    /// Time until the next one, usually.
    pub interval_ms: i64,
    /// How long ago that is.
    pub lag_ms: i64,
}

/// One rule at one series.
#[derive(Debug, Clone)]
pub struct Track {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The instance; empty where there are none.
    pub instance: Box<str>,
    /// How it stands.
    pub state: State,
    window: Window,
    figure: Option<f64>,
    worst: Option<f64>,
    /// The bucket that the forecast was made at.
    forecast_ms: Option<i64>,
    /// It fires by what was observed late: nobody knows yet.
    late: bool,
}

impl Track {
    /// Nothing observed yet.
    pub fn new(rule: Arc<Rule>, instance: &str) -> Self {
        let window = match &rule.when {
            Condition::Value { aggregate: Aggregate::Last, .. } => Window::new(Aggregate::Last, 0, 0),
            Condition::Value { aggregate, window, .. } => Window::new(*aggregate, window.ms(), window.ms()),
            Condition::Change { window, before, .. } => {
                Window::new(Aggregate::Mean, window.ms(), window.ms().saturating_add(before.ms()))
            }
            Condition::Forecast { look_back, .. } => {
                Window::new(Aggregate::Mean, look_back.ms(), look_back.ms())
            }
            _ => Window::new(Aggregate::Last, 0, 0),
        };
        Self {
            rule,
            instance: instance.into(),
            state: State::default(),
            window,
            figure: None,
            worst: None,
            forecast_ms: None,
            late: false,
        }
    }

    /// As it was known to fire.
    pub fn restore(&mut self, since_ms: i64, fired_ms: i64, worst: Option<f64>) {
        self.state = State { phase: Phase::Firing { since_ms, fired_ms }, seen_ms: fired_ms };
        self.worst = worst;
        self.late = false;
    }

    /// Whether it fires, and somebody knows.
    pub fn fires(&self) -> bool {
        matches!(self.state.phase, Phase::Firing { .. }) && !self.late
    }

    /// What it is judged by now.
    pub fn figure(&self) -> Option<f64> {
        self.figure
    }

    /// Whether nothing was seen of it for long, and nothing is wrong with it.
    pub fn is_stale(&self, now_ms: i64) -> bool {
        let Some((seen_ms, _)) = self.window.last() else { return false };
        self.state.phase == Phase::Inactive
            && !matches!(self.rule.when, Condition::Missing { .. })
            && now_ms.saturating_sub(seen_ms) > GONE_MS.max(self.rule.looks_back().ms())
    }

    /// Takes in a value, or that there is none where there should be one.
    pub fn observe(&mut self, value: Option<f64>, moment: Moment) -> Option<Told> {
        if let Some(value) = value {
            self.window.push(moment.at_ms, value);
        }
        self.look(value, moment);
        let bound = self.rule.when.bound();
        let verdict = match (&self.rule.when, value) {
            // What is not there says nothing, but for a rule about just that.
            (Condition::Missing { .. }, _) | (_, Some(_)) => bound.verdict(self.figure),
            _ => Verdict::Unknown,
        };
        self.step(verdict, moment)
    }

    /// The instance is not named by its host at this moment.
    pub fn absent(&mut self, moment: Moment) -> Option<Told> {
        if matches!(self.rule.when, Condition::Missing { .. }) {
            return self.observe(None, moment);
        }
        let seen_ms = self.window.last().map_or(0, |(at, _)| at).max(self.state.seen_ms);
        let gone = matches!(self.state.phase, Phase::Firing { .. }) && moment.at_ms - seen_ms > GONE_MS;
        gone.then(|| self.end(Why::Gone, moment.at_ms)).flatten()
    }

    /// Ends what fires, whatever is observed; what nobody knew of stays so.
    pub fn end(&mut self, why: Why, at_ms: i64) -> Option<Told> {
        let before = std::mem::replace(&mut self.state.phase, Phase::Inactive);
        let late = std::mem::take(&mut self.late);
        let Phase::Firing { since_ms, fired_ms } = before else { return None };
        (!late).then(|| self.told(What::Resolved(why), (since_ms, fired_ms), at_ms))
    }

    fn told(&self, what: What, (since_ms, fired_ms): (i64, i64), at_ms: i64) -> Told {
        Told {
            rule: self.rule.clone(),
            instance: self.instance.clone(),
            what,
            since_ms,
            fired_ms,
            at_ms,
            figure: self.figure,
            worst: self.worst,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    fn look(&mut self, value: Option<f64>, moment: Moment) {
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        self.figure = match &self.rule.when {
            Condition::Value { aggregate, window, .. } => self.window.figure(*aggregate, window.ms(), 0),
            Condition::Change { window, before, .. } => {
                let of = |ago_ms| self.window.figure(Aggregate::Mean, window.ms(), ago_ms);
                match (of(0), of(before.ms())) {
                    (Some(now), Some(then)) if then != 0.0 => Some((now - then) / then.abs() * 100.0),
                    _ => None,
                }
            }
            Condition::Forecast { reaches, look_back, compare, .. } => {
                // A new line once a bucket: it does not move faster.
                if self.forecast_ms == self.window.newest_ms() {
                    return;
                }
                self.forecast_ms = self.window.newest_ms();
                let points: Vec<(i64, f64)> = self.window.points().collect();
                let known = points.first().zip(points.last()).map_or(0, |(first, last)| last.0 - first.0);
                let enough = known >= look_back.ms() / 2 && points.len() >= forecast::LEAST_POINTS;
                let hours = |ms: f64| (ms / 3_600_000.0).min(NEVER_H);
                enough.then(|| forecast::reaches_in(&points, *reaches, *compare).map_or(NEVER_H, hours))
            }
            Condition::Missing { .. } => {
                self.window.last().map(|(last, _)| seconds((moment.at_ms - last).max(0)))
            }
            Condition::Silent { .. } | Condition::Hub { .. } => value,
        };
    }

    fn step(&mut self, verdict: Verdict, moment: Moment) -> Option<Told> {
        let gap_ms = (moment.interval_ms.saturating_mul(5)).max(LEAST_GAP_MS);
        // The grace of what is missing or silent is the patience.
        let patience = Patience { for_ms: self.rule.for_.ms(), gap_ms };
        let before = self.state.phase;
        let (state, transition) = step(self.state, verdict, moment.at_ms, patience);
        self.state = state;
        let bound = self.rule.when.bound();
        let late = moment.lag_ms > LATE_MS;
        match (transition, state.phase) {
            (Some(Transition::Fired), Phase::Firing { since_ms, fired_ms }) => {
                self.worst = self.figure;
                self.late = late;
                (!late).then(|| self.told(What::Fired, (since_ms, fired_ms), moment.at_ms))
            }
            (Some(Transition::Resolved), _) => {
                let Phase::Firing { since_ms, fired_ms } = before else { return None };
                let what =
                    if std::mem::take(&mut self.late) { What::Past } else { What::Resolved(Why::Clear) };
                Some(self.told(what, (since_ms, fired_ms), moment.at_ms))
            }
            (None, Phase::Firing { since_ms, fired_ms }) => {
                if let Some(figure) = self.figure
                    && verdict == Verdict::Breach
                    && self.worst.is_none_or(|worst| bound.worse(figure, worst))
                {
                    self.worst = Some(figure);
                }
                // What came late is true now too.
                let now_known = self.late && !late && verdict == Verdict::Breach;
                self.late &= !now_known;
                now_known.then(|| self.told(What::Fired, (since_ms, fired_ms), moment.at_ms))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::Span;

    fn rule(when: &str, for_s: i64) -> Arc<Rule> {
        let when = serde_json::from_str(when).unwrap();
        Arc::new(Rule { when, for_: Span::from_s(for_s), ..crate::defaults::rules().remove(0) })
    }

    fn at(s: i64, lag_ms: i64) -> Moment {
        Moment { at_ms: 1_000_000_000 + s * 1_000, interval_ms: 1_000, lag_ms }
    }

    /// Seconds at which something was told, and what.
    fn walk(track: &mut Track, values: impl Iterator<Item = Option<f64>>, lag_ms: i64) -> Vec<(i64, What)> {
        let observe = |(s, value): (usize, Option<f64>)| {
            let told = track.observe(value, at(s as i64, lag_ms))?;
            Some((s as i64, told.what))
        };
        values.enumerate().filter_map(observe).collect()
    }

    const CPU: &str = r#"{"kind":"value","metric":"cpu.usage","threshold":90,"clear":80}"#;

    #[test]
    fn it_fires_after_its_time_and_keeps_the_worst() {
        let mut track = Track::new(rule(CPU, 10), "");
        let values = (0..60).map(|s| Some(if (5..30).contains(&s) { 90.0 + s as f64 / 10.0 } else { 20.0 }));
        assert_eq!(walk(&mut track, values, 0), [(15, What::Fired), (30, What::Resolved(Why::Clear))]);
        assert_eq!(track.worst, Some(92.9));
    }

    #[test]
    fn averages_are_over_their_window() {
        let mean =
            r#"{"kind":"value","metric":"cpu.usage","aggregate":"mean","window":"60s","threshold":50}"#;
        let mut track = Track::new(rule(mean, 0), "");
        let told = walk(&mut track, (0..300).map(|s| Some(if s < 100 { 0.0 } else { 100.0 })), 0);
        let [(fired, What::Fired)] = told[..] else { panic!("{told:?}") };
        assert!((128..=133).contains(&fired), "{fired}");
    }

    #[test]
    fn against_an_earlier_time_in_percent() {
        let change =
            r#"{"kind":"change","metric":"x.y","window":"1m","before":"10m","threshold":50,"clear":20}"#;
        let mut track = Track::new(rule(change, 0), "");
        let told = walk(&mut track, (0..2_000).map(|s| Some(if s < 1_000 { 10.0 } else { 16.0 })), 0);
        let [(fired, What::Fired), (resolved, What::Resolved(Why::Clear))] = told[..] else {
            panic!("{told:?}")
        };
        assert!((1_045..1_070).contains(&fired) && (1_600..1_670).contains(&resolved), "{told:?}");
    }

    #[test]
    fn a_disk_that_fills_is_told_of_hours_before() {
        let fills = r#"{"kind":"forecast","metric":"filesystem.used_percent","look_back":"6h","within":"24h","reaches":100}"#;
        let mut track = Track::new(rule(fills, 0), "/");
        // 1 % an hour from 60 % on: full after 40 h.
        let mut told = Vec::new();
        for minute in 0..40 * 60_i64 {
            let value = 60.0 + minute as f64 / 60.0;
            let moment = Moment { interval_ms: 60_000, ..at(minute * 60, 0) };
            told.extend(track.observe(Some(value), moment).map(|told| (minute / 60, told.what)));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert!((15..=17).contains(&told[0].0) && told[0].1 == What::Fired, "{told:?}");
    }

    #[test]
    fn what_came_late_wakes_nobody_unless_it_is_still_so() {
        let hour = 3_600_000;
        let burst = || (0..60).map(|s| Some(if (5..30).contains(&s) { 99.0 } else { 20.0 }));
        let mut track = Track::new(rule(CPU, 10), "");
        assert_eq!(walk(&mut track, burst(), hour), [(30, What::Past)]);
        let mut track = Track::new(rule(CPU, 10), "");
        assert_eq!(walk(&mut track, burst().take(25), hour), [], "it goes on");
        let told = track.observe(Some(99.0), at(26, 0)).unwrap();
        assert_eq!((told.what, told.fired_ms), (What::Fired, at(15, 0).at_ms));
        assert!(track.fires());
    }

    #[test]
    fn metrics_that_go_missing_and_instances_that_go() {
        let missing = r#"{"kind":"missing","metric":"temperature.celsius","grace":"30s"}"#;
        let mut track = Track::new(rule(missing, 0), "coretemp");
        let values = (0..200).map(|s| (!(50..150).contains(&s)).then_some(40.0));
        assert_eq!(walk(&mut track, values, 0), [(80, What::Fired), (150, What::Resolved(Why::Clear))]);
        let mut track = Track::new(rule(CPU, 0), "eth9");
        assert!(track.observe(Some(99.0), at(0, 0)).is_some());
        assert!((1..=300).all(|s| track.absent(at(s, 0)).is_none()));
        let told = track.absent(at(301, 0)).unwrap();
        assert_eq!(told.what, What::Resolved(Why::Gone));
        // A value that is not there says nothing by itself.
        let mut track = Track::new(rule(CPU, 0), "");
        track.observe(Some(99.0), at(0, 0)).unwrap();
        assert!(track.observe(None, at(5_000, 0)).is_none() && track.fires());
    }

    #[test]
    fn restored_it_ends_when_it_is_clear() {
        let mut track = Track::new(rule(CPU, 10), "");
        track.restore(at(0, 0).at_ms, at(10, 0).at_ms, Some(97.0));
        assert!(track.observe(Some(95.0), at(20, 0)).is_none(), "known already");
        assert_eq!(track.observe(Some(10.0), at(21, 0)).unwrap().worst, Some(97.0));
        assert!(track.end(Why::RuleGone, 0).is_none());
    }
}
