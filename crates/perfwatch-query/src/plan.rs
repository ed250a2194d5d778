//! Time grid and limits of a request, from the number of hosts and queries.

use perfwatch_history::grid::{GridBounds, GridSize};
use perfwatch_model::limits::{MAX_QUERY_POINTS, MAX_QUERY_SERIES, MAX_RESULT_POINTS};
use perfwatch_tsdb::Tier;
use perfwatch_tsdb::query;
use perfwatch_tsdb::rollup::bucket_start;

/// Number of points per series if the request names none.
const DEFAULT_GRID_LEN: usize = 300;
/// Fewest and most points per series.
const MIN_GRID_LEN: usize = 10;
const MAX_GRID_LEN: usize = 2_000;
/// Fewest and most stored values in memory at the same time.
const MIN_PART_CELLS: usize = 256 << 10;
const MAX_PART_CELLS: usize = 2 << 20;
/// Maximum number of points of a host.
const MAX_HOST_POINTS: usize = 200_000;
/// Fewest points of series and groups that a request may have in memory.
const MIN_REQUEST_POINTS: usize = 100_000;
/// Memory of a point of a group in bytes: sum, bounds, counts.
const POINT_BYTES: usize = 32;
/// Number of series of a query if the request names none.
const DEFAULT_SERIES_LEN: usize = 50;

/// Size of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestSize {
    /// Start and exclusive end, Unix milliseconds.
    pub(crate) range: (i64, i64),
    /// Current time.
    pub(crate) now_ms: i64,
    /// Requested number of points per series.
    pub(crate) points: Option<usize>,
    /// Number of hosts that are read.
    pub(crate) hosts: usize,
    /// Number of queries.
    pub(crate) queries: usize,
    /// Number of queries and formulas in the response.
    pub(crate) visible: usize,
    /// Shortest interval of the hosts in milliseconds; 0 if unknown.
    pub(crate) interval_ms: i64,
}

/// Time grid and limits of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GridPlan {
    /// Start of the first point, Unix milliseconds.
    pub(crate) start_ms: i64,
    /// Width of a point in milliseconds.
    pub(crate) step_ms: i64,
    /// Number of points.
    pub(crate) len: usize,
    /// Finest tier to read.
    pub(crate) tier: Tier,
    /// Points per series that were requested and do not fit within the limits.
    pub(crate) left_out_points: usize,
    /// Stored values in memory at the same time.
    part_cells: usize,
    /// Maximum number of points of series and groups in memory.
    pub(crate) max_points: usize,
    /// Maximum number of series of a query in the response.
    pub(crate) max_series: usize,
}

impl GridPlan {
    /// Chooses tier and step, so that the number of stored values is bounded.
    pub(crate) fn new(size: &RequestSize) -> Self {
        let (from_ms, to_ms) = size.range;
        let requested = size.points.unwrap_or(DEFAULT_GRID_LEN).clamp(MIN_GRID_LEN, MAX_GRID_LEN);
        let finest_ms = query::step_ms(to_ms - from_ms, requested);
        let finest = query::tier_for(finest_ms);
        let RequestSize { range, now_ms, hosts, queries, interval_ms, .. } = *size;
        let grid = GridSize { range, now_ms, hosts, series: queries, interval_ms };
        let tier = grid.tier(finest);
        let step_ms = finest_ms.max(tier.width_ms());
        let len = |step_ms: i64| {
            let start_ms = bucket_start(from_ms, step_ms);
            usize::try_from((to_ms - 1 - start_ms) / step_ms + 1).unwrap_or(1)
        };
        let points = len(step_ms);
        let max_points = size.hosts.saturating_mul(size.queries).saturating_mul(points).saturating_mul(2);
        Self {
            start_ms: bucket_start(from_ms, step_ms),
            step_ms,
            len: points,
            tier,
            left_out_points: len(finest_ms) - points,
            part_cells: grid.host_cells(tier).clamp(MIN_PART_CELLS, MAX_PART_CELLS),
            max_points: max_points.clamp(MIN_REQUEST_POINTS, MAX_QUERY_POINTS),
            max_series: (MAX_RESULT_POINTS / points / size.visible.max(1)).clamp(1, MAX_QUERY_SERIES),
        }
    }

    /// Memory in bytes that the request and its response need at most.
    pub(crate) fn memory_bytes(&self) -> usize {
        // A part is in memory decoded and as points.
        2 * self.part_cells * size_of::<i64>() + self.max_points * POINT_BYTES
    }

    /// Limits of the read of a host, with the stored values that the request may still decode.
    pub(crate) fn bounds(&self, cells: usize) -> GridBounds {
        GridBounds { part_cells: self.part_cells, cells, points: MAX_HOST_POINTS }
    }

    /// Number of series of a query in the response.
    pub(crate) fn series_limit(&self, limit: Option<usize>) -> usize {
        limit.unwrap_or(DEFAULT_SERIES_LEN).min(self.max_series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 490_000 * HOUR + 123_456;

    fn plan(hours: i64, points: usize, hosts: usize) -> GridPlan {
        let range = (NOW - hours * HOUR, NOW);
        let size = RequestSize {
            range,
            now_ms: NOW,
            points: Some(points),
            hosts,
            queries: 1,
            visible: 1,
            interval_ms: 2_000,
        };
        GridPlan::new(&size)
    }

    #[test]
    fn step_and_tier_follow_range_and_hosts() {
        for (hours, points, hosts, step_s, tier, left_out) in [
            (1, 300, 1, 15, Tier::Raw, 0),
            (24, 300, 1, 300, Tier::Minute, 0),
            (24, 361, 2_000, 300, Tier::Minute, 0),
            (1, 300, 2_000, 15, Tier::Raw, 0),
            // Raw rows of six hours of 2,000 hosts are too many.
            (6, 1_000, 2_000, 60, Tier::Minute, 360),
            (30 * 24, 300, 10, 10_800, Tier::Hour, 0),
        ] {
            let plan = plan(hours, points, hosts);
            assert_eq!((plan.step_ms, plan.tier), (step_s * 1_000, tier), "{hours} h, {hosts} hosts");
            assert_eq!(plan.left_out_points, left_out, "{hours} h, {hosts} hosts");
            assert!(plan.len <= points + 1 && plan.memory_bytes() <= 64 << 20, "{plan:?}");
            let end_ms = plan.start_ms + i64::try_from(plan.len).unwrap() * plan.step_ms;
            assert!(plan.start_ms <= NOW - hours * HOUR && end_ms >= NOW, "{plan:?}");
        }
    }

    #[test]
    fn series_of_a_response_are_limited_by_points() {
        let plan = plan(24, 300, 2_000);
        assert_eq!((plan.series_limit(None), plan.series_limit(Some(500))), (50, 200));
        let size = RequestSize {
            range: (NOW - HOUR, NOW),
            now_ms: NOW,
            points: Some(2_000),
            hosts: 1,
            queries: 10,
            visible: 10,
            interval_ms: 1_000,
        };
        let plan = GridPlan::new(&size);
        assert!(plan.max_series * plan.len * 10 <= MAX_RESULT_POINTS, "{plan:?}");
    }
}
