//! Validation of snapshots: timestamp, interval, and values against the ranges of the catalog.

use perfwatch_model::{Catalog, MISSING, MetricDef, Snapshot, limits, unscale};

/// Reason for the rejection of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RejectReason {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Validates a snapshot at the hub's current time.
///
/// # Errors
/// Returns the first violated limit.
pub(super) fn validate_snapshot(
    snapshot: &Snapshot,
    catalog: &Catalog,
    now_ms: i64,
) -> Result<(), RejectReason> {
    let reject = |code, message| Err(RejectReason { code, message });
    let ahead_ms = snapshot.at_ms.saturating_sub(now_ms);
    if ahead_ms > limits::MAX_CLOCK_LEAD_MS {
        let message = format!("timestamp is {} s ahead of the hub's clock", ahead_ms / 1000);
        return reject("timestamp_in_future", message);
    }
    if snapshot.at_ms < limits::MIN_TIMESTAMP_MS {
        return reject("timestamp_too_old", "timestamp is before 2020; check the clock".to_owned());
    }
    if snapshot.interval_ms > limits::MAX_INTERVAL_MS {
        return reject("interval_too_long", "interval exceeds one day".to_owned());
    }
    for (column, &value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
        if value == MISSING {
            continue;
        }
        let def = catalog.get(&column.metric);
        let (min, max) = def.map_or((f64::MIN, None), |def: &MetricDef| (def.min, def.max));
        let Some(number) = unscale(value, column.decimals) else {
            continue;
        };
        if number < min || max.is_some_and(|max| number > max) {
            let instance =
                if column.instance.is_empty() { String::new() } else { format!("{{{}}}", column.instance) };
            let range = max.map_or_else(|| format!("{min} or more"), |max| format!("{min} to {max}"));
            return reject(
                "value_out_of_range",
                format!("{}{instance} is {number}; allowed range is {range}", column.metric),
            );
        }
    }
    Ok(())
}
