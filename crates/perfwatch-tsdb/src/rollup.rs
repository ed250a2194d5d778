//! Roll-up: the ticks of a minute, and the minutes of an hour, as count, sum, least, largest
//! and last value of each column. Buckets lie on multiples of their width, so that doing it
//! twice changes nothing; sums are whole numbers, so that a recount agrees to the last digit.

use crate::bytes::{FormatError, Result};
use crate::table::{MAX_ROWS, ShapeUnion, Table};
use perfwatch_model::{MISSING, Shape};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Columns a bucket column is stored as.
pub const STAT_COLUMNS: usize = 5;

/// Start of the bucket that a time is in.
pub fn bucket_start(at_ms: i64, width_ms: i64) -> i64 {
    at_ms.div_euclid(width_ms) * width_ms
}

/// What is known of one column over one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketStats {
    /// Values that were there.
    pub count: i64,
    /// Their sum.
    pub sum: i128,
    /// The least.
    pub min: i64,
    /// The largest.
    pub max: i64,
    /// The latest.
    pub last: i64,
}

impl BucketStats {
    /// Nothing was there.
    pub const EMPTY: Self = Self { count: 0, sum: 0, min: MISSING, max: MISSING, last: MISSING };

    /// One value.
    pub fn from_value(value: i64) -> Self {
        if value == MISSING {
            return Self::EMPTY;
        }
        Self { count: 1, sum: i128::from(value), min: value, max: value, last: value }
    }

    /// Takes in what came later.
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

    /// As it is stored: what exceeds `i64` (a sum of 2^63 above its least values) is cut to it.
    fn encode(self) -> [i64; STAT_COLUMNS] {
        if self.count == 0 {
            return [0, MISSING, MISSING, MISSING, MISSING];
        }
        let excess = self.sum - i128::from(self.count) * i128::from(self.min);
        let excess = i64::try_from(excess).unwrap_or(i64::MAX);
        [self.count, self.min, excess, self.max.saturating_sub(self.min), self.last.saturating_sub(self.min)]
    }

    fn decode([count, min, excess, span, last]: [i64; STAT_COLUMNS]) -> Self {
        if count <= 0 || min == MISSING {
            return Self::EMPTY;
        }
        let sum = i128::from(count) * i128::from(min) + i128::from(excess);
        Self { count, sum, min, max: min.saturating_add(span), last: min.saturating_add(last) }
    }
}

/// One column of figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketColumn(pub Vec<BucketStats>);

impl BucketColumn {
    pub(crate) fn encode(&self) -> [Vec<i64>; STAT_COLUMNS] {
        let mut figures: [Vec<i64>; STAT_COLUMNS] = std::array::from_fn(|_| Vec::with_capacity(self.0.len()));
        for bucket in &self.0 {
            figures.iter_mut().zip(bucket.encode()).for_each(|(list, figure)| list.push(figure));
        }
        figures
    }

    /// From the stored columns.
    ///
    /// # Errors
    /// Columns of different lengths.
    pub fn decode(figures: &[Vec<i64>]) -> Result<Self> {
        let [count, min, excess, span, last] = figures else {
            return Err(FormatError::Invalid("a bucket column has five figures"));
        };
        let buckets = count.iter().enumerate().map(|(row, &count)| {
            let at = |list: &Vec<i64>| list.get(row).copied().unwrap_or(MISSING);
            BucketStats::decode([count, at(min), at(excess), at(span), at(last)])
        });
        Ok(Self(buckets.collect()))
    }
}

/// Buckets of one host, in the order of time; ones in which nothing came are not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// What the columns are.
    pub shape: Arc<Shape>,
    /// Start of each, milliseconds since 1970.
    pub start_ms: Vec<i64>,
    /// Figures by column; one that was not asked for is empty.
    pub columns: Vec<BucketColumn>,
}

impl Buckets {
    fn empty(shape: Arc<Shape>) -> Self {
        let columns = vec![BucketColumn::default(); shape.columns().len()];
        Self { shape, start_ms: Vec::new(), columns }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.start_ms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start_ms.is_empty()
    }

