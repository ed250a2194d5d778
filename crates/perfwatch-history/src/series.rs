//! Series over a range for charts, with bounded memory and work.
//!
//! A read is planned first, from the index of the blocks: it has a bounded number of values and of points,
//! with a coarser step if necessary. It then runs in parts of bounded size, by time and by group of series,
//! and ends when its future is dropped.

use super::History;
use super::read::JoinedSeries;
use super::series_points::{
    Grids, MAX_GAPS, MAX_GRID_POINTS, SeriesResult, add_to_grids, build_series, gap_markers, points_result,
};
use super::task::{CancelOnDrop, MAX_PART_CELLS, run_held};
use perfwatch_model::limits::{MAX_READ_CELLS, MAX_RESULT_POINTS, MAX_RESULT_SERIES};
use perfwatch_model::{HostId, limit_table};
use perfwatch_store::{HeldPermits, ReadBounds, ReadSize, SizeCounter, StoreError};
use perfwatch_tsdb::query::{self, Gap, GapMarker};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{BucketStats, Projection, SeriesGroup, SeriesSelector, Tier};
use std::sync::Arc;

/// Minimum number of points per series.
const MIN_POINTS: usize = 10;
/// Bytes of a point in memory and in the JSON text.
const POINT_BYTES: usize = size_of::<BucketStats>() + 32;
/// Values per row beside those of the series.
const ROW_LEN: usize = 7;

/// Request for series of a host.
#[derive(Debug)]
pub struct SeriesRequest {
    /// Host of the series.
    pub host: HostId,
    /// Selected series.
    pub selectors: Vec<SeriesSelector>,
    /// Start and exclusive end, Unix milliseconds.
    pub range: (i64, i64),
    /// Maximum number of points per series.
    pub max_points: usize,
    /// Expected interval between snapshots, for the detection of gaps.
    pub interval_ms: i64,
    /// Permits that the plan and the read hold.
    pub held: Option<HeldPermits>,
}

/// Read of series with known bounds.
#[derive(Debug)]
pub struct SeriesPlan {
    request: SeriesRequest,
    tier: Tier,
    step_ms: i64,
    size: ReadSize,
}

impl SeriesPlan {
    /// Memory in bytes that the read and its result need at most.
    pub fn memory_bytes(&self) -> usize {
        let points = self.size.series.saturating_mul(self.request.max_points.min(self.size.rows));
        let cells = self.size.cells.min(2 * MAX_PART_CELLS);
        cells * size_of::<i64>() + points.min(MAX_RESULT_POINTS) * POINT_BYTES
    }
}

impl History {
    /// Plans a read of series: chooses tier and step, so that number of values and points are bounded.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] if the series are too many even with the coarsest step, or another
    /// error of the store if the index of the blocks cannot be read.
    pub async fn plan_series(&self, mut request: SeriesRequest) -> Result<SeriesPlan, StoreError> {
        let (from_ms, to_ms) = request.range;
        let finest = query::tier_for(query::step_ms(to_ms - from_ms, request.max_points));
        let projection = Arc::new(Projection::of_series(request.selectors.clone()));
        let mut measured = ReadSize::default();
        for tier in Tier::ALL.into_iter().filter(|tier| *tier >= finest) {
            measured = self.measure(&request, tier, &projection).await?;
            if measured.series > MAX_RESULT_SERIES {
                break;
            }
            if measured.cells <= MAX_READ_CELLS {
                let max_points = MAX_RESULT_POINTS / measured.series.max(1);
                if max_points < request.max_points {
                    limit_table::RESULT_POINTS.refuse();
                }
                request.max_points = request.max_points.min(max_points).max(MIN_POINTS);
                let step_ms = query::step_ms(to_ms - from_ms, request.max_points);
                let (tier, step_ms) = match tier {
                    Tier::Raw => (query::tier_for(step_ms), step_ms),
                    _ => (tier.max(query::tier_for(step_ms)), step_ms.max(tier.width_ms())),
                };
                return Ok(SeriesPlan { request, tier, step_ms, size: measured });
            }
            limit_table::READ_CELLS.refuse();
        }
        Err(StoreError::TooLarge(measured))
    }

    /// Computes the size of a read from the index of the blocks and from the unsealed rows.
    async fn measure(
        &self,
        request: &SeriesRequest,
        tier: Tier,
        projection: &Arc<Projection>,
    ) -> Result<ReadSize, StoreError> {
        let (host, range) = (request.host, request.range);
        let bounds = ReadBounds {
            measure: true,
            max_cells: MAX_READ_CELLS,
            max_series: MAX_RESULT_SERIES,
            held: request.held.clone(),
            ..ReadBounds::default()
        };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let sealed = self.read_sealed(host, tier, range, projection, &bounds).await?.size;
        let (rows, projection) = (self.unsealed_rows(host, range), projection.clone());
        let head_bounds = bounds.clone();
        let measure_head = move || {
            let mut counter = SizeCounter::new(&projection, &head_bounds);
            let _ = rows.iter().all(|row| counter.add(row.shape(), Tier::Raw, 1));
            counter.size()
        };
        let head = run_held(&bounds, measure_head).await?;
        Ok(ReadSize {
            rows: sealed.rows + head.rows,
            cells: sealed.cells.saturating_add(head.cells),
            // Most hosts have the same series in blocks and in the head.
            series: sealed.series.max(head.series),
        })
    }

