//! Body of an ingest request, limited in size before and after decompression.

use crate::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use perfwatch_model::{compression, limits};
use std::io::{self, Read};

/// Returns whether the body has a `Content-Encoding`.
pub fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| !encoding.is_empty())
}

/// Decompresses the body according to `Content-Encoding`, up to a size.
///
/// # Errors
/// Returns an error for unsupported encodings and corrupt data, and `decompressed_too_large` above the size.
pub fn decompress(headers: &HeaderMap, body: Bytes, max_bytes: usize) -> Result<Bytes, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(Ok(""), |value| value.to_str());
    match encoding.unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        "" | "identity" if body.len() > max_bytes => Err(too_large(max_bytes)),
        "" | "identity" => Ok(body),
        "gzip" => read_bounded("gzip", max_bytes, flate2::read::MultiGzDecoder::new(&body[..])),
        "zstd" => {
            // Senders that compress a stream state no size, and are served by a context of their own.
            if let Some(size) = compression::stated_size(&body) {
                if size > max_bytes {
                    return Err(too_large(max_bytes));
                }
                if let Ok(bytes) = compression::decompress(&body, max_bytes) {
                    return Ok(bytes.into());
                }
            }
            let decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).and_then(|mut decoder| {
                decoder.window_log_max(limits::MAX_ZSTD_WINDOW_LOG)?;
                Ok(decoder)
            });
            read_bounded("zstd", max_bytes, decoder.map_err(|error| decompression_error("zstd", &error))?)
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

fn read_bounded(kind: &str, max_bytes: usize, decoder: impl Read) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    // One byte above the limit distinguishes a body of maximum size from a larger body.
    decoder
        .take(max_bytes as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| decompression_error(kind, &error))?;
    if out.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(out.into())
}

fn too_large(max_bytes: usize) -> ApiError {
    let message = format!("decompressed body exceeds {max_bytes} bytes");
    ApiError::too_large("decompressed_too_large", message)
}
