//! What a reader asks of history: which series, and whether the parts that are no numbers.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::Arc;

/// A metric with all its instances, or one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesSelector {
    /// A dotted name, or a group as `cpu.*`.
    pub metric: String,
    /// None for all instances.
    pub instance: Option<String>,
}

impl SeriesSelector {
    fn matches(&self, metric: &str, instance: &str) -> bool {
        let named = match self.metric.strip_suffix('*') {
            Some(group) => metric.starts_with(group),
            None => metric == self.metric,
        };
        named && self.instance.as_deref().is_none_or(|wanted| wanted == instance)
    }
}

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Projection {
    /// Every column.
    pub all_columns: bool,
    /// These series, if not all.
    pub of_series: Vec<SeriesSelector>,
    /// Which run of the kernel each row is of, and its number.
    pub sequences: bool,
    /// The largest processes.
    pub processes: bool,
    /// Errors and facts.
    pub annotations: bool,
}

impl Projection {
    /// Rows whole.
    pub fn full() -> Self {
        Self { all_columns: true, sequences: true, processes: true, annotations: true, of_series: Vec::new() }
    }

    /// The numbers of some series.
    pub fn of_series(of_series: Vec<SeriesSelector>) -> Self {
        Self { of_series, ..Self::default() }
    }
}

/// The columns of one shape that are wanted.
#[derive(Clone, Debug)]
pub struct ColumnProjection {
    /// Their places.
    pub indices: Vec<usize>,
    /// What they are.
    pub shape: Arc<Shape>,
}

/// Works out what is wanted of each shape, once.
pub struct Projector<'a> {
    projection: &'a Projection,
    by_shape: HashMap<ShapeId, ColumnProjection>,
}

impl<'a> Projector<'a> {
    /// Nothing worked out yet.
    pub fn new(projection: &'a Projection) -> Self {
        Self { projection, by_shape: HashMap::new() }
    }

    /// The columns to take.
    pub fn project(&mut self, shape: &Arc<Shape>) -> &ColumnProjection {
        let wanted = self.projection;
        self.by_shape.entry(shape.id()).or_insert_with(|| {
            let columns = shape.columns();
            if wanted.all_columns {
                return ColumnProjection { indices: (0..columns.len()).collect(), shape: shape.clone() };
            }
            let fits = |at: &usize| {
                wanted
                    .of_series
                    .iter()
                    .any(|series| series.matches(&columns[*at].metric, &columns[*at].instance))
            };
            let places: Vec<usize> = (0..columns.len()).filter(fits).collect();
            let shape = Shape::new(places.iter().map(|&at| columns[at].clone()).collect());
            ColumnProjection { indices: places, shape: Arc::new(shape) }
        })
    }
}
