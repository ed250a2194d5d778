//! Planted breaches: times in which a host sends a high value, each of which is one incident.

use fastrand::Rng;
use perfwatch_model::{Shape, Snapshot, scale};
use serde_json::{Value, json};
use std::time::Duration;

/// Metrics with a rule, each with its rule's name.
const METRICS: [(&str, &str); 2] = [("cpu.usage", "planted cpu"), ("memory.used_percent", "planted memory")];
/// Value of a breach, in percent.
const HIGH: f64 = 99.0;
const THRESHOLD: f64 = 95.0;
const CLEAR_THRESHOLD: f64 = 90.0;
/// Upper bound of all other values: a simulated burst is no breach.
const MAX_NORMAL: f64 = 60.0;
/// Hold time of the rules.
const HOLD: &str = "3s";
/// Length of a breach: longer than any outage, so that it is seen while it lasts.
const LENGTH_MS: std::ops::Range<u64> = 24_000..34_000;
/// Earliest start of a breach after the start of the run: the host is evaluated by then.
const EARLIEST_MS: u64 = 2_000;
/// Time without data after which a host would be reported as silent; longer than any outage.
const SILENCE_GRACE: &str = "50s";

/// Rules of the run.
pub(super) fn rules() -> Vec<Value> {
    let threshold = |(metric, name): &(&str, &str)| {
        let condition = json!({ "kind": "threshold", "metric": metric, "threshold": THRESHOLD,
                                "clear_threshold": CLEAR_THRESHOLD });
        json!({ "name": name, "condition": condition, "for": HOLD })
    };
    let silence = json!({ "name": "silent", "condition": { "kind": "no_data", "grace": SILENCE_GRACE } });
    METRICS.iter().map(threshold).chain([silence]).collect()
}

/// Breach of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breach {
    /// Name of the rule that fires.
    pub(super) rule: &'static str,
    metric: &'static str,
    /// Unix milliseconds by the clock of the host.
    from_ms: i64,
    pub(super) to_ms: i64,
}

impl Breach {
    /// Breach of a host within a run, or none.
    pub(super) fn plan(rng: &mut Rng, start_ms: i64, run_time: Duration) -> Option<Self> {
        if rng.bool() {
            return None;
        }
        let latest_ms = u64::try_from(run_time.as_millis() / 3 * 2).unwrap_or_default();
        let from_ms = start_ms + rng.u64(EARLIEST_MS..latest_ms.max(EARLIEST_MS + 1)).cast_signed();
        let (metric, rule) = METRICS[rng.usize(..METRICS.len())];
        Some(Self { rule, metric, from_ms, to_ms: from_ms + rng.u64(LENGTH_MS).cast_signed() })
    }

    fn contains(&self, at_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&at_ms)
    }
}

/// Writes the values of the metrics that have rules.
pub(super) struct Planter {
    /// Column of each metric, with its decimals.
    columns: Vec<(&'static str, usize, u8)>,
    breach: Option<Breach>,
}

impl Planter {
    pub(super) fn new(shape: &Shape, breach: Option<Breach>) -> Self {
        let column = |(metric, _): &(&'static str, &str)| {
            let index = shape.column_index(metric, "")?;
            Some((*metric, index, shape.columns()[index].decimals))
        };
        Self { columns: METRICS.iter().filter_map(column).collect(), breach }
    }

    pub(super) fn plant(&self, snapshot: &mut Snapshot) {
        for (metric, index, decimals) in &self.columns {
            let breach = self.breach.filter(|breach| breach.metric == *metric);
            let is_high = breach.is_some_and(|breach| breach.contains(snapshot.at_ms));
            let value = &mut snapshot.values[*index];
            *value =
                if is_high { scale(HIGH, *decimals) } else { (*value).min(scale(MAX_NORMAL, *decimals)) };
        }
    }
}
