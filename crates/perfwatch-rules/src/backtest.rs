//! What a rule would have done: the same tracks, fed with the past.

use crate::alert_instance::{AlertInstance, ObservationTime, TransitionKind};
use crate::condition::Condition;
use crate::rule::Rule;
use serde::Serialize;
use std::sync::Arc;

/// A time at which it would have fired.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FiringInterval {
    /// Of which instance; empty where there are none.
    pub instance: String,
    /// Since when the condition held, milliseconds since 1970.
    pub pending_since_ms: i64,
    /// When it would have fired.
    pub fired_ms: i64,
    /// When it would have ended; none if it would fire still.
    pub resolved_ms: Option<i64>,
    /// The furthest beyond.
    pub peak_value: Option<f64>,
}

/// The past of one series: when, and what.
#[derive(Debug, Clone, Default)]
pub struct BacktestSeries {
    /// Of which instance.
    pub instance: String,
    /// Times and values, in order.
    pub points: Vec<(i64, f64)>,
}

/// Usual time between points: the median of some of them.
fn median_interval_ms(points: &[(i64, f64)]) -> i64 {
    let mut apart: Vec<i64> = points.windows(2).take(200).map(|two| two[1].0 - two[0].0).collect();
    if apart.is_empty() {
        return 1_000;
    }
    let middle = apart.len() / 2;
    *apart.select_nth_unstable(middle).1
}

/// Runs a rule over one series; `each` sees every figure that it made.
pub fn run(rule: &Arc<Rule>, past: &BacktestSeries, each: &mut dyn FnMut(f64)) -> Vec<FiringInterval> {
    if let Condition::NoData { grace } = rule.condition {
        return no_data_intervals(grace.ms() + rule.hold_for.ms(), past);
    }
    let interval_ms = median_interval_ms(&past.points);
    let mut track = AlertInstance::new(rule.clone(), &past.instance);
    let mut fires: Vec<FiringInterval> = Vec::new();
    for (at_ms, value) in &past.points {
        let moment = ObservationTime { at_ms: *at_ms, interval_ms, age_ms: 0 };
        let told = track.observe(Some(*value), moment);
        if let Some(figure) = track.value() {
            each(figure);
        }
        let Some(told) = told else { continue };
        match (told.kind, fires.last_mut()) {
            (TransitionKind::Resolved(_), Some(fire)) => {
                (fire.resolved_ms, fire.peak_value) = (Some(told.observed_at_ms), told.peak_value);
            }
            _ => fires.push(FiringInterval {
                instance: past.instance.clone(),
                pending_since_ms: told.pending_since_ms,
                fired_ms: told.fired_ms,
                resolved_ms: None,
                peak_value: told.peak_value,
            }),
        }
    }
    fires
}

/// Where nothing was heard for longer than a grace.
#[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
fn no_data_intervals(grace_ms: i64, past: &BacktestSeries) -> Vec<FiringInterval> {
    let long = |two: &[(i64, f64)]| {
        let (before, after) = (two[0].0, two[1].0);
        (after - before > grace_ms).then(|| FiringInterval {
            instance: String::new(),
            pending_since_ms: before,
            fired_ms: before + grace_ms,
            resolved_ms: Some(after),
            peak_value: Some((after - before) as f64 / 1_000.0),
        })
    };
    past.points.windows(2).filter_map(long).collect()
}

/// Thresholds that are tried for a better one, as shares of the figures that lie within them.
const CANDIDATE_QUANTILES: [f64; 7] = [0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0];

/// The nearest threshold by which a rule would have fired no more often than `most`, by figures
/// that it made; none for a rule that has no threshold, or where this one is fine.
pub fn suggest_threshold(
    rule: &Arc<Rule>,
    pasts: &[BacktestSeries],
    mut figures: Vec<f64>,
    most: usize,
) -> Option<f64> {
    if !matches!(rule.condition, Condition::Threshold { .. } | Condition::Change { .. }) || figures.is_empty()
    {
        return None;
    }
    let bound = rule.condition.threshold();
    let above = bound.is_worse(1.0, 0.0);
    figures.sort_unstable_by(f64::total_cmp);
    if !above {
        figures.reverse();
    }
    let mut tried = Vec::new();
    for share in CANDIDATE_QUANTILES {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list"
        )]
        let at = ((figures.len() - 1) as f64 * share) as usize;
        let threshold = round_threshold(figures[at], above);
        if bound.is_worse(threshold, bound.value) && !tried.contains(&threshold) {
            tried.push(threshold);
        }
    }
    tried.into_iter().find(|threshold| {
        let rule =
            Arc::new(Rule { condition: rule.condition.with_threshold(*threshold), ..(**rule).clone() });
        let fires: usize = pasts.iter().map(|past| run(&rule, past, &mut |_| {}).len()).sum();
        fires <= most
    })
}

/// To two digits, to the lenient side.
fn round_threshold(figure: f64, up: bool) -> f64 {
    if figure == 0.0 {
        return 0.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a power of ten")]
    let unit = 10_f64.powi(figure.abs().log10().floor() as i32 - 1);
    let rounded = if up { (figure / unit).ceil() } else { (figure / unit).floor() } * unit;
    // 95.00000000000001 is nobody's threshold.
    (rounded * 1e6).round() / 1e6
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

    fn past(points: impl Iterator<Item = (i64, f64)>) -> BacktestSeries {
        BacktestSeries { instance: String::new(), points: points.collect() }
    }

    #[test]
    fn backtest_matches_live_evaluation_and_suggests_threshold() {
        let rule = rule(r#"{"kind":"value","metric":"cpu.usage","threshold":50,"clear":40}"#, 10);
        // Each 100 s a burst of 20 s to 60 %, and one to 95 %.
        let value = |s: i64| match (s % 100 < 20, s / 100) {
            (true, 7) => 95.0,
            (true, _) => 60.0,
            _ => 5.0,
        };
        let past = past((0..2_000).map(|s| (s * 1_000, value(s))));
        let mut figures = Vec::new();
        let fires = run(&rule, &past, &mut |figure| figures.push(figure));
        assert_eq!((fires.len(), figures.len()), (20, 2_000));
        assert_eq!(
            fires[7],
            FiringInterval {
                instance: String::new(),
                pending_since_ms: 700_000,
                fired_ms: 710_000,
                resolved_ms: Some(720_000),
                peak_value: Some(95.0)
            }
        );
        assert_eq!(suggest_threshold(&rule, std::slice::from_ref(&past), figures.clone(), 1), Some(60.0));
        assert_eq!(suggest_threshold(&rule, &[past], figures, 0), Some(95.0));
    }

    #[test]
    fn no_data_is_detected_in_gaps() {
        let rule = rule(r#"{"kind":"silent","grace":"30s"}"#, 0);
        let past = past((0..100).chain(200..300).map(|s| (s * 1_000, 0.0)));
        let fires = run(&rule, &past, &mut |_| {});
        assert_eq!((fires.len(), fires[0].fired_ms, fires[0].resolved_ms), (1, 129_000, Some(200_000)));
    }

    #[test]
    fn suggested_thresholds_are_rounded() {
        for (figure, up, want) in [
            (94.37, true, 95.0),
            (0.01234, true, 0.013),
            (94.37, false, 94.0),
            (1_234_567.0, true, 1_300_000.0),
            (0.0, true, 0.0),
        ] {
            assert_eq!(round_threshold(figure, up), want, "{figure}");
        }
    }
}
