//! What a reader asks of history: which series, and whether the parts that are no numbers.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::Arc;

/// A metric with all its instances, or one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesName {
    /// A dotted name, or a group as `cpu.*`.
    pub metric: String,
    /// None for all instances.
    pub instance: Option<String>,
}

impl SeriesName {
    fn fits(&self, metric: &str, instance: &str) -> bool {
        let named = match self.metric.strip_suffix('*') {
            Some(group) => metric.starts_with(group),
            None => metric == self.metric,
        };
        named && self.instance.as_deref().is_none_or(|wanted| wanted == instance)
    }
}

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Every column.
    pub all: bool,
    /// These series, if not all.
    pub series: Vec<SeriesName>,
    /// Which run of the kernel each row is of, and its number.
    pub ticks: bool,
    /// The largest processes.
    pub processes: bool,
    /// Errors and facts.
    pub notes: bool,
}

impl Wanted {
    /// Rows whole.
    pub fn everything() -> Self {
        Self { all: true, ticks: true, processes: true, notes: true, series: Vec::new() }
    }

    /// The numbers of some series.
    pub fn series(series: Vec<SeriesName>) -> Self {
        Self { series, ..Self::default() }
    }
}

/// The columns of one shape that are wanted.
#[derive(Clone, Debug)]
pub struct Picked {
    /// Their places.
    pub places: Vec<usize>,
    /// What they are.
    pub shape: Arc<Shape>,
}

/// Works out what is wanted of each shape, once.
pub struct Picker<'a> {
    wanted: &'a Wanted,
    picked: HashMap<ShapeId, Picked>,
}

impl<'a> Picker<'a> {
    /// Nothing worked out yet.
    pub fn new(wanted: &'a Wanted) -> Self {
        Self { wanted, picked: HashMap::new() }
    }

    /// The columns to take.
    pub fn pick(&mut self, shape: &Arc<Shape>) -> &Picked {
        let wanted = self.wanted;
        self.picked.entry(shape.id()).or_insert_with(|| {
            let columns = shape.columns();
            if wanted.all {
                return Picked { places: (0..columns.len()).collect(), shape: shape.clone() };
            }
            let fits = |at: &usize| {
                wanted.series.iter().any(|series| series.fits(&columns[*at].metric, &columns[*at].instance))
            };
            let places: Vec<usize> = (0..columns.len()).filter(fits).collect();
            let shape = Shape::new(places.iter().map(|&at| columns[at].clone()).collect());
            Picked { places, shape: Arc::new(shape) }
        })
    }
}
