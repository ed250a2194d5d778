//! A stretch of one host's ticks in memory, by column: what is sealed into a block and what a
//! block decodes to.

use crate::projection::{Projection, Projector};
use perfwatch_model::{
    BootId, CollectorError, Column, HostFacts, MISSING, ProcessRow, Shape, Snapshot, limits,
};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Rows of one block: an hour at a quarter of a second, with room.
pub const MAX_ROWS: usize = 65_536;

/// Ticks as rows, in the order of their time; each `(boot, seq)` once.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What the columns are.
    pub shape: Arc<Shape>,
    /// When each was taken, milliseconds since 1970.
    pub at_ms: Vec<i64>,
    /// The time each stands for, milliseconds.
    pub interval_ms: Vec<i64>,
    /// Which run of the kernel.
    pub boots: Vec<BootId>,
    /// Ticks of that run.
    pub seqs: Vec<u64>,
    /// Scaled integers, one list a column; a column that was not asked for is empty.
    pub columns: Vec<Vec<i64>>,
    /// The largest processes of each row.
    pub processes: Vec<Vec<ProcessRow>>,
    /// What could not be read.
    pub errors: Vec<Vec<CollectorError>>,
    /// Facts, at the rows where they changed.
    pub facts: Vec<(usize, Arc<HostFacts>)>,
}

impl Table {
    /// No rows yet.
    pub fn empty(shape: Arc<Shape>) -> Self {
        let columns = vec![Vec::new(); shape.columns().len()];
        Self {
            shape,
            at_ms: Vec::new(),
            interval_ms: Vec::new(),
            boots: Vec::new(),
            seqs: Vec::new(),
            columns,
            processes: Vec::new(),
            errors: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.at_ms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.at_ms.is_empty()
    }

    /// Snapshots as rows: in the order of time, repeats left out, under a shape that has the
    /// columns of all. Several tables where one would have too many columns, or where a series
    /// changed its precision.
    pub fn from_snapshots(snapshots: &[Arc<Snapshot>]) -> Vec<Self> {
        let mut seen = HashSet::with_capacity(snapshots.len());
        let mut rows: Vec<&Snapshot> =
            snapshots.iter().map(|s| &**s).filter(|s| seen.insert((s.boot, s.seq))).collect();
        rows.sort_by_key(|s| (s.at_ms, s.boot, s.seq));
        let mut tables = Vec::new();
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (union, count) = ShapeUnion::from_shapes(rest.iter().map(|s| &s.shape));
            let (now, later) = rest.split_at(count.min(MAX_ROWS));
            tables.push(union.from_snapshots(now));
            rest = later;
        }
        tables
    }

    /// Only what is wanted of it; the rest is let go.
    pub fn project(mut self, wanted: &Projection, picker: &mut Projector<'_>) -> Self {
        let picked = picker.project(&self.shape);
        self.columns = picked.indices.iter().map(|&at| std::mem::take(&mut self.columns[at])).collect();
        self.shape = picked.shape.clone();
        if !wanted.processes {
            self.processes.clear();
        }
        if !wanted.annotations {
            self.errors.clear();
            self.facts.clear();
        }
        self
    }

    /// One row as the snapshot it was.
    pub fn snapshot(&self, row: usize) -> Snapshot {
        let value = |column: &Vec<i64>| column.get(row).copied().unwrap_or(MISSING);
        Snapshot {
            boot: self.boots[row],
            seq: self.seqs[row],
            at_ms: self.at_ms[row],
            interval_ms: u32::try_from(self.interval_ms[row]).unwrap_or_default(),
            shape: self.shape.clone(),
            values: self.columns.iter().map(value).collect(),
            processes: self.processes.get(row).cloned().unwrap_or_default(),
            facts: self.facts.iter().find(|(at, _)| *at == row).map(|(_, facts)| facts.clone()),
            errors: self.errors.get(row).cloned().unwrap_or_default(),
        }
    }

    /// All rows as snapshots.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        (0..self.len()).map(|row| Arc::new(self.snapshot(row))).collect()
    }

    /// Tables of one host as few: rows in the order of time, repeats left out, only those
    /// from `from_ms` on.
    pub fn merge(tables: &[Self], from_ms: i64) -> Vec<Self> {
        let mut seen = HashSet::new();
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            for row in 0..table.len() {
                if table.at_ms[row] >= from_ms && seen.insert((table.boots[row], table.seqs[row])) {
                    places.push((index, row));
                }
            }
        }
        let key = |&(table, row): &(usize, usize)| {
            let table: &Self = &tables[table];
            (table.at_ms[row], table.boots[row], table.seqs[row])
        };
        places.sort_by_key(key);
        let mut merged = Vec::new();
        let mut rest = places.as_slice();
        while !rest.is_empty() {
            let (union, count) = ShapeUnion::from_shapes(rest.iter().map(|&(table, _)| &tables[table].shape));
            let (now, later) = rest.split_at(count.min(MAX_ROWS));
            merged.push(union.from_tables(tables, now));
            rest = later;
        }
        merged
    }
}

/// The columns of several shapes in one.
pub(crate) struct ShapeUnion {
    pub(crate) shape: Arc<Shape>,
    mapping: HashMap<*const Shape, ColumnMapping>,
}

/// Where the columns of a shape stand in the union.
pub(crate) enum ColumnMapping {
    /// Where they stood.
    Identity,
    /// By place in the shape.
    Indices(Vec<usize>),
}

