//! Text of values with their unit, as the charts of the dashboard show them
//! (`web/src/lib/format.ts`): bytes with binary prefixes, other quantities with decimal prefixes.

use crate::catalog::Unit;

const BINARY_PREFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL_PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
/// Units of a duration in seconds, largest first.
const DURATION_UNITS: [(f64, &str); 4] = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s")];
/// Text of a missing or infinite value.
const NO_VALUE: &str = "–";

/// Formats a value with its unit: `97.2 %`, `1.43 GiB`, `12 ms`, `2 min 10 s`.
pub fn format_value(value: f64, unit: Option<Unit>) -> String {
    if !value.is_finite() {
        return NO_VALUE.to_owned();
    }
    match unit {
        Some(Unit::Percent) => format!("{} %", format_number(value)),
        Some(Unit::Bytes) => format_bytes(value),
        Some(Unit::BytesPerSecond) => format!("{}/s", format_bytes(value)),
        Some(Unit::PerSecond) => format!("{}/s", format_count(value)),
        Some(Unit::Milliseconds) if value.abs() < 999.5 => format!("{} ms", format_number(value)),
        Some(Unit::Milliseconds) => format_duration(value / 1_000.0),
        Some(Unit::Seconds) => format_duration(value),
        Some(Unit::Celsius) => format!("{} °C", format_number(value)),
        Some(Unit::Megahertz) if value.abs() < 999.5 => format!("{} MHz", format_number(value)),
        Some(Unit::Megahertz) => format!("{} GHz", format_number(value / 1_000.0)),
        Some(Unit::BitsPerSecond) => format_prefixed(value, 1_000.0, &DECIMAL_PREFIXES, "bit/s"),
        Some(Unit::Rpm) => format!("{} rpm", format_number(value)),
        Some(Unit::Flag) => (if value == 0.0 { "no" } else { "yes" }).to_owned(),
        Some(Unit::Count) | None => format_count(value),
    }
}

/// Formats an amount of data: `1023 B`, `1.5 KiB`.
pub fn format_bytes(bytes: f64) -> String {
    format_prefixed(bytes, 1_024.0, &BINARY_PREFIXES, "B")
}

/// Formats a duration in seconds with at most two units: `1.5 s`, `2 min 10 s`, `365 d`.
pub fn format_duration(seconds: f64) -> String {
    let magnitude = seconds.abs();
    // Less than a minute has decimals, as long as rounding does not complete the minute.
    if magnitude < 59.95 {
        return format!("{} s", format_number(seconds));
    }
    let whole = if magnitude < 60.0 { 60.0 } else { magnitude.floor() };
    let first =
        DURATION_UNITS.iter().position(|(size, _)| whole >= *size).unwrap_or(DURATION_UNITS.len() - 1);
    let (size, name) = DURATION_UNITS[first];
    let sign = if seconds < 0.0 { "-" } else { "" };
    let mut text = format!("{sign}{} {name}", (whole / size).floor());
    if let Some((next_size, next_name)) = DURATION_UNITS.get(first + 1) {
        let remainder = (whole % size / next_size).floor();
        if remainder > 0.0 {
            text.push_str(&format!(" {remainder} {next_name}"));
        }
    }
    text
}

/// Formats a number with about three significant digits and without trailing zeros.
fn format_number(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude >= 99.95 => 0,
        magnitude if magnitude >= 9.995 => 1,
        magnitude if magnitude >= 0.01 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    (if text == "-0" { "0" } else { text }).to_owned()
}

/// Formats a number of things: whole below 10,000, with a decimal prefix above.
fn format_count(value: f64) -> String {
    if value.abs() < 10_000.0 {
        return format_number(value);
    }
    let text = format_prefixed(value, 1_000.0, &DECIMAL_PREFIXES, "");
    text.trim_end().to_owned()
}

fn format_prefixed(value: f64, step: f64, prefixes: &[&str], unit: &str) -> String {
    let (mut scaled, mut index) = (value, 0);
    // A value that rounds to the next prefix gets it: 1023.9 KiB is 1 MiB.
    while scaled.abs() >= step * 0.9995 && index + 1 < prefixes.len() {
        scaled /= step;
        index += 1;
    }
    let number =
        if index == 0 && step > 1_000.0 { format!("{:.0}", scaled + 0.0) } else { format_number(scaled) };
    format!("{number} {}{unit}", prefixes[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_formatted_with_units() {
        for (value, unit, expected) in [
            (97.23, Some(Unit::Percent), "97.2 %"),
            (90.0, Some(Unit::Percent), "90 %"),
            (100.0, Some(Unit::Percent), "100 %"),
            (-0.5, Some(Unit::Percent), "-0.5 %"),
            (-250.4, Some(Unit::Percent), "-250 %"),
            (0.0, Some(Unit::Bytes), "0 B"),
            (1_023.0, Some(Unit::Bytes), "1023 B"),
            (1_024.0, Some(Unit::Bytes), "1 KiB"),
            (1_048_575.0, Some(Unit::Bytes), "1 MiB"),
            (1_532_000_000.0, Some(Unit::Bytes), "1.43 GiB"),
            (-5_368_709_120.0, Some(Unit::Bytes), "-5 GiB"),
            (16_642_998_272.0, Some(Unit::Bytes), "15.5 GiB"),
            (4e18, Some(Unit::Bytes), "3.47 EiB"),
            (153_600.0, Some(Unit::BytesPerSecond), "150 KiB/s"),
            (999.0, Some(Unit::BytesPerSecond), "999 B/s"),
            (0.004, Some(Unit::PerSecond), "0.004/s"),
            (12_345.0, Some(Unit::PerSecond), "12.3 k/s"),
            (0.42, Some(Unit::Milliseconds), "0.42 ms"),
            (999.0, Some(Unit::Milliseconds), "999 ms"),
            (1_500.0, Some(Unit::Milliseconds), "1.5 s"),
            (30_000.0, Some(Unit::Milliseconds), "30 s"),
            (130_000.0, Some(Unit::Milliseconds), "2 min 10 s"),
            (-130_000.0, Some(Unit::Milliseconds), "-2 min 10 s"),
            (31_536_000_001.0, Some(Unit::Milliseconds), "365 d"),
            (59.97, Some(Unit::Seconds), "1 min"),
            (90_061.0, Some(Unit::Seconds), "1 d 1 h"),
            (2_600.0, Some(Unit::Megahertz), "2.6 GHz"),
            (71.25, Some(Unit::Celsius), "71.2 °C"),
            (-12_500.0, Some(Unit::BitsPerSecond), "-12.5 kbit/s"),
            (1e9, Some(Unit::BitsPerSecond), "1 Gbit/s"),
            (1_200.0, Some(Unit::Rpm), "1200 rpm"),
            (1.0, Some(Unit::Flag), "yes"),
            (3.0, None, "3"),
            (-0.00001, None, "0"),
            (4_711.0, Some(Unit::Count), "4711"),
            (2_500_000.0, Some(Unit::Count), "2.5 M"),
            (f64::NAN, Some(Unit::Bytes), "–"),
            (f64::INFINITY, None, "–"),
        ] {
            assert_eq!(format_value(value, unit), expected, "{value} {unit:?}");
        }
    }
}