    /// The ticks from `from_ms` on, rolled up.
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
            let figures = |range: &std::ops::Range<usize>| {
                values[range.clone()]
                    .iter()
                    .fold(BucketStats::EMPTY, |sum, &value| sum.merge(BucketStats::from_value(value)))
            };
            column.0 = ranges.iter().map(figures).collect();
        }
        buckets
    }

    /// Wider buckets of these.
    pub fn downsample(&self, width_ms: i64) -> Self {
        let mut wider = self.clone();
        wider.start_ms.iter_mut().for_each(|start| *start = bucket_start(*start, width_ms));
        let starts = std::mem::take(&mut wider.start_ms);
        for column in &mut wider.columns {
            let mut rolled: Vec<BucketStats> = Vec::new();
            for (row, figures) in column.0.iter().enumerate() {
                match rolled.last_mut() {
                    Some(last) if row > 0 && starts[row] == starts[row - 1] => *last = last.merge(*figures),
                    _ => rolled.push(*figures),
                }
            }
            column.0 = rolled;
        }
        wider.start_ms = starts;
        wider.start_ms.dedup();
        wider
    }

    /// Those that start in `from_ms..to_ms`.
    pub fn slice(&self, from_ms: i64, to_ms: i64) -> Self {
        let range = self.start_ms.partition_point(|&start| start < from_ms)
            ..self.start_ms.partition_point(|&start| start < to_ms);
        let columns =
            self.columns.iter().map(|column| BucketColumn(column.0[range.clone()].to_vec())).collect();
        Self { shape: self.shape.clone(), start_ms: self.start_ms[range].to_vec(), columns }
    }

    /// One list of many: buckets of equal start are added up, where the later ones in the
    /// list also give the last value. Several lists where series changed their precision.
    pub fn merge(all: &[Self]) -> Vec<Self> {
        let mut merged = Vec::new();
        let mut left: Vec<&Self> = all.iter().filter(|buckets| !buckets.is_empty()).collect();
        while !left.is_empty() {
            let (union, count) = ShapeUnion::from_shapes(left.iter().map(|buckets| &buckets.shape));
            // What does not go together with the first ones makes another list.
            let (fits, rest) = left.into_iter().enumerate().partition::<Vec<_>, _>(|(index, buckets)| {
                *index < count || union.mapping(&buckets.shape).is_some()
            });
            let fits: Vec<&Self> = fits.into_iter().map(|(_, buckets)| buckets).collect();
            left = rest.into_iter().map(|(_, buckets)| buckets).collect();
            let mut rows: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
            for (index, buckets) in fits.iter().enumerate() {
                for (row, start) in buckets.start_ms.iter().enumerate() {
                    rows.entry(*start).or_default().push((index, row));
                }
            }
            let rows: Vec<(i64, Vec<(usize, usize)>)> = rows.into_iter().collect();
            merged.extend(rows.chunks(MAX_ROWS).map(|rows| merge_rows(&fits, rows, &union)));
        }
        merged
    }
}

fn merge_rows(all: &[&Buckets], rows: &[(i64, Vec<(usize, usize)>)], union: &ShapeUnion) -> Buckets {
    let mut merged = Buckets::empty(union.shape.clone());
    merged.start_ms = rows.iter().map(|(start, _)| *start).collect();
    merged.columns.iter_mut().for_each(|column| column.0.resize(rows.len(), BucketStats::EMPTY));
    for (to, (_, places)) in rows.iter().enumerate() {
        for &(index, row) in places {
            let from = all[index];
            let Some(columns) = union.mapping(&from.shape) else {
                continue;
            };
            for (at, column) in from.columns.iter().enumerate() {
                let place = columns.get(at);
                let target = &mut merged.columns[place].0[to];
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

    fn figures() -> impl Strategy<Value = BucketStats> {
        let value = prop_oneof![4 => -1_000i64..1_000, 1 => Just(MISSING), 1 => -9_007_199_254_740_992i64..9_007_199_254_740_992];
        proptest::collection::vec(value, 0..300).prop_map(|values| {
            values
                .into_iter()
                .fold(BucketStats::EMPTY, |sum, value| sum.merge(BucketStats::from_value(value)))
        })
    }

    proptest! {
        #[test]
        fn bucket_stats_round_trip(all in proptest::collection::vec(figures(), 1..50)) {
            let column = BucketColumn(all);
            prop_assert_eq!(BucketColumn::decode(&column.encode()).unwrap(), column);
        }
    }
}
