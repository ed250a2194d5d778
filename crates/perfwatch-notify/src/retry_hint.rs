//! Delay that a service requests before the next attempt, in the forms that services use.

use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};
use ureq::http::HeaderMap;

/// Maximum delay: a hint of a year is an error of the service.
const MAX_RETRY_HINT: Duration = Duration::from_hours(24);
/// Smallest number of a reset time that is seconds since 1970; a smaller number is a delay.
const MIN_EPOCH_S: f64 = 1e8;
/// Smallest number of a reset time that is milliseconds since 1970.
const MIN_EPOCH_MS: f64 = 1e11;

/// Response of a service, as far as it may contain a hint.
pub(crate) struct HintSource<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a str,
    /// Time of the hub, in milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// Seconds, whole or decimal; `None` for other text, negative numbers and infinity.
fn parse_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    // Excludes `inf`, `nan` and exponents, which Rust accepts.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|seconds: &f64| is_number && seconds.is_finite())
}

fn to_delay(seconds: f64) -> Duration {
    // Milliseconds, rounded up: a request that is a little early is rejected again.
    let ms = Duration::try_from_secs_f64((seconds.max(0.0) * 1_000.0).ceil() / 1_000.0);
    ms.unwrap_or(MAX_RETRY_HINT).min(MAX_RETRY_HINT)
}

