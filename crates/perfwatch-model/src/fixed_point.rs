//! Fixed-point samples: 12.34 % with two decimals is stored as the integer 1234.
//!
//! Samples are rounded once, at the source: rounding compresses better than any later codec, and
//! integers are exact on the wire, on disk and in roll-ups.

/// Marker of a missing sample. [`scale`] never returns it for a finite value.
pub const MISSING: i64 = i64::MIN;

/// Maximum number of decimals of a metric.
pub const MAX_DECIMALS: u8 = 6;

/// Largest scaled magnitude, 2^62 − 1: the difference of any two values fits into 64 bits. For bytes
/// this is 4 EiB. Above 2^53 a floating-point number does not represent every integer; sizes of
/// filesystems are multiples of a large power of two and stay exact.
pub const MAX_SCALED: i64 = (1 << 62) - 1;

const POWERS_OF_TEN: [f64; MAX_DECIMALS as usize + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
const INTEGER_POWERS_OF_TEN: [u64; MAX_DECIMALS as usize + 1] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Rounds a value to the given decimals and scales it; [`MISSING`] for NaN, infinities and values of more
/// than 2^62 units of precision.
pub fn scale(value: f64, decimals: u8) -> i64 {
    let scaled = value * POWERS_OF_TEN[usize::from(decimals.min(MAX_DECIMALS))];
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates; the range is checked below")]
    let integer = scaled.round() as i64;
    if scaled.is_nan() || integer.unsigned_abs() > MAX_SCALED.unsigned_abs() { MISSING } else { integer }
}

/// Reverses [`scale`]; `None` for [`MISSING`].
#[expect(clippy::cast_precision_loss, reason = "a larger value than 2^53 is rounded to 53 bits")]
pub fn unscale(scaled: i64, decimals: u8) -> Option<f64> {
    (scaled != MISSING).then(|| scaled as f64 / POWERS_OF_TEN[usize::from(decimals.min(MAX_DECIMALS))])
}

/// Writes the exact decimal text of a scaled value (`1230`, 2 → `12.3`), or `null` if missing.
pub fn write_scaled(out: &mut String, scaled: i64, decimals: u8) {
    use std::fmt::Write as _;
    if scaled == MISSING {
        out.push_str("null");
        return;
    }
    let power = INTEGER_POWERS_OF_TEN[usize::from(decimals.min(MAX_DECIMALS))];
    let magnitude = scaled.unsigned_abs();
    if scaled < 0 {
        out.push('-');
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "{}", magnitude / power);
    let fraction = magnitude % power;
    if fraction != 0 {
        let width = usize::from(decimals);
        let _ = write!(out, ".{fraction:0width$}");
        while out.ends_with('0') {
            out.pop();
        }
    }
}

/// Writes a number rounded to the given decimals, without trailing zeros.
pub fn write_rounded(out: &mut String, value: f64, decimals: u8) {
    let decimals = decimals.min(MAX_DECIMALS);
    write_scaled(out, scale(value, decimals), decimals);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scales_and_writes() {
        for (value, decimals, text) in [
            (12.34, 2, "12.34"),
            (12.3, 2, "12.3"),
            (12.0, 2, "12"),
            (0.05, 2, "0.05"),
            (-0.5, 1, "-0.5"),
            (0.0, 0, "0"),
            (-0.001, 1, "0"),
            (22_517_998_136_852_480.0, 0, "22517998136852480"),
            (-4e18, 0, "-4000000000000000000"),
            (5e18, 0, "null"),
            (1e15, 6, "null"),
        ] {
            let mut out = String::new();
            write_scaled(&mut out, scale(value, decimals), decimals);
            assert_eq!(out, text, "{value} with {decimals} decimals");
        }
    }

    #[test]
    fn nan_is_missing() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
            assert_eq!(scale(value, 2), MISSING, "{value}");
        }
        assert_eq!(unscale(MISSING, 2), None);
    }

    proptest! {
        #[test]
        fn scaled_text_equals_value(scaled in -(1_i64 << 53)..=1_i64 << 53, decimals in 0u8..=6) {
            let mut out = String::new();
            write_scaled(&mut out, scaled, decimals);
            let parsed: f64 = out.parse().unwrap();
            let value = unscale(scaled, decimals).unwrap();
            prop_assert!((parsed - value).abs() <= value.abs() * 1e-15);
        }
    }
}
