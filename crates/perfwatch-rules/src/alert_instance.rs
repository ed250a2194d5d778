//! One rule at one series: values come in, a figure is made of them, the state is stepped.

use crate::condition::Condition;
use crate::forecast;
use crate::rule::Rule;
use crate::state_machine::{AlertPhase, AlertState, Evaluation, HoldPolicy, Transition, advance};
use crate::window::{Aggregate, SlidingWindow};
use std::sync::Arc;

/// What was observed longer ago than this is of the past: it goes into the books, and nobody is
/// woken by it.
pub const BACKFILL_AGE_MS: i64 = 120_000;
/// An instance that its host does not name for so long is gone, and what was wrong with it.
const INSTANCE_TIMEOUT_MS: i64 = 300_000;
/// A break in the observations proves nothing if it is longer than this, and than some of them.
const MIN_GAP_MS: i64 = 30_000;
/// A forecast further off than this is none, in hours.
const MAX_FORECAST_HOURS: f64 = 24.0 * 365.0;

/// Why an alert ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveReason {
    /// The condition does not hold any more.
    ConditionCleared,
    /// What it was about is gone.
    InstanceGone,
    /// Nobody asks any more.
    RuleDeleted,
    /// The host was removed.
    HostDeleted,
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitionKind {
    /// It fires.
    Fired,
    /// It fires no more.
    Resolved(ResolveReason),
    /// It fired and resolved before anybody here knew.
    Backfilled,
}

/// Something to write down, and perhaps to tell.
#[derive(Debug, Clone)]
pub struct TransitionEvent {
    /// By which rule.
    pub rule: Arc<Rule>,
    /// Of which instance; empty where there are none.
    pub instance: Box<str>,
    /// What.
    pub kind: TransitionKind,
    /// Since when the condition held, milliseconds since 1970 by the host's clock.
    pub pending_since_ms: i64,
    /// When it fired.
    pub fired_ms: i64,
    /// When this was observed.
    pub observed_at_ms: i64,
    /// The figure then.
    pub value: Option<f64>,
    /// The furthest beyond while it fired.
    pub peak_value: Option<f64>,
}

/// An observation's time.
#[derive(Debug, Clone, Copy)]
pub struct ObservationTime {
    /// Milliseconds since 1970, by the clock of what is observed.
    pub at_ms: i64,
    /// Time until the next one, usually.
    pub interval_ms: i64,
    /// How long ago that is.
    pub age_ms: i64,
}

/// One rule at one series.
#[derive(Debug, Clone)]
pub struct AlertInstance {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The instance; empty where there are none.
    pub instance: Box<str>,
    /// How it stands.
    pub state: AlertState,
    window: SlidingWindow,
    value: Option<f64>,
    peak_value: Option<f64>,
    /// The bucket that the forecast was made at.
    forecast_ms: Option<i64>,
    /// It fires by what was observed late: nobody knows yet.
    fired_from_backfill: bool,
}

impl AlertInstance {
    /// Nothing observed yet.
    pub fn new(rule: Arc<Rule>, instance: &str) -> Self {
        let window = match &rule.condition {
            Condition::Threshold { aggregate: Aggregate::Last, .. } => {
                SlidingWindow::new(Aggregate::Last, 0, 0)
            }
            Condition::Threshold { aggregate, window, .. } => {
                SlidingWindow::new(*aggregate, window.ms(), window.ms())
            }
            Condition::Change { window, offset: before, .. } => {
                SlidingWindow::new(Aggregate::Mean, window.ms(), window.ms().saturating_add(before.ms()))
            }
            Condition::Forecast { lookback: look_back, .. } => {
                SlidingWindow::new(Aggregate::Mean, look_back.ms(), look_back.ms())
            }
            _ => SlidingWindow::new(Aggregate::Last, 0, 0),
        };
        Self {
            rule,
            instance: instance.into(),
            state: AlertState::default(),
            window,
            value: None,
            peak_value: None,
            forecast_ms: None,
            fired_from_backfill: false,
        }
    }

    /// As it was known to fire.
    pub fn restore(&mut self, since_ms: i64, fired_ms: i64, worst: Option<f64>) {
        self.state =
            AlertState { phase: AlertPhase::Firing { since_ms, fired_ms }, last_observed_ms: fired_ms };
        self.peak_value = worst;
        self.fired_from_backfill = false;
    }

