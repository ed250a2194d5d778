//! What a query string may say: names that stand several times, and times as people write them.

use crate::app::App;
use crate::auth::Identity;
use crate::error::ApiError;
use crate::fleet::Host;
use perfwatch_model::Span;
use perfwatch_series::SeriesName;

/// Of one host, or of one account.
const MOST_TAGS: usize = 32;

/// Pairs of a query string: a name may stand several times, which a struct can't hold.
pub(crate) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, ApiError> {
    let query = query.unwrap_or_default();
    let bad = |why: String| ApiError::bad_request("bad_query", why);
    let uri: axum::http::Uri = format!("/?{query}").parse().map_err(|error| bad(format!("{error}")))?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
    pairs.map(|pairs| pairs.0).map_err(|error| bad(error.body_text()))
}

/// The host of a path, by id or name; one that they may not see is not there.
pub(crate) fn host(app: &App, identity: &Identity, id: &str) -> Result<Host, ApiError> {
    let host = app.fleet.find(id).filter(|host| identity.sees(&app.people.now(), host.record.id));
    host.ok_or_else(|| ApiError::not_found(format!("there is no host {id:?}")))
}

/// All hosts that they may see, by name.
pub(crate) fn hosts(app: &App, identity: &Identity) -> Vec<Host> {
    let everyone = app.people.now();
    let mut hosts = app.fleet.all();
    hosts.retain(|host| identity.sees(&everyone, host.record.id));
    hosts
}

/// Whether they may change what is for all hosts.
pub(crate) fn everywhere(identity: &Identity) -> Result<(), ApiError> {
    match identity.host_tags.is_empty() {
        true => Ok(()),
        false => {
            let why = "this is for all hosts, and you see some of them only";
            Err(ApiError::new(axum::http::StatusCode::FORBIDDEN, "not_allowed", why))
        }
    }
}

/// What people call a token.
pub(crate) fn label(text: &str) -> Result<String, ApiError> {
    let label = text.trim();
    if label.is_empty() || label.len() > 100 || label.contains(char::is_control) {
        return Err(ApiError::unprocessable("invalid_name", "a name has 1 to 100 bytes"));
    }
    Ok(label.to_owned())
}

/// What hosts are told apart by: `environment=production`, `web`.
pub(crate) fn tags(tags: &[String]) -> Result<Vec<String>, ApiError> {
    let invalid = |why: &str| Err(ApiError::unprocessable("invalid_tags", why));
    let mut tags: Vec<String> = tags.iter().map(|tag| tag.trim().to_owned()).collect();
    tags.sort();
    tags.dedup();
    if tags.len() > MOST_TAGS {
        return invalid("no more than 32 tags");
    }
    let fine = |c: char| c.is_alphanumeric() || "-_.=:/@".contains(c);
    if tags.iter().any(|tag| tag.is_empty() || tag.len() > 64 || !tag.chars().all(fine)) {
        return invalid("a tag has 1 to 64 letters, digits and - _ . = : / @");
    }
    Ok(tags)
}

/// `cpu.usage`, `cpu.*`, or one instance: `network.rx_bytes{eth0}`.
pub(crate) fn series_name(text: &str) -> SeriesName {
    match text.strip_suffix('}').and_then(|text| text.split_once('{')) {
        Some((metric, instance)) => {
            SeriesName { metric: metric.to_owned(), instance: Some(instance.to_owned()) }
        }
        None => SeriesName { metric: text.to_owned(), instance: None },
    }
}

/// Milliseconds since 1970, RFC 3339, `now`, or a span before now: `-15m`, `-2h`, `-7d`.
pub(crate) fn time_ms(key: &str, text: &str, now_ms: i64) -> Result<i64, ApiError> {
    let bad = || {
        let hint = "milliseconds since 1970, 2026-11-21T10:00:00Z, now, or a span before now as -15m";
        ApiError::bad_request("bad_time", format!("{key}: {text:?} is no time; write {hint}"))
    };
    if text == "now" {
        return Ok(now_ms);
    }
    if let Ok(ms) = text.parse::<i64>()
        && ms >= 0
    {
        return Ok(ms);
    }
    // With a unit: a number alone is milliseconds.
    if let Some(span) =
        text.strip_prefix('-').filter(|span| span.ends_with(|c: char| c.is_ascii_alphabetic()))
    {
        return Span::parse(span).map(|span| now_ms.saturating_sub(span.ms())).ok_or_else(bad);
    }
    perfwatch_model::json::parse_time(text).ok_or_else(bad)
}

/// From and to of a range; without them, the last hour.
pub(crate) fn range(from: Option<&str>, to: Option<&str>, now_ms: i64) -> Result<(i64, i64), ApiError> {
    let to_ms = to.map_or(Ok(now_ms), |to| time_ms("to", to, now_ms))?;
    let from_ms = from.map_or(Ok(to_ms - 3_600_000), |from| time_ms("from", from, now_ms))?;
    // Ten years are beyond what is kept.
    if from_ms >= to_ms || to_ms - from_ms > 10 * 366 * 86_400_000 {
        return Err(ApiError::bad_request("bad_range", "from must be before to, by ten years at most"));
    }
    Ok((from_ms, to_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let now = 1_763_719_200_000;
        for (text, want) in [
            ("now", now),
            ("1763719200123", 1_763_719_200_123),
            ("-15m", now - 900_000),
            ("-2h", now - 7_200_000),
            ("-7d", now - 604_800_000),
            ("2025-11-21T10:00:00Z", 1_763_719_200_000),
        ] {
            assert_eq!(time_ms("from", text, now).unwrap(), want, "{text}");
        }
        for text in ["", "yesterday", "-5", "-m", "-5y", "-99999999999999999d", "12h"] {
            assert_eq!(time_ms("from", text, now).unwrap_err().code(), "bad_time", "{text}");
        }
        assert!(range(Some("-1h"), Some("-2h"), now).is_err());
        assert_eq!(range(None, None, now).unwrap(), (now - 3_600_000, now));
    }
}
