//! Body of an ingest request: decompressed, and counted before it is decoded.

use crate::compressed_body::decompress;
use crate::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{json, limit_table, limits};

/// Content of a body, not decoded yet.
#[derive(Debug)]
pub enum IngestContent {
    /// Batch of an agent, whose shapes and snapshots are encoded.
    Batch(Box<Batch>),
    /// Snapshot JSON of a script: an object or a list.
    Json(Bytes),
}

/// Body with the memory that decoding takes.
#[derive(Debug)]
pub struct IngestBody {
    /// Snapshots of the body.
    pub content: IngestContent,
    /// Size of the body, and of its snapshots after decoding.
    pub memory_bytes: usize,
    /// Whether decoding takes longer than serving threads may compute.
    pub is_large: bool,
}

/// Decompresses a body and counts its snapshots and their memory; a large body on a blocking thread.
///
/// # Errors
/// Returns an error for unsupported types and encodings, corrupt data, and bodies above a limit.
pub async fn open(headers: &HeaderMap, body: Bytes) -> Result<IngestBody, ApiError> {
    match open_up_to(headers, body.clone(), limits::MAX_INLINE_BODY_BYTES) {
        Err(error) if error.code() == "decompressed_too_large" => {}
        result => return result,
    }
    let headers = headers.clone();
    let task = tokio::task::spawn_blocking(move || {
        open_up_to(&headers, body, limits::MAX_DECOMPRESSED_BYTES).inspect_err(|error| {
            if error.code() == "decompressed_too_large" {
                limit_table::DECOMPRESSED_BYTES.refuse();
            }
        })
    });
    task.await.map_err(|_| ApiError::unavailable("internal_error", "internal error; see the hub log", 5))?
}

fn open_up_to(headers: &HeaderMap, body: Bytes, max_bytes: usize) -> Result<IngestBody, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type =
        content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    let is_batch = match content_type {
        wire::CONTENT_TYPE => true,
        // The second is the default content type of `curl -d`.
        "application/json" | "application/x-www-form-urlencoded" => false,
        other => {
            let message = format!(
                "unsupported Content-Type {other:?}; expected application/json or {}",
                wire::CONTENT_TYPE
            );
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                message,
            ));
        }
    };
    let bytes = decompress(headers, body, max_bytes)?;
    let (size, is_large) = (bytes.len(), bytes.len() > limits::MAX_INLINE_BODY_BYTES);
    let (content, snapshots, decoded_bytes) = if is_batch {
        let batch = wire::decode_batch(bytes)
            .map_err(|error| ApiError::bad_request("malformed_batch", error.to_string()))?;
        let (snapshots, decoded_bytes) = (batch.snapshots.len(), batch.decoded_bytes());
        (IngestContent::Batch(Box::new(batch)), snapshots, decoded_bytes)
    } else {
        let counts = json::count_body(&bytes).map_err(|error| malformed_json(&error))?;
        (IngestContent::Json(bytes), counts.snapshots, counts.decoded_bytes)
    };
    if snapshots > limits::MAX_BATCH_SNAPSHOTS {
        limit_table::BATCH_SNAPSHOTS.refuse();
        let message = format!("more than {} snapshots in one request", limits::MAX_BATCH_SNAPSHOTS);
        return Err(ApiError::too_large("too_many_snapshots", message));
    }
    Ok(IngestBody { content, memory_bytes: size + decoded_bytes, is_large })
}

/// Error of a body that is not JSON.
pub fn malformed_json(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request("malformed_json", format!("body is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::limits::{MAX_DECODED_REQUEST_BYTES, MAX_DECOMPRESSED_BYTES};

    fn headers(content_type: &str) -> HeaderMap {
        let pairs = [(header::CONTENT_TYPE, content_type), (header::CONTENT_ENCODING, "zstd")];
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    async fn memory_mib(content_type: &str, body: &[u8]) -> usize {
        let compressed = zstd::bulk::compress(body, 19).unwrap();
        assert!(compressed.len() < 4_096, "{}", compressed.len());
        open(&headers(content_type), compressed.into()).await.unwrap().memory_bytes >> 20
    }

    /// Finding M2: 788 bytes became 712 MB; the memory of each body is known before it is decoded.
    #[tokio::test]
    async fn small_bodies_with_large_contents_are_counted() {
        for element in ["{\"a\":0}", "{}", "[]", "0", "{\"a\":{\"b\":{\"c\":0}}}", "\"\""] {
            let count = (MAX_DECOMPRESSED_BYTES - 64) / (element.len() + 1);
            let list = format!("{}{element}", format!("{element},").repeat(count - 1));
            let body = format!("{{\"host\":\"x\",\"y\":[{list}]}}");
            let mib = memory_mib("application/json", body.as_bytes()).await;
            assert!(mib > MAX_DECODED_REQUEST_BYTES >> 20, "{element}: {mib} MiB");
            let json = headers("application/json");
            let error = open(&json, zstd::bulk::compress(format!("[{list}]").as_bytes(), 3).unwrap().into());
            assert_eq!(error.await.unwrap_err().code(), "too_many_snapshots");
        }
        // Snapshots of empty process rows, and of values of a byte.
        for (field, size) in [(7 << 3 | 2, 0), (6 << 3 | 2, 8_192)] {
            let content = if size == 0 {
                [field, 0].repeat(200)
            } else {
                [&[field, 0x80, 0x40][..], &vec![0; size]].concat()
            };
            let snapshot = Bytes::from(content);
            let count = 500;
            let batch = Batch { snapshots: vec![snapshot; count], ..Batch::default() };
            let mib = memory_mib(wire::CONTENT_TYPE, &wire::encode_batch(&batch)).await;
            assert!(mib >= 30, "{size}: {mib} MiB");
        }
        // Shapes of many small columns.
        let column = [1 << 3 | 2, 3, 1 << 3 | 2, 1, b'a'];
        let batch = Batch { shapes: vec![column.repeat(8_192).into(); 190], ..Batch::default() };
        assert!(memory_mib(wire::CONTENT_TYPE, &wire::encode_batch(&batch)).await > 64);
    }
}
