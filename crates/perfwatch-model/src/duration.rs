//! A span of time as people write it, in configuration, rules and queries: `500ms`, `2s`, `5m`,
//! `1h30m`, `7d`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Milliseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(i64);

const DURATION_UNITS: [(&str, i64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl HumanDuration {
    /// From milliseconds; negative ones are none.
    pub const fn from_ms(ms: i64) -> Self {
        Self(if ms < 0 { 0 } else { ms })
    }

    /// From seconds.
    pub const fn from_s(seconds: i64) -> Self {
        Self::from_ms(seconds.saturating_mul(1_000))
    }

    /// In milliseconds.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// From `1h30m`, `1.5h`, or seconds without a unit; none where it is no span.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return None;
        }
        let mut ms = 0_i64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number: f64 = rest[..digits].parse().ok()?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let factor = match &rest[..letters] {
                "" => 1_000,
                "min" => 60_000,
                unit => DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1,
            };
            rest = rest[letters..].trim_start();
            ms = ms.checked_add(to_whole_ms(number * f64::from(i32::try_from(factor).ok()?))?)?;
        }
        Some(Self(ms))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "looked at before")]
fn to_whole_ms(ms: f64) -> Option<i64> {
    // A hundred thousand years are enough.
    (ms.is_finite() && ms < 4e15).then(|| ms.round() as i64)
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut left = self.0;
        for (unit, ms) in DURATION_UNITS.into_iter().filter(|(unit, _)| *unit != "w") {
            let count = left / ms;
            left %= ms;
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
        let span = match DurationInput::deserialize(deserializer)? {
            DurationInput::Seconds(seconds) => to_whole_ms(seconds * 1_000.0).filter(|ms| *ms >= 0).map(Self),
            DurationInput::Text(text) => Self::parse(&text),
        };
        span.ok_or_else(|| serde::de::Error::custom(EXPECTED))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for HumanDuration {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String);
        text.description(Some("A span of time: `10s`, `5m`, `1h30m`, `7d`")).examples(["5m"]).into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for HumanDuration {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_round_trips() {
        for (text, ms, back) in [
            ("500ms", 500, "500ms"),
            ("2s", 2_000, "2s"),
            ("90", 90_000, "1m30s"),
            ("1.5h", 5_400_000, "1h30m"),
            (" 5 min ", 300_000, "5m"),
            ("1h 30m", 5_400_000, "1h30m"),
            ("2w", 1_209_600_000, "14d"),
            ("0", 0, "0s"),
        ] {
            let span = HumanDuration::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((span.ms(), span.to_string().as_str()), (ms, back), "{text}");
            assert_eq!(HumanDuration::parse(back), Some(span));
        }
        for text in ["", "m", "-5s", "5 parsecs", "1e300d", "5..s", "99999999999999999999d", "s5"] {
            assert_eq!(HumanDuration::parse(text), None, "{text}");
        }
        assert_eq!(serde_json::from_str::<HumanDuration>("2.5").unwrap().ms(), 2_500);
        assert!(
            serde_json::from_str::<HumanDuration>("-1").is_err()
                && serde_json::from_str::<HumanDuration>("\"x\"").is_err()
        );
    }
}
