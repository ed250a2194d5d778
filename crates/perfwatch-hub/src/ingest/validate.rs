//! Whether a snapshot can be true: its time, and each value against the catalogue.

use perfwatch_model::{Catalog, MISSING, MetricDef, Snapshot, limits, unscale};

/// Why a snapshot is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RejectReason {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Checks one snapshot at the hub's time.
pub(super) fn validate_snapshot(
    snapshot: &Snapshot,
    catalog: &Catalog,
    now_ms: i64,
) -> Result<(), RejectReason> {
    let refuse = |code, message| Err(RejectReason { code, message });
    let ahead_ms = snapshot.at_ms.saturating_sub(now_ms);
    if ahead_ms > limits::MAX_CLOCK_LEAD_MS {
        let message = format!("the snapshot's time is {} s ahead of this hub's clock", ahead_ms / 1000);
        return refuse("timestamp_in_future", message);
    }
    if snapshot.at_ms < limits::MIN_TIMESTAMP_MS {
        return refuse("timestamp_too_old", "timestamp is before 2020; check the clock".to_owned());
    }
    if snapshot.interval_ms > limits::MAX_INTERVAL_MS {
        return refuse("interval_too_long", "interval exceeds one day".to_owned());
    }
    for (column, &value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
        if value == MISSING {
            continue;
        }
        let def = catalog.get(&column.metric);
        let (min, max) = def.map_or((f64::MIN, None), |def: &MetricDef| (def.min, def.max));
        let Some(real) = unscale(value, column.decimals) else {
            continue;
        };
        if real < min || max.is_some_and(|max| real > max) {
            let place =
                if column.instance.is_empty() { String::new() } else { format!("{{{}}}", column.instance) };
            let range = max.map_or_else(|| format!("{min} or more"), |max| format!("{min} to {max}"));
            return refuse(
                "value_out_of_range",
                format!("{}{place} is {real}; allowed range is {range}", column.metric),
            );
        }
    }
    Ok(())
}
