//! Query maths: which tier answers a range, and how ticks and buckets become the points of a
//! chart. A point keeps least and largest, so that a spike of one second shows in a month.

use crate::rollup::{BucketStats, Buckets, bucket_start};
use crate::table::Table;
use perfwatch_model::{BootId, MISSING, unscale};

/// How fine history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Every tick.
    Raw,
    /// Buckets of a minute.
    Minute,
    /// Buckets of an hour.
    Hour,
}

impl Tier {
    /// All, from fine to coarse.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Minute, Self::Hour];

    /// Width of its buckets, milliseconds; of ticks, one.
    pub fn width_ms(self) -> i64 {
        match self {
            Self::Raw => 1,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
        }
    }

    /// Time of which one block is made when it is over: an hour, a day, 30 days.
    pub fn window_ms(self) -> i64 {
        match self {
            Self::Raw => 3_600_000,
            Self::Minute => 86_400_000,
            Self::Hour => 30 * 86_400_000,
        }
    }

    /// The tier that is made of this one.
    pub fn coarser(self) -> Option<Self> {
        match self {
            Self::Raw => Some(Self::Minute),
            Self::Minute => Some(Self::Hour),
            Self::Hour => None,
        }
    }

    /// Its number in the database.
    pub fn id(self) -> i64 {
        match self {
            Self::Raw => 0,
            Self::Minute => 1,
            Self::Hour => 2,
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Minute => "1m",
            Self::Hour => "1h",
        }
    }
}

/// Widths of points that fall on round times.
const STEP_WIDTHS_S: [i64; 24] = [
    1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600,
    43_200, 86_400, 172_800, 604_800, 2_592_000,
];

/// The narrowest round width that needs no more than `points` for the range, milliseconds.
pub fn step_ms(range_ms: i64, points: usize) -> i64 {
    let points = i64::try_from(points.max(1)).unwrap_or(i64::MAX);
    let fits = |step: &&i64| range_ms / (**step * 1_000) < points;
    STEP_WIDTHS_S.iter().find(fits).map_or(range_ms / points + 1, |step| step * 1_000)
}

/// The coarsest tier whose buckets are no wider than a point.
pub fn tier_for(step_ms: i64) -> Tier {
    let fits = |tier: &&Tier| tier.width_ms() <= step_ms;
    Tier::ALL.iter().rev().find(fits).copied().unwrap_or(Tier::Raw)
}

/// Points of one series on a grid.
#[derive(Clone, Debug)]
pub struct Points {
    /// Start of the first, milliseconds since 1970: a multiple of the width.
    pub from_ms: i64,
    /// Their width.
    pub step_ms: i64,
    /// Figures in whole numbers of the finest decimals seen.
    stats: Vec<BucketStats>,
    decimals: u8,
}

impl Points {
    /// A grid over a range, nothing in it yet.
    pub fn new(from_ms: i64, to_ms: i64, step_ms: i64) -> Self {
        let first = bucket_start(from_ms, step_ms);
        let count = usize::try_from((to_ms - first).max(0) / step_ms + 1).unwrap_or_default();
        Self { from_ms: first, step_ms, stats: vec![BucketStats::EMPTY; count], decimals: 0 }
    }

    /// How many points.
    pub fn len(&self) -> usize {
        self.stats.len()
    }

