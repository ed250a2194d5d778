//! What a rule asks of a series, and what a figure says to it.

use crate::step::Verdict;
use crate::window::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

/// Which side of the threshold is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Larger than it.
    Above,
    /// Smaller than it.
    Below,
}

/// A figure against a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Which side is bad.
    pub compare: Compare,
    /// From here on it is.
    pub threshold: f64,
    /// Until here it stays so once it was (hysteresis); the threshold itself if none.
    pub clear: Option<f64>,
}

/// Which hosts: by id or by tag; all where both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// These.
    pub hosts: Vec<Uuid>,
    /// Those with one of these tags.
    pub tags: Vec<String>,
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Condition {
    /// A metric, or each instance of it, is beyond a bound.
    Value {
        /// Dotted name.
        metric: String,
        /// One instance; each of them if none.
        instance: Option<String>,
        /// Over how long, milliseconds; 0 for the latest value.
        window_ms: i64,
        /// Which figure of the window.
        aggregate: Aggregate,
        /// Beyond what.
        bound: Bound,
    },
    /// A metric reaches a value before long.
    Forecast {
        /// Dotted name.
        metric: String,
        /// One instance; each of them if none.
        instance: Option<String>,
        /// The line is drawn through this much of the past, milliseconds.
        look_back_ms: i64,
        /// How soon is too soon, milliseconds.
        within_ms: i64,
        /// What it must not reach.
        reaches: f64,
    },
    /// A host does not send.
    Silent {
        /// For how long, milliseconds.
        grace_ms: i64,
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
}

impl Selector {
    /// Whether a host is meant.
    pub fn selects(&self, host: Uuid, tags: &[String]) -> bool {
        let all = self.hosts.is_empty() && self.tags.is_empty();
        all || self.hosts.contains(&host) || tags.iter().any(|tag| self.tags.contains(tag))
    }
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
    fn hosts_by_id_or_tag_or_all() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let web = ["web".to_owned()];
        assert!(Selector::default().selects(one, &[]));
        let some = Selector { hosts: vec![one], tags: web.to_vec() };
        assert!(some.selects(one, &[]) && some.selects(two, &web) && !some.selects(two, &[]));
    }
}
