//! Projection of a history read: the series and the non-numeric parts to decode.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::Arc;

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
}

impl Projection {
    /// Complete rows, with all parts.
    pub fn full() -> Self {
        Self { all_columns: true, sequences: true, processes: true, annotations: true, series: Vec::new() }
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
    by_shape: HashMap<ShapeId, ColumnProjection>,
}

impl<'a> Projector<'a> {
    /// Creates a projector with an empty cache.
    pub fn new(projection: &'a Projection) -> Self {
        Self { projection, by_shape: HashMap::new() }
    }

    /// Returns the selected columns of a shape, from the cache if it was resolved before.
    pub fn project(&mut self, shape: &Arc<Shape>) -> &ColumnProjection {
        let projection = self.projection;
        self.by_shape.entry(shape.id()).or_insert_with(|| {
            let columns = shape.columns();
            if projection.all_columns {
                return ColumnProjection { indices: (0..columns.len()).collect(), shape: shape.clone() };
            }
            let is_selected = |index: &usize| {
                let column = &columns[*index];
                projection.series.iter().any(|series| series.matches(&column.metric, &column.instance))
            };
            let indices: Vec<usize> = (0..columns.len()).filter(is_selected).collect();
            let shape = Shape::new(indices.iter().map(|&index| columns[index].clone()).collect());
            ColumnProjection { indices, shape: Arc::new(shape) }
        })
    }
}
