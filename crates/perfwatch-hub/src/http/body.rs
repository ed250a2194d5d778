//! What a request brings along as JSON, bounded, with errors in the one envelope.

use crate::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

/// What people and scripts send is small.
const BYTES: usize = 256 << 10;

/// A body that must be there.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A body that may be there.
pub(crate) struct OptionalBody<T>(pub(crate) Option<T>);

/// A body of YAML, which JSON is too.
pub(crate) struct YamlBody(pub(crate) String);

async fn read(request: Request) -> Result<(HeaderMap, Bytes), ApiError> {
    let headers = request.headers().clone();
    let bytes = axum::body::to_bytes(request.into_body(), BYTES).await;
    let too_large =
        |_| ApiError::too_large("body_too_large", format!("the body has more than {BYTES} bytes"));
    Ok((headers, bytes.map_err(too_large)?))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // A form of another page can't send this without asking first.
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        let message = "unsupported content type; expected application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // The message may quote what was sent; secrets are sent here.
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() { without_values(&error.to_string()) } else { "not JSON".to_owned() };
        ApiError::bad_request("invalid_body", format!("{what}, at line {line} column {column}"))
    })
}

/// `invalid type: string "secret", expected …` without the string.
fn without_values(message: &str) -> String {
    let mut parts = message.split('"').enumerate();
    parts
        .by_ref()
        .map(|(at, part)| if at % 2 == 1 { "…" } else { part })
        .collect::<String>()
        .split(" at line")
        .next()
        .unwrap_or_default()
        .to_owned()
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (headers, bytes) = read(request).await?;
        parse(&headers, &bytes).map(Self)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (headers, bytes) = read(request).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        // `null` is nothing too.
        parse(&headers, &bytes).map(Self)
    }
}

impl<S: Sync> FromRequest<S> for YamlBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (headers, bytes) = read(request).await?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !["application/yaml", "application/x-yaml", "text/yaml", "application/json"]
            .contains(&kind.as_str())
        {
            let message = "send Content-Type: application/yaml";
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                message,
            ));
        }
        let text = String::from_utf8(bytes.to_vec());
        text.map(Self).map_err(|_| ApiError::bad_request("invalid_body", "the body is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Wish {
        number: u32,
    }

    #[test]
    fn body_errors_omit_values() {
        let mut headers = HeaderMap::new();
        assert_eq!(parse::<Wish>(&headers, b"{}").unwrap_err().code(), "unsupported_content_type");
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        for (body, want) in [
            ("{\"number\": \"hunter22222\"}", "expected u32"),
            ("{\"number\": 1, \"x\": 2}", "unknown field"),
            ("{}", "missing field"),
            ("{\"number\": ", "not JSON"),
        ] {
            let error = parse::<Wish>(&headers, body.as_bytes()).unwrap_err();
            assert!(error.message().contains(want), "{}", error.message());
            assert!(!error.message().contains("hunter"), "{}", error.message());
            assert!(
                error
                    .message()
                    .ends_with(&format!("at line 1 column {}", error.message().rsplit(' ').next().unwrap()))
            );
        }
    }
}
