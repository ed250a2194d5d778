//! Raw rows of a single host in columns: the input of sealing and the output of decoding a block.

use crate::projection::{Projection, Projector};
use perfwatch_model::{
    BootId, CollectorError, Column, HostFacts, MISSING, ProcessRow, Shape, Snapshot, limits,
};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Maximum number of rows of a block: an hour at four rows per second needs 14,400.
pub const MAX_ROWS: usize = 65_536;

/// Raw rows in the order of time; each `(boot, seq)` occurs once.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Column schema of the rows.
    pub shape: Arc<Shape>,
    /// Collection time of each row, in milliseconds since 1970.
    pub at_ms: Vec<i64>,
    /// Collection interval of each row, in milliseconds.
    pub interval_ms: Vec<i64>,
    /// Boot of the host during each row.
    pub boots: Vec<BootId>,
    /// Sequence number of each row within its boot.
    pub seqs: Vec<u64>,
    /// Scaled integers by column; empty for a column outside the projection.
    pub columns: Vec<Vec<i64>>,
    /// Top processes of each row; empty if not projected.
    pub processes: Vec<Vec<ProcessRow>>,
    /// Collector errors of each row; empty if not projected.
    pub errors: Vec<Vec<CollectorError>>,
    /// Host facts with the row at which they changed.
    pub facts: Vec<(usize, Arc<HostFacts>)>,
}

impl Table {
    /// Creates a table without rows.
    pub fn empty(shape: Arc<Shape>) -> Self {
        Self::with_capacity(shape, 0)
    }

    /// Creates a table without rows, and space for rows.
    pub(crate) fn with_capacity(shape: Arc<Shape>, rows: usize) -> Self {
        let columns = vec![Vec::new(); shape.columns().len()];
        Self {
            shape,
            at_ms: Vec::with_capacity(rows),
            interval_ms: Vec::with_capacity(rows),
            boots: Vec::with_capacity(rows),
            seqs: Vec::with_capacity(rows),
            columns,
            processes: Vec::with_capacity(rows),
            errors: Vec::with_capacity(rows),
            facts: Vec::new(),
        }
    }

    /// Number of rows in the table.
    pub fn len(&self) -> usize {
        self.at_ms.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.at_ms.is_empty()
    }

    /// Builds tables from snapshots: sorted by time, without duplicates, with a shape that has the
    /// columns of all snapshots. Returns several tables if a single table would have too many columns
    /// or rows, or if the precision of a series changed.
    pub fn from_snapshots(snapshots: &[Arc<Snapshot>]) -> Vec<Self> {
        let mut seen = HashSet::with_capacity(snapshots.len());
        let mut rows: Vec<&Snapshot> =
            snapshots.iter().map(|s| &**s).filter(|s| seen.insert((s.boot, s.seq))).collect();
        rows.sort_by_key(|s| (s.at_ms, s.boot, s.seq));
        let mut tables = Vec::new();
        let mut remaining = rows.as_slice();
        while !remaining.is_empty() {
            let (union, count) = ShapeUnion::from_shapes(remaining.iter().map(|s| &s.shape));
            let (compatible, later) = remaining.split_at(count.min(MAX_ROWS));
            tables.push(union.build_table(compatible));
            remaining = later;
        }
        tables
    }

    /// Keeps the selected columns and parts; drops all others.
    pub fn project(mut self, projection: &Projection, projector: &mut Projector<'_>) -> Self {
        let selected = projector.project(&self.shape);
        self.columns =
            selected.indices.iter().map(|&index| std::mem::take(&mut self.columns[index])).collect();
        self.shape = selected.shape.clone();
        if !projection.processes {
            self.processes.clear();
        }
        if !projection.annotations {
            self.errors.clear();
            self.facts.clear();
        }
        self
    }

