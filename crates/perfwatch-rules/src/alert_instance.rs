//! Evaluates one rule on one instance: aggregates its values and advances its state.

use crate::condition::Condition;
use crate::forecast;
use crate::rule::Rule;
use crate::state_machine::{AlertPhase, AlertState, Evaluation, HoldPolicy, Transition, advance};
use crate::window::{Aggregate, SlidingWindow};
use std::sync::Arc;

/// Maximum age of an observation that may notify. Older observations are backfill: they are recorded
/// only.
pub const BACKFILL_AGE_MS: i64 = 120_000;
/// Time after which an instance that its host no longer reports is gone, and its alert is resolved.
const INSTANCE_TIMEOUT_MS: i64 = 300_000;
/// Lower limit of the gap that restarts the hold time. The gap is five intervals otherwise.
const MIN_GAP_MS: i64 = 30_000;
/// Maximum forecast, in hours. A longer forecast is clamped.
const MAX_FORECAST_HOURS: f64 = 24.0 * 365.0;

/// Reason why an alert was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveReason {
    /// Condition of the rule no longer holds.
    ConditionCleared,
    /// Instance was not reported for five minutes.
    InstanceGone,
    /// Rule was deleted or no longer selects the instance.
    RuleDeleted,
    /// Host was deleted from the hub.
    HostDeleted,
}

/// Kind of an alert's transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitionKind {
    /// Alert started to fire.
    Fired,
    /// Alert stopped firing, with the reason.
    Resolved(ResolveReason),
    /// Alert fired and resolved within backfilled data; recorded without a notification.
    Backfilled,
}

/// Transition of an alert, to be recorded and possibly notified.
#[derive(Debug, Clone)]
pub struct TransitionEvent {
    /// Rule that the alert belongs to.
    pub rule: Arc<Rule>,
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: Box<str>,
    /// Fired, resolved or backfilled.
    pub kind: TransitionKind,
    /// Start of the breach, in milliseconds since 1970 by the host's clock.
    pub pending_since_ms: i64,
    /// Time of firing, in milliseconds since 1970.
    pub fired_ms: i64,
    /// Time of the observation that caused the transition, in milliseconds since 1970.
    pub observed_at_ms: i64,
    /// Evaluated value at the transition.
    pub value: Option<f64>,
    /// Worst value while the alert fired.
    pub peak_value: Option<f64>,
}

/// Time, interval and age of an observation.
#[derive(Debug, Clone, Copy)]
pub struct ObservationTime {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Usual time until the next observation, in milliseconds; 0 if unknown.
    pub interval_ms: i64,
    /// Age at the time of evaluation, in milliseconds.
    pub age_ms: i64,
}

/// One rule on one instance, with its window and state.
#[derive(Debug, Clone)]
pub struct AlertInstance {
    /// Rule that is evaluated.
    pub rule: Arc<Rule>,
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: Box<str>,
    /// Current state of the alert.
    pub state: AlertState,
    window: SlidingWindow,
    value: Option<f64>,
    /// Worst value while the alert fires.
    peak_value: Option<f64>,
    /// Set while the alert fires because of backfilled data and was not reported yet.
    fired_from_backfill: bool,
}

