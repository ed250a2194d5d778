//! Extractors of JSON and YAML bodies with a size limit and errors in the common envelope.

use crate::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

/// Maximum size of a body.
const MAX_BODY_BYTES: usize = 256 << 10;

/// Required JSON body.
pub struct JsonBody<T>(pub T);

/// Optional JSON body.
pub struct OptionalBody<T>(pub Option<T>);

/// Text of a YAML body; JSON is valid YAML.
pub struct YamlBody(pub String);

async fn read(request: Request) -> Result<(HeaderMap, Bytes), ApiError> {
    let headers = request.headers().clone();
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await;
    let too_large = |_| ApiError::too_large("body_too_large", format!("body exceeds {MAX_BODY_BYTES} bytes"));
    Ok((headers, bytes.map_err(too_large)?))
}

/// Media type of the body in lower case, without parameters.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, ApiError> {
    // Forms of other pages cannot send this content type without a CORS preflight request.
    if media_type(headers) != "application/json" {
        let message = "unsupported content type; expected application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // Messages of serde quote values, which may be secrets.
        let (line, column) = (error.line(), error.column());
        let message =
            if error.is_data() { without_values(&error.to_string()) } else { "not JSON".to_owned() };
        ApiError::bad_request("invalid_body", format!("{message}, at line {line} column {column}"))
    })
}

/// Message of serde with quoted values replaced: `invalid type: string "secret", expected …`.
fn without_values(message: &str) -> String {
    let mut parts = message.split('"').enumerate();
    parts
        .by_ref()
        .map(|(index, part)| if index % 2 == 1 { "…" } else { part })
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
        // `null` counts as a missing body.
        parse(&headers, &bytes).map(Self)
    }
}

impl<S: Sync> FromRequest<S> for YamlBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (headers, bytes) = read(request).await?;
        let media_types = ["application/yaml", "application/x-yaml", "text/yaml", "application/json"];
        if !media_types.contains(&media_type(&headers).as_str()) {
            let message = "unsupported content type; expected application/yaml";
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                message,
            ));
        }
        let text = String::from_utf8(bytes.to_vec());
        text.map(Self).map_err(|_| ApiError::bad_request("invalid_body", "body is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialization is tested")]
    struct TestRequest {
        number: u32,
    }

    #[test]
    fn body_errors_omit_values() {
        let mut headers = HeaderMap::new();
        assert_eq!(parse::<TestRequest>(&headers, b"{}").unwrap_err().code(), "unsupported_content_type");
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        for (body, want) in [
            ("{\"number\": \"hunter22222\"}", "expected u32"),
            ("{\"number\": 1, \"x\": 2}", "unknown field"),
            ("{}", "missing field"),
            ("{\"number\": ", "not JSON"),
        ] {
            let error = parse::<TestRequest>(&headers, body.as_bytes()).unwrap_err();
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
