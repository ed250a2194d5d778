//! Extractors of JSON and YAML bodies with a size limit and errors in the common envelope.

use crate::body_memory::{BodyMemory, BodySender, ReadError, ReservedBody};
use crate::error::ApiError;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use perfwatch_auth::login_throttle::address_groups;
use perfwatch_auth::{ClientAddr, Grant, Identity};
use perfwatch_model::{limit_table, limits};
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::sync::LazyLock;

/// Maximum size of a body.
const MAX_BODY_BYTES: usize = 256 << 10;

/// Required JSON body.
pub struct JsonBody<T>(pub T);

/// Optional JSON body.
pub struct OptionalBody<T>(pub Option<T>);

/// Text of a YAML body; JSON is valid YAML.
pub struct YamlBody(pub String);

/// Memory of the bodies that are being received by routes other than ingestion.
static BODIES: LazyLock<BodyMemory> = LazyLock::new(|| {
    BodyMemory::new(
        limits::MAX_API_RECEIVING_BYTES,
        &limit_table::API_RECEIVING_SHARE,
        &limit_table::API_RECEIVING_BYTES,
    )
});

/// Account of a request, or the address of an anonymous request.
fn sender(request: &Request) -> BodySender {
    if let Some(identity) = request.extensions().get::<Identity>() {
        return BodySender::of_identity(identity);
    }
    let client = request.extensions().get::<ClientAddr>();
    let address = client.map_or(IpAddr::from([0, 0, 0, 0]), |client| client.address);
    // The largest network that a client may have.
    let group = address_groups(address).into_iter().flatten().last();
    BodySender::Address(group.map_or(address, |group| group.network))
}

/// Reads the body, and checks the right of the caller again: a body may arrive for longer than a session lasts.
async fn read(request: Request) -> Result<(HeaderMap, ReservedBody), ApiError> {
    let (headers, sender) = (request.headers().clone(), sender(&request));
    let grant = request.extensions().get::<Grant>().cloned();
    let share = (sender, limits::MAX_API_RECEIVING_BYTES_PER_ACCOUNT);
    let body = BODIES.read(share, &headers, request.into_body(), MAX_BODY_BYTES).await;
    let body = body.map_err(|error| match error {
        ReadError::TooLarge => {
            ApiError::too_large("body_too_large", format!("body exceeds {MAX_BODY_BYTES} bytes"))
        }
        ReadError::Truncated => ApiError::bad_request("body_truncated", "body is truncated"),
        ReadError::Refused(error) => error,
    })?;
    grant.map_or(Ok(()), |grant| grant.recheck())?;
    Ok((headers, body))
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
        let (headers, (bytes, _reservation)) = read(request).await?;
        parse(&headers, &bytes).map(Self)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (headers, (bytes, _reservation)) = read(request).await?;
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
        let (headers, (bytes, _reservation)) = read(request).await?;
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
    use axum::body::{Body, Bytes};
    use futures_util::{FutureExt as _, stream};

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialization is tested")]
    struct TestRequest {
        number: u32,
    }

    /// Finding M2: unfinished bodies of other routes than ingestion, also without credentials.
    #[tokio::test]
    async fn unfinished_bodies_of_an_address_do_not_block_others() {
        let request = |last: u8, body: Body, length: usize| {
            let request = Request::builder()
                .header(header::CONTENT_LENGTH, length)
                .header(header::CONTENT_TYPE, "application/json")
                .extension(ClientAddr { address: IpAddr::from([192, 0, 2, last]), is_tls: false });
            YamlBody::from_request(request.body(body).unwrap(), &())
        };
        let pending = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let mut open: Vec<_> = (0..limits::MAX_API_RECEIVING_BYTES_PER_ACCOUNT / MAX_BODY_BYTES)
            .map(|_| Box::pin(request(1, pending(), MAX_BODY_BYTES)))
            .collect();
        for body in &mut open {
            assert!(body.now_or_never().is_none());
        }
        let refused = request(1, Body::from("{}"), 2).await.err().unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(request(2, Body::from("{}"), 2).await.ok().unwrap().0, "{}");
        drop(open);
        assert_eq!(request(1, Body::from("{}"), 2).await.ok().unwrap().0, "{}");
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
