//! Human-readable durations in configuration, rules and queries: `500ms`, `2s`, `5m`, `1h30m`, `7d`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Duration in whole milliseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(i64);

const DURATION_UNITS: [(&str, i64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bound of durations in texts: about 100,000 years.
const MAX_PARSED_MS: i64 = 4_000_000_000_000_000;

impl HumanDuration {
    /// Creates a duration of `ms` milliseconds; negative values become zero.
    pub const fn from_ms(ms: i64) -> Self {
        Self(if ms < 0 { 0 } else { ms })
    }

    /// Creates a duration of whole seconds; negative values become zero.
    pub const fn from_s(seconds: i64) -> Self {
        Self::from_ms(seconds.saturating_mul(1_000))
    }

    /// Length of the duration in milliseconds.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Parses `1h30m`, `1.5h`, or seconds without a unit; `None` for invalid text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut remaining = text.trim();
        if remaining.is_empty() {
            return None;
        }
        let mut ms = 0_i64;
        while !remaining.is_empty() {
            let digits = remaining.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(remaining.len());
            let number: f64 = remaining[..digits].parse().ok()?;
            remaining = remaining[digits..].trim_start();
            let letters = remaining.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(remaining.len());
            let factor = match &remaining[..letters] {
                "" => 1_000,
                "min" => 60_000,
                unit => DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1,
            };
            remaining = remaining[letters..].trim_start();
            ms += to_whole_ms(number * f64::from(i32::try_from(factor).ok()?))?;
            if ms >= MAX_PARSED_MS {
                return None;
            }
        }
        Some(Self(ms))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "below 2^53 ms")]
fn to_whole_ms(ms: f64) -> Option<i64> {
    (ms.is_finite() && ms < MAX_PARSED_MS as f64).then(|| ms.round() as i64)
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut remaining = self.0;
        for (unit, ms) in DURATION_UNITS.into_iter().filter(|(unit, _)| *unit != "w") {
            let count = remaining / ms;
            remaining %= ms;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "expected a duration such as 500ms, 2s or 5m";
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a duration such as 500ms, 2s or 5m")]
        enum DurationInput {
            Seconds(f64),
            Text(String),
        }
        let duration = match DurationInput::deserialize(deserializer)? {
            DurationInput::Seconds(seconds) => to_whole_ms(seconds * 1_000.0).filter(|ms| *ms >= 0).map(Self),
            DurationInput::Text(text) => Self::parse(&text),
        };
        duration.ok_or_else(|| serde::de::Error::custom(EXPECTED))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for HumanDuration {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String);
        text.description(Some("Duration, for example `10s`, `5m`, `1h30m` or `7d`")).examples(["5m"]).into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for HumanDuration {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_round_trips() {
        for (text, ms, formatted) in [
            ("500ms", 500, "500ms"),
            ("2s", 2_000, "2s"),
            ("90", 90_000, "1m30s"),
            ("1.5h", 5_400_000, "1h30m"),
            (" 5 min ", 300_000, "5m"),
            ("1h 30m", 5_400_000, "1h30m"),
            ("2w", 1_209_600_000, "14d"),
            ("0", 0, "0s"),
        ] {
            let duration = HumanDuration::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((duration.ms(), duration.to_string().as_str()), (ms, formatted), "{text}");
            assert_eq!(HumanDuration::parse(formatted), Some(duration));
        }
        for text in
            ["", "m", "-5s", "5 parsecs", "1e300d", "5..s", "99999999999999999999d", "46296200d 1000d", "s5"]
        {
            assert_eq!(HumanDuration::parse(text), None, "{text}");
        }
        assert_eq!(serde_json::from_str::<HumanDuration>("2.5").unwrap().ms(), 2_500);
        assert!(
            serde_json::from_str::<HumanDuration>("-1").is_err()
                && serde_json::from_str::<HumanDuration>("\"x\"").is_err()
        );
    }
}
