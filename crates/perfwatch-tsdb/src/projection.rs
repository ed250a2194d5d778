//! Projection of a history read: the series and the non-numeric parts to decode.

use perfwatch_model::{Column, Shape, ShapeId};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use perfwatch_model::SelectorIndex;
pub use perfwatch_model::SeriesSelector;

/// Series and parts that a read decodes. The default selects times and intervals only.
#[derive(Clone, Debug, Default)]
pub struct Projection {
    /// Selects every column; `series` is ignored then.
    pub all_columns: bool,
    /// Selected series, if not all columns are.
    pub series: Vec<SeriesSelector>,
    /// Boot id and sequence number of each row.
    pub sequences: bool,
    /// Top processes of each row.
    pub processes: bool,
    /// Collector errors and host facts.
    pub annotations: bool,
    /// Limits the selection to a group of series; `None` for all series.
    pub group: Option<SeriesGroup>,
}

/// Group of series. The series of a read are divided into groups, so that few columns are in memory at
/// the same time. The group of a series depends on its name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesGroup {
    /// Number of this group, below `count`.
    pub index: u64,
    /// Number of groups.
    pub count: u64,
}

/// Hash of the metric and instance of a column.
fn series_hash(column: &Column) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&column.metric, &column.instance).hash(&mut hasher);
    hasher.finish()
}

impl SeriesGroup {
    fn contains(self, column: &Column) -> bool {
        series_hash(column) % self.count.max(1) == self.index
    }
}

/// Counts the distinct series that a projection selects, without keeping their names.
pub struct SeriesCounter<'a> {
    projection: &'a Projection,
    selectors: SelectorIndex<'a>,
    counted: HashMap<ShapeId, usize>,
    series: HashSet<u64>,
    comparisons: usize,
}

impl<'a> SeriesCounter<'a> {
    /// Creates a counter without series.
    pub fn new(projection: &'a Projection) -> Self {
        let selectors = SelectorIndex::new(&projection.series);
        Self { projection, selectors, counted: HashMap::new(), series: HashSet::new(), comparisons: 0 }
    }

    /// Adds a shape and returns the number of its columns that are selected.
    pub fn add(&mut self, shape: &Shape) -> usize {
        if let Some(selected) = self.counted.get(&shape.id()) {
            return *selected;
        }
        self.comparisons += shape.columns().len() * self.selectors.patterns().max(1);
        let is_selected = |column: &&Column| {
            self.projection.all_columns || self.selectors.contains(&column.metric, &column.instance)
        };
        let hashes: Vec<u64> = shape.columns().iter().filter(is_selected).map(series_hash).collect();
        self.counted.insert(shape.id(), hashes.len());
        let selected = hashes.len();
        self.series.extend(hashes);
        selected
    }

    /// Number of distinct series so far.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// Number of comparisons of columns with selectors so far.
    pub fn comparisons(&self) -> usize {
        self.comparisons
    }
}

impl Projection {
    /// Complete rows, with all parts.
    pub fn full() -> Self {
        Self { all_columns: true, sequences: true, processes: true, annotations: true, ..Self::default() }
    }

    /// Values of the given series, without other parts.
    pub fn of_series(series: Vec<SeriesSelector>) -> Self {
        Self { series, ..Self::default() }
    }
}

/// Selected columns of a single shape.
#[derive(Clone, Debug)]
pub struct ColumnProjection {
    /// Indices of the selected columns in the source shape, ascending.
    pub indices: Vec<usize>,
    /// Shape that contains the selected columns only.
    pub shape: Arc<Shape>,
}

/// Resolves a [`Projection`] to columns, once per shape.
pub struct Projector<'a> {
    projection: &'a Projection,
    selectors: SelectorIndex<'a>,
    by_shape: HashMap<ShapeId, ColumnProjection>,
}

impl<'a> Projector<'a> {
    /// Creates a projector with an empty cache.
    pub fn new(projection: &'a Projection) -> Self {
        Self { projection, selectors: SelectorIndex::new(&projection.series), by_shape: HashMap::new() }
    }

    /// Returns the selected columns of a shape, from the cache if it was resolved before.
    pub fn project(&mut self, shape: &Arc<Shape>) -> &ColumnProjection {
        let (projection, selectors) = (self.projection, &self.selectors);
        self.by_shape.entry(shape.id()).or_insert_with(|| {
            let columns = shape.columns();
            if projection.all_columns && projection.group.is_none() {
                return ColumnProjection { indices: (0..columns.len()).collect(), shape: shape.clone() };
            }
            let is_selected = |index: &usize| {
                let column = &columns[*index];
                projection.group.is_none_or(|group| group.contains(column))
                    && (projection.all_columns || selectors.contains(&column.metric, &column.instance))
            };
            let indices: Vec<usize> = (0..columns.len()).filter(is_selected).collect();
            let shape = Shape::new(indices.iter().map(|&index| columns[index].clone()).collect());
            ColumnProjection { indices, shape: Arc::new(shape) }
        })
    }
}
