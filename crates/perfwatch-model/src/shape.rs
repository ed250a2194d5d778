//! A shape: the column schema of a snapshot, that is the metric and instance of each value.
//!
//! Hosts send a shape once and then only values. A shape is identified by a hash of its content,
//! so hosts with equal columns share it.

use crate::json::JsonTemplate;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

/// Metric, instance and precision of one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Dotted metric name.
    pub metric: Cow<'static, str>,
    /// Dimension of the metric (`interface`), or `""`.
    pub dimension: Cow<'static, str>,
    /// Instance, a value of the dimension (`eth0`), or `""`.
    pub instance: Box<str>,
    /// Decimals: values are integers scaled by ten to this power.
    pub decimals: u8,
}

/// Content hash of a shape: the first 16 bytes of the SHA-256 of its columns. A sender cannot
/// construct two shapes with the same id and so change the meaning of another host's values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeId(pub [u8; 16]);

impl fmt::Display for ShapeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ShapeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ordered list of columns with its content hash.
pub struct Shape {
    id: ShapeId,
    columns: Vec<Column>,
    json_template: OnceLock<JsonTemplate>,
}

impl Shape {
    /// Creates the shape and computes its content hash.
    pub fn new(columns: Vec<Column>) -> Self {
        let mut hash = Sha256::new();
        for column in &columns {
            for text in [column.metric.as_bytes(), column.dimension.as_bytes(), column.instance.as_bytes()] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
            hash.update([column.decimals]);
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self { id: ShapeId(id), columns, json_template: OnceLock::new() }
    }

    /// Content hash of the columns.
    pub fn id(&self) -> ShapeId {
        self.id
    }

    /// Columns, in the order of the values.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Index of the column of this metric and instance.
    pub fn column_index(&self, metric: &str, instance: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.metric == metric && &*c.instance == instance)
    }

    /// Nested JSON text around the values; built at first use and cached.
    pub fn json_template(&self) -> &JsonTemplate {
        self.json_template.get_or_init(|| JsonTemplate::new(&self.columns))
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shape({}, {} columns)", self.id, self.columns.len())
    }
}

/// Returns the JSON path of the object whose keys are a metric's instances.
///
/// `network.rx_bytes` with dimension `interface` → `network.interface`; `cpu.core.usage` with
/// dimension `core` → `cpu.core`, because the group already ends in the dimension.
pub fn instance_path(metric: &str, dimension: &str) -> String {
    let group = metric.rsplit_once('.').map_or("", |(group, _)| group);
    if group == dimension || group.ends_with(&format!(".{dimension}")) {
        group.to_owned()
    } else if group.is_empty() {
        dimension.to_owned()
    } else {
        format!("{group}.{dimension}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(metric: &'static str, instance: &str) -> Column {
        Column { metric: metric.into(), dimension: "".into(), instance: instance.into(), decimals: 0 }
    }

    #[test]
    fn shape_id_is_a_content_hash() {
        let first = Shape::new(vec![column("a.b", ""), column("c.d", "x")]);
        let equal = Shape::new(vec![column("a.b", ""), column("c.d", "x")]);
        let reordered = Shape::new(vec![column("c.d", "x"), column("a.b", "")]);
        // Lengths are hashed too, so that text cannot move from one field to the next.
        let shifted = Shape::new(vec![column("a.b", ""), column("c.dx", "")]);
        assert_eq!(first.id(), equal.id());
        assert_ne!(first.id(), reordered.id());
        assert_ne!(first.id(), shifted.id());
    }

    #[test]
    fn instances_are_nested_under_dimension() {
        assert_eq!(instance_path("cpu.core.usage", "core"), "cpu.core");
        assert_eq!(instance_path("network.rx_bytes", "interface"), "network.interface");
        assert_eq!(instance_path("temperature", "sensor"), "sensor");
    }
}
