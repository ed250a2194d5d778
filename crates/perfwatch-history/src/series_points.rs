//! Points of series, from rows and buckets.

use super::read::JoinedSeries;
use perfwatch_model::limits::MAX_RESULT_POINTS;
use perfwatch_model::{BootId, MISSING};
use perfwatch_store::{BlockContent, BlockSlice, ReadSize, StoreError};
use perfwatch_tsdb::query::{self, Gap, GapMarker, Points};
use perfwatch_tsdb::{Table, Tier};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// Maximum number of gaps in a result.
pub const MAX_GAPS: usize = 1_000;

/// Maximum number of points of a result: twice the limit of a plan, because series may have appeared since.
pub(crate) const MAX_GRID_POINTS: usize = 2 * MAX_RESULT_POINTS;

/// Points by metric and instance.
pub type Grids = BTreeMap<(String, String), Points>;

/// Values of a series in a result.
pub struct SeriesPoints {
    /// Dotted name of the metric.
    pub metric: String,
    /// Instance of the metric's dimension, empty if the metric has none.
    pub instance: String,
    /// Number of decimals of the scaled values.
    pub decimals: u8,
    /// Values at the times of the result.
    pub values: SeriesValues,
}

/// Values of a series: rows, or points of a grid.
pub enum SeriesValues {
    /// Scaled value per row.
    Raw(Vec<i64>),
    /// Statistics of the samples per point.
    Points(Points),
}

/// Series of a host over a common time axis.
pub struct SeriesResult {
    /// Width of a point in milliseconds; 0 if the values are raw rows.
    pub step_ms: i64,
    /// Times of the rows, or starts of the points that have values, Unix milliseconds.
    pub at_ms: Vec<i64>,
    /// Indices of these points in the grid; empty for raw rows.
    pub point_indices: Vec<usize>,
    /// Selected series, ordered by metric and instance for points.
    pub series: Vec<SeriesPoints>,
    /// Times without data, at most 1,000.
    pub gaps: Vec<Gap>,
    /// Coarsest tier that was read.
    pub tier: Tier,
}

pub(crate) fn gap_markers(
    joined: &JoinedSeries,
    (from_ms, to_ms): (i64, i64),
    interval_ms: i64,
) -> Vec<GapMarker> {
    let mut markers = Vec::new();
    let mut add_rows = |table: &Table, from_ms: i64, to_ms: i64| {
        for row in 0..table.len() {
            if (from_ms..to_ms).contains(&table.at_ms[row]) {
                // Scripts have no boot; their sequence numbers are times.
                let boot = table.boots[row];
                let sequence = (boot != BootId::default()).then_some((boot, table.seqs[row]));
                let row_interval_ms = table.interval_ms[row];
                let interval_ms = if row_interval_ms > 0 { row_interval_ms } else { interval_ms };
                markers.push(GapMarker { at_ms: table.at_ms[row], interval_ms, sequence });
            }
        }
    };
    joined.unsealed.iter().for_each(|table| add_rows(table, from_ms, to_ms));
    for slice in &joined.sealed.slices {
        if let Ok(BlockContent::Raw(table)) = &slice.content {
            add_rows(table, slice.from_ms, slice.to_ms);
        }
    }
    for slice in &joined.sealed.slices {
        if let Ok(BlockContent::Buckets(buckets)) = &slice.content {
            let interval_ms = slice.block.tier.width_ms().max(interval_ms);
            let starts = buckets.start_ms.iter();
            let starts = starts.filter(|start| (slice.from_ms..slice.to_ms).contains(start));
            markers.extend(starts.map(|start| GapMarker { at_ms: *start, interval_ms, sequence: None }));
        }
    }
    markers.sort_by_key(|marker| marker.at_ms);
    markers
}

/// Builds the result of a read: raw rows if there are at most `max_points`, otherwise points.
///
/// # Errors
/// Returns [`StoreError::TooLarge`] above the limit of points.
pub(crate) fn build_series(
    joined: &JoinedSeries,
    range: (i64, i64),
    step_ms: i64,
    max_points: usize,
    interval_ms: i64,
) -> Result<SeriesResult, StoreError> {
    let markers = gap_markers(joined, range, interval_ms);
    let mut gaps = query::find_gaps(&markers);
    gaps.truncate(MAX_GAPS);
    let tier = joined.sealed.plan.iter().map(|segment| segment.tier).max().unwrap_or(Tier::Raw);
    if tier == Tier::Raw && markers.len() <= max_points {
        return build_raw(joined, range, gaps);
    }
    let mut grids = BTreeMap::new();
    add_to_grids((&mut grids, MAX_GRID_POINTS), joined, range, range, step_ms)?;
    Ok(points_result(grids, range, step_ms, gaps, tier))
}