    /// Converts a row back to a snapshot.
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
            facts: self.facts.iter().find(|(changed, _)| *changed == row).map(|(_, facts)| facts.clone()),
            errors: self.errors.get(row).cloned().unwrap_or_default(),
        }
    }

    /// Converts all rows back to snapshots.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        (0..self.len()).map(|row| Arc::new(self.snapshot(row))).collect()
    }

    /// Converts all rows to snapshots.
    pub(crate) fn into_snapshots(mut self) -> Vec<Arc<Snapshot>> {
        let (mut processes, mut errors) =
            (std::mem::take(&mut self.processes).into_iter(), std::mem::take(&mut self.errors).into_iter());
        let mut snapshot = |row: usize| {
            let (processes, errors) =
                (processes.next().unwrap_or_default(), errors.next().unwrap_or_default());
            Arc::new(Snapshot { processes, errors, ..self.snapshot(row) })
        };
        (0..self.len()).map(&mut snapshot).collect()
    }

    /// Merges tables of a single host: rows from `from_ms` on, sorted by time, without duplicates.
    pub fn merge(mut tables: Vec<Self>, from_ms: i64) -> Vec<Self> {
        let rows = |(index, table): (usize, &Self)| {
            let is_selected = |&row: &usize| table.at_ms[row] >= from_ms;
            let rows: Vec<usize> = (0..table.len()).filter(is_selected).collect();
            rows.into_iter().map(move |row| (index, row))
        };
        let positions = tables.iter().enumerate().flat_map(rows).collect();
        Self::merge_rows(&mut tables, positions)
    }

    /// Moves rows of tables of a single host, each given by its table and its index there, to new tables: sorted by
    /// time, without duplicates.
    pub(crate) fn merge_rows(tables: &mut [Self], mut positions: Vec<(usize, usize)>) -> Vec<Self> {
        let mut seen = HashSet::with_capacity(positions.len());
        positions.retain(|&(table, row)| seen.insert((tables[table].boots[row], tables[table].seqs[row])));
        let sort_key = |&(table, row): &(usize, usize)| {
            let table: &Self = &tables[table];
            (table.at_ms[row], table.boots[row], table.seqs[row])
        };
        positions.sort_by_key(sort_key);
        let mut merged = Vec::new();
        let mut remaining = positions.as_slice();
        while !remaining.is_empty() {
            let shapes = remaining.iter().map(|&(table, _)| &tables[table].shape);
            let (union, count) = ShapeUnion::from_shapes(shapes);
            let (compatible, later) = remaining.split_at(count.min(MAX_ROWS));
            merged.push(union.merge_tables(tables, compatible));
            remaining = later;
        }
        merged
    }
}

/// Shape with the columns of several shapes.
pub(crate) struct ShapeUnion {
    pub(crate) shape: Arc<Shape>,
    mapping: HashMap<*const Shape, ColumnMapping>,
}

/// Maps the columns of a shape to the columns of the union.
pub(crate) enum ColumnMapping {
    /// Same columns in the same order.
    Identity,
    /// Index in the union by index in the shape.
    Indices(Vec<usize>),
}

impl ColumnMapping {
    pub(crate) fn get(&self, column: usize) -> usize {
        match self {
            Self::Identity => column,
            Self::Indices(indices) => indices[column],
        }
    }
}

