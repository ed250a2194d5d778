//! Roll-up: raw rows are aggregated to minutes and minutes to hours, as count, sum, minimum, maximum
//! and last value of each column. Buckets start at multiples of their width, so a repeated roll-up
//! yields the same buckets. Sums are integers, so a recount agrees exactly.

use crate::bytes::{FormatError, Result};
use crate::table::{MAX_ROWS, ShapeUnion, Table};
use perfwatch_model::{MISSING, Shape};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of stored columns per bucket column.
pub const BUCKET_STATS_LEN: usize = 5;

/// Start of the bucket that contains a time.
pub fn bucket_start(at_ms: i64, width_ms: i64) -> i64 {
    at_ms.div_euclid(width_ms) * width_ms
}

/// Aggregated values of a single column in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketStats {
    /// Number of values, without missing values.
    pub count: i64,
    /// Sum of all values, in scaled integers.
    pub sum: i128,
    /// Smallest value; `MISSING` if the bucket is empty.
    pub min: i64,
    /// Largest value; `MISSING` if the bucket is empty.
    pub max: i64,
    /// Value of the latest row; `MISSING` if the bucket is empty.
    pub last: i64,
}

impl BucketStats {
    /// Statistics of a bucket without values.
    pub const EMPTY: Self = Self { count: 0, sum: 0, min: MISSING, max: MISSING, last: MISSING };

    /// Statistics of a single value; `EMPTY` if it is missing.
    pub fn from_value(value: i64) -> Self {
        if value == MISSING {
            return Self::EMPTY;
        }
        Self { count: 1, sum: i128::from(value), min: value, max: value, last: value }
    }

    /// Combines these statistics with those of later rows.
    pub fn merge(self, later: Self) -> Self {
        if self.count == 0 {
            return later;
        }
        if later.count == 0 {
            return self;
        }
        Self {
            count: self.count + later.count,
            sum: self.sum + later.sum,
            min: self.min.min(later.min),
            max: self.max.max(later.max),
            last: later.last,
        }
    }

    /// Stored columns: count, minimum, and sum, maximum and last relative to the minimum. A relative sum
    /// above `i64::MAX` is clamped.
    fn encode(self) -> [i64; BUCKET_STATS_LEN] {
        if self.count == 0 {
            return [0, MISSING, MISSING, MISSING, MISSING];
        }
        let excess = self.sum - i128::from(self.count) * i128::from(self.min);
        let excess = i64::try_from(excess).unwrap_or(i64::MAX);
        [self.count, self.min, excess, self.max.saturating_sub(self.min), self.last.saturating_sub(self.min)]
    }

    fn decode([count, min, excess, span, last]: [i64; BUCKET_STATS_LEN]) -> Self {
        if count <= 0 || min == MISSING {
            return Self::EMPTY;
        }
        let sum = i128::from(count) * i128::from(min) + i128::from(excess);
        Self { count, sum, min, max: min.saturating_add(span), last: min.saturating_add(last) }
    }
}

/// Statistics of a single column, bucket by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketColumn(pub Vec<BucketStats>);

impl BucketColumn {
    pub(crate) fn encode(&self) -> [Vec<i64>; BUCKET_STATS_LEN] {
        let mut columns: [Vec<i64>; BUCKET_STATS_LEN] =
            std::array::from_fn(|_| Vec::with_capacity(self.0.len()));
        for bucket in &self.0 {
            columns.iter_mut().zip(bucket.encode()).for_each(|(column, value)| column.push(value));
        }
        columns
    }

    /// Decodes the stored columns: count, minimum, relative sum, maximum and last.
    ///
    /// # Errors
    /// Returns [`FormatError::Invalid`] if there are not [`BUCKET_STATS_LEN`] columns.
    pub fn decode(columns: &[Vec<i64>]) -> Result<Self> {
        let [count, min, excess, span, last] = columns else {
            return Err(FormatError::Invalid("bucket column does not have five stored columns"));
        };
        let buckets = count.iter().enumerate().map(|(row, &count)| {
            let value = |column: &Vec<i64>| column.get(row).copied().unwrap_or(MISSING);
            BucketStats::decode([count, value(min), value(excess), value(span), value(last)])
        });
        Ok(Self(buckets.collect()))
    }
}

/// Buckets of a single host in the order of time. Buckets without rows are omitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Column schema of the buckets.
    pub shape: Arc<Shape>,
    /// Start of each bucket, in milliseconds since 1970.
    pub start_ms: Vec<i64>,
    /// Statistics by column; empty for a column outside the projection.
    pub columns: Vec<BucketColumn>,
}

impl Buckets {
    fn empty(shape: Arc<Shape>) -> Self {
        let columns = vec![BucketColumn::default(); shape.columns().len()];
        Self { shape, start_ms: Vec::new(), columns }
    }

    /// Number of buckets with rows.
    pub fn len(&self) -> usize {
        self.start_ms.len()
    }

    /// Returns whether there are no buckets.
    pub fn is_empty(&self) -> bool {
        self.start_ms.is_empty()
    }