    /// Reads planned series: raw rows if there are few, otherwise points.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] if many series appeared since the plan, or another error of the
    /// store if the blocks cannot be read.
    pub async fn read_series(&self, plan: SeriesPlan) -> Result<SeriesResult, StoreError> {
        let SeriesPlan { request, tier, step_ms, size } = plan;
        let range = request.range;
        let (max_points, interval_ms) = (request.max_points, request.interval_ms);
        let values = size.cells.saturating_sub(size.rows.saturating_mul(ROW_LEN));
        let groups = values.div_ceil(MAX_PART_CELLS).max(1) as u64;
        let parts = size.rows.saturating_mul(ROW_LEN).div_ceil(MAX_PART_CELLS).max(1);
        let held = request.held;
        let bounds = ReadBounds { max_cells: 4 * MAX_PART_CELLS, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let all = Projection { sequences: true, ..Projection::of_series(request.selectors) };
        if groups == 1 && parts == 1 {
            let joined = self.read_bounded(request.host, tier, range, &Arc::new(all), &bounds).await?;
            let build = move || build_series(&joined, range, step_ms, max_points, interval_ms);
            return run_held(&bounds, build).await?;
        }
        let mut builder = SeriesBuilder::new(range, step_ms, interval_ms);
        for part in time_parts(range, parts, tier.window_ms()) {
            for index in 0..groups {
                // Gaps are found once per part.
                let sequences = index == 0;
                let group = Some(SeriesGroup { index, count: groups });
                let projection = Arc::new(Projection { sequences, group, ..all.clone() });
                let joined = self.read_bounded(request.host, tier, part, &projection, &bounds).await?;
                builder = run_held(&bounds, move || builder.add(&joined, part, sequences)).await??;
            }
        }
        run_held(&bounds, move || builder.finish()).await
    }
}

/// Divides a range into about `parts` parts at the edges of blocks.
fn time_parts((from_ms, to_ms): (i64, i64), parts: usize, window_ms: i64) -> Vec<(i64, i64)> {
    let parts = i64::try_from(parts).unwrap_or(i64::MAX).max(1);
    let width_ms = ((to_ms - from_ms) / parts).max(window_ms);
    let mut ranges = Vec::new();
    let mut start_ms = from_ms;
    while start_ms < to_ms {
        let end_ms = bucket_start(start_ms.saturating_add(width_ms), window_ms).max(start_ms + 1).min(to_ms);
        ranges.push((start_ms, end_ms));
        start_ms = end_ms;
    }
    ranges
}

/// Points and gaps of the parts read so far.
struct SeriesBuilder {
    range: (i64, i64),
    step_ms: i64,
    interval_ms: i64,
    grids: Grids,
    gaps: Vec<Gap>,
    last_marker: Option<GapMarker>,
    tier: Tier,
}

impl SeriesBuilder {
    fn new(range: (i64, i64), step_ms: i64, interval_ms: i64) -> Self {
        let (grids, gaps) = (Grids::new(), Vec::new());
        Self { range, step_ms, interval_ms, grids, gaps, last_marker: None, tier: Tier::Raw }
    }

    fn add(mut self, joined: &JoinedSeries, part: (i64, i64), has_rows: bool) -> Result<Self, StoreError> {
        let tiers = joined.sealed.plan.iter().map(|segment| segment.tier);
        self.tier = tiers.max().unwrap_or(Tier::Raw).max(self.tier);
        if has_rows {
            let mut markers: Vec<GapMarker> = self.last_marker.into_iter().collect();
            markers.extend(gap_markers(joined, part, self.interval_ms));
            self.gaps.extend(query::find_gaps(&markers));
            self.gaps.truncate(MAX_GAPS);
            self.last_marker = markers.last().copied();
        }
        add_to_grids((&mut self.grids, MAX_GRID_POINTS), joined, self.range, part, self.step_ms)?;
        Ok(self)
    }

    fn finish(self) -> SeriesResult {
        points_result(self.grids, self.range, self.step_ms, self.gaps, self.tier)
    }
}

#[cfg(test)]
mod tests {
    use super::time_parts;

    #[test]
    fn time_parts_end_at_windows_and_cover_the_range() {
        assert_eq!(time_parts((5, 10), 1, 100), [(5, 10)]);
        assert_eq!(time_parts((50, 450), 2, 100), [(50, 200), (200, 400), (400, 450)]);
        assert_eq!(time_parts((50, 250), 1_000, 100), [(50, 100), (100, 200), (200, 250)]);
    }
}