impl ShapeUnion {
    /// Union of the longest compatible prefix of the shapes, and the length of that prefix.
    pub(crate) fn from_shapes<'a>(shapes: impl Iterator<Item = &'a Arc<Shape>>) -> (Self, usize) {
        let mut columns: Vec<Column> = Vec::new();
        let mut index: HashMap<(&str, &str), usize> = HashMap::new();
        let mut mapping: HashMap<*const Shape, Vec<usize>> = HashMap::new();
        let mut count = 0;
        let mut first = None;
        for shape in shapes {
            if let Entry::Vacant(entry) = mapping.entry(Arc::as_ptr(shape)) {
                let Some(indices) = add_shape(shape, &mut columns, &mut index) else {
                    break;
                };
                entry.insert(indices);
                first.get_or_insert(shape);
            }
            count += 1;
        }
        let complete = first.filter(|shape| shape.columns().len() == columns.len());
        let shape = complete.map_or_else(|| Arc::new(Shape::new(columns.clone())), |shape| (*shape).clone());
        let column_mapping = |indices: Vec<usize>| {
            let is_identity =
                indices.len() == columns.len() && indices.iter().enumerate().all(|(a, b)| a == *b);
            if is_identity { ColumnMapping::Identity } else { ColumnMapping::Indices(indices) }
        };
        let mapping = mapping.into_iter().map(|(shape, indices)| (shape, column_mapping(indices))).collect();
        (Self { shape, mapping }, count)
    }

    /// Mapping of a shape; `None` if the shape is not part of the union.
    pub(crate) fn mapping(&self, shape: &Arc<Shape>) -> Option<&ColumnMapping> {
        self.mapping.get(&Arc::as_ptr(shape))
    }

    /// Appends rows to columns that have `len` values then; columns that the shape of the rows does not have become
    /// `MISSING`. `append` appends the values of a column of the shape.
    fn append_columns(
        &self,
        shape: &Arc<Shape>,
        columns: &mut [Vec<i64>],
        len: usize,
        append: impl Fn(usize, &mut Vec<i64>),
    ) {
        match self.mapping(shape) {
            Some(ColumnMapping::Identity) => {
                columns.iter_mut().enumerate().for_each(|(index, column)| append(index, column));
            }
            Some(ColumnMapping::Indices(indices)) => {
                indices.iter().enumerate().for_each(|(from, &to)| append(from, &mut columns[to]));
            }
            None => {}
        }
        columns.iter_mut().for_each(|column| column.resize(len, MISSING));
    }

    fn build_table(&self, rows: &[&Snapshot]) -> Table {
        let mut table = Table::with_capacity(self.shape.clone(), rows.len());
        table.columns.iter_mut().for_each(|column| column.reserve_exact(rows.len()));
        for (row, snapshot) in rows.iter().enumerate() {
            table.at_ms.push(snapshot.at_ms);
            table.interval_ms.push(i64::from(snapshot.interval_ms));
            table.boots.push(snapshot.boot);
            table.seqs.push(snapshot.seq);
            table.processes.push(snapshot.processes.clone());
            table.errors.push(snapshot.errors.clone());
            table.facts.extend(snapshot.facts.iter().map(|facts| (row, facts.clone())));
            let append = |index: usize, column: &mut Vec<i64>| {
                column.extend(snapshot.values.get(index));
            };
            self.append_columns(&snapshot.shape, &mut table.columns, row + 1, append);
        }
        table
    }

    /// Moves rows to a new table.
    fn merge_tables(&self, tables: &mut [Table], positions: &[(usize, usize)]) -> Table {
        let mut merged = Table::with_capacity(self.shape.clone(), positions.len());
        merged.columns.iter_mut().for_each(|column| column.reserve_exact(positions.len()));
        let mut remaining = positions;
        while let Some(&(table, first)) = remaining.first() {
            // Rows that follow each other are moved together.
            let is_next =
                |(offset, position): &(usize, &(usize, usize))| **position == (table, first + offset);
            let count = remaining.iter().enumerate().take_while(is_next).count();
            self.move_rows(&mut tables[table], first..first + count, &mut merged);
            remaining = &remaining[count..];
        }
        merged
    }

    fn move_rows(&self, source: &mut Table, rows: Range<usize>, merged: &mut Table) {
        let len = merged.len();
        merged.at_ms.extend_from_slice(&source.at_ms[rows.clone()]);
        merged.interval_ms.extend_from_slice(&source.interval_ms[rows.clone()]);
        merged.boots.extend_from_slice(&source.boots[rows.clone()]);
        merged.seqs.extend_from_slice(&source.seqs[rows.clone()]);
        for row in rows.clone() {
            merged.processes.push(source.processes.get_mut(row).map(std::mem::take).unwrap_or_default());
            merged.errors.push(source.errors.get_mut(row).map(std::mem::take).unwrap_or_default());
        }
        let facts = source.facts.iter().filter(|(changed, _)| rows.contains(changed));
        merged.facts.extend(facts.map(|(changed, facts)| (len + changed - rows.start, facts.clone())));
        // A column outside the projection has no values.
        let append = |index: usize, column: &mut Vec<i64>| {
            column.extend_from_slice(source.columns[index].get(rows.clone()).unwrap_or_default());
        };
        self.append_columns(&source.shape, &mut merged.columns, len + rows.len(), append);
    }
}

/// Adds new columns of a shape to `columns`, and returns the index of each of its columns. Returns
/// `None` and adds nothing if there would be too many columns or a series would have two precisions.
fn add_shape<'a>(
    shape: &'a Shape,
    columns: &mut Vec<Column>,
    index: &mut HashMap<(&'a str, &'a str), usize>,
) -> Option<Vec<usize>> {
    let is_new = |column: &Column| !index.contains_key(&(&*column.metric, &*column.instance));
    let added = shape.columns().iter().filter(|column| is_new(column)).count();
    let is_conflicting = |column: &Column| {
        index.get(&(&*column.metric, &*column.instance)).is_some_and(|&existing| columns[existing] != *column)
    };
    if !columns.is_empty()
        && (columns.len() + added > limits::MAX_COLUMNS || shape.columns().iter().any(is_conflicting))
    {
        return None;
    }
    let mut indices = Vec::with_capacity(shape.columns().len());
    for column in shape.columns() {
        let position = *index.entry((&column.metric, &column.instance)).or_insert_with(|| {
            columns.push(column.clone());
            columns.len() - 1
        });
        indices.push(position);
    }
    Some(indices)
}