    /// Rolls up the raw rows from `from_ms` on.
    pub fn from_table(table: &Table, width_ms: i64, from_ms: i64) -> Self {
        let mut buckets = Self::empty(table.shape.clone());
        let first = table.at_ms.partition_point(|&at| at < from_ms);
        let mut ranges = Vec::new();
        for row in first..table.len() {
            let start = bucket_start(table.at_ms[row], width_ms);
            if buckets.start_ms.last() != Some(&start) {
                buckets.start_ms.push(start);
                ranges.push(row..row);
            }
            if let Some(range) = ranges.last_mut() {
                range.end = row + 1;
            }
        }
        for (column, values) in buckets.columns.iter_mut().zip(&table.columns) {
            let bucket_stats = |range: &std::ops::Range<usize>| {
                values[range.clone()]
                    .iter()
                    .fold(BucketStats::EMPTY, |stats, &value| stats.merge(BucketStats::from_value(value)))
            };
            column.0 = ranges.iter().map(bucket_stats).collect();
        }
        buckets
    }

    /// Aggregates the buckets to wider buckets.
    pub fn downsample(&self, width_ms: i64) -> Self {
        let mut wider = self.clone();
        wider.start_ms.iter_mut().for_each(|start| *start = bucket_start(*start, width_ms));
        let starts = std::mem::take(&mut wider.start_ms);
        for column in &mut wider.columns {
            let mut rolled: Vec<BucketStats> = Vec::new();
            for (row, stats) in column.0.iter().enumerate() {
                match rolled.last_mut() {
                    Some(last) if row > 0 && starts[row] == starts[row - 1] => *last = last.merge(*stats),
                    _ => rolled.push(*stats),
                }
            }
            column.0 = rolled;
        }
        wider.start_ms = starts;
        wider.start_ms.dedup();
        wider
    }

    /// Returns the buckets that start in `from_ms..to_ms`.
    pub fn slice(&self, from_ms: i64, to_ms: i64) -> Self {
        let range = self.start_ms.partition_point(|&start| start < from_ms)
            ..self.start_ms.partition_point(|&start| start < to_ms);
        let columns =
            self.columns.iter().map(|column| BucketColumn(column.0[range.clone()].to_vec())).collect();
        Self { shape: self.shape.clone(), start_ms: self.start_ms[range].to_vec(), columns }
    }

    /// Merges lists of buckets. Buckets with the same start are combined; the last value comes from the
    /// later list. Returns several lists if the precision of a series changed.
    pub fn merge(lists: &[Self]) -> Vec<Self> {
        let mut merged = Vec::new();
        let mut remaining: Vec<&Self> = lists.iter().filter(|buckets| !buckets.is_empty()).collect();
        while !remaining.is_empty() {
            let (union, count) = ShapeUnion::from_shapes(remaining.iter().map(|buckets| &buckets.shape));
            // Lists that conflict with the first lists go into the next merged list.
            let (compatible, conflicting) =
                remaining.into_iter().enumerate().partition::<Vec<_>, _>(|(index, buckets)| {
                    *index < count || union.mapping(&buckets.shape).is_some()
                });
            let compatible: Vec<&Self> = compatible.into_iter().map(|(_, buckets)| buckets).collect();
            remaining = conflicting.into_iter().map(|(_, buckets)| buckets).collect();
            let mut rows: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
            for (index, buckets) in compatible.iter().enumerate() {
                for (row, start) in buckets.start_ms.iter().enumerate() {
                    rows.entry(*start).or_default().push((index, row));
                }
            }
            let rows: Vec<(i64, Vec<(usize, usize)>)> = rows.into_iter().collect();
            merged.extend(rows.chunks(MAX_ROWS).map(|rows| merge_rows(&compatible, rows, &union)));
        }
        merged
    }
}

fn merge_rows(lists: &[&Buckets], rows: &[(i64, Vec<(usize, usize)>)], union: &ShapeUnion) -> Buckets {
    let mut merged = Buckets::empty(union.shape.clone());
    merged.start_ms = rows.iter().map(|(start, _)| *start).collect();
    merged.columns.iter_mut().for_each(|column| column.0.resize(rows.len(), BucketStats::EMPTY));
    for (target_row, (_, sources)) in rows.iter().enumerate() {
        for &(list, row) in sources {
            let source = lists[list];
            let Some(mapping) = union.mapping(&source.shape) else {
                continue;
            };
            for (index, column) in source.columns.iter().enumerate() {
                let target = &mut merged.columns[mapping.get(index)].0[target_row];
                *target = target.merge(column.0[row]);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket_stats() -> impl Strategy<Value = BucketStats> {
        const MAX_EXACT: i64 = 1 << 53;
        let value = prop_oneof![4 => -1_000i64..1_000, 1 => Just(MISSING), 1 => -MAX_EXACT..MAX_EXACT];
        proptest::collection::vec(value, 0..300).prop_map(|values| {
            values
                .into_iter()
                .fold(BucketStats::EMPTY, |stats, value| stats.merge(BucketStats::from_value(value)))
        })
    }

    proptest! {
        #[test]
        fn bucket_stats_round_trip(stats in proptest::collection::vec(bucket_stats(), 1..50)) {
            let column = BucketColumn(stats);
            prop_assert_eq!(BucketColumn::decode(&column.encode()).unwrap(), column);
        }
    }
}
