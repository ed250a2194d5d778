//! Query math: tier and step width of a range, and aggregation of rows and buckets to the points of
//! a chart. Points retain minimum and maximum, so a one-second spike is visible in a month.

use crate::rollup::{BucketStats, Buckets, bucket_start};
use crate::table::Table;
use perfwatch_model::{BootId, MISSING, unscale};

/// Resolution of stored history: raw rows, minutes or hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// One row per snapshot.
    Raw,
    /// Buckets of a minute each.
    Minute,
    /// Buckets of an hour each.
    Hour,
}

impl Tier {
    /// All tiers, from fine to coarse.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Minute, Self::Hour];

    /// Bucket width in milliseconds; 1 for raw rows.
    pub fn width_ms(self) -> i64 {
        match self {
            Self::Raw => 1,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
        }
    }

    /// Time range of each block, in milliseconds: an hour, a day, 30 days.
    pub fn window_ms(self) -> i64 {
        match self {
            Self::Raw => 3_600_000,
            Self::Minute => 86_400_000,
            Self::Hour => 30 * 86_400_000,
        }
    }

    /// Tier that this tier is rolled up to.
    pub fn coarser(self) -> Option<Self> {
        match self {
            Self::Raw => Some(Self::Minute),
            Self::Minute => Some(Self::Hour),
            Self::Hour => None,
        }
    }

    /// Numeric identifier in the database.
    pub fn id(self) -> i64 {
        match self {
            Self::Raw => 0,
            Self::Minute => 1,
            Self::Hour => 2,
        }
    }

    /// Name in the API and the dashboard.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Minute => "1m",
            Self::Hour => "1h",
        }
    }
}

/// Step widths that divide time into round intervals, in seconds.
const STEP_WIDTHS_S: [i64; 24] = [
    1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600,
    43_200, 86_400, 172_800, 604_800, 2_592_000,
];

/// Smallest round step width that splits the range into at most `max_points`, in milliseconds.
pub fn step_ms(range_ms: i64, max_points: usize) -> i64 {
    let max_points = i64::try_from(max_points.max(1)).unwrap_or(i64::MAX);
    let is_wide_enough = |step: &&i64| range_ms / (**step * 1_000) < max_points;
    STEP_WIDTHS_S.iter().find(is_wide_enough).map_or(range_ms / max_points + 1, |step| step * 1_000)
}

/// Coarsest tier whose buckets are at most one step wide.
pub fn tier_for(step_ms: i64) -> Tier {
    let is_fine_enough = |tier: &&Tier| tier.width_ms() <= step_ms;
    Tier::ALL.iter().rev().find(is_fine_enough).copied().unwrap_or(Tier::Raw)
}

/// Points of a single series on a regular time grid.
#[derive(Clone, Debug)]
pub struct Points {
    /// Start of the first point, in milliseconds since 1970; a multiple of `step_ms`.
    pub from_ms: i64,
    /// Step width in milliseconds.
    pub step_ms: i64,
    /// Statistics per point, scaled by `decimals`: the finest precision added so far.
    stats: Vec<BucketStats>,
    decimals: u8,
}

impl Points {
    /// Creates an empty grid over a range.
    pub fn new(from_ms: i64, to_ms: i64, step_ms: i64) -> Self {
        let first = bucket_start(from_ms, step_ms);
        let count = usize::try_from((to_ms - first).max(0) / step_ms + 1).unwrap_or_default();
        Self { from_ms: first, step_ms, stats: vec![BucketStats::EMPTY; count], decimals: 0 }
    }

    /// Number of points on the grid.
    pub fn len(&self) -> usize {
        self.stats.len()
    }

