//! A shape: which metric of which instance stands in which column. Hosts send it once and
//! then only numbers; it is named by its content, so equal hosts share one.

use crate::json::JsonTemplate;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

/// One column of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Dotted metric name.
    pub metric: Cow<'static, str>,
    /// What the instances are (`interface`), or `""`.
    pub dimension: Cow<'static, str>,
    /// Which one (`eth0`), or `""`.
    pub instance: Box<str>,
    /// Values are integers scaled by ten to this power.
    pub decimals: u8,
}

/// The name of a shape: the first 16 bytes of the SHA-256 of its columns, so that nobody can
/// make two shapes of one name and change what another host's numbers mean.
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

/// An ordered list of columns and its name.
pub struct Shape {
    id: ShapeId,
    columns: Vec<Column>,
    json_template: OnceLock<JsonTemplate>,
}

impl Shape {
    /// Names the columns.
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

    /// The content's name.
    pub fn id(&self) -> ShapeId {
        self.id
    }

    /// The columns, in the order of the values.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Where the column of this metric and instance stands.
    pub fn column_index(&self, metric: &str, instance: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.metric == metric && &*c.instance == instance)
    }

    /// The nested JSON text around the values, made at the first use.
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

/// The JSON path under which a metric's instances stand: `network.rx_bytes` by `interface`
/// → `network.interface`; `cpu.core.usage` by `core` → `cpu.core`, which ends so already.
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
        let one = Shape::new(vec![column("a.b", ""), column("c.d", "x")]);
        let same = Shape::new(vec![column("a.b", ""), column("c.d", "x")]);
        let other = Shape::new(vec![column("c.d", "x"), column("a.b", "")]);
        // Lengths are hashed too: text may not slide from one field to the next.
        let slid = Shape::new(vec![column("a.b", ""), column("c.dx", "")]);
        assert_eq!(one.id(), same.id());
        assert_ne!(one.id(), other.id());
        assert_ne!(one.id(), slid.id());
    }

    #[test]
    fn instances_are_nested_under_dimension() {
        assert_eq!(instance_path("cpu.core.usage", "core"), "cpu.core");
        assert_eq!(instance_path("network.rx_bytes", "interface"), "network.interface");
        assert_eq!(instance_path("temperature", "sensor"), "sensor");
    }
}
