//! A shape: the column schema of a snapshot, that is the metric and instance of each value.
//!
//! Hosts send a shape once and then only values. A shape is identified by a hash of its content,
//! so hosts with equal columns share it.

use crate::catalog::{Catalog, MetricDef};
use crate::column::Column;
use crate::fixed_point::{MAX_SCALED, unscale};
use crate::json::JsonTemplate;
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

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
    /// Index in the catalog of each column's metric; `None` for metrics without definition.
    metrics: OnceLock<Box<[Option<u16>]>>,
    valid_ranges: OnceLock<Box<[RangeInclusive<i64>]>>,
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
        Self {
            id: ShapeId(id),
            columns,
            json_template: OnceLock::new(),
            metrics: OnceLock::new(),
            valid_ranges: OnceLock::new(),
        }
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

    /// Columns with the definitions of their metrics, which are looked up at first use: a process has one catalog.
    pub fn defined_columns<'a>(
        &'a self,
        catalog: &'a Catalog,
    ) -> impl Iterator<Item = (&'a Column, Option<&'a MetricDef>)> {
        let index = |column: &Column| catalog.index_of(&column.metric);
        let indices = self.metrics.get_or_init(|| self.columns.iter().map(index).collect());
        let definition =
            |index: &Option<u16>| index.and_then(|index| catalog.metrics().get(usize::from(index)));
        self.columns.iter().zip(indices.iter().map(definition))
    }

    /// Scaled values of each column that are valid for sure, computed at first use: comparing integers takes a fraction
    /// of the time of comparing the numbers. Values at an end of the range of a metric may be missing.
    pub fn valid_ranges(&self, catalog: &Catalog) -> &[RangeInclusive<i64>] {
        let ranges = || {
            let range = |(column, def): (&Column, Option<&MetricDef>)| {
                let (min, max) =
                    def.map_or((f64::MIN, f64::MAX), |def| (def.min, def.max.unwrap_or(f64::MAX)));
                scaled_range(min, max, column.decimals)
            };
            self.defined_columns(catalog).map(range).collect()
        };
        self.valid_ranges.get_or_init(ranges)
    }

    /// Nested JSON text around the values; built at first use and cached.
    pub fn json_template(&self) -> &JsonTemplate {
        self.json_template.get_or_init(|| JsonTemplate::new(&self.columns))
    }
}

/// Scaled values whose numbers are within a range.
fn scaled_range(min: f64, max: f64, decimals: u8) -> RangeInclusive<i64> {
    let factor = 10_f64.powi(i32::from(decimals));
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and the ends are clamped")]
    let scaled = |number: f64| (number * factor) as i64;
    let (mut first, mut last) = (scaled(min.ceil()).max(-MAX_SCALED), scaled(max.floor()).min(MAX_SCALED));
    // A scaled number is rounded to 53 bits.
    while first < last && unscale(first, decimals).is_none_or(|number| number < min) {
        first = first.saturating_add((first.unsigned_abs() >> 52).cast_signed().max(1));
    }
    while first < last && unscale(last, decimals).is_none_or(|number| number > max) {
        last = last.saturating_sub((last.unsigned_abs() >> 52).cast_signed().max(1));
    }
    first..=last
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

#[cfg(test)]
mod tests {
    use super::*;

    fn column(metric: &'static str, instance: &str) -> Column {
        Column { metric: metric.into(), dimension: "".into(), instance: instance.into(), decimals: 0 }
    }

    #[test]
    fn valid_ranges_end_within_the_range_of_the_metric() {
        for (min, max, decimals, expected) in [
            (0.0, 100.0, 2, 0..=10_000),
            (0.0, f64::MAX, 0, 0..=MAX_SCALED),
            (f64::MIN, f64::MAX, 6, -MAX_SCALED..=MAX_SCALED),
            (-273.15, 1_000.0, 1, -2_730..=10_000),
            (0.0, 0.5, 1, 0..=0),
        ] {
            let range = scaled_range(min, max, decimals);
            assert_eq!(range, expected, "{min} to {max}");
            for end in [*range.start(), *range.end()] {
                let number = unscale(end, decimals).unwrap();
                assert!((min..=max).contains(&number), "{number} in {min} to {max}");
            }
        }
        // The nearest number to an end may be outside.
        let large = 9_007_199_254_740_993.0;
        let range = scaled_range(-large, large, 0);
        assert!(range.contains(&0) && unscale(*range.end(), 0).unwrap() <= large);
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
}
