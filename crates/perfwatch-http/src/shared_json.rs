//! Response of JSON that many visitors without a session share: revalidated by its entity tag, and not indexed by search
//! engines.

use crate::shared_compression::SharedCompression;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Cache rule: for as long as the hub shares the same answer, by the browser only.
const CACHE_RULE: HeaderValue = HeaderValue::from_static("private, max-age=10");

/// Header that keeps a page out of search engines.
pub const NO_INDEX: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex, nofollow"));

/// Responds with JSON, or with `304` if the visitor has it.
pub async fn respond(
    request: &HeaderMap,
    json: Bytes,
    etag: &str,
    compression: &SharedCompression,
) -> Response {
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A proxy that compresses makes the tag weak.
    let is_known = known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => compression.respond(request, json).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, CACHE_RULE);
    headers.insert(NO_INDEX.0, NO_INDEX.1);
    headers.extend(HeaderValue::try_from(etag).map(|etag| (header::ETAG, etag)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unchanged_json_is_not_sent_again() {
        for (known, status) in [
            (None, StatusCode::OK),
            (Some("\"other\""), StatusCode::OK),
            (Some("\"tag\""), StatusCode::NOT_MODIFIED),
            (Some("\"other\", W/\"tag\""), StatusCode::NOT_MODIFIED),
        ] {
            let headers = known.map(|known| (header::IF_NONE_MATCH, HeaderValue::from_static(known)));
            let (headers, json) = (headers.into_iter().collect(), Bytes::from_static(b"{}"));
            let response = respond(&headers, json, "\"tag\"", &SharedCompression::default()).await;
            assert_eq!(response.status(), status, "{known:?}");
            assert_eq!(response.headers()[header::ETAG], "\"tag\"");
            assert_eq!(response.headers()["x-robots-tag"], "noindex, nofollow");
        }
    }
}