impl HintSource<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Milliseconds since 1970 of an HTTP date in one of its three formats (RFC 9110, 5.6.7).
    #[expect(clippy::cast_precision_loss, reason = "dates are below 2^53 ms")]
    fn parse_date(text: &str) -> Option<f64> {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(date.duration_since(UNIX_EPOCH).ok()?.as_millis() as f64)
    }

    /// Time at which the response was sent. The `Date` of the service is used if it has one, because the
    /// clock of the service may differ.
    #[expect(clippy::cast_precision_loss, reason = "times are below 2^53 ms")]
    fn sent_ms(&self) -> f64 {
        self.header("date").and_then(Self::parse_date).unwrap_or(self.now_ms as f64)
    }

    /// Delay in seconds of a `Retry-After` header: seconds or a date (RFC 9110, 10.2.3).
    fn retry_after(&self) -> Option<f64> {
        let text = self.header("retry-after")?;
        parse_seconds(text).or_else(|| Some((Self::parse_date(text)? - self.sent_ms()) / 1_000.0))
    }

    /// Delay in seconds of a JSON body: `parameters.retry_after` of Telegram, `retry_after` of Discord,
    /// `retry_after_ms` of Matrix.
    fn json_delay(&self) -> Option<f64> {
        let body: Value = serde_json::from_str(self.body).ok()?;
        let number = |value: &Value| value.as_f64().or_else(|| parse_seconds(value.as_str()?));
        let seconds = |pointer: &str| body.pointer(pointer).and_then(number);
        seconds("/parameters/retry_after")
            .or_else(|| seconds("/retry_after"))
            .or_else(|| Some(seconds("/retry_after_ms")? / 1_000.0))
            .filter(|seconds| *seconds >= 0.0)
    }

    /// Delay in seconds until a rate limit is reset: a delay, or seconds or milliseconds since 1970.
    fn reset(&self, name: &str) -> Option<f64> {
        let text = self.header(name)?;
        let number = parse_seconds(text);
        let at_ms = match number {
            None => Self::parse_date(text)?,
            Some(ms) if ms >= MIN_EPOCH_MS => ms,
            Some(seconds) if seconds >= MIN_EPOCH_S => seconds * 1_000.0,
            Some(delay) => return Some(delay),
        };
        Some((at_ms - self.sent_ms()) / 1_000.0)
    }

    /// Delay that the service requests, at most a day; `None` without a valid hint.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let milliseconds = |name: &str| Some(parse_seconds(self.header(name)?)? / 1_000.0);
        // The body is more precise than the header, which has whole seconds; both must have passed.
        let explicit = [self.retry_after(), self.json_delay(), milliseconds("retry-after-ms")];
        let explicit = explicit.into_iter().flatten().reduce(f64::max);
        let reset_after = || self.header("x-ratelimit-reset-after").and_then(parse_seconds);
        let resets = ["x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset", "x-limit-app-reset"];
        let reset = || resets.into_iter().find_map(|name| self.reset(name));
        explicit.or_else(reset_after).or_else(reset).map(to_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06 08:49:00 UTC.
    const NOW_MS: i64 = 784_111_740_000;

    #[test]
    fn retry_hints_are_read_in_every_form() {
        for (header, body, expected_ms) in [
            ("retry-after: 7", "", Some(7_000)),
            ("retry-after:  7 ", "", Some(7_000)),
            ("retry-after: 0", "", Some(0)),
            ("retry-after: 1.5", "", Some(1_500)),
            ("retry-after: 0.0001", "", Some(1)),
            ("retry-after: 99999999999999999999999", "", Some(86_400_000)),
            ("retry-after: Sun, 06 Nov 1994 08:49:37 GMT", "", Some(37_000)),
            ("retry-after: Sunday, 06-Nov-94 08:49:37 GMT", "", Some(37_000)),
            ("retry-after: Sun Nov  6 08:49:37 1994", "", Some(37_000)),
            ("retry-after: Sun, 06 Nov 1994 08:00:00 GMT", "", Some(0)),
            // The clock of the service is an hour ahead.
            (
                "retry-after: Sun, 06 Nov 1994 09:49:37 GMT\ndate: Sun, 06 Nov 1994 09:49:00 GMT",
                "",
                Some(37_000),
            ),
            ("retry-after: -1", "", None),
            ("retry-after: inf", "", None),
            ("retry-after: NaN", "", None),
            ("retry-after: 1e3", "", None),
            ("retry-after: soon", "", None),
            ("retry-after:", "", None),
            ("retry-after: soon", r#"{"retry_after": 3}"#, Some(3_000)),
            ("", r#"{"ok":false,"error_code":429,"parameters":{"retry_after":35}}"#, Some(35_000)),
            (
                "",
                r#"{"message":"You are being rate limited.","retry_after":64.57,"global":false}"#,
                Some(64_570),
            ),
            ("retry-after: 65", r#"{"retry_after":64.57}"#, Some(65_000)),
            ("retry-after: 64", r#"{"retry_after":64.57}"#, Some(64_570)),
            ("", r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":2500}"#, Some(2_500)),
            ("", r#"{"retry_after":"12"}"#, Some(12_000)),
            ("", r#"{"retry_after":-5}"#, None),
            ("", r#"{"retry_after":null}"#, None),
            ("", "<html>retry_after</html>", None),
            ("retry-after-ms: 250", "", Some(250)),
            ("x-ratelimit-reset-after: 1.25", "", Some(1_250)),
            ("x-ratelimit-reset: 784111800", "", Some(60_000)),
            ("x-ratelimit-reset: 1470173023.123\nx-ratelimit-reset-after: 2", "", Some(2_000)),
            ("x-ratelimit-reset: 30", "", Some(30_000)),
            ("ratelimit-reset: 50", "", Some(50_000)),
            ("x-ratelimit-reset: 784111740", "", Some(0)),
            ("x-limit-app-reset: 784198140", "", Some(86_400_000)),
            ("retry-after: 5\nx-ratelimit-reset-after: 900", "", Some(5_000)),
            ("", "", None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in header.lines().filter_map(|line| line.split_once(':')) {
                let name = ureq::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.insert(name, value.trim_start().parse().unwrap());
            }
            let delay = HintSource { headers: &headers, body, now_ms: NOW_MS }.delay();
            let expected = expected_ms.map(Duration::from_millis);
            assert_eq!(delay, expected, "{header:?} {body:?}");
        }
    }
}
