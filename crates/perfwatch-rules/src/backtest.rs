//! Runs a rule over a recorded series, with the same alert instances as live evaluation.

use crate::alert_instance::{AlertInstance, ObservationTime, TransitionKind};
use crate::condition::Condition;
use crate::rule::Rule;
use serde::Serialize;
use std::sync::Arc;

/// Interval in which the rule would have fired.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FiringInterval {
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: String,
    /// Start of the breach, in milliseconds since 1970.
    pub pending_since_ms: i64,
    /// Time of firing, in milliseconds since 1970.
    pub fired_ms: i64,
    /// Time of resolution, in milliseconds since 1970; `None` if the alert would still fire.
    pub resolved_ms: Option<i64>,
    /// Worst value while the rule fired.
    pub peak_value: Option<f64>,
}

/// Recorded values of a series, as backtest input.
#[derive(Debug, Clone, Default)]
pub struct BacktestSeries {
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: String,
    /// Times in milliseconds since 1970 and values, sorted by time.
    pub points: Vec<(i64, f64)>,
}

/// Median time between the first 200 points; one second for fewer than two points.
fn median_interval_ms(points: &[(i64, f64)]) -> i64 {
    let mut intervals: Vec<i64> = points.windows(2).take(200).map(|pair| pair[1].0 - pair[0].0).collect();
    if intervals.is_empty() {
        return 1_000;
    }
    let middle = intervals.len() / 2;
    *intervals.select_nth_unstable(middle).1
}

/// Runs a rule over a series. `on_value` receives every evaluated value.
pub fn run(rule: &Arc<Rule>, series: &BacktestSeries, on_value: &mut dyn FnMut(f64)) -> Vec<FiringInterval> {
    if let Condition::NoData { grace } = rule.condition {
        return no_data_intervals(grace.ms() + rule.hold_for.ms(), series);
    }
    let interval_ms = median_interval_ms(&series.points);
    let mut alert = AlertInstance::new(rule.clone(), &series.instance);
    let mut intervals: Vec<FiringInterval> = Vec::new();
    for (at_ms, value) in &series.points {
        let time = ObservationTime { at_ms: *at_ms, interval_ms, age_ms: 0 };
        let event = alert.evaluate(Some(*value), time);
        if let Some(value) = alert.value() {
            on_value(value);
        }
        let Some(event) = event else { continue };
        match (event.kind, intervals.last_mut()) {
            (TransitionKind::Resolved(_), Some(interval)) => {
                (interval.resolved_ms, interval.peak_value) = (Some(event.observed_at_ms), event.peak_value);
            }
            _ => intervals.push(FiringInterval {
                instance: series.instance.clone(),
                pending_since_ms: event.pending_since_ms,
                fired_ms: event.fired_ms,
                resolved_ms: None,
                peak_value: event.peak_value,
            }),
        }
    }
    intervals
}

/// Intervals without points that are longer than the grace period.
#[expect(clippy::cast_precision_loss, reason = "days in milliseconds fit into 52 bits")]
fn no_data_intervals(grace_ms: i64, series: &BacktestSeries) -> Vec<FiringInterval> {
    let to_interval = |pair: &[(i64, f64)]| {
        let (before, after) = (pair[0].0, pair[1].0);
        (after - before > grace_ms).then(|| FiringInterval {
            instance: String::new(),
            pending_since_ms: before,
            fired_ms: before + grace_ms,
            resolved_ms: Some(after),
            peak_value: Some((after - before) as f64 / 1_000.0),
        })
    };
    series.points.windows(2).filter_map(to_interval).collect()
}

/// Quantiles of the evaluated values that are tried as thresholds.
const CANDIDATE_QUANTILES: [f64; 7] = [0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0];