    /// Returns whether the grid has no points.
    pub fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }

    /// Decimal places of the scaled integers in the statistics.
    pub fn decimals(&self) -> u8 {
        self.decimals
    }

    /// Statistics of each point, in order of time.
    pub fn stats(&self) -> &[BucketStats] {
        &self.stats
    }

    fn add(&mut self, at_ms: i64, stats: BucketStats) {
        let Ok(index) = usize::try_from((at_ms - self.from_ms).div_euclid(self.step_ms)) else {
            return;
        };
        if let Some(point) = self.stats.get_mut(index) {
            *point = point.merge(stats);
        }
    }

    /// Rescales the points to the finer of both precisions. Returns the factor for the added values.
    fn rescale(&mut self, decimals: u8) -> i64 {
        let factor = |from: u8, to: u8| 10i64.pow(u32::from(to.saturating_sub(from)).min(12));
        let (own_factor, added_factor) = (factor(self.decimals, decimals), factor(decimals, self.decimals));
        if own_factor > 1 {
            self.stats.iter_mut().for_each(|stats| *stats = multiply(*stats, own_factor));
            self.decimals = decimals;
        }
        added_factor
    }

    /// Adds the raw values of a column in `from_ms..to_ms`.
    pub fn add_ticks(&mut self, table: &Table, column: usize, from_ms: i64, to_ms: i64) {
        let factor = self.rescale(table.shape.columns()[column].decimals);
        for (row, &at) in table.at_ms.iter().enumerate() {
            let value = table.columns[column].get(row).copied().unwrap_or(MISSING);
            if (from_ms..to_ms).contains(&at) && value != MISSING {
                self.add(at, multiply(BucketStats::from_value(value), factor));
            }
        }
    }

    /// Adds the buckets of a column that start in `from_ms..to_ms`.
    pub fn add_buckets(&mut self, buckets: &Buckets, column: usize, from_ms: i64, to_ms: i64) {
        let factor = self.rescale(buckets.shape.columns()[column].decimals);
        for (row, &start) in buckets.start_ms.iter().enumerate() {
            if (from_ms..to_ms).contains(&start)
                && let Some(stats) = buckets.columns[column].0.get(row)
            {
                self.add(start, multiply(*stats, factor));
            }
        }
    }
}

fn multiply(stats: BucketStats, factor: i64) -> BucketStats {
    if stats.count == 0 || factor == 1 {
        return stats;
    }
    BucketStats {
        count: stats.count,
        sum: stats.sum * i128::from(factor),
        min: stats.min.saturating_mul(factor),
        max: stats.max.saturating_mul(factor),
        last: stats.last.saturating_mul(factor),
    }
}

/// Average in the unit of the series; `None` without values.
#[expect(clippy::cast_precision_loss, reason = "an average is not exact")]
pub fn average(stats: &BucketStats, decimals: u8) -> Option<f64> {
    let unit = unscale(1, decimals)?;
    (stats.count > 0).then(|| stats.sum as f64 / stats.count as f64 * unit)
}

/// Reason for missing rows, derived from the rows on both sides of the gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// Boot id changed: the host was off or restarted.
    HostRestarted,
    /// Same boot and consecutive sequence numbers: the agent did not run.
    AgentStopped,
    /// Same boot and skipped sequence numbers: the spool of the agent overflowed.
    DataLost,
    /// Rows do not contain enough information, for example buckets.
    Unknown,
}

impl GapKind {
    /// Stable name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostRestarted => "host_restarted",
            Self::AgentStopped => "agent_stopped",
            Self::DataLost => "data_lost",
            Self::Unknown => "unknown",
        }
    }
}

/// Time range between two rows without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Time of the last row before the gap, in milliseconds since 1970.
    pub from_ms: i64,
    /// Time of the first row after the gap, in milliseconds since 1970.
    pub to_ms: i64,
    /// Reason for the missing rows.
    pub kind: GapKind,
}

/// Time and sequence of a row, for gap detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapMarker {
    /// Time of the row, in milliseconds since 1970.
    pub at_ms: i64,
    /// Expected time to the next row, or bucket width, in milliseconds; 0 if unknown.
    pub interval_ms: i64,
    /// Boot and sequence number; `None` for buckets, and for rows of scripts, which state none.
    pub sequence: Option<(BootId, u64)>,
}

/// Finds gaps of more than 2.5 intervals between rows, which must be sorted by time. Between rows whose
/// interval is unknown there is no gap.
pub fn find_gaps(markers: &[GapMarker]) -> Vec<Gap> {
    let gap = |pair: &[GapMarker]| {
        let (before, after) = (pair[0], pair[1]);
        let interval_ms = match (before.interval_ms, after.interval_ms) {
            (before_ms @ 1.., after_ms @ 1..) => before_ms.min(after_ms).max(before_ms.min(1_000)),
            (before_ms, after_ms) => before_ms.max(after_ms),
        };
        if interval_ms <= 0 {
            return None;
        }
        (after.at_ms - before.at_ms > interval_ms * 5 / 2).then(|| {
            let kind = match (before.sequence, after.sequence) {
                (Some((boot, _)), Some((other, _))) if boot != other => GapKind::HostRestarted,
                (Some((_, seq)), Some((_, next))) if next == seq.wrapping_add(1) => GapKind::AgentStopped,
                (Some((_, seq)), Some((_, next))) if next > seq => GapKind::DataLost,
                _ => GapKind::Unknown,
            };
            Gap { from_ms: before.at_ms, to_ms: after.at_ms, kind }
        })
    };
    markers.windows(2).filter_map(gap).collect()
}
