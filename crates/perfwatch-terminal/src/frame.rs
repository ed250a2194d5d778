//! Data of the view: a snapshot with its resolution, and the ribbon of a time range.

use perfwatch_model::Snapshot;
use std::sync::Arc;

/// Snapshot of the host with its resolution.
#[derive(Clone, Debug)]
pub struct HostFrame {
    /// Values, processes, facts and errors.
    pub snapshot: Arc<Snapshot>,
    /// Time that the values cover in milliseconds: the collection interval, a minute or an hour.
    pub resolution_ms: i64,
    /// True if the values are averages of a roll-up, which has no processes.
    pub is_rolled_up: bool,
}

impl HostFrame {
    /// Frame of a snapshot as it was collected.
    pub fn from_snapshot(snapshot: Arc<Snapshot>) -> Self {
        Self { resolution_ms: i64::from(snapshot.interval_ms), is_rolled_up: false, snapshot }
    }

    /// Collection time, milliseconds since 1970.
    pub fn at_ms(&self) -> i64 {
        self.snapshot.at_ms
    }
}

/// CPU and memory usage over a time range, in percent. Missing values are gaps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ribbon {
    /// Start of the range, milliseconds since 1970.
    pub from_ms: i64,
    /// End of the range, milliseconds since 1970.
    pub to_ms: i64,
    /// Times of the points in ascending order, milliseconds since 1970.
    pub times_ms: Vec<i64>,
    /// CPU usage of each point; the maximum if a point covers several samples.
    pub cpu: Vec<Option<f64>>,
    /// Memory usage of each point; the maximum if a point covers several samples.
    pub memory: Vec<Option<f64>>,
}

impl Ribbon {
    /// Returns whether the range contains the time.
    pub fn covers(&self, at_ms: i64) -> bool {
        (self.from_ms..=self.to_ms).contains(&at_ms)
    }

    /// Reduces a lane of the ribbon to `width` columns, each with the maximum of its points. A point also fills
    /// the columns up to the next point if the ribbon has fewer points than columns.
    pub fn columns(&self, lane: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
        let mut columns = vec![None; width];
        // Points farther apart than twice the usual distance enclose a gap.
        let mut distances: Vec<i64> = self.times_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
        distances.sort_unstable();
        let usual_ms = distances.get(distances.len() / 2).copied().unwrap_or(0);
        for (index, (at_ms, value)) in self.times_ms.iter().zip(lane).enumerate() {
            let (Some(first), Some(value)) = (self.column(*at_ms, width), value) else { continue };
            let next_ms = self.times_ms.get(index + 1).copied().unwrap_or(at_ms + usual_ms);
            let end_ms = next_ms.min(at_ms + 2 * usual_ms).min(self.to_ms + 1) - 1;
            let last = self.column(end_ms.max(*at_ms), width).unwrap_or(first);
            for column in &mut columns[first..=last] {
                *column = Some(column.map_or(*value, |largest: f64| largest.max(*value)));
            }
        }
        columns
    }

    /// Column of a time; `None` outside the range.
    pub fn column(&self, at_ms: i64, width: usize) -> Option<usize> {
        let span_ms = self.to_ms - self.from_ms;
        if !self.covers(at_ms) || span_ms <= 0 || width == 0 {
            return None;
        }
        let scaled = i128::from(at_ms - self.from_ms) * width as i128 / i128::from(span_ms);
        usize::try_from(scaled).ok().map(|column| column.min(width - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ribbon_columns_have_maxima_and_gaps() {
        let ribbon = Ribbon {
            from_ms: 0,
            to_ms: 100,
            times_ms: vec![0, 5, 10, 15, 20, 80, 85],
            cpu: vec![Some(1.0), Some(9.0), Some(2.0), None, Some(3.0), Some(7.0), Some(8.0)],
            memory: Vec::new(),
        };
        let expected =
            [Some(9.0), Some(2.0), Some(3.0), None, None, None, None, None, Some(8.0), None].to_vec();
        assert_eq!(ribbon.columns(&ribbon.cpu, 10), expected);
        // Fewer points than columns.
        let wide =
            Ribbon { from_ms: 0, to_ms: 4, times_ms: vec![0, 2], cpu: vec![Some(1.0), Some(2.0)], ..ribbon };
        assert_eq!(wide.columns(&wide.cpu, 4), [Some(1.0), Some(1.0), Some(2.0), Some(2.0)]);
        assert!(wide.columns(&wide.cpu, 0).is_empty());
    }

    #[test]
    fn ribbon_column_of_a_time_is_within_the_width() {
        let ribbon = Ribbon { from_ms: 1_000, to_ms: 2_000, ..Ribbon::default() };
        for (at_ms, expected) in
            [(999, None), (1_000, Some(0)), (1_500, Some(5)), (2_000, Some(9)), (2_001, None)]
        {
            assert_eq!(ribbon.column(at_ms, 10), expected, "{at_ms}");
        }
    }
}