    /// Whether it fires, and somebody knows.
    pub fn is_firing(&self) -> bool {
        matches!(self.state.phase, AlertPhase::Firing { .. }) && !self.fired_from_backfill
    }

    /// What it is judged by now.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// Whether nothing was seen of it for long, and nothing is wrong with it.
    pub fn is_stale(&self, now_ms: i64) -> bool {
        let Some((seen_ms, _)) = self.window.latest() else { return false };
        self.state.phase == AlertPhase::Inactive
            && !matches!(self.rule.condition, Condition::Absent { .. })
            && now_ms.saturating_sub(seen_ms) > INSTANCE_TIMEOUT_MS.max(self.rule.lookback().ms())
    }

    /// Takes in a value, or that there is none where there should be one.
    pub fn observe(&mut self, value: Option<f64>, moment: ObservationTime) -> Option<TransitionEvent> {
        if let Some(value) = value {
            self.window.push(moment.at_ms, value);
        }
        self.update_value(value, moment);
        let bound = self.rule.condition.threshold();
        let verdict = match (&self.rule.condition, value) {
            // What is not there says nothing, but for a rule about just that.
            (Condition::Absent { .. }, _) | (_, Some(_)) => bound.evaluate(self.value),
            _ => Evaluation::Unknown,
        };
        self.advance(verdict, moment)
    }

    /// The instance is not named by its host at this moment.
    pub fn observe_absent(&mut self, moment: ObservationTime) -> Option<TransitionEvent> {
        if matches!(self.rule.condition, Condition::Absent { .. }) {
            return self.observe(None, moment);
        }
        let seen_ms = self.window.latest().map_or(0, |(at, _)| at).max(self.state.last_observed_ms);
        let gone = matches!(self.state.phase, AlertPhase::Firing { .. })
            && moment.at_ms - seen_ms > INSTANCE_TIMEOUT_MS;
        gone.then(|| self.resolve(ResolveReason::InstanceGone, moment.at_ms)).flatten()
    }

    /// Ends what fires, whatever is observed; what nobody knew of stays so.
    pub fn resolve(&mut self, why: ResolveReason, at_ms: i64) -> Option<TransitionEvent> {
        let before = std::mem::replace(&mut self.state.phase, AlertPhase::Inactive);
        let late = std::mem::take(&mut self.fired_from_backfill);
        let AlertPhase::Firing { since_ms, fired_ms } = before else { return None };
        (!late).then(|| self.event(TransitionKind::Resolved(why), (since_ms, fired_ms), at_ms))
    }

