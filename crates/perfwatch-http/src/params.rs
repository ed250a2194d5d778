//! Parameters of requests: pairs of a query string, times and ranges, names and tags.

use crate::error::ApiError;
use perfwatch_model::printable::{is_hidden, is_unprintable};
use perfwatch_model::{HostId, time_expression};
use perfwatch_store::HostRecord;

/// Maximum number of tags of a host or an account.
const MAX_TAGS: usize = 32;
/// Largest supported time, the end of the year 9999, in milliseconds since 1970.
const MAX_TIME_MS: i64 = 253_402_300_799_999;

/// Decoded pairs of a query string. A name may occur several times.
pub fn query_pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned()
}

/// `next` if it is a path of the dashboard, else `/`. Prevents redirects to other sites.
pub fn local_path(next: String) -> String {
    let is_local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(|c: char| c == '\\' || c.is_control());
    if is_local && next.len() < 1_000 { next } else { "/".to_owned() }
}

/// Validates the name of a token or channel: 1 to 100 bytes without control characters.
///
/// # Errors
/// Returns `invalid_name` for an empty name, a longer name, and control characters.
pub fn validate_label(text: &str) -> Result<String, ApiError> {
    let label = text.trim();
    if label.is_empty() || label.len() > 100 || label.contains(is_hidden) {
        return Err(ApiError::unprocessable("invalid_name", "name must have 1 to 100 bytes"));
    }
    Ok(label.to_owned())
}

/// Validates a comment: a text of several lines without other control characters. White space around it is removed.
///
/// # Errors
/// Returns `invalid_comment` for a longer comment, and for control characters.
pub fn validate_comment(text: &str, max_bytes: usize) -> Result<String, ApiError> {
    let comment = text.trim();
    if comment.len() > max_bytes || comment.contains(is_unprintable) {
        let message = format!("a comment must have at most {max_bytes} bytes and no control characters");
        return Err(ApiError::unprocessable("invalid_comment", message));
    }
    Ok(comment.to_owned())
}

/// Validates tags such as `environment=production` or `web`; sorts them and removes duplicates.
///
/// # Errors
/// Returns `invalid_tags` for too many tags, and for tags with other characters or a wrong length.
pub fn validate_tags(tags: &[String]) -> Result<Vec<String>, ApiError> {
    let invalid = |message: &str| Err(ApiError::unprocessable("invalid_tags", message));
    let mut tags: Vec<String> = tags.iter().map(|tag| tag.trim().to_owned()).collect();
    tags.sort();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        return invalid("at most 32 tags are allowed");
    }
    let is_valid = |c: char| c.is_alphanumeric() || "-_.=:/@".contains(c);
    if tags.iter().any(|tag| tag.is_empty() || tag.len() > 64 || !tag.chars().all(is_valid)) {
        return invalid("tag must have 1 to 64 characters of a-z, A-Z, 0-9 and - _ . = : / @");
    }
    Ok(tags)
}

/// Tags after some are removed and others added; an added tag counts if it is in both lists.
///
/// # Errors
/// Returns `invalid_tags` as [`validate_tags`].
pub fn change_tags(tags: &[String], added: &[String], removed: &[String]) -> Result<Vec<String>, ApiError> {
    let remaining = tags.iter().filter(|tag| !removed.contains(tag));
    validate_tags(&remaining.chain(added).cloned().collect::<Vec<_>>())
}

/// Time of a query parameter, milliseconds since 1970.
///
/// # Errors
/// Rejects a text that is not a time expression; the message names the parameter.
pub fn time_ms(key: &str, text: &str, now_ms: i64) -> Result<i64, ApiError> {
    // Later times overflow in computations with ranges.
    let is_supported = |time_ms: &i64| (-MAX_TIME_MS..=MAX_TIME_MS).contains(time_ms);
    time_expression::parse(text, now_ms).filter(is_supported).ok_or_else(|| {
        let expected = time_expression::EXPECTED;
        ApiError::bad_request("invalid_time", format!("{key}: invalid time {text:?}; expected {expected}"))
    })
}

/// Range of the parameters `from` and `to`; default: the last hour.
///
/// # Errors
/// Returns an error for malformed times, empty ranges, and ranges above ten years.
pub fn range(from: Option<&str>, to: Option<&str>, now_ms: i64) -> Result<(i64, i64), ApiError> {
    let to_ms = to.map_or(Ok(now_ms), |to| time_ms("to", to, now_ms))?;
    let from_ms = from.map_or(Ok(to_ms - 3_600_000), |from| time_ms("from", from, now_ms))?;
    // Longer than any retention.
    if from_ms >= to_ms || to_ms - from_ms > 10 * 366 * 86_400_000 {
        return Err(ApiError::bad_request(
            "invalid_range",
            "from must be before to, and the range at most 10 years",
        ));
    }
    Ok((from_ms, to_ms))
}

/// Cursor of a page of hosts: id and name of its last host as hexadecimal digits. Hosts that are added or
/// removed between two pages neither move others to another page nor repeat them.
pub fn host_cursor(host: &HostRecord) -> String {
    let bytes = host.id.to_bytes().into_iter().chain(host.name.bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Name and id of a cursor; `None` for other text.
pub fn parse_host_cursor(cursor: &str) -> Option<(String, HostId)> {
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let bytes: Vec<u8> = cursor.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
    let (id, name) = bytes.split_at_checked(16)?;
    Some((String::from_utf8(name.to_vec()).ok()?, HostId::from_bytes(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_defaults_to_the_last_hour_and_must_not_be_empty() {
        let now = 1_763_719_200_000;
        assert_eq!(time_ms("from", "yesterday", now).unwrap_err().code(), "invalid_time");
        // Second review: an export near the end of time never ended.
        assert_eq!(time_ms("from", "9223372036854775000", now).unwrap_err().code(), "invalid_time");
        assert!(range(Some("-1h"), Some("-2h"), now).is_err());
        assert_eq!(range(None, None, now).unwrap(), (now - 3_600_000, now));
    }

    #[test]
    fn comments_are_bounded_and_printable() {
        for (comment, expected) in [
            (" two\nlines ", Some("two\nlines")),
            ("12345678901", None),
            ("\x1b[2J", None),
            ("a\u{202e}b", None),
        ] {
            assert_eq!(validate_comment(comment, 10).ok().as_deref(), expected, "{comment:?}");
        }
    }

    #[test]
    fn redirect_is_limited_to_local_paths() {
        for (next, want) in [
            ("/hosts/x?range=1h", "/hosts/x?range=1h"),
            ("https://evil.example", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(local_path(next.to_owned()), want, "{next}");
        }
    }
}
