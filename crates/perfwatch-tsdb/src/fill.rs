//! Fills points between the samples of a series that is sampled less often than its grid has points. A missing value
//! is `NaN`.

/// Grid and sampling interval for the filling of points between samples.
#[derive(Debug, Clone, Copy)]
pub struct FillGrid {
    /// Start of the first point, Unix milliseconds.
    pub start_ms: i64,
    /// Width of a point in milliseconds.
    pub step_ms: i64,
    /// Expected time between samples in milliseconds; 0 if unknown.
    pub interval_ms: i64,
    /// End of the range, or the current time if it is earlier.
    pub end_ms: i64,
}

/// Repeats the value before empty points if the samples around them are at most 2.5 intervals apart, which is no
/// gap. At the end of the range, the newest value is repeated until the next sample is overdue.
pub fn fill_between_samples(values: &mut [f64], grid: FillGrid) {
    let FillGrid { start_ms, step_ms, interval_ms, end_ms } = grid;
    let gap_ms = interval_ms * 5 / 2;
    let time = |index: usize| i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(step_ms);
    let mut previous: Option<usize> = None;
    for index in 0..values.len() {
        if values[index].is_nan() {
            continue;
        }
        if let Some(before) = previous
            && index > before + 1
            && time(index - before) <= gap_ms
        {
            let value = values[before];
            values[before + 1..index].fill(value);
        }
        previous = Some(index);
    }
    let Some(newest) = previous else { return };
    let value = values[newest];
    for (index, point) in values.iter_mut().enumerate().skip(newest + 1) {
        let at_ms = start_ms.saturating_add(time(index));
        let is_due = at_ms >= end_ms - gap_ms && time(index - newest) <= gap_ms.max(step_ms);
        if at_ms >= end_ms || !is_due {
            break;
        }
        *point = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: f64 = f64::NAN;

    fn assert_values(values: &[f64], expected: &[f64]) {
        let text = |values: &[f64]| format!("{values:?}");
        assert_eq!(text(values), text(expected));
    }

    #[test]
    fn points_between_samples_are_filled_and_gaps_are_not() {
        for (interval_ms, end_ms, values, expected) in [
            // A sample every 2 points; the last value holds until the range ends.
            (
                2_000,
                9_000,
                vec![1.0, GAP, 2.0, GAP, 3.0, GAP, 4.0, GAP, GAP],
                [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0],
            ),
            // Six points between samples are more than 2.5 intervals.
            (
                2_000,
                9_000,
                vec![1.0, GAP, GAP, GAP, GAP, GAP, 2.0, 3.0, 4.0],
                [1.0, GAP, GAP, GAP, GAP, GAP, 2.0, 3.0, 4.0],
            ),
            // The host has been silent for too long.
            (
                1_000,
                9_000,
                vec![1.0, 2.0, 3.0, GAP, GAP, GAP, GAP, GAP, GAP],
                [1.0, 2.0, 3.0, GAP, GAP, GAP, GAP, GAP, GAP],
            ),
            // Points after the end of the range stay empty.
            (
                4_000,
                4_000,
                vec![1.0, 2.0, 3.0, GAP, GAP, GAP, GAP, GAP, GAP],
                [1.0, 2.0, 3.0, 3.0, GAP, GAP, GAP, GAP, GAP],
            ),
            // The interval is unknown.
            (
                0,
                9_000,
                vec![1.0, GAP, 3.0, GAP, GAP, GAP, GAP, GAP, GAP],
                [1.0, GAP, 3.0, GAP, GAP, GAP, GAP, GAP, GAP],
            ),
        ] {
            let mut values = values;
            fill_between_samples(&mut values, FillGrid { start_ms: 0, step_ms: 1_000, interval_ms, end_ms });
            assert_values(&values, &expected);
        }
        // A wide point that began a second ago has the value of the point before it, if no sample is overdue.
        for (interval_ms, expected) in [(2_000, [5.0, 5.0]), (200, [5.0, GAP])] {
            let mut values = [5.0, GAP];
            let grid = FillGrid { start_ms: 0, step_ms: 300_000, interval_ms, end_ms: 301_000 };
            fill_between_samples(&mut values, grid);
            assert_values(&values, &expected);
        }
    }
}
