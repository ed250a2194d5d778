//! Rule conditions and thresholds.

use crate::hub_metric::HubMetric;
use crate::state_machine::Evaluation;
use crate::window::Aggregate;
use perfwatch_model::{HumanDuration, glob};
use serde::{Deserialize, Serialize};

/// Side of the threshold that breaches it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Comparison {
    /// Values above the threshold.
    #[default]
    Above,
    /// Values below the threshold.
    Below,
}

/// Threshold with an optional clear threshold (hysteresis).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Side that breaches the threshold.
    pub compare: Comparison,
    /// Exclusive limit: an equal value does not breach it.
    pub value: f64,
    /// Value at which a breach is cleared; `value` if `None`.
    pub clear_value: Option<f64>,
}

/// Condition that a rule evaluates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Condition {
    /// Aggregated value of a metric is beyond a threshold. Each instance is evaluated separately.
    Threshold {
        /// Dotted metric name, such as `cpu.usage`.
        metric: String,
        /// Instance patterns, such as `/data*,!/data/tmp`; all instances if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Aggregate of the values in the window.
        #[serde(default)]
        aggregate: Aggregate,
        /// Length of the window; ignored for the latest value.
        #[serde(default)]
        window: HumanDuration,
        /// Side that breaches the threshold.
        #[serde(default)]
        compare: Comparison,
        /// Exclusive limit of normal values.
        threshold: f64,
        /// Value at which a firing alert resolves (hysteresis); the threshold if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_threshold: Option<f64>,
    },
    /// Mean of a metric differs from an earlier mean by more than a percentage.
    Change {
        /// Dotted metric name, such as `cpu.usage`.
        metric: String,
        /// Instance patterns; all instances if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Length of the two windows whose means are compared.
        window: HumanDuration,
        /// Time between the ends of the two windows.
        offset: HumanDuration,
        /// Side that breaches the threshold.
        #[serde(default)]
        compare: Comparison,
        /// Exclusive limit of the change, in percent of the earlier mean.
        threshold: f64,
        /// Value at which a firing alert resolves (hysteresis); the threshold if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_threshold: Option<f64>,
    },
    /// Linear forecast of a metric reaches a target within the horizon.
    Forecast {
        /// Dotted metric name, such as `cpu.usage`.
        metric: String,
        /// Instance patterns; all instances if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Length of the history that the line is fitted to.
        lookback: HumanDuration,
        /// Maximum time until the target is reached.
        horizon: HumanDuration,
        /// Value that must not be reached.
        target: f64,
        /// Direction: `above` if the metric grows to the target, `below` if it falls to the target.
        #[serde(default)]
        compare: Comparison,
    },
    /// Host sends snapshots, but they no longer contain the metric.
    Absent {
        /// Dotted metric name, such as `cpu.usage`.
        metric: String,
        /// Instance patterns; all instances observed before if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Minimum duration before the condition holds.
        grace: HumanDuration,
    },
    /// Host sends no snapshots at all.
    NoData {
        /// Minimum duration before the condition holds.
        grace: HumanDuration,
    },
    /// Self-metric of the hub is beyond a threshold.
    Hub {
        /// Evaluated self-metric of the hub.
        hub_metric: HubMetric,
        /// Side that breaches the threshold.
        #[serde(default)]
        compare: Comparison,
        /// Exclusive limit of normal values.
        threshold: f64,
        /// Value at which a firing alert resolves (hysteresis); the threshold if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_threshold: Option<f64>,
    },
}

impl Threshold {
    /// Evaluates a value; `Unknown` for a missing value or NaN.
    pub fn evaluate(&self, value: Option<f64>) -> Evaluation {
        let Some(value) = value.filter(|value| !value.is_nan()) else { return Evaluation::Unknown };
        let clear_value = self.clear_value.unwrap_or(self.value);
        let (is_breach, is_clear) = match self.compare {
            Comparison::Above => (value > self.value, value <= clear_value),
            Comparison::Below => (value < self.value, value >= clear_value),
        };
        match (is_breach, is_clear) {
            (true, _) => Evaluation::Breach,
            (false, true) => Evaluation::Clear,
            (false, false) => Evaluation::Hysteresis,
        }
    }

    /// Returns whether `value` is further on the breaching side than `other`.
    pub fn is_worse(&self, value: f64, other: f64) -> bool {
        match self.compare {
            Comparison::Above => value > other,
            Comparison::Below => value < other,
        }
    }
}