impl ColumnMapping {
    pub(crate) fn get(&self, at: usize) -> usize {
        match self {
            Self::Identity => at,
            Self::Indices(places) => places[at],
        }
    }
}

impl ShapeUnion {
    /// The union of as many of these as fit together, and how many they are.
    pub(crate) fn from_shapes<'a>(shapes: impl Iterator<Item = &'a Arc<Shape>>) -> (Self, usize) {
        let mut columns: Vec<Column> = Vec::new();
        let mut index: HashMap<(&str, &str), usize> = HashMap::new();
        let mut places: HashMap<*const Shape, Vec<usize>> = HashMap::new();
        let mut count = 0;
        let mut first = None;
        for shape in shapes {
            if let Entry::Vacant(entry) = places.entry(Arc::as_ptr(shape)) {
                let Some(place) = add_shape(shape, &mut columns, &mut index) else {
                    break;
                };
                entry.insert(place);
                first.get_or_insert(shape);
            }
            count += 1;
        }
        let whole = first.filter(|shape| shape.columns().len() == columns.len());
        let shape = whole.map_or_else(|| Arc::new(Shape::new(columns.clone())), |shape| (*shape).clone());
        let moved = |place: Vec<usize>| {
            let same = place.len() == columns.len() && place.iter().enumerate().all(|(a, b)| a == *b);
            if same { ColumnMapping::Identity } else { ColumnMapping::Indices(place) }
        };
        let places = places.into_iter().map(|(shape, place)| (shape, moved(place))).collect();
        (Self { shape, mapping: places }, count)
    }

    /// Where the columns of this shape stand; none if it did not fit.
    pub(crate) fn mapping(&self, shape: &Arc<Shape>) -> Option<&ColumnMapping> {
        self.mapping.get(&Arc::as_ptr(shape))
    }

    fn copy_row(
        &self,
        shape: &Arc<Shape>,
        columns: &mut [Vec<i64>],
        value: impl Fn(usize) -> i64,
        row: usize,
    ) {
        match self.mapping(shape) {
            Some(ColumnMapping::Identity) => columns.iter_mut().enumerate().for_each(|(at, column)| {
                column.push(value(at));
            }),
            Some(ColumnMapping::Indices(places)) => {
                places.iter().enumerate().for_each(|(at, &place)| columns[place].push(value(at)));
                columns
                    .iter_mut()
                    .filter(|column| column.len() <= row)
                    .for_each(|column| column.push(MISSING));
            }
            None => {}
        }
    }

    fn from_snapshots(&self, rows: &[&Snapshot]) -> Table {
        let mut table = Table::empty(self.shape.clone());
        table.columns.iter_mut().for_each(|column| column.reserve_exact(rows.len()));
        for (row, snapshot) in rows.iter().enumerate() {
            table.at_ms.push(snapshot.at_ms);
            table.interval_ms.push(i64::from(snapshot.interval_ms));
            table.boots.push(snapshot.boot);
            table.seqs.push(snapshot.seq);
            table.processes.push(snapshot.processes.clone());
            table.errors.push(snapshot.errors.clone());
            table.facts.extend(snapshot.facts.iter().map(|facts| (row, facts.clone())));
            let value = |at: usize| snapshot.values.get(at).copied().unwrap_or(MISSING);
            self.copy_row(&snapshot.shape, &mut table.columns, value, row);
        }
        table
    }

    fn from_tables(&self, tables: &[Table], places: &[(usize, usize)]) -> Table {
        let mut gathered = Table::empty(self.shape.clone());
        for (row, &(table, at)) in places.iter().enumerate() {
            let table = &tables[table];
            gathered.at_ms.push(table.at_ms[at]);
            gathered.interval_ms.push(table.interval_ms[at]);
            gathered.boots.push(table.boots[at]);
            gathered.seqs.push(table.seqs[at]);
            gathered.processes.push(table.processes.get(at).cloned().unwrap_or_default());
            gathered.errors.push(table.errors.get(at).cloned().unwrap_or_default());
            gathered
                .facts
                .extend(table.facts.iter().filter(|(r, _)| *r == at).map(|(_, facts)| (row, facts.clone())));
            let value = |column: usize| table.columns[column].get(at).copied().unwrap_or(MISSING);
            self.copy_row(&table.shape, &mut gathered.columns, value, row);
        }
        gathered
    }
}

/// Where the columns of a shape stand among `columns`, new ones at the end. None, and nothing
/// added, if there would be too many or a series would have two precisions.
fn add_shape<'a>(
    shape: &'a Shape,
    columns: &mut Vec<Column>,
    index: &mut HashMap<(&'a str, &'a str), usize>,
) -> Option<Vec<usize>> {
    let fresh = |column: &Column| !index.contains_key(&(&*column.metric, &*column.instance));
    let more = shape.columns().iter().filter(|column| fresh(column)).count();
    let clash = |column: &Column| {
        index.get(&(&*column.metric, &*column.instance)).is_some_and(|&at| columns[at] != *column)
    };
    if !columns.is_empty()
        && (columns.len() + more > limits::MAX_COLUMNS || shape.columns().iter().any(clash))
    {
        return None;
    }
    let mut places = Vec::with_capacity(shape.columns().len());
    for column in shape.columns() {
        let place = *index.entry((&column.metric, &column.instance)).or_insert_with(|| {
            columns.push(column.clone());
            columns.len() - 1
        });
        places.push(place);
    }
    Some(places)
}