    fn event(&self, what: TransitionKind, (since_ms, fired_ms): (i64, i64), at_ms: i64) -> TransitionEvent {
        TransitionEvent {
            rule: self.rule.clone(),
            instance: self.instance.clone(),
            kind: what,
            pending_since_ms: since_ms,
            fired_ms,
            observed_at_ms: at_ms,
            value: self.value,
            peak_value: self.peak_value,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    fn update_value(&mut self, value: Option<f64>, moment: ObservationTime) {
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        self.value = match &self.rule.condition {
            Condition::Threshold { aggregate, window, .. } => {
                self.window.aggregate(*aggregate, window.ms(), 0)
            }
            Condition::Change { window, offset: before, .. } => {
                let of = |ago_ms| self.window.aggregate(Aggregate::Mean, window.ms(), ago_ms);
                match (of(0), of(before.ms())) {
                    (Some(now), Some(then)) if then != 0.0 => Some((now - then) / then.abs() * 100.0),
                    _ => None,
                }
            }
            Condition::Forecast { target: reaches, lookback: look_back, compare, .. } => {
                // A new line once a bucket: it does not move faster.
                if self.forecast_ms == self.window.newest_ms() {
                    return;
                }
                self.forecast_ms = self.window.newest_ms();
                let points: Vec<(i64, f64)> = self.window.bucket_means().collect();
                let known = points.first().zip(points.last()).map_or(0, |(first, last)| last.0 - first.0);
                let enough = known >= look_back.ms() / 2 && points.len() >= forecast::MIN_POINTS;
                let hours = |ms: f64| (ms / 3_600_000.0).min(MAX_FORECAST_HOURS);
                enough.then(|| {
                    forecast::time_to_target_ms(&points, *reaches, *compare).map_or(MAX_FORECAST_HOURS, hours)
                })
            }
            Condition::Absent { .. } => {
                self.window.latest().map(|(last, _)| seconds((moment.at_ms - last).max(0)))
            }
            Condition::NoData { .. } | Condition::Hub { .. } => value,
        };
    }

    fn advance(&mut self, verdict: Evaluation, moment: ObservationTime) -> Option<TransitionEvent> {
        let gap_ms = (moment.interval_ms.saturating_mul(5)).max(MIN_GAP_MS);
        // The grace of what is missing or silent is the patience.
        let patience = HoldPolicy { for_ms: self.rule.hold_for.ms(), max_gap_ms: gap_ms };
        let before = self.state.phase;
        let (state, transition) = advance(self.state, verdict, moment.at_ms, patience);
        self.state = state;
        let bound = self.rule.condition.threshold();
        let late = moment.age_ms > BACKFILL_AGE_MS;
        match (transition, state.phase) {
            (Some(Transition::Fired), AlertPhase::Firing { since_ms, fired_ms }) => {
                self.peak_value = self.value;
                self.fired_from_backfill = late;
                (!late).then(|| self.event(TransitionKind::Fired, (since_ms, fired_ms), moment.at_ms))
            }
            (Some(Transition::Resolved), _) => {
                let AlertPhase::Firing { since_ms, fired_ms } = before else { return None };
                let what = if std::mem::take(&mut self.fired_from_backfill) {
                    TransitionKind::Backfilled
                } else {
                    TransitionKind::Resolved(ResolveReason::ConditionCleared)
                };
                Some(self.event(what, (since_ms, fired_ms), moment.at_ms))
            }
            (None, AlertPhase::Firing { since_ms, fired_ms }) => {
                if let Some(figure) = self.value
                    && verdict == Evaluation::Breach
                    && self.peak_value.is_none_or(|worst| bound.is_worse(figure, worst))
                {
                    self.peak_value = Some(figure);
                }
                // What came late is true now too.
                let now_known = self.fired_from_backfill && !late && verdict == Evaluation::Breach;
                self.fired_from_backfill &= !now_known;
                now_known.then(|| self.event(TransitionKind::Fired, (since_ms, fired_ms), moment.at_ms))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::HumanDuration;

    fn rule(when: &str, for_s: i64) -> Arc<Rule> {
        let when = serde_json::from_str(when).unwrap();
        Arc::new(Rule {
            condition: when,
            hold_for: HumanDuration::from_s(for_s),
            ..crate::builtin_rules::builtin_rules().remove(0)
        })
    }

    fn at(s: i64, lag_ms: i64) -> ObservationTime {
        ObservationTime { at_ms: 1_000_000_000 + s * 1_000, interval_ms: 1_000, age_ms: lag_ms }
    }

    /// Seconds at which something was told, and what.
    fn walk(
        track: &mut AlertInstance,
        values: impl Iterator<Item = Option<f64>>,
        lag_ms: i64,
    ) -> Vec<(i64, TransitionKind)> {
        let observe = |(s, value): (usize, Option<f64>)| {
            let told = track.observe(value, at(s as i64, lag_ms))?;
            Some((s as i64, told.kind))
        };
        values.enumerate().filter_map(observe).collect()
    }

    const CPU: &str = r#"{"kind":"value","metric":"cpu.usage","threshold":90,"clear":80}"#;

    #[test]
    fn fires_after_hold_and_tracks_peak() {
        let mut track = AlertInstance::new(rule(CPU, 10), "");
        let values = (0..60).map(|s| Some(if (5..30).contains(&s) { 90.0 + s as f64 / 10.0 } else { 20.0 }));
        assert_eq!(
            walk(&mut track, values, 0),
            [(15, TransitionKind::Fired), (30, TransitionKind::Resolved(ResolveReason::ConditionCleared))]
        );
        assert_eq!(track.peak_value, Some(92.9));
    }

    #[test]
    fn mean_uses_the_window() {
        let mean =
            r#"{"kind":"value","metric":"cpu.usage","aggregate":"mean","window":"60s","threshold":50}"#;
        let mut track = AlertInstance::new(rule(mean, 0), "");
        let told = walk(&mut track, (0..300).map(|s| Some(if s < 100 { 0.0 } else { 100.0 })), 0);
        let [(fired, TransitionKind::Fired)] = told[..] else { panic!("{told:?}") };
        assert!((128..=133).contains(&fired), "{fired}");
    }

    #[test]
    fn change_compares_with_offset() {
        let change =
            r#"{"kind":"change","metric":"x.y","window":"1m","before":"10m","threshold":50,"clear":20}"#;
        let mut track = AlertInstance::new(rule(change, 0), "");
        let told = walk(&mut track, (0..2_000).map(|s| Some(if s < 1_000 { 10.0 } else { 16.0 })), 0);
        let [
            (fired, TransitionKind::Fired),
            (resolved, TransitionKind::Resolved(ResolveReason::ConditionCleared)),
        ] = told[..]
        else {
            panic!("{told:?}")
        };
        assert!((1_045..1_070).contains(&fired) && (1_600..1_670).contains(&resolved), "{told:?}");
    }

    #[test]
    fn forecast_fires_before_disk_is_full() {
        let fills = r#"{"kind":"forecast","metric":"filesystem.used_percent","look_back":"6h","within":"24h","reaches":100}"#;
        let mut track = AlertInstance::new(rule(fills, 0), "/");
        // 1 % an hour from 60 % on: full after 40 h.
        let mut told = Vec::new();
        for minute in 0..40 * 60_i64 {
            let value = 60.0 + minute as f64 / 60.0;
            let moment = ObservationTime { interval_ms: 60_000, ..at(minute * 60, 0) };
            told.extend(track.observe(Some(value), moment).map(|told| (minute / 60, told.kind)));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert!((15..=17).contains(&told[0].0) && told[0].1 == TransitionKind::Fired, "{told:?}");
    }

    #[test]
    fn backfilled_breach_does_not_notify_unless_ongoing() {
        let hour = 3_600_000;
        let burst = || (0..60).map(|s| Some(if (5..30).contains(&s) { 99.0 } else { 20.0 }));
        let mut track = AlertInstance::new(rule(CPU, 10), "");
        assert_eq!(walk(&mut track, burst(), hour), [(30, TransitionKind::Backfilled)]);
        let mut track = AlertInstance::new(rule(CPU, 10), "");
        assert_eq!(walk(&mut track, burst().take(25), hour), [], "it goes on");
        let told = track.observe(Some(99.0), at(26, 0)).unwrap();
        assert_eq!((told.kind, told.fired_ms), (TransitionKind::Fired, at(15, 0).at_ms));
        assert!(track.is_firing());
    }

    #[test]
    fn absent_metric_and_instance_timeout() {
        let missing = r#"{"kind":"missing","metric":"temperature.sensor","grace":"30s"}"#;
        let mut track = AlertInstance::new(rule(missing, 0), "coretemp");
        let values = (0..200).map(|s| (!(50..150).contains(&s)).then_some(40.0));
        assert_eq!(
            walk(&mut track, values, 0),
            [(80, TransitionKind::Fired), (150, TransitionKind::Resolved(ResolveReason::ConditionCleared))]
        );
        let mut track = AlertInstance::new(rule(CPU, 0), "eth9");
        assert!(track.observe(Some(99.0), at(0, 0)).is_some());
        assert!((1..=300).all(|s| track.observe_absent(at(s, 0)).is_none()));
        let told = track.observe_absent(at(301, 0)).unwrap();
        assert_eq!(told.kind, TransitionKind::Resolved(ResolveReason::InstanceGone));
        // A value that is not there says nothing by itself.
        let mut track = AlertInstance::new(rule(CPU, 0), "");
        track.observe(Some(99.0), at(0, 0)).unwrap();
        assert!(track.observe(None, at(5_000, 0)).is_none() && track.is_firing());
    }

    #[test]
    fn restored_alert_resolves_when_clear() {
        let mut track = AlertInstance::new(rule(CPU, 10), "");
        track.restore(at(0, 0).at_ms, at(10, 0).at_ms, Some(97.0));
        assert!(track.observe(Some(95.0), at(20, 0)).is_none(), "known already");
        assert_eq!(track.observe(Some(10.0), at(21, 0)).unwrap().peak_value, Some(97.0));
        assert!(track.resolve(ResolveReason::RuleDeleted, 0).is_none());
    }
}
