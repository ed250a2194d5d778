//! A span of time as people write it, in configuration, rules and queries: `500ms`, `2s`, `5m`,
//! `1h30m`, `7d`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Milliseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

const UNITS: [(&str, i64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
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
                unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
            };
            rest = rest[letters..].trim_start();
            ms = ms.checked_add(whole(number * f64::from(i32::try_from(factor).ok()?))?)?;
        }
        Some(Self(ms))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "looked at before")]
fn whole(ms: f64) -> Option<i64> {
    // A hundred thousand years are enough.
    (ms.is_finite() && ms < 4e15).then(|| ms.round() as i64)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut left = self.0;
        for (unit, ms) in UNITS.into_iter().filter(|(unit, _)| *unit != "w") {
            let count = left / ms;
            left %= ms;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WANTED: &str = "expected a time such as 500ms, 2s or 5m";
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a time such as 500ms, 2s or 5m")]
        enum Written {
            Seconds(f64),
            Text(String),
        }
        let span = match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => whole(seconds * 1_000.0).filter(|ms| *ms >= 0).map(Self),
            Written::Text(text) => Self::parse(&text),
        };
        span.ok_or_else(|| serde::de::Error::custom(WANTED))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Span {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String);
        text.description(Some("A span of time: `10s`, `5m`, `1h30m`, `7d`")).examples(["5m"]).into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Span {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_it_and_back() {
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
            let span = Span::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((span.ms(), span.to_string().as_str()), (ms, back), "{text}");
            assert_eq!(Span::parse(back), Some(span));
        }
        for text in ["", "m", "-5s", "5 parsecs", "1e300d", "5..s", "99999999999999999999d", "s5"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
        assert_eq!(serde_json::from_str::<Span>("2.5").unwrap().ms(), 2_500);
        assert!(
            serde_json::from_str::<Span>("-1").is_err() && serde_json::from_str::<Span>("\"x\"").is_err()
        );
    }
}
