//! Linear forecast of a series: a least-squares line, used only if it fits the points.

use crate::condition::Comparison;

/// Minimum number of points for a forecast.
pub const MIN_POINTS: usize = 10;
/// Minimum coefficient of determination (R²). A line that fits less is not used.
const MIN_R_SQUARED: f64 = 0.7;

/// Time in milliseconds from the last point until the line reaches `target`, from below (`Above`) or
/// from above (`Below`). Returns 0 if the last point is at or beyond the target, and `None` if the
/// line leads away from the target or does not fit.
#[expect(clippy::cast_precision_loss, reason = "days in milliseconds fit into 52 bits")]
pub fn time_to_target_ms(points: &[(i64, f64)], target: f64, compare: Comparison) -> Option<f64> {
    let (&(first_ms, _), &(last_ms, last)) = (points.first()?, points.last()?);
    let distance = target - last;
    if distance == 0.0 || (distance < 0.0) == (compare == Comparison::Above) {
        return Some(0.0);
    }
    if points.len() < MIN_POINTS || last_ms <= first_ms {
        return None;
    }
    let count = points.len() as f64;
    let x = |at_ms: i64| (at_ms - first_ms) as f64;
    let mean_x = points.iter().map(|(at, _)| x(*at)).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let sum = |product: &dyn Fn(f64, f64) -> f64| {
        points.iter().map(|(at, y)| product(x(*at) - mean_x, y - mean_y)).sum::<f64>()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if xx <= 0.0 || yy <= 0.0 || xy * xy / (xx * yy) < MIN_R_SQUARED {
        return None;
    }
    let slope = xy / xx;
    // A slope with the opposite sign leads away from the target.
    ((distance > 0.0) == (slope > 0.0)).then(|| distance / slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn linear_fill_is_forecast() {
        let rising: Vec<(i64, f64)> =
            (0..60).map(|minute| (minute * 60_000, 50.0 + minute as f64 / 6.0)).collect();
        let time_up = |points: &[(i64, f64)], target| time_to_target_ms(points, target, Comparison::Above);
        let time_ms = time_up(&rising, 100.0).unwrap();
        assert!((time_ms / HOUR as f64 - 4.0).abs() < 0.1, "{time_ms}");
        assert_eq!(time_to_target_ms(&rising, 10.0, Comparison::Below), None, "the line leads away");
        assert_eq!(time_up(&rising, 55.0), Some(0.0), "already beyond the target");
        assert_eq!(time_up(&rising[..5], 100.0), None, "too few points");
        let noise: Vec<(i64, f64)> = (0..60).map(|n| (n * 60_000, [20.0, 80.0][n as usize % 2])).collect();
        assert_eq!(time_up(&noise, 100.0), None, "the line does not fit");
        let flat: Vec<(i64, f64)> = (0..60).map(|n| (n * 60_000, 42.0)).collect();
        assert_eq!((time_up(&flat, 100.0), time_up(&flat, 42.0)), (None, Some(0.0)));
        let falling: Vec<(i64, f64)> = rising.iter().map(|(at, value)| (*at, 100.0 - value)).collect();
        assert!(time_to_target_ms(&falling, 0.0, Comparison::Below).is_some());
    }

    proptest! {
        #[test]
        fn forecast_is_never_negative_or_nan(
            points in prop::collection::vec((0i64..1_000_000_000, -1e12f64..1e12), 0..50),
            target in -1e12f64..1e12,
        ) {
            let mut points = points;
            points.sort_by_key(|(at, _)| *at);
            if let Some(time_ms) = time_to_target_ms(&points, target, Comparison::Above) {
                prop_assert!(time_ms.is_finite() && time_ms >= 0.0);
            }
        }
    }
}
