//! What must hold: a figure of a series beyond a threshold, a host that is silent, a hub that is
//! not well.

use crate::state_machine::Evaluation;
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use serde::{Deserialize, Serialize};

/// Which side of the threshold is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Comparison {
    /// Larger than it.
    #[default]
    Above,
    /// Smaller than it.
    Below,
}

/// A figure against a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Which side is bad.
    pub compare: Comparison,
    /// From here on it is.
    pub value: f64,
    /// Until here it stays so once it was (hysteresis); the threshold itself if none.
    pub clear_value: Option<f64>,
}

/// A figure of the hub itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HubMetric {
    /// 1 while it takes nothing in.
    IngestBlocked,
    /// Percent of its disk budget that is in use.
    DiskBudgetUsed,
    /// Messages that could not be delivered, of the last day.
    FailedNotifications,
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Condition {
    /// A metric, or each instance of it, is beyond a threshold.
    Threshold {
        /// Dotted name.
        metric: String,
        /// Patterns of instances, as `/data*,!/data/tmp`; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Which figure of the window.
        #[serde(default)]
        aggregate: Aggregate,
        /// Over how long; nothing for the latest value.
        #[serde(default)]
        window: HumanDuration,
        /// Which side is bad.
        #[serde(default)]
        compare: Comparison,
        /// From here on.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_threshold: Option<f64>,
    },
    /// A metric is by so many percent beyond what it was some time before.
    Change {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Averages over this long are compared.
        window: HumanDuration,
        /// How long before.
        offset: HumanDuration,
        /// Which side is bad.
        #[serde(default)]
        compare: Comparison,
        /// Percent of what it was.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_threshold: Option<f64>,
    },
    /// A metric that goes on as it went reaches a value before long.
    Forecast {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The line is drawn through this much of the past.
        lookback: HumanDuration,
        /// How soon is too soon.
        horizon: HumanDuration,
        /// What it must not reach.
        target: f64,
        /// Coming from below it (`above`: what grows too large), or from above.
        #[serde(default)]
        compare: Comparison,
    },
    /// A host sends, but not this metric any more.
    Absent {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each that was there if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// For how long.
        grace: HumanDuration,
    },
    /// A host does not send.
    NoData {
        /// For how long.
        grace: HumanDuration,
    },
    /// The hub itself is not well.
    Hub {
        /// What of it.
        hub_metric: HubMetric,
        /// Which side is bad.
        #[serde(default)]
        compare: Comparison,
        /// From here on.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear_threshold: Option<f64>,
    },
}

impl Threshold {
    /// What a figure says.
    pub fn evaluate(&self, figure: Option<f64>) -> Evaluation {
        let Some(figure) = figure.filter(|figure| !figure.is_nan()) else { return Evaluation::Unknown };
        let clear = self.clear_value.unwrap_or(self.value);
        let (bad, clear) = match self.compare {
            Comparison::Above => (figure > self.value, figure <= clear),
            Comparison::Below => (figure < self.value, figure >= clear),
        };
        match (bad, clear) {
            (true, _) => Evaluation::Breach,
            (false, true) => Evaluation::Clear,
            (false, false) => Evaluation::Hysteresis,
        }
    }

    /// Whether one figure is further beyond than another.
    pub fn is_worse(&self, figure: f64, than: f64) -> bool {
        match self.compare {
            Comparison::Above => figure > than,
            Comparison::Below => figure < than,
        }
    }
}

impl Condition {
    /// The metric it looks at, if it does, and which instances.
    pub fn selector(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Threshold { metric, instance, .. }
            | Self::Change { metric, instance, .. }
            | Self::Forecast { metric, instance, .. }
            | Self::Absent { metric, instance, .. } => Some((metric, instance.as_deref())),
            Self::NoData { .. } | Self::Hub { .. } => None,
        }
    }

    /// What its figure is held against. Of a forecast, the figure is the hours that are left; of
    /// what is missing or silent, the seconds that it has been.
    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    pub fn threshold(&self) -> Threshold {
        match *self {
            Self::Threshold { compare, threshold, clear_threshold: clear, .. }
            | Self::Change { compare, threshold, clear_threshold: clear, .. }
            | Self::Hub { compare, threshold, clear_threshold: clear, .. } => {
                Threshold { compare, value: threshold, clear_value: clear }
            }
            Self::Forecast { horizon: within, .. } => {
                let hours = within.ms() as f64 / 3_600_000.0;
                // A quarter more, so that a line that trembles makes one alert.
                Threshold { compare: Comparison::Below, value: hours, clear_value: Some(hours * 1.25) }
            }
            Self::Absent { grace, .. } | Self::NoData { grace } => Threshold {
                compare: Comparison::Above,
                value: grace.ms() as f64 / 1_000.0,
                clear_value: None,
            },
        }
    }

    /// The same with another threshold; what clears it keeps its distance.
    #[must_use]
    pub fn with_threshold(&self, new: f64) -> Self {
        let mut other = self.clone();
        if let Self::Threshold { threshold, clear_threshold: clear, .. }
        | Self::Change { threshold, clear_threshold: clear, .. } = &mut other
        {
            *clear = clear.map(|clear| clear + new - *threshold);
            *threshold = new;
        }
        other
    }

    /// How much of the past there must be for a verdict.
    pub fn lookback(&self) -> HumanDuration {
        match *self {
            Self::Threshold { window, .. } => window,
            Self::Change { window, offset: before, .. } => {
                HumanDuration::from_ms(window.ms().saturating_add(before.ms()))
            }
            Self::Forecast { lookback: look_back, .. } => look_back,
            Self::Absent { grace, .. } => grace,
            Self::NoData { .. } | Self::Hub { .. } => HumanDuration::default(),
        }
    }
}

/// Whether an instance is meant by patterns as `eth*,!eth9`.
pub fn instance_matches(patterns: Option<&str>, instance: &str) -> bool {
    let Some(patterns) = patterns else { return true };
    let (mut named, mut any) = (false, false);
    for pattern in patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern, instance) => return false,
            Some(_) => {}
            None => {
                named = true;
                any |= glob(pattern, instance);
            }
        }
    }
    any || !named
}

/// `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_with_and_without_hysteresis() {
        let above = Threshold { compare: Comparison::Above, value: 90.0, clear_value: Some(80.0) };
        let below = Threshold { compare: Comparison::Below, value: 10.0, clear_value: None };
        for (bound, figure, want) in [
            (above, Some(90.1), Evaluation::Breach),
            (above, Some(90.0), Evaluation::Hysteresis),
            (above, Some(80.0), Evaluation::Clear),
            (above, None, Evaluation::Unknown),
            (above, Some(f64::NAN), Evaluation::Unknown),
            (below, Some(9.9), Evaluation::Breach),
            (below, Some(10.0), Evaluation::Clear),
        ] {
            assert_eq!(bound.evaluate(figure), want, "{bound:?} {figure:?}");
        }
    }

    #[test]
    fn instance_patterns_match() {
        for (patterns, instance, want) in [
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
            assert_eq!(instance_matches(patterns, instance), want, "{patterns:?} {instance}");
        }
    }
}
