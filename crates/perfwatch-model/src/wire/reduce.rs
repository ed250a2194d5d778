//! Reduction of a snapshot that the hub rejected, so that not all of it is lost.

use super::{
    Column, ShapeMessage, SnapshotMessage, WireError, decode_column, invalid, malformed, process_row,
};
use crate::snapshot::{CollectorError, Snapshot};
use crate::{BootId, Shape, limits};
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Name of the collector in the error that a reduced snapshot contains.
const COLLECTOR: &str = "hub";

/// Returns the part of a rejected snapshot that a hub may accept: without invalid and doubled columns or,
/// if all are valid here, only the columns without instances and no processes. The reason of the rejection
/// becomes a collector error, so that the host page shows it.
///
/// # Errors
/// Returns [`WireError`] if snapshot or shape are not PerfWatch messages.
pub fn reduce_snapshot(snapshot: Bytes, shape: Bytes, reason: &str) -> Result<Snapshot, WireError> {
    let shape = ShapeMessage::decode(shape).map_err(|error| malformed(&error))?;
    let message = SnapshotMessage::decode(snapshot).map_err(|error| malformed(&error))?;
    let Ok(boot) = Uuid::from_slice(&message.boot) else {
        return invalid("boot is not a UUID of 16 bytes");
    };
    let total = shape.columns.len();
    let columns = shape.columns.into_iter().map(|column| decode_column(column).ok());
    let mut seen = HashSet::new();
    let mut columns: Vec<(Column, i64)> = columns
        .zip(message.values)
        .filter_map(|(column, value)| Some((column?, value)))
        .filter(|(column, _)| seen.insert((column.metric.clone(), column.instance.clone())))
        .take(limits::MAX_COLUMNS)
        .collect();
    let mut processes = message.processes;
    processes.truncate(limits::MAX_PROCESSES);
    if columns.len() == total {
        columns.retain(|(column, _)| column.instance.is_empty());
        processes.clear();
    }
    let error = CollectorError {
        collector: COLLECTOR.to_owned(),
        message: format!("hub rejected {} of {total} columns: {reason}", total - columns.len())
            .chars()
            .take(limits::MAX_TEXT_BYTES / 4)
            .collect(),
    };
    let (columns, values): (Vec<Column>, Vec<i64>) = columns.into_iter().unzip();
    Ok(Snapshot {
        boot: BootId(boot),
        seq: message.seq,
        at_ms: message.at_ms,
        interval_ms: message.interval_ms.min(limits::MAX_INTERVAL_MS),
        shape: Arc::new(Shape::new(columns)),
        values,
        processes: processes.iter().filter_map(|row| process_row(row, &|text| text.into()).ok()).collect(),
        facts: None,
        errors: vec![error],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ColumnMessage, decode_shape, encode_shape, encode_snapshot};

    fn message(columns: &[(&str, &str)]) -> (Bytes, Bytes) {
        let column = |&(metric, instance): &(&str, &str)| ColumnMessage {
            metric: metric.to_owned(),
            dimension: String::new(),
            instance: instance.to_owned(),
            decimals: 0,
        };
        let shape = ShapeMessage { columns: columns.iter().map(column).collect() };
        let values = (1..).take(columns.len()).collect();
        let boot = Bytes::copy_from_slice(&[1; 16]);
        let snapshot = SnapshotMessage { boot, seq: 7, values, ..SnapshotMessage::default() };
        (snapshot.encode_to_vec().into(), shape.encode_to_vec().into())
    }

    #[test]
    fn valid_part_is_retained() {
        for (columns, expected) in [
            (&[("a.b", ""), ("c.d", "x"), ("c.d", "x")][..], &[("a.b", "", 1), ("c.d", "x", 2)][..]),
            (&[("a.b", ""), ("Invalid", "x"), ("c.d", "y")], &[("a.b", "", 1), ("c.d", "y", 3)]),
            (&[("a.b", ""), ("c.d", "x")], &[("a.b", "", 1)]),
        ] {
            let (snapshot, shape) = message(columns);
            let reduced = reduce_snapshot(snapshot, shape, "too new").unwrap();
            let retained: Vec<(&str, &str, i64)> = reduced
                .shape
                .columns()
                .iter()
                .zip(&reduced.values)
                .map(|(column, value)| (&*column.metric, &*column.instance, *value))
                .collect();
            assert_eq!(retained, expected);
            assert!(reduced.errors[0].message.ends_with("columns: too new"), "{:?}", reduced.errors);
            assert!(decode_shape(encode_shape(&reduced.shape)).is_ok());
            assert!(!encode_snapshot(&reduced).is_empty());
        }
        assert!(reduce_snapshot(Bytes::from_static(b"?"), Bytes::new(), "").is_err());
    }
}
