//! Body of an ingest request, limited in size before and after decompression.

use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use perfwatch_model::{limit_table, limits};
use std::io::{self, Read};

/// Reads the body without decompression.
///
/// # Errors
/// Returns `body_too_large` above the limit and `body_truncated` if the connection ends early.
pub async fn read(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, limits::MAX_BODY_BYTES).await.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(inner) = cause {
            if inner.to_string().contains("length limit") {
                limit_table::BODY_BYTES.refuse();
                let message = format!("body exceeds {} bytes", limits::MAX_BODY_BYTES);
                return ApiError::too_large("body_too_large", message);
            }
            cause = inner.source();
        }
        ApiError::bad_request("body_truncated", "body is truncated")
    })
}

/// Decompresses the body according to `Content-Encoding`.
///
/// # Errors
/// Returns an error for unsupported encodings, corrupt data, and bodies above the limit.
pub fn decompress(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(Ok(""), |value| value.to_str());
    match encoding.unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        "gzip" => read_bounded("gzip", flate2::read::MultiGzDecoder::new(&body[..])),
        "zstd" => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).and_then(|mut decoder| {
                decoder.window_log_max(limits::MAX_ZSTD_WINDOW_LOG)?;
                Ok(decoder)
            });
            read_bounded("zstd", decoder.map_err(|error| decompression_error("zstd", &error))?)
        }
        other => {
            let message = format!("unsupported Content-Encoding {other:?}; expected gzip or zstd");
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message))
        }
    }
}

fn decompression_error(kind: &str, error: &io::Error) -> ApiError {
    ApiError::bad_request("invalid_compression", format!("invalid {kind} body: {error}"))
}

fn read_bounded(kind: &str, decoder: impl Read) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    // One byte above the limit distinguishes a body of maximum size from a larger body.
    decoder
        .take(limits::MAX_DECOMPRESSED_BYTES as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| decompression_error(kind, &error))?;
    if out.len() > limits::MAX_DECOMPRESSED_BYTES {
        limit_table::DECOMPRESSED_BYTES.refuse();
        let message = format!("decompressed body exceeds {} bytes", limits::MAX_DECOMPRESSED_BYTES);
        return Err(ApiError::too_large("decompressed_too_large", message));
    }
    Ok(out.into())
}
