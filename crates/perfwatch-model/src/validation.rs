//! Validation of snapshots: timestamp, interval, and values against the ranges of the catalog.

use crate::{Catalog, CollectorError, Column, MAX_SCALED, MISSING, MetricDef, Snapshot, limits, unscale};

/// Reason for the rejection of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectReason {
    /// Stable code for programs.
    pub code: &'static str,
    /// Human-readable reason.
    pub message: String,
}

/// Validates a snapshot at the hub's current time.
///
/// # Errors
/// Returns the first violated limit.
pub fn validate_snapshot(snapshot: &Snapshot, catalog: &Catalog, now_ms: i64) -> Result<(), RejectReason> {
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
    if has_valid_values(snapshot, catalog) {
        return Ok(());
    }
    for (column, &value) in snapshot.shape.defined_columns(catalog).zip(&snapshot.values) {
        if let Some(message) = check_value(column, value) {
            return reject("value_out_of_range", message);
        }
    }
    Ok(())
}

/// Replaces values outside of their metric's range by missing ones and adds a collector error, which the host
/// page shows: a single wrong sensor must not cost the whole snapshot of an agent. Returns whether there was one.
pub fn remove_invalid_values(snapshot: &mut Snapshot, catalog: &Catalog) -> bool {
    if has_valid_values(snapshot, catalog) {
        return false;
    }
    let mut reasons = Vec::new();
    for (column, value) in snapshot.shape.defined_columns(catalog).zip(&mut snapshot.values) {
        if let Some(reason) = check_value(column, *value) {
            *value = MISSING;
            reasons.push(reason);
        }
    }
    if reasons.is_empty() {
        return false;
    }
    let mut message = format!("{} values rejected: {}", reasons.len(), reasons.join(", "));
    message.truncate(message.floor_char_boundary(limits::MAX_TEXT_BYTES));
    snapshot.errors.truncate(limits::MAX_COLLECTOR_ERRORS - 1);
    snapshot.errors.insert(0, CollectorError { collector: "hub".to_owned(), message });
    true
}

/// Returns whether all values are valid for sure.
fn has_valid_values(snapshot: &Snapshot, catalog: &Catalog) -> bool {
    let ranges = snapshot.shape.valid_ranges(catalog);
    snapshot.values.iter().zip(ranges).all(|(value, range)| *value == MISSING || range.contains(value))
}

/// Returns the reason why a value is invalid.
fn check_value((column, def): (&Column, Option<&MetricDef>), value: i64) -> Option<String> {
    // A missing value is valid.
    let number = unscale(value, column.decimals)?;
    let (min, max) = def.map_or((f64::MIN, None), |def| (def.min, def.max));
    if value.unsigned_abs() <= MAX_SCALED.unsigned_abs()
        && number >= min
        && max.is_none_or(|max| number <= max)
    {
        return None;
    }
    let instance =
        if column.instance.is_empty() { String::new() } else { format!("{{{}}}", column.instance) };
    let range = match max {
        Some(max) => format!("{min} to {max}"),
        None if number < min => format!("{min} or more"),
        None => "below 2^62 units of its precision".to_owned(),
    };
    Some(format!("{}{instance} is {number}; allowed range is {range}", column.metric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BootId, Shape, Unit};
    use std::sync::Arc;

    #[test]
    fn invalid_values_are_removed_and_reported() {
        let catalog = Catalog::new([MetricDef::gauge("cpu.usage", Unit::Percent, 2, "")]);
        let column = |metric: &'static str, instance: &str| Column {
            metric: metric.into(),
            dimension: "".into(),
            instance: instance.into(),
            decimals: 2,
        };
        let columns = vec![
            column("cpu.usage", ""),
            column("cpu.usage", "x"),
            column("other", ""),
            column("other", "y"),
        ];
        let mut snapshot = Snapshot {
            boot: BootId::default(),
            seq: 1,
            at_ms: 1_790_000_000_000,
            interval_ms: 1,
            shape: Arc::new(Shape::new(columns)),
            values: vec![10_000, 10_050, -5, i64::MAX],
            processes: Vec::new(),
            facts: None,
            errors: Vec::new(),
        };
        let reason = validate_snapshot(&snapshot, &catalog, snapshot.at_ms).unwrap_err();
        assert_eq!(reason.message, "cpu.usage{x} is 100.5; allowed range is 0 to 100");
        assert!(remove_invalid_values(&mut snapshot, &catalog));
        assert_eq!(snapshot.values, [10_000, MISSING, -5, MISSING]);
        assert!(snapshot.errors[0].message.starts_with("2 values rejected: cpu.usage{x} is 100.5;"));
        assert_eq!(validate_snapshot(&snapshot, &catalog, snapshot.at_ms), Ok(()));
        assert!(!remove_invalid_values(&mut snapshot, &catalog));
        assert_eq!(snapshot.errors.len(), 1);
    }
}
