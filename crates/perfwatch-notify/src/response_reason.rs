//! Reason of a failure from the answer of a server: the status and a short text. The rest of an answer is
//! not shown: it may be the page of a service that only the hub can reach.

use serde_json::Value;

/// Maximum length of the text of an answer.
const MAX_TEXT_CHARS: usize = 80;
/// Members of an error in JSON that contain its text, in order of preference.
const TEXT_MEMBERS: [&str; 8] = [
    "description",
    "errorDescription",
    "message",
    "error_description",
    "error",
    "detail",
    "title",
    "errcode",
];

/// Status and short text of an answer.
pub(crate) fn describe(status: u16, body: &str) -> String {
    let name = ureq::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let status = format!("HTTP {status} {}", name.unwrap_or_default());
    match error_text(body) {
        Some(text) if !text.is_empty() => format!("{}: {text}", status.trim_end()),
        _ => status.trim_end().to_owned(),
    }
}

/// Text of an error: a member of a JSON object, or the start of a page without its tags.
fn error_text(body: &str) -> Option<String> {
    let text = match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(object)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let member = TEXT_MEMBERS.into_iter().find_map(|name| object.get(name).and_then(text));
            member.or_else(|| object.get("errors")?.get(0).and_then(text))?
        }
        Ok(_) => return None,
        // An incomplete object, because only the start of the answer was read.
        Err(_) if body.trim_start().starts_with(['{', '[']) => return None,
        Err(_) => without_tags(body),
    };
    let is_gap = |c: char| c.is_whitespace() || is_hidden(c);
    let words: Vec<&str> = text.split(is_gap).filter(|word| !word.is_empty()).collect();
    Some(words.join(" ").chars().take(MAX_TEXT_CHARS).collect())
}

/// Text of an HTML page.
fn without_tags(page: &str) -> String {
    let mut is_tag = false;
    let keep = |c: char| {
        let is_text = !is_tag && c != '<';
        is_tag = (is_tag || c == '<') && c != '>';
        if is_text { c } else { ' ' }
    };
    page.chars().map(keep).collect()
}

/// Control characters, markup, and characters that hide or reorder text.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '<' | '>' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding L7: 300 characters of the answer of an internal service were shown.
    #[test]
    fn answers_are_reduced_to_status_and_short_error() {
        for (status, body, expected) in [
            (404, "<html><h1>Not  found</h1>\r\n no route</html>", "HTTP 404 Not Found: Not found no route"),
            (400, "invalid_payload", "HTTP 400 Bad Request: invalid_payload"),
            (403, "", "HTTP 403 Forbidden"),
            (400, "[\"x\"]", "HTTP 400 Bad Request"),
            (400, "{\"AccessKeyId\": \"ASIA", "HTTP 400 Bad Request"),
            (
                400,
                "{\"ok\":false,\"description\":\"chat not found\"}",
                "HTTP 400 Bad Request: chat not found",
            ),
            (422, "{\"errors\":[\"token is invalid\"]}", "HTTP 422 Unprocessable Entity: token is invalid"),
            (400, "{\"message\":\"<a>\\n\\u001b[1m \\u202e\"}", "HTTP 400 Bad Request: a [1m"),
            (500, "{\"AccessKeyId\":\"ASIA\"}", "HTTP 500 Internal Server Error"),
        ] {
            assert_eq!(describe(status, body), expected, "{body}");
        }
        for long in [format!("{{\"message\":\"{}\"}}", "x".repeat(10_000)), "x ".repeat(10_000)] {
            assert_eq!(describe(400, &long).chars().count(), "HTTP 400 Bad Request: ".len() + 80);
        }
    }
}