/// Builds a result of raw rows, without aggregation.
fn build_raw(
    joined: &JoinedSeries,
    (from_ms, to_ms): (i64, i64),
    gaps: Vec<Gap>,
) -> Result<SeriesResult, StoreError> {
    let mut tables: Vec<Table> = joined.unsealed.clone();
    for slice in &joined.sealed.slices {
        if let Ok(BlockContent::Raw(table)) = &slice.content {
            tables.push(table.clone());
        }
    }
    let merged = Table::merge(tables, from_ms);
    let mut result = SeriesResult {
        step_ms: 0,
        at_ms: Vec::new(),
        point_indices: Vec::new(),
        series: Vec::new(),
        gaps,
        tier: Tier::Raw,
    };
    let mut series_indices: HashMap<(String, String, u8), usize> = HashMap::new();
    for table in &merged {
        let rows: Vec<usize> = (0..table.len()).filter(|row| table.at_ms[*row] < to_ms).collect();
        let previous_len = result.at_ms.len();
        result.at_ms.extend(rows.iter().map(|row| table.at_ms[*row]));
        for (index, column) in table.shape.columns().iter().enumerate() {
            let key = (column.metric.to_string(), column.instance.to_string(), column.decimals);
            check_points(result.series.len(), result.at_ms.len(), MAX_GRID_POINTS)?;
            let series_index = *series_indices.entry(key).or_insert_with(|| {
                result.series.push(SeriesPoints {
                    metric: column.metric.to_string(),
                    instance: column.instance.to_string(),
                    decimals: column.decimals,
                    values: SeriesValues::Raw(Vec::new()),
                });
                result.series.len() - 1
            });
            if let SeriesValues::Raw(values) = &mut result.series[series_index].values {
                values.resize(previous_len, MISSING);
                values.extend(rows.iter().map(|row| table.columns[index][*row]));
            }
        }
    }
    let len = result.at_ms.len();
    for series in &mut result.series {
        if let SeriesValues::Raw(values) = &mut series.values {
            values.resize(len, MISSING);
        }
    }
    Ok(result)
}

/// Result with the points of all grids.
pub(crate) fn points_result(
    grids: Grids,
    range: (i64, i64),
    step_ms: i64,
    gaps: Vec<Gap>,
    tier: Tier,
) -> SeriesResult {
    let grid = Points::new(range.0, range.1 - 1, step_ms);
    let has_values = |index: &usize| grids.values().any(|points| points.stats()[*index].count > 0);
    let point_indices: Vec<usize> = (0..grid.len()).filter(has_values).collect();
    let start = |index: &usize| grid.from_ms + i64::try_from(*index).unwrap_or_default() * step_ms;
    let at_ms = point_indices.iter().map(start).collect();
    let series = grids.into_iter().map(|((metric, instance), points)| SeriesPoints {
        metric,
        instance,
        decimals: points.decimals(),
        values: SeriesValues::Points(points),
    });
    SeriesResult { step_ms, at_ms, point_indices, series: series.collect(), gaps, tier }
}

/// Checks that a result stays within a number of points.
pub(crate) fn check_points(series: usize, points: usize, max_points: usize) -> Result<(), StoreError> {
    match series.saturating_mul(points) > max_points {
        true => Err(StoreError::TooLarge(ReadSize { rows: points, cells: series * points, series })),
        false => Ok(()),
    }
}

/// Adds all rows and buckets of a part of a range to the grids of their series, ordered by metric and
/// instance.
///
/// # Errors
/// Returns [`StoreError::TooLarge`] above the number of points.
pub(crate) fn add_to_grids(
    (grids, max_points): (&mut Grids, usize),
    joined: &JoinedSeries,
    range: (i64, i64),
    part: (i64, i64),
    step_ms: i64,
) -> Result<(), StoreError> {
    let mut with_points = |column: &perfwatch_model::Column, add: &mut dyn FnMut(&mut Points)| {
        let series = grids.len() + 1;
        match grids.entry((column.metric.to_string(), column.instance.to_string())) {
            Entry::Occupied(points) => add(points.into_mut()),
            Entry::Vacant(vacant) => {
                let points = Points::new(range.0, range.1 - 1, step_ms);
                check_points(series, points.len(), max_points)?;
                add(vacant.insert(points));
            }
        }
        Ok::<(), StoreError>(())
    };
    // The order of time: the last value of a point is that of the newest row.
    for BlockSlice { content, from_ms, to_ms, .. } in &joined.sealed.slices {
        match content {
            Ok(BlockContent::Raw(table)) => {
                for (index, column) in table.shape.columns().iter().enumerate() {
                    with_points(column, &mut |points| points.add_ticks(table, index, *from_ms, *to_ms))?;
                }
            }
            Ok(BlockContent::Buckets(buckets)) => {
                for (index, column) in buckets.shape.columns().iter().enumerate() {
                    with_points(column, &mut |points| points.add_buckets(buckets, index, *from_ms, *to_ms))?;
                }
            }
            Err(_) => {}
        }
    }
    for table in &joined.unsealed {
        for (index, column) in table.shape.columns().iter().enumerate() {
            with_points(column, &mut |points| points.add_ticks(table, index, part.0, part.1))?;
        }
    }
    Ok(())
}