impl AlertInstance {
    /// Creates an inactive alert without observations.
    pub fn new(rule: Arc<Rule>, instance: &str) -> Self {
        let window = match &rule.condition {
            Condition::Threshold { aggregate, window, .. } => {
                SlidingWindow::new(*aggregate, window.ms(), window.ms())
            }
            Condition::Change { window, offset, .. } => {
                SlidingWindow::new(Aggregate::Mean, window.ms(), window.ms().saturating_add(offset.ms()))
            }
            Condition::Forecast { lookback, .. } => {
                SlidingWindow::new(Aggregate::Mean, lookback.ms(), lookback.ms())
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
            fired_from_backfill: false,
        }
    }

    /// Restores a firing alert from its stored times and peak value.
    pub fn restore(&mut self, since_ms: i64, fired_ms: i64, peak_value: Option<f64>) {
        self.state =
            AlertState { phase: AlertPhase::Firing { since_ms, fired_ms }, last_observed_ms: fired_ms };
        self.peak_value = peak_value;
        self.fired_from_backfill = false;
    }

    /// Returns whether the alert fires and this was reported.
    pub fn is_firing(&self) -> bool {
        matches!(self.state.phase, AlertPhase::Firing { .. }) && !self.fired_from_backfill
    }

    /// Aggregated value of the last evaluation.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// Returns whether the alert is inactive and its instance was not observed for a long time.
    pub fn is_stale(&self, now_ms: i64) -> bool {
        let Some((last_seen_ms, _)) = self.window.latest() else { return false };
        self.state.phase == AlertPhase::Inactive
            && !matches!(self.rule.condition, Condition::Absent { .. })
            && now_ms.saturating_sub(last_seen_ms) > INSTANCE_TIMEOUT_MS.max(self.rule.lookback().ms())
    }

    /// Evaluates a value, or a missing value of an instance that the host reports.
    pub fn evaluate(&mut self, value: Option<f64>, time: ObservationTime) -> Option<TransitionEvent> {
        let begins_bucket = value.is_some_and(|value| self.window.push(time.at_ms, value));
        self.update_value(value, time, begins_bucket);
        let evaluation = match (&self.rule.condition, value) {
            // A missing value is evaluated by `absent` only.
            (Condition::Absent { .. }, _) | (_, Some(_)) => {
                self.rule.condition.threshold().evaluate(self.value)
            }
            _ => Evaluation::Unknown,
        };
        self.advance(evaluation, time)
    }

    /// Evaluates a snapshot that does not contain the instance. Resolves the alert after a timeout.
    pub fn evaluate_absent(&mut self, time: ObservationTime) -> Option<TransitionEvent> {
        if matches!(self.rule.condition, Condition::Absent { .. }) {
            return self.evaluate(None, time);
        }
        let last_seen_ms = self.window.latest().map_or(0, |(at, _)| at).max(self.state.last_observed_ms);
        let is_gone = matches!(self.state.phase, AlertPhase::Firing { .. })
            && time.at_ms - last_seen_ms > INSTANCE_TIMEOUT_MS;
        is_gone.then(|| self.resolve(ResolveReason::InstanceGone, time.at_ms)).flatten()
    }

    /// Resolves a firing alert regardless of its value. Returns `None` if its firing was not reported.
    pub fn resolve(&mut self, reason: ResolveReason, at_ms: i64) -> Option<TransitionEvent> {
        let previous = std::mem::replace(&mut self.state.phase, AlertPhase::Inactive);
        let unreported = std::mem::take(&mut self.fired_from_backfill);
        let AlertPhase::Firing { since_ms, fired_ms } = previous else { return None };
        (!unreported).then(|| self.event(TransitionKind::Resolved(reason), (since_ms, fired_ms), at_ms))
    }

    fn event(&self, kind: TransitionKind, (since_ms, fired_ms): (i64, i64), at_ms: i64) -> TransitionEvent {
        TransitionEvent {
            rule: self.rule.clone(),
            instance: self.instance.clone(),
            kind,
            pending_since_ms: since_ms,
            fired_ms,
            observed_at_ms: at_ms,
            value: self.value,
            peak_value: self.peak_value,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "days in milliseconds fit into 52 bits")]
    fn update_value(&mut self, value: Option<f64>, time: ObservationTime, begins_bucket: bool) {
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        self.value = match &self.rule.condition {
            Condition::Threshold { .. } => self.window.aggregate(0),
            Condition::Change { offset, .. } => {
                match (self.window.aggregate(0), self.window.aggregate(offset.ms())) {
                    (Some(current), Some(previous)) if previous != 0.0 => {
                        Some((current - previous) / previous.abs() * 100.0)
                    }
                    _ => None,
                }
            }
            Condition::Forecast { target, lookback, compare, .. } => {
                // The line is computed once per bucket at most.
                if !begins_bucket {
                    return;
                }
                let points: Vec<(i64, f64)> = self.window.bucket_means().collect();
                let covered_ms =
                    points.first().zip(points.last()).map_or(0, |(first, last)| last.0 - first.0);
                let is_sufficient = covered_ms >= lookback.ms() / 2 && points.len() >= forecast::MIN_POINTS;
                let hours = |ms: f64| (ms / 3_600_000.0).min(MAX_FORECAST_HOURS);
                is_sufficient.then(|| {
                    forecast::time_to_target_ms(&points, *target, *compare).map_or(MAX_FORECAST_HOURS, hours)
                })
            }
            Condition::Absent { .. } => {
                self.window.latest().map(|(last, _)| seconds((time.at_ms - last).max(0)))
            }
            Condition::NoData { .. } | Condition::Hub { .. } => value,
        };
    }

    fn advance(&mut self, evaluation: Evaluation, time: ObservationTime) -> Option<TransitionEvent> {
        // While the interval of a script is unknown, no gap interrupts the hold time.
        let max_gap_ms = match time.interval_ms {
            0 => i64::MAX,
            interval_ms => interval_ms.saturating_mul(5).max(MIN_GAP_MS),
        };
        let policy = HoldPolicy { for_ms: self.rule.hold_for.ms(), max_gap_ms };
        let previous = self.state.phase;
        let (state, transition) = advance(self.state, evaluation, time.at_ms, policy);
        self.state = state;
        let threshold = self.rule.condition.threshold();
        // A sender that delivers every half an hour is not late with what it took since.
        let is_backfill = time.age_ms > BACKFILL_AGE_MS.max(time.interval_ms.saturating_mul(2));
        match (transition, state.phase) {
            (Some(Transition::Fired), AlertPhase::Firing { since_ms, fired_ms }) => {
                self.peak_value = self.value;
                self.fired_from_backfill = is_backfill;
                (!is_backfill).then(|| self.event(TransitionKind::Fired, (since_ms, fired_ms), time.at_ms))
            }
            (Some(Transition::Resolved), _) => {
                let AlertPhase::Firing { since_ms, fired_ms } = previous else { return None };
                let kind = if std::mem::take(&mut self.fired_from_backfill) {
                    TransitionKind::Backfilled
                } else {
                    TransitionKind::Resolved(ResolveReason::ConditionCleared)
                };
                Some(self.event(kind, (since_ms, fired_ms), time.at_ms))
            }
            (None, AlertPhase::Firing { since_ms, fired_ms }) => {
                if let Some(value) = self.value
                    && evaluation == Evaluation::Breach
                    && self.peak_value.is_none_or(|peak| threshold.is_worse(value, peak))
                {
                    self.peak_value = Some(value);
                }
                // The backfilled breach is ongoing: it is reported now.
                let is_ongoing = self.fired_from_backfill && !is_backfill && evaluation == Evaluation::Breach;
                self.fired_from_backfill &= !is_ongoing;
                is_ongoing.then(|| self.event(TransitionKind::Fired, (since_ms, fired_ms), time.at_ms))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::HumanDuration;

    fn rule(condition: &str, for_s: i64) -> Arc<Rule> {
        Arc::new(Rule {
            condition: serde_json::from_str(condition).unwrap(),
            hold_for: HumanDuration::from_s(for_s),
            ..crate::builtin_rules::builtin_rules().remove(0)
        })
    }

    fn time(s: i64, age_ms: i64) -> ObservationTime {
        ObservationTime { at_ms: 1_000_000_000 + s * 1_000, interval_ms: 1_000, age_ms }
    }

    /// Observes one value per second; returns the seconds and kinds of the transitions.
    fn observe_all(
        alert: &mut AlertInstance,
        values: impl Iterator<Item = Option<f64>>,
        age_ms: i64,
    ) -> Vec<(i64, TransitionKind)> {
        let observe = |(s, value): (usize, Option<f64>)| {
            let event = alert.evaluate(value, time(s as i64, age_ms))?;
            Some((s as i64, event.kind))
        };
        values.enumerate().filter_map(observe).collect()
    }

    const CPU: &str = r#"{"kind":"threshold","metric":"cpu.usage","threshold":90,"clear_threshold":80}"#;

    #[test]
    fn fires_after_hold_and_tracks_peak() {
        let mut alert = AlertInstance::new(rule(CPU, 10), "");
        let values = (0..60).map(|s| Some(if (5..30).contains(&s) { 90.0 + s as f64 / 10.0 } else { 20.0 }));
        assert_eq!(
            observe_all(&mut alert, values, 0),
            [(15, TransitionKind::Fired), (30, TransitionKind::Resolved(ResolveReason::ConditionCleared))]
        );
        assert_eq!(alert.peak_value, Some(92.9));
    }

    #[test]
    fn mean_uses_the_window() {
        let mean =
            r#"{"kind":"threshold","metric":"cpu.usage","aggregate":"mean","window":"60s","threshold":50}"#;
        let mut alert = AlertInstance::new(rule(mean, 0), "");
        let events = observe_all(&mut alert, (0..300).map(|s| Some(if s < 100 { 0.0 } else { 100.0 })), 0);
        let [(fired, TransitionKind::Fired)] = events[..] else { panic!("{events:?}") };
        assert!((128..=133).contains(&fired), "{fired}");
    }

    #[test]
    fn change_compares_with_offset() {
        let change = r#"{"kind":"change","metric":"x.y","window":"1m","offset":"10m",
            "threshold":50,"clear_threshold":20}"#;
        let mut alert = AlertInstance::new(rule(change, 0), "");
        let events =
            observe_all(&mut alert, (0..2_000).map(|s| Some(if s < 1_000 { 10.0 } else { 16.0 })), 0);
        let [
            (fired, TransitionKind::Fired),
            (resolved, TransitionKind::Resolved(ResolveReason::ConditionCleared)),
        ] = events[..]
        else {
            panic!("{events:?}")
        };
        assert!((1_045..1_070).contains(&fired) && (1_600..1_670).contains(&resolved), "{events:?}");
    }

    #[test]
    fn forecast_fires_before_disk_is_full() {
        let condition = r#"{"kind":"forecast","metric":"filesystem.used_percent",
            "lookback":"6h","horizon":"24h","target":100}"#;
        let mut alert = AlertInstance::new(rule(condition, 0), "/");
        // Grows by 1 % per hour from 60 %: full after 40 h.
        let mut events = Vec::new();
        for minute in 0..40 * 60_i64 {
            let value = 60.0 + minute as f64 / 60.0;
            let time = ObservationTime { interval_ms: 60_000, ..time(minute * 60, 0) };
            events.extend(alert.evaluate(Some(value), time).map(|event| (minute / 60, event.kind)));
        }
        assert_eq!(events.len(), 1, "{events:?}");
        assert!((15..=17).contains(&events[0].0) && events[0].1 == TransitionKind::Fired, "{events:?}");
    }

    #[test]
    fn backfilled_breach_does_not_notify_unless_ongoing() {
        let hour = 3_600_000;
        let burst = || (0..60).map(|s| Some(if (5..30).contains(&s) { 99.0 } else { 20.0 }));
        let mut alert = AlertInstance::new(rule(CPU, 10), "");
        assert_eq!(observe_all(&mut alert, burst(), hour), [(30, TransitionKind::Backfilled)]);
        let mut alert = AlertInstance::new(rule(CPU, 10), "");
        assert_eq!(observe_all(&mut alert, burst().take(25), hour), [], "still firing");
        let event = alert.evaluate(Some(99.0), time(26, 0)).unwrap();
        assert_eq!((event.kind, event.fired_ms), (TransitionKind::Fired, time(15, 0).at_ms));
        assert!(alert.is_firing());
    }

    #[test]
    fn absent_metric_and_instance_timeout() {
        let absent = r#"{"kind":"absent","metric":"temperature.sensor","grace":"30s"}"#;
        let mut alert = AlertInstance::new(rule(absent, 0), "coretemp");
        let values = (0..200).map(|s| (!(50..150).contains(&s)).then_some(40.0));
        assert_eq!(
            observe_all(&mut alert, values, 0),
            [(80, TransitionKind::Fired), (150, TransitionKind::Resolved(ResolveReason::ConditionCleared))]
        );
        let mut alert = AlertInstance::new(rule(CPU, 0), "eth9");
        assert!(alert.evaluate(Some(99.0), time(0, 0)).is_some());
        assert!((1..=300).all(|s| alert.evaluate_absent(time(s, 0)).is_none()));
        let event = alert.evaluate_absent(time(301, 0)).unwrap();
        assert_eq!(event.kind, TransitionKind::Resolved(ResolveReason::InstanceGone));
        // A missing value does not change the state of a threshold rule.
        let mut alert = AlertInstance::new(rule(CPU, 0), "");
        alert.evaluate(Some(99.0), time(0, 0)).unwrap();
        assert!(alert.evaluate(None, time(5_000, 0)).is_none() && alert.is_firing());
    }

    #[test]
    fn restored_alert_resolves_when_clear() {
        let mut alert = AlertInstance::new(rule(CPU, 10), "");
        alert.restore(time(0, 0).at_ms, time(10, 0).at_ms, Some(97.0));
        assert!(alert.evaluate(Some(95.0), time(20, 0)).is_none(), "already reported");
        assert_eq!(alert.evaluate(Some(10.0), time(21, 0)).unwrap().peak_value, Some(97.0));
        assert!(alert.resolve(ResolveReason::RuleDeleted, 0).is_none());
    }
}
