//! When a series that goes on as it went will reach a value: a straight line through what was
//! (least squares), believed only where it fits.

use crate::condition::Comparison;

/// Points fewer than this make no line.
pub const MIN_POINTS: usize = 10;
/// A line that explains less of what was than this share is none.
const MIN_R_SQUARED: f64 = 0.7;

/// Milliseconds from the last point until the line is at `reaches`, coming from below it (`Above`)
/// or from above; 0 where it is there or beyond; none where it never is, or is no line.
#[expect(clippy::cast_precision_loss, reason = "times of some days, to a millisecond")]
pub fn time_to_target_ms(points: &[(i64, f64)], reaches: f64, compare: Comparison) -> Option<f64> {
    let (&(first_ms, _), &(last_ms, last)) = (points.first()?, points.last()?);
    let left = reaches - last;
    if left == 0.0 || (left < 0.0) == (compare == Comparison::Above) {
        return Some(0.0);
    }
    if points.len() < MIN_POINTS || last_ms <= first_ms {
        return None;
    }
    let count = points.len() as f64;
    let x = |at_ms: i64| (at_ms - first_ms) as f64;
    let mean_x = points.iter().map(|(at, _)| x(*at)).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        points.iter().map(|(at, y)| of(x(*at) - mean_x, y - mean_y)).sum::<f64>()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if xx <= 0.0 || yy <= 0.0 || xy * xy / (xx * yy) < MIN_R_SQUARED {
        return None;
    }
    let slope = xy / xx;
    // Going the other way.
    ((left > 0.0) == (slope > 0.0)).then(|| left / slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn linear_fill_is_forecast() {
        let fills: Vec<(i64, f64)> =
            (0..60).map(|minute| (minute * 60_000, 50.0 + minute as f64 / 6.0)).collect();
        let up = |points: &[(i64, f64)], reaches| time_to_target_ms(points, reaches, Comparison::Above);
        let left = up(&fills, 100.0).unwrap();
        assert!((left / HOUR as f64 - 4.0).abs() < 0.1, "{left}");
        assert_eq!(time_to_target_ms(&fills, 10.0, Comparison::Below), None, "it goes the other way");
        assert_eq!(up(&fills, 55.0), Some(0.0), "it is beyond");
        assert_eq!(up(&fills[..5], 100.0), None, "too little");
        let noise: Vec<(i64, f64)> = (0..60).map(|n| (n * 60_000, [20.0, 80.0][n as usize % 2])).collect();
        assert_eq!(up(&noise, 100.0), None, "no line");
        let flat: Vec<(i64, f64)> = (0..60).map(|n| (n * 60_000, 42.0)).collect();
        assert_eq!((up(&flat, 100.0), up(&flat, 42.0)), (None, Some(0.0)));
        let falls: Vec<(i64, f64)> = fills.iter().map(|(at, value)| (*at, 100.0 - value)).collect();
        assert!(time_to_target_ms(&falls, 0.0, Comparison::Below).is_some());
    }

    proptest! {
        #[test]
        fn forecast_is_never_negative_or_nan(points in prop::collection::vec((0i64..1_000_000_000, -1e12f64..1e12), 0..50), reaches in -1e12f64..1e12) {
            let mut points = points;
            points.sort_by_key(|(at, _)| *at);
            if let Some(left) = time_to_target_ms(&points, reaches, Comparison::Above) {
                prop_assert!(left.is_finite() && left >= 0.0);
            }
        }
    }
}
