//! Series of a host on a given time grid, for queries over many hosts that share the grid.

use super::History;
use super::series_points::{Grids, add_to_grids};
use super::task::{CancelOnDrop, run_held};
use perfwatch_model::HostId;
use perfwatch_model::limits::MAX_READ_CELLS;
use perfwatch_store::{HeldPermits, ReadBounds, ReadSize, StoreError};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{Projection, SeriesSelector, Tier};
use std::sync::Arc;

/// Values per row beside those of the series, as bounds of reads count them.
const ROW_LEN: usize = 6;

/// Values of a bucket of a series.
const BUCKET_LEN: usize = 6;
/// Interval of hosts whose interval is unknown, in milliseconds.
const DEFAULT_INTERVAL_MS: i64 = 2_000;
/// Time before the current time that is not rolled up yet, in milliseconds.
const RAW_TAIL_MS: i64 = 3_600_000;

/// Size of a read of the same series of many hosts.
#[derive(Debug, Clone, Copy)]
pub struct GridSize {
    /// Start and exclusive end, Unix milliseconds.
    pub range: (i64, i64),
    /// Current time.
    pub now_ms: i64,
    /// Number of hosts.
    pub hosts: usize,
    /// Number of series of each host.
    pub series: usize,
    /// Shortest interval of the hosts in milliseconds; 0 if unknown.
    pub interval_ms: i64,
}

impl GridSize {
    /// Estimate of the stored values of a host.
    pub fn host_cells(&self, tier: Tier) -> usize {
        let (from_ms, to_ms) = self.range;
        let interval_ms = if self.interval_ms > 0 { self.interval_ms } else { DEFAULT_INTERVAL_MS };
        let rows = |from_ms: i64, width_ms: i64| {
            usize::try_from((to_ms.min(self.now_ms) - from_ms).max(0) / width_ms).unwrap_or(usize::MAX)
        };
        let raw = |from_ms: i64| rows(from_ms, interval_ms).saturating_mul(ROW_LEN + self.series);
        match tier {
            Tier::Raw => raw(from_ms),
            tier => {
                let buckets = rows(from_ms, tier.width_ms());
                let buckets = buckets.saturating_mul(ROW_LEN + BUCKET_LEN * self.series);
                buckets.saturating_add(raw(from_ms.max(self.now_ms - RAW_TAIL_MS)))
            }
        }
    }

    /// Finest tier, from a finest one, with as many values as a request may decode; otherwise the coarsest.
    pub fn tier(&self, finest: Tier) -> Tier {
        let fits = |tier: &Tier| self.host_cells(*tier).saturating_mul(self.hosts) <= MAX_READ_CELLS;
        let mut tiers = Tier::ALL.into_iter().filter(|tier| *tier >= finest);
        tiers.clone().find(fits).or(tiers.next_back()).unwrap_or(finest)
    }
}

/// Request for series of a host on a time grid.
#[derive(Debug)]
pub struct GridRequest {
    /// Host of the series.
    pub host: HostId,
    /// Selectors of the series that are read.
    pub selectors: Vec<SeriesSelector>,
    /// Start and exclusive end, Unix milliseconds.
    pub range: (i64, i64),
    /// Width of a point in milliseconds, at least that of the buckets of `tier`.
    pub step_ms: i64,
    /// Finest tier to read.
    pub tier: Tier,
    /// Limits of the read.
    pub bounds: GridBounds,
    /// Permits that the read holds.
    pub held: Option<HeldPermits>,
}

/// Limits of a read on a time grid.
#[derive(Debug, Clone, Copy)]
pub struct GridBounds {
    /// Maximum number of stored values in memory at the same time.
    pub part_cells: usize,
    /// Maximum number of stored values that are decoded.
    pub cells: usize,
    /// Maximum number of points of all series.
    pub points: usize,
}

/// Series of a host on a time grid.
#[derive(Debug)]
pub struct GridResult {
    /// Points of the series, ordered by metric and instance.
    pub series: Grids,
    /// Coarsest tier that was read.
    pub tier: Tier,
    /// Number of stored values that were decoded.
    pub cells: usize,
}

impl History {
    /// Reads series of a host on a time grid, in parts if they have many values. The read ends if its future
    /// is dropped.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] above the bounds, or another error of the store if the blocks cannot
    /// be read.
    pub async fn read_grid(&self, request: GridRequest) -> Result<GridResult, StoreError> {
        let GridRequest { host, selectors, range, step_ms, tier, bounds: grid_bounds, held } = request;
        let projection = Arc::new(Projection::of_series(selectors));
        let max_cells = grid_bounds.part_cells.min(grid_bounds.cells);
        let bounds = ReadBounds { max_cells, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let mut result = GridResult { series: Grids::new(), tier: Tier::Raw, cells: 0 };
        let (mut at_ms, mut part_ms) = (range.0, range.1 - range.0);
        while at_ms < range.1 {
            let part = (at_ms, part_end(at_ms, part_ms, range.1, tier.window_ms()));
            let joined = match self.read_bounded(host, tier, part, &projection, &bounds).await {
                Err(StoreError::TooLarge(_)) if part_ms > tier.window_ms() => {
                    part_ms = (part_ms / 2).max(tier.window_ms());
                    continue;
                }
                joined => joined?,
            };
            let unsealed = joined.unsealed.iter();
            let unsealed: usize = unsealed.map(|table| table.len() * (table.columns.len() + ROW_LEN)).sum();
            result.cells = result.cells.saturating_add(joined.sealed.size.cells).saturating_add(unsealed);
            let tiers = joined.sealed.plan.iter().map(|segment| segment.tier);
            result.tier = tiers.max().unwrap_or(Tier::Raw).max(result.tier);
            if result.cells > grid_bounds.cells {
                return Err(StoreError::TooLarge(ReadSize { cells: result.cells, ..ReadSize::default() }));
            }
            let add = move || {
                let grids = (&mut result.series, grid_bounds.points);
                add_to_grids(grids, &joined, range, part, step_ms).map(|()| result)
            };
            result = run_held(&bounds, add).await??;
            at_ms = part.1;
        }
        Ok(result)
    }
}

/// End of the part that starts at `at_ms`: the end of the range, or an edge of blocks.
fn part_end(at_ms: i64, part_ms: i64, end_ms: i64, window_ms: i64) -> i64 {
    if end_ms - at_ms <= part_ms {
        return end_ms;
    }
    bucket_start(at_ms.saturating_add(part_ms), window_ms).max(at_ms + 1).min(end_ms)
}

#[cfg(test)]
mod tests {
    use super::part_end;

    #[test]
    fn parts_end_at_windows_and_at_the_end_of_the_range() {
        assert_eq!(part_end(50, 400, 450, 100), 450);
        assert_eq!(part_end(50, 200, 450, 100), 200);
        assert_eq!(part_end(200, 200, 450, 100), 400);
        assert_eq!(part_end(50, 100, 450, 100), 100);
    }
}
