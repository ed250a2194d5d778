//! Reduction of a snapshot that the hub rejected, so that not all of it is lost.

use super::{Column, ShapeMessage, SnapshotMessage, WireError, decode_column, invalid, malformed};
use crate::snapshot::{CollectorError, Snapshot};
use crate::{BootId, Shape, limits};
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Name of the collector in the error that a reduced snapshot contains.
const COLLECTOR: &str = "hub";

/// Parts of a snapshot, decoded as far as they are valid.
struct SnapshotParts {
    boot: BootId,
    message: SnapshotMessage,
    /// Valid columns with their values, each once.
    columns: Vec<(Column, i64)>,
    /// Number of columns before the reduction.
    total: usize,
}

impl SnapshotParts {
    fn decode(snapshot: Bytes, shape: Bytes) -> Result<Self, WireError> {
        let shape = ShapeMessage::decode(shape).map_err(|error| malformed(&error))?;
        let mut message = SnapshotMessage::decode(snapshot).map_err(|error| malformed(&error))?;
        let Ok(boot) = Uuid::from_slice(&message.boot) else {
            return invalid("boot is not a UUID of 16 bytes");
        };
        let total = shape.columns.len();
        let columns = shape.columns.into_iter().map(|column| decode_column(column).ok());
        let mut seen = HashSet::new();
        let columns = columns
            .zip(std::mem::take(&mut message.values))
            .filter_map(|(column, value)| Some((column?, value)))
            .filter(|(column, _)| seen.insert((column.metric.clone(), column.instance.clone())))
            .take(limits::MAX_COLUMNS)
            .collect();
        message.processes.truncate(limits::MAX_PROCESSES);
        Ok(Self { boot: BootId(boot), message, columns, total })
    }

    /// Snapshot of the remaining parts, with the reason as a collector error.
    fn into_snapshot(self, action: &str, reason: &str) -> Snapshot {
        let error = CollectorError {
            collector: COLLECTOR.to_owned(),
            message: format!(
                "{action} {} of {} columns: {reason}",
                self.total - self.columns.len(),
                self.total
            )
            .chars()
            .take(limits::MAX_TEXT_BYTES / 4)
            .collect(),
        };
        let (columns, values): (Vec<Column>, Vec<i64>) = self.columns.into_iter().unzip();
        let processes = self.message.processes.iter();
        Snapshot {
            boot: self.boot,
            seq: self.message.seq,
            at_ms: self.message.at_ms,
            interval_ms: self.message.interval_ms.min(limits::MAX_INTERVAL_MS),
            shape: Arc::new(Shape::new(columns)),
            values,
            processes: processes.filter_map(|row| row.decode_row(&[], &|text| text.into()).ok()).collect(),
            facts: None,
            errors: vec![error],
        }
    }
}

/// Returns a smaller form of a snapshot that is too large for the hub or for a proxy: at level 1 without
/// processes and facts, at level 2 also without the columns of instances, and half of the columns of the
/// previous level at every further level. `None` if no column remains. The reason becomes a collector error.
///
/// # Errors
/// Returns [`WireError`] if snapshot or shape are not PerfWatch messages.
pub fn shrink_snapshot(
    snapshot: Bytes,
    shape: Bytes,
    level: u32,
    reason: &str,
) -> Result<Option<Snapshot>, WireError> {
    let mut parts = SnapshotParts::decode(snapshot, shape)?;
    parts.message.processes.clear();
    if level >= 2 {
        parts.columns.retain(|(column, _)| column.instance.is_empty());
    }
    let halvings = level.saturating_sub(2).min(usize::BITS - 1);
    parts.columns.truncate(parts.columns.len() >> halvings);
    let is_empty = parts.columns.is_empty();
    Ok((!is_empty).then(|| parts.into_snapshot("without processes and", reason)))
}

/// Returns the part of a rejected snapshot that a hub may accept: without invalid and doubled columns or,
/// if all are valid here, only the columns without instances and no processes. The reason of the rejection
/// becomes a collector error, so that the host page shows it.
///
/// # Errors
/// Returns [`WireError`] if snapshot or shape are not PerfWatch messages.
pub fn reduce_snapshot(snapshot: Bytes, shape: Bytes, reason: &str) -> Result<Snapshot, WireError> {
    let mut parts = SnapshotParts::decode(snapshot, shape)?;
    if parts.columns.len() == parts.total {
        parts.columns.retain(|(column, _)| column.instance.is_empty());
        parts.message.processes.clear();
    }
    Ok(parts.into_snapshot("hub rejected", reason))
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

    #[test]
    fn snapshot_shrinks_until_no_column_remains() {
        let (snapshot, shape) = message(&[("a.b", ""), ("c.d", "x"), ("e.f", ""), ("g.h", "")]);
        let columns = |level| {
            let shrunk = shrink_snapshot(snapshot.clone(), shape.clone(), level, "HTTP 413").unwrap();
            shrunk.map(|snapshot| snapshot.values)
        };
        assert_eq!(columns(1), Some(vec![1, 2, 3, 4]));
        assert_eq!(columns(2), Some(vec![1, 3, 4]));
        assert_eq!(columns(3), Some(vec![1]));
        assert_eq!(columns(4), None);
        assert_eq!(columns(u32::MAX), None);
    }
}
