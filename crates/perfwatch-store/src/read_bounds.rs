//! Size of a range read, computed before any value is decoded, and the limits that it must respect.

use crate::error::StoreError;
use crate::read_size::ReadSize;
use perfwatch_tsdb::{BUCKET_STATS_LEN, Projection, SeriesCounter, Tier};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Values per row that every read decodes beside the selected columns: time, interval, boot and sequence.
const ROW_LEN: usize = 6;
/// Values that stand for the processes of a row: 30 processes with 15 values each.
const PROCESS_LIST_LEN: usize = 450;
/// Maximum number of comparisons of columns with patterns: six shapes of 8,192 columns with 200 patterns.
const MAX_COMPARISONS: usize = 10_000_000;

/// Permits of the request that a read works for. They are released when its last work has ended, which may
/// be after the request was dropped.
pub type HeldPermits = Arc<dyn Any + Send + Sync>;

/// Limits of a range read.
#[derive(Clone, Debug)]
pub struct ReadBounds {
    /// Maximum number of values that are decoded. A read above it fails with [`StoreError::TooLarge`].
    pub max_cells: usize,
    /// Maximum number of distinct series that a measurement counts.
    pub max_series: usize,
    /// Computes only the size of the read, without slices.
    pub measure: bool,
    /// Drops the rows of blocks outside of the range.
    pub trim: bool,
    /// Set when the result is no longer needed; the read then ends before its next block.
    pub cancelled: Arc<AtomicBool>,
    /// Permits that the read holds.
    pub held: Option<HeldPermits>,
}

impl Default for ReadBounds {
    /// No limit, for reads of the hub itself.
    fn default() -> Self {
        Self {
            max_cells: usize::MAX,
            max_series: usize::MAX,
            measure: false,
            trim: false,
            cancelled: Arc::default(),
            held: None,
        }
    }
}

/// Values that a read may still decode.
pub(crate) struct CellBudget {
    bounds: ReadBounds,
    size: ReadSize,
}

impl CellBudget {
    pub(crate) fn new(bounds: &ReadBounds) -> Self {
        Self { bounds: bounds.clone(), size: ReadSize::default() }
    }

    /// Counts rows that are about to be decoded.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] above the limit, and [`StoreError::Unavailable`] after a cancellation.
    pub(crate) fn consume(&mut self, rows: usize, cells: usize) -> Result<(), StoreError> {
        if self.bounds.cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the read was cancelled".to_owned()));
        }
        self.size.rows += rows;
        self.size.cells = self.size.cells.saturating_add(cells);
        if self.size.cells > self.bounds.max_cells { Err(StoreError::TooLarge(self.size)) } else { Ok(()) }
    }

    pub(crate) fn size(&self) -> ReadSize {
        self.size
    }

    /// Returns whether rows outside of the range are dropped.
    pub(crate) fn trims(&self) -> bool {
        self.bounds.trim
    }
}

/// Values per row of a block: its selected columns and the other parts of the projection.
pub(crate) fn cells_per_row(columns: usize, is_raw: bool, processes: bool) -> usize {
    let values = if is_raw { columns } else { columns * (BUCKET_STATS_LEN + 1) };
    values + ROW_LEN + if is_raw && processes { PROCESS_LIST_LEN } else { 0 }
}

/// Computes the size of a read block by block.
pub struct SizeCounter<'a> {
    projection: &'a Projection,
    bounds: &'a ReadBounds,
    series: SeriesCounter<'a>,
    size: ReadSize,
}

impl<'a> SizeCounter<'a> {
    /// Creates a counter without blocks.
    pub fn new(projection: &'a Projection, bounds: &'a ReadBounds) -> Self {
        let series = SeriesCounter::new(projection);
        Self { projection, bounds, series, size: ReadSize::default() }
    }

    /// Adds rows of a column schema. Returns whether counting should go on: it ends above the limits.
    pub fn add(&mut self, shape: &perfwatch_model::Shape, tier: Tier, rows: usize) -> bool {
        let columns = self.series.add(shape);
        let cells = rows.saturating_mul(cells_per_row(columns, tier == Tier::Raw, self.projection.processes));
        self.size.rows += rows;
        self.size.cells = self.size.cells.saturating_add(cells);
        self.size.series = self.series.series();
        if self.series.comparisons() > MAX_COMPARISONS {
            self.size.cells = usize::MAX;
        }
        self.size.series <= self.bounds.max_series
            && self.size.cells <= self.bounds.max_cells
            && !self.bounds.cancelled.load(Ordering::Relaxed)
    }

    /// Size of what was added.
    pub fn size(&self) -> ReadSize {
        self.size
    }
}

/// Rows of a block within a range, assuming that they are evenly distributed.
pub(crate) fn rows_in_range(
    rows: usize,
    (first_ms, last_ms): (i64, i64),
    (from_ms, to_ms): (i64, i64),
) -> usize {
    if first_ms >= from_ms && last_ms < to_ms {
        return rows;
    }
    let overlap_ms = last_ms.min(to_ms).saturating_sub(first_ms.max(from_ms)).max(0);
    let share = i128::try_from(rows).unwrap_or_default() * i128::from(overlap_ms)
        / i128::from((last_ms.saturating_sub(first_ms)).max(1));
    usize::try_from(share).unwrap_or(rows).saturating_add(1).min(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_partial_block_are_estimated() {
        assert_eq!(rows_in_range(100, (0, 99), (0, 100)), 100);
        assert_eq!(rows_in_range(100, (0, 100), (50, 1_000)), 51);
        assert_eq!(rows_in_range(100, (0, 100), (200, 300)), 1);
        assert_eq!(rows_in_range(1, (5, 5), (0, 3)), 1);
    }

    #[test]
    fn cell_budget_rejects_what_exceeds_it() {
        let bounds = ReadBounds { max_cells: 10, ..ReadBounds::default() };
        let mut budget = CellBudget::new(&bounds);
        assert_eq!(budget.consume(1, 10), Ok(()));
        let size = ReadSize { rows: 2, cells: 11, series: 0 };
        assert_eq!(budget.consume(1, 1), Err(StoreError::TooLarge(size)));
        bounds.cancelled.store(true, Ordering::Relaxed);
        assert!(matches!(CellBudget::new(&bounds).consume(0, 0), Err(StoreError::Unavailable(_))));
    }
}
