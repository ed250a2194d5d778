//! Snapshot JSON, one pure function each way: the catalogue's dotted names nested, instances
//! by key. What `curl` and scripts see and may post.

mod read;
mod write;

pub use read::{JsonError, ParsedSnapshot, read_snapshot};
pub use write::{JsonTemplate, process_json, write_snapshot};

/// Top-level keys that are no metric group.
pub(crate) const RESERVED: [&str; 9] =
    ["timestamp", "host", "host_id", "boot", "seq", "interval_ms", "facts", "errors", "schema"];

/// RFC 3339 as milliseconds since 1970.
pub fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Milliseconds since 1970 as RFC 3339 in UTC with milliseconds.
pub fn write_time(out: &mut String, at_ms: i64) {
    use std::fmt::Write as _;
    if let Ok(at) = jiff::Timestamp::from_millisecond(at_ms) {
        let _ = write!(out, "{at:.3}");
    }
}
