//! Aggregation of series on a common time grid. A missing value is `NaN`, never zero.

use crate::request::Aggregation;
use perfwatch_model::unscale;
use perfwatch_tsdb::fill::{FillGrid, fill_between_samples};
use perfwatch_tsdb::query::{Points, average};

/// Values of a series at each point of the grid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MemberValues {
    pub(crate) mean: Vec<f64>,
    pub(crate) min: Vec<f64>,
    pub(crate) max: Vec<f64>,
}

impl MemberValues {
    /// Values of the points of a series.
    pub(crate) fn from_points(points: &Points) -> Self {
        let (stats, decimals) = (points.stats(), points.decimals());
        let scaled = |value| unscale(value, decimals).unwrap_or(f64::NAN);
        Self {
            mean: stats.iter().map(|stats| average(stats, decimals).unwrap_or(f64::NAN)).collect(),
            min: stats.iter().map(|stats| scaled(stats.min)).collect(),
            max: stats.iter().map(|stats| scaled(stats.max)).collect(),
        }
    }

    /// Fills points between samples of a series that is sampled less often than the grid has points.
    pub(crate) fn fill(&mut self, grid: FillGrid) {
        for values in [&mut self.mean, &mut self.min, &mut self.max] {
            fill_between_samples(values, grid);
        }
    }
}

/// Values of a group of series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupValues {
    pub(crate) v: Vec<f64>,
    /// Smallest and largest sample of each point, if the values are means.
    pub(crate) band: Option<(Vec<f64>, Vec<f64>)>,
    /// Number of hosts with a value at each point, if the values are sums.
    pub(crate) hosts: Option<Vec<u32>>,
}

impl GroupValues {
    /// Newest value; `NaN` without values.
    pub(crate) fn newest(&self) -> f64 {
        self.v.iter().rev().copied().find(|value| !value.is_nan()).unwrap_or(f64::NAN)
    }
}

#[derive(Debug, Clone, Copy)]
struct PointTotals {
    sum: f64,
    min: f64,
    max: f64,
    members: u32,
    hosts: u32,
}

/// Combines the series of a group, host by host.
#[derive(Debug)]
pub(crate) struct GroupAccumulator {
    aggregation: Aggregation,
    points: Vec<PointTotals>,
    /// Means of all series, for percentiles.
    members: Vec<Vec<f64>>,
}

impl GroupAccumulator {
    /// Group without series.
    pub(crate) fn new(aggregation: Aggregation, len: usize) -> Self {
        let empty =
            PointTotals { sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, members: 0, hosts: 0 };
        Self { aggregation, points: vec![empty; len], members: Vec::new() }
    }

    /// Adds the series of a host.
    pub(crate) fn add_host(&mut self, members: Vec<MemberValues>) {
        for (index, point) in self.points.iter_mut().enumerate() {
            let before = point.members;
            for member in &members {
                let mean = member.mean.get(index).copied().unwrap_or(f64::NAN);
                if mean.is_nan() {
                    continue;
                }
                point.members += 1;
                point.sum += mean;
                point.min = point.min.min(member.min[index]);
                point.max = point.max.max(member.max[index]);
            }
            point.hosts += u32::from(point.members > before);
        }
        if self.aggregation == Aggregation::P95 {
            self.members.extend(members.into_iter().map(|member| member.mean));
        }
    }

    /// Values of the group.
    pub(crate) fn finish(self) -> GroupValues {
        let column = |value: fn(&PointTotals) -> f64| -> Vec<f64> {
            let value = |point| if has_value(point) { value(point) } else { f64::NAN };
            self.points.iter().map(value).collect()
        };
        let (v, band) = match self.aggregation {
            Aggregation::Mean => {
                let band = (column(|point| point.min), column(|point| point.max));
                (column(|point| point.sum / f64::from(point.members)), Some(band))
            }
            Aggregation::Sum => (column(|point| point.sum), None),
            Aggregation::Min => (column(|point| point.min), None),
            Aggregation::Max => (column(|point| point.max), None),
            Aggregation::P95 => (percentiles(&self.members, self.points.len()), None),
        };
        let is_sum = self.aggregation == Aggregation::Sum;
        let hosts = is_sum.then(|| self.points.iter().map(|point| point.hosts).collect());
        GroupValues { v, band, hosts }
    }
}

fn has_value(point: &PointTotals) -> bool {
    point.members > 0
}

/// Value at 95 % by nearest rank, at each point.
fn percentiles(members: &[Vec<f64>], len: usize) -> Vec<f64> {
    let mut values = Vec::with_capacity(members.len());
    let percentile = |index: usize| {
        values.clear();
        values.extend(members.iter().map(|member| member[index]).filter(|value| !value.is_nan()));
        values.sort_unstable_by(f64::total_cmp);
        // The rank is rounded up and starts at 1.
        let rank = (values.len() * 95).div_ceil(100);
        rank.checked_sub(1).map_or(f64::NAN, |at| values[at])
    };
    (0..len).map(percentile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: f64 = f64::NAN;

    fn member(mean: &[f64]) -> MemberValues {
        let shifted = |by: f64| mean.iter().map(|value| value + by).collect();
        MemberValues { mean: mean.to_vec(), min: shifted(-1.0), max: shifted(1.0) }
    }

    /// Two hosts: the first with two instances. The last point has no value.
    fn aggregate(aggregation: Aggregation) -> GroupValues {
        let mut group = GroupAccumulator::new(aggregation, 4);
        group.add_host(vec![member(&[1.0, 2.0, GAP, GAP]), member(&[3.0, GAP, GAP, GAP])]);
        group.add_host(vec![member(&[8.0, 10.0, 5.0, GAP])]);
        group.finish()
    }

    fn assert_values(values: &[f64], expected: &[f64]) {
        let text = |values: &[f64]| format!("{values:?}");
        assert_eq!(text(values), text(expected));
    }

    #[test]
    fn groups_are_aggregated_over_what_reported() {
        for (aggregation, expected) in [
            (Aggregation::Mean, [4.0, 6.0, 5.0, GAP]),
            (Aggregation::Sum, [12.0, 12.0, 5.0, GAP]),
            (Aggregation::Min, [0.0, 1.0, 4.0, GAP]),
            (Aggregation::Max, [9.0, 11.0, 6.0, GAP]),
            (Aggregation::P95, [8.0, 10.0, 5.0, GAP]),
        ] {
            assert_values(&aggregate(aggregation).v, &expected);
        }
    }

    #[test]
    fn means_have_a_band_and_sums_count_their_hosts() {
        let mean = aggregate(Aggregation::Mean);
        let (min, max) = mean.band.clone().unwrap();
        assert_values(&min, &[0.0, 1.0, 4.0, GAP]);
        assert_values(&max, &[9.0, 11.0, 6.0, GAP]);
        assert_eq!((mean.newest(), mean.hosts), (5.0, None));
        let sum = aggregate(Aggregation::Sum);
        assert_eq!((sum.hosts, sum.band), (Some(vec![2, 2, 1, 0]), None));
    }

    #[test]
    fn percentile_is_the_nearest_rank() {
        for (count, expected) in [(1, 1.0), (10, 10.0), (20, 19.0), (100, 95.0)] {
            let members: Vec<Vec<f64>> = (1..=count).rev().map(|value| vec![f64::from(value)]).collect();
            assert_values(&percentiles(&members, 1), &[expected]);
        }
    }
}
