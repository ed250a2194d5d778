//! Snapshot JSON: dotted metric names become nested objects, instances become keys.
//!
//! Scripts post this format to `POST /ingest/metrics`; the API and the WebSocket return it.

mod count;
mod read;
mod template;
mod write;

pub use count::{BodyCounts, count_body, for_each_snapshot};
pub use read::{JsonError, ParsedSnapshot, read_snapshot};
pub use template::JsonTemplate;
pub use write::{process_json, write_snapshot};

use serde::Serialize;

/// Top-level keys that are not metric groups.
pub(crate) const RESERVED: [&str; 9] =
    ["timestamp", "host", "host_id", "boot", "seq", "interval_ms", "facts", "errors", "schema"];

/// Parses RFC 3339 into milliseconds since 1970.
pub fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Writes milliseconds since 1970 as RFC 3339 in UTC, with millisecond precision.
pub fn write_time(out: &mut String, at_ms: i64) {
    use std::fmt::Write as _;
    if let Ok(at) = jiff::Timestamp::from_millisecond(at_ms) {
        let _ = write!(out, "{at:.3}");
    }
}

fn push_json(out: &mut String, value: &(impl Serialize + ?Sized)) {
    // Serialization of strings, numbers and structs of them cannot fail.
    out.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
}