/// Suggests the nearest threshold at which the rule would have fired at most `max_firings` times.
/// Returns `None` if the condition has no adjustable threshold or no stricter candidate is quiet enough.
pub fn suggest_threshold(
    rule: &Arc<Rule>,
    series: &[BacktestSeries],
    mut values: Vec<f64>,
    max_firings: usize,
) -> Option<f64> {
    if !matches!(rule.condition, Condition::Threshold { .. } | Condition::Change { .. }) || values.is_empty()
    {
        return None;
    }
    let current = rule.condition.threshold();
    let is_above = current.is_worse(1.0, 0.0);
    values.sort_unstable_by(f64::total_cmp);
    if !is_above {
        values.reverse();
    }
    let mut candidates = Vec::new();
    for quantile in CANDIDATE_QUANTILES {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "index of a list"
        )]
        let index = ((values.len() - 1) as f64 * quantile) as usize;
        let threshold = round_threshold(values[index], is_above);
        if current.is_worse(threshold, current.value) && !candidates.contains(&threshold) {
            candidates.push(threshold);
        }
    }
    candidates.into_iter().find(|threshold| {
        let rule =
            Arc::new(Rule { condition: rule.condition.with_threshold(*threshold), ..(**rule).clone() });
        let firings: usize = series.iter().map(|series| run(&rule, series, &mut |_| {}).len()).sum();
        firings <= max_firings
    })
}

/// Rounds to two significant digits, to the side with fewer alerts.
fn round_threshold(value: f64, up: bool) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a power of ten")]
    let unit = 10_f64.powi(value.abs().log10().floor() as i32 - 1);
    let rounded = if up { (value / unit).ceil() } else { (value / unit).floor() } * unit;
    // Removes floating-point noise such as 95.00000000000001.
    (rounded * 1e6).round() / 1e6
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

    fn series(points: impl Iterator<Item = (i64, f64)>) -> BacktestSeries {
        BacktestSeries { instance: String::new(), points: points.collect() }
    }

    #[test]
    fn backtest_matches_live_evaluation_and_suggests_threshold() {
        let rule =
            rule(r#"{"kind":"threshold","metric":"cpu.usage","threshold":50,"clear_threshold":40}"#, 10);
        // A burst of 20 s to 60 % every 100 s; the eighth burst is to 95 %.
        let value = |s: i64| match (s % 100 < 20, s / 100) {
            (true, 7) => 95.0,
            (true, _) => 60.0,
            _ => 5.0,
        };
        let series = series((0..2_000).map(|s| (s * 1_000, value(s))));
        let mut values = Vec::new();
        let intervals = run(&rule, &series, &mut |value| values.push(value));
        assert_eq!((intervals.len(), values.len()), (20, 2_000));
        assert_eq!(
            intervals[7],
            FiringInterval {
                instance: String::new(),
                pending_since_ms: 700_000,
                fired_ms: 710_000,
                resolved_ms: Some(720_000),
                peak_value: Some(95.0)
            }
        );
        assert_eq!(suggest_threshold(&rule, std::slice::from_ref(&series), values.clone(), 1), Some(60.0));
        assert_eq!(suggest_threshold(&rule, &[series], values, 0), Some(95.0));
    }

    #[test]
    fn no_data_is_detected_in_gaps() {
        let rule = rule(r#"{"kind":"no_data","grace":"30s"}"#, 0);
        let series = series((0..100).chain(200..300).map(|s| (s * 1_000, 0.0)));
        let intervals = run(&rule, &series, &mut |_| {});
        assert_eq!(
            (intervals.len(), intervals[0].fired_ms, intervals[0].resolved_ms),
            (1, 129_000, Some(200_000))
        );
    }

    #[test]
    fn suggested_thresholds_are_rounded() {
        for (value, up, expected) in [
            (94.37, true, 95.0),
            (0.01234, true, 0.013),
            (94.37, false, 94.0),
            (1_234_567.0, true, 1_300_000.0),
            (0.0, true, 0.0),
        ] {
            assert_eq!(round_threshold(value, up), expected, "{value}");
        }
    }
}