impl Condition {
    /// Evaluated metric and instance patterns; `None` for `no_data` and `hub`.
    pub fn selector(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Threshold { metric, instance, .. }
            | Self::Change { metric, instance, .. }
            | Self::Forecast { metric, instance, .. }
            | Self::Absent { metric, instance, .. } => Some((metric, instance.as_deref())),
            Self::NoData { .. } | Self::Hub { .. } => None,
        }
    }

    /// Threshold of the evaluated value. The value of `forecast` is the time left in hours; the value of
    /// `absent` and `no_data` is the duration in seconds.
    #[expect(clippy::cast_precision_loss, reason = "days in milliseconds fit into 52 bits")]
    pub fn threshold(&self) -> Threshold {
        match *self {
            Self::Threshold { compare, threshold, clear_threshold, .. }
            | Self::Change { compare, threshold, clear_threshold, .. }
            | Self::Hub { compare, threshold, clear_threshold, .. } => {
                Threshold { compare, value: threshold, clear_value: clear_threshold }
            }
            Self::Forecast { horizon, .. } => {
                let hours = horizon.ms() as f64 / 3_600_000.0;
                // Hysteresis of a quarter, so that an unsteady forecast causes a single alert.
                Threshold { compare: Comparison::Below, value: hours, clear_value: Some(hours * 1.25) }
            }
            Self::Absent { grace, .. } | Self::NoData { grace } => Threshold {
                compare: Comparison::Above,
                value: grace.ms() as f64 / 1_000.0,
                clear_value: None,
            },
        }
    }

    /// Returns the condition with another threshold. The clear threshold keeps its distance.
    #[must_use]
    pub fn with_threshold(&self, value: f64) -> Self {
        let mut condition = self.clone();
        if let Self::Threshold { threshold, clear_threshold, .. }
        | Self::Change { threshold, clear_threshold, .. } = &mut condition
        {
            *clear_threshold = clear_threshold.map(|clear| clear + value - *threshold);
            *threshold = value;
        }
        condition
    }

    /// Length of the history that an evaluation needs.
    pub fn lookback(&self) -> HumanDuration {
        match *self {
            Self::Threshold { window, .. } => window,
            Self::Change { window, offset, .. } => {
                HumanDuration::from_ms(window.ms().saturating_add(offset.ms()))
            }
            Self::Forecast { lookback, .. } => lookback,
            Self::Absent { grace, .. } => grace,
            Self::NoData { .. } | Self::Hub { .. } => HumanDuration::default(),
        }
    }
}

/// Returns whether an instance matches a comma-separated list of patterns, such as `eth*,!eth9`.
pub fn instance_matches(patterns: Option<&str>, instance: &str) -> bool {
    patterns.is_none_or(|patterns| glob::matches_list(patterns.split(','), instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_with_and_without_hysteresis() {
        let above = Threshold { compare: Comparison::Above, value: 90.0, clear_value: Some(80.0) };
        let below = Threshold { compare: Comparison::Below, value: 10.0, clear_value: None };
        for (threshold, value, expected) in [
            (above, Some(90.1), Evaluation::Breach),
            (above, Some(90.0), Evaluation::Hysteresis),
            (above, Some(80.0), Evaluation::Clear),
            (above, None, Evaluation::Unknown),
            (above, Some(f64::NAN), Evaluation::Unknown),
            (below, Some(9.9), Evaluation::Breach),
            (below, Some(10.0), Evaluation::Clear),
        ] {
            assert_eq!(threshold.evaluate(value), expected, "{threshold:?} {value:?}");
        }
    }

    #[test]
    fn instance_patterns_match() {
        for (patterns, instance, expected) in [
            (None, "eth0", true),
            (Some("eth0"), "eth0", true),
            (Some("eth0"), "eth01", false),
            (Some("eth*"), "eth01", true),
            (Some("/data*, /srv"), "/srv", true),
            (Some("!lo,!veth*"), "eth0", true),
            (Some("!lo,!veth*"), "veth12", false),
            (Some("*,!lo"), "lo", false),
            (Some("*a*b"), "xxaxxb", true),
            (Some("*a*b"), "xxbxxa", false),
            (Some("a*a"), "a", false),
        ] {
            assert_eq!(instance_matches(patterns, instance), expected, "{patterns:?} {instance}");
        }
    }
}