    /// Whether the grid has none.
    pub fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }

    /// Decimals of the whole numbers in the figures.
    pub fn decimals(&self) -> u8 {
        self.decimals
    }

    /// The figures, point by point.
    pub fn stats(&self) -> &[BucketStats] {
        &self.stats
    }

    fn add(&mut self, at_ms: i64, figures: BucketStats) {
        let Ok(place) = usize::try_from((at_ms - self.from_ms).div_euclid(self.step_ms)) else {
            return;
        };
        if let Some(point) = self.stats.get_mut(place) {
            *point = point.merge(figures);
        }
    }

    /// Numbers of this precision come next; what is there is brought to the finer of both.
    fn rescale(&mut self, decimals: u8) -> i64 {
        let raise = |from: u8, to: u8| 10i64.pow(u32::from(to.saturating_sub(from)).min(12));
        let (mine, theirs) = (raise(self.decimals, decimals), raise(decimals, self.decimals));
        if mine > 1 {
            self.stats.iter_mut().for_each(|figures| *figures = multiply(*figures, mine));
            self.decimals = decimals;
        }
        theirs
    }

    /// Adds a column of ticks, those in `from_ms..to_ms`.
    pub fn add_ticks(&mut self, table: &Table, column: usize, from_ms: i64, to_ms: i64) {
        let factor = self.rescale(table.shape.columns()[column].decimals);
        for (row, &at) in table.at_ms.iter().enumerate() {
            let value = table.columns[column].get(row).copied().unwrap_or(MISSING);
            if (from_ms..to_ms).contains(&at) && value != MISSING {
                self.add(at, multiply(BucketStats::from_value(value), factor));
            }
        }
    }

    /// Adds a column of buckets, those that start in `from_ms..to_ms`.
    pub fn add_buckets(&mut self, buckets: &Buckets, column: usize, from_ms: i64, to_ms: i64) {
        let factor = self.rescale(buckets.shape.columns()[column].decimals);
        for (row, &start) in buckets.start_ms.iter().enumerate() {
            if (from_ms..to_ms).contains(&start)
                && let Some(figures) = buckets.columns[column].0.get(row)
            {
                self.add(start, multiply(*figures, factor));
            }
        }
    }
}

fn multiply(figures: BucketStats, factor: i64) -> BucketStats {
    if figures.count == 0 || factor == 1 {
        return figures;
    }
    BucketStats {
        count: figures.count,
        sum: figures.sum * i128::from(factor),
        min: figures.min.saturating_mul(factor),
        max: figures.max.saturating_mul(factor),
        last: figures.last.saturating_mul(factor),
    }
}

/// The average of figures, in the series' own unit.
#[expect(clippy::cast_precision_loss, reason = "an average is not exact")]
pub fn average(figures: &BucketStats, decimals: u8) -> Option<f64> {
    let unit = unscale(1, decimals)?;
    (figures.count > 0).then(|| figures.sum as f64 / figures.count as f64 * unit)
}

/// Why there is nothing between two rows, as far as the rows on both sides tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// The kernel on the other side is another one: the host was off or restarted.
    HostRestarted,
    /// Same kernel, and the agent counted on from where it was: it did not run.
    AgentStopped,
    /// Same kernel, and the agent counted while nothing arrived: its spool overflowed.
    DataLost,
    /// Nothing tells.
    Unknown,
}

impl GapKind {
    /// What the API says.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostRestarted => "host_restarted",
            Self::AgentStopped => "agent_off",
            Self::DataLost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// A stretch without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last row before.
    pub from_ms: i64,
    /// The first row after.
    pub to_ms: i64,
    /// Why.
    pub kind: GapKind,
}

/// What a row says about gaps beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapMarker {
    /// When.
    pub at_ms: i64,
    /// The time it stands for.
    pub interval_ms: i64,
    /// Which run of the kernel; none for buckets.
    pub tick: Option<(BootId, u64)>,
}

/// Finds the gaps between rows that are in the order of time.
pub fn find_gaps(marks: &[GapMarker]) -> Vec<Gap> {
    let gap = |pair: &[GapMarker]| {
        let (before, after) = (pair[0], pair[1]);
        let rhythm = before.interval_ms.min(after.interval_ms).max(before.interval_ms.min(1_000)).max(1);
        (after.at_ms - before.at_ms > rhythm * 5 / 2).then(|| {
            let kind = match (before.tick, after.tick) {
                (Some((boot, _)), Some((other, _))) if boot != other => GapKind::HostRestarted,
                (Some((_, seq)), Some((_, next))) if next == seq.wrapping_add(1) => GapKind::AgentStopped,
                (Some((_, seq)), Some((_, next))) if next > seq => GapKind::DataLost,
                _ => GapKind::Unknown,
            };
            Gap { from_ms: before.at_ms, to_ms: after.at_ms, kind }
        })
    };
    marks.windows(2).filter_map(gap).collect()
}
