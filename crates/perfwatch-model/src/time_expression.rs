//! Times as users write them in queries and on the command line.

use crate::HumanDuration;

/// Accepted forms, for error messages.
pub const EXPECTED: &str =
    "milliseconds since 1970, RFC 3339 (2026-11-21T10:00:00Z), now, or an offset such as -15m";

/// Parses milliseconds since 1970, RFC 3339, `now`, or an offset from now such as `-15m`, `-2h`, `-7d`.
/// Returns milliseconds since 1970.
pub fn parse(text: &str, now_ms: i64) -> Option<i64> {
    if text == "now" {
        return Some(now_ms);
    }
    if let Ok(ms) = text.parse::<i64>()
        && ms >= 0
    {
        return Some(ms);
    }
    // An offset needs a unit: a bare number is a timestamp in milliseconds.
    let has_unit = |offset: &&str| offset.ends_with(|c: char| c.is_ascii_alphabetic());
    match text.strip_prefix('-').filter(has_unit) {
        Some(offset) => HumanDuration::parse(offset).map(|offset| now_ms.saturating_sub(offset.ms())),
        None => crate::json::parse_time(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_expressions_are_parsed() {
        let now = 1_763_719_200_000;
        for (text, want) in [
            ("now", now),
            ("1763719200123", 1_763_719_200_123),
            ("-15m", now - 900_000),
            ("-2h", now - 7_200_000),
            ("-7d", now - 604_800_000),
            ("2025-11-21T10:00:00Z", 1_763_719_200_000),
        ] {
            assert_eq!(parse(text, now), Some(want), "{text}");
        }
        for text in ["", "yesterday", "-5", "-m", "-5y", "-99999999999999999d", "12h"] {
            assert_eq!(parse(text, now), None, "{text}");
        }
    }
}
