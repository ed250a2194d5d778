//! What must hold: a figure of a series beyond a threshold, a host that is silent, a hub that is
//! not well.

use crate::step::Verdict;
use crate::window::Aggregate;
use perfwatch_model::Span;
use serde::{Deserialize, Serialize};

/// Which side of the threshold is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Compare {
    /// Larger than it.
    #[default]
    Above,
    /// Smaller than it.
    Below,
}

/// A figure against a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Which side is bad.
    pub compare: Compare,
    /// From here on it is.
    pub threshold: f64,
    /// Until here it stays so once it was (hysteresis); the threshold itself if none.
    pub clear: Option<f64>,
}

/// A figure of the hub itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HubFigure {
    /// 1 while it takes nothing in.
    Refusing,
    /// Percent of its disk budget that is in use.
    BudgetUsed,
    /// Messages that could not be delivered, of the last day.
    Undelivered,
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Condition {
    /// A metric, or each instance of it, is beyond a threshold.
    Value {
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
        window: Span,
        /// Which side is bad.
        #[serde(default)]
        compare: Compare,
        /// From here on.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// A metric is by so many percent beyond what it was some time before.
    Change {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Averages over this long are compared.
        window: Span,
        /// How long before.
        before: Span,
        /// Which side is bad.
        #[serde(default)]
        compare: Compare,
        /// Percent of what it was.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// A metric that goes on as it went reaches a value before long.
    Forecast {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The line is drawn through this much of the past.
        look_back: Span,
        /// How soon is too soon.
        within: Span,
        /// What it must not reach.
        reaches: f64,
        /// Coming from below it (`above`: what grows too large), or from above.
        #[serde(default)]
        compare: Compare,
    },
    /// A host sends, but not this metric any more.
    Missing {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each that was there if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// For how long.
        grace: Span,
    },
    /// A host does not send.
    Silent {
        /// For how long.
        grace: Span,
    },
    /// The hub itself is not well.
    Hub {
        /// What of it.
        figure: HubFigure,
        /// Which side is bad.
        #[serde(default)]
        compare: Compare,
        /// From here on.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
}

impl Bound {
    /// What a figure says.
    pub fn verdict(&self, figure: Option<f64>) -> Verdict {
        let Some(figure) = figure.filter(|figure| !figure.is_nan()) else { return Verdict::Unknown };
        let clear = self.clear.unwrap_or(self.threshold);
        let (bad, clear) = match self.compare {
            Compare::Above => (figure > self.threshold, figure <= clear),
            Compare::Below => (figure < self.threshold, figure >= clear),
        };
        match (bad, clear) {
            (true, _) => Verdict::Breach,
            (false, true) => Verdict::Clear,
            (false, false) => Verdict::Between,
        }
    }

    /// Whether one figure is further beyond than another.
    pub fn worse(&self, figure: f64, than: f64) -> bool {
        match self.compare {
            Compare::Above => figure > than,
            Compare::Below => figure < than,
        }
    }
}

impl Condition {
    /// The metric it looks at, if it does, and which instances.
    pub fn series(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Value { metric, instance, .. }
            | Self::Change { metric, instance, .. }
            | Self::Forecast { metric, instance, .. }
            | Self::Missing { metric, instance, .. } => Some((metric, instance.as_deref())),
            Self::Silent { .. } | Self::Hub { .. } => None,
        }
    }

    /// What its figure is held against. Of a forecast, the figure is the hours that are left; of
    /// what is missing or silent, the seconds that it has been.
    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    pub fn bound(&self) -> Bound {
        match *self {
            Self::Value { compare, threshold, clear, .. }
            | Self::Change { compare, threshold, clear, .. }
            | Self::Hub { compare, threshold, clear, .. } => Bound { compare, threshold, clear },
            Self::Forecast { within, .. } => {
                let hours = within.ms() as f64 / 3_600_000.0;
                // A quarter more, so that a line that trembles makes one alert.
                Bound { compare: Compare::Below, threshold: hours, clear: Some(hours * 1.25) }
            }
            Self::Missing { grace, .. } | Self::Silent { grace } => {
                Bound { compare: Compare::Above, threshold: grace.ms() as f64 / 1_000.0, clear: None }
            }
        }
    }

    /// The same with another threshold; what clears it keeps its distance.
    #[must_use]
    pub fn with_threshold(&self, new: f64) -> Self {
        let mut other = self.clone();
        if let Self::Value { threshold, clear, .. } | Self::Change { threshold, clear, .. } = &mut other {
            *clear = clear.map(|clear| clear + new - *threshold);
            *threshold = new;
        }
        other
    }

    /// How much of the past there must be for a verdict.
    pub fn looks_back(&self) -> Span {
        match *self {
            Self::Value { window, .. } => window,
            Self::Change { window, before, .. } => Span::from_ms(window.ms().saturating_add(before.ms())),
            Self::Forecast { look_back, .. } => look_back,
            Self::Missing { grace, .. } => grace,
            Self::Silent { .. } | Self::Hub { .. } => Span::default(),
        }
    }
}

/// Whether an instance is meant by patterns as `eth*,!eth9`.
pub fn instance_fits(patterns: Option<&str>, instance: &str) -> bool {
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
    fn bounds_with_and_without_a_clear_threshold() {
        let above = Bound { compare: Compare::Above, threshold: 90.0, clear: Some(80.0) };
        let below = Bound { compare: Compare::Below, threshold: 10.0, clear: None };
        for (bound, figure, want) in [
            (above, Some(90.1), Verdict::Breach),
            (above, Some(90.0), Verdict::Between),
            (above, Some(80.0), Verdict::Clear),
            (above, None, Verdict::Unknown),
            (above, Some(f64::NAN), Verdict::Unknown),
            (below, Some(9.9), Verdict::Breach),
            (below, Some(10.0), Verdict::Clear),
        ] {
            assert_eq!(bound.verdict(figure), want, "{bound:?} {figure:?}");
        }
    }

    #[test]
    fn instances_by_pattern() {
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
            assert_eq!(instance_fits(patterns, instance), want, "{patterns:?} {instance}");
        }
    }
}
