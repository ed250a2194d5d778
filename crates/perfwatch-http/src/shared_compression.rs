//! Compressed copies of responses that many clients share: compressed once instead of for each client.

use crate::compression::accepts_encoding;
use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Responses whose copies are kept: more than groups of callers with equal access read at the same time.
const MAX_COPIES: usize = 16;
/// Size below which a copy saves less than its headers and its work.
const MIN_COMPRESSED_BYTES: usize = 1 << 10;

/// JSON and its compressed copy.
struct SharedCopy {
    /// Keeps its memory, so that its address identifies it.
    json: Bytes,
    gzip: OnceCell<Bytes>,
}

/// Copies of the newest shared responses.
#[derive(Default)]
pub struct SharedCompression(Mutex<VecDeque<Arc<SharedCopy>>>);

impl SharedCompression {
    /// Responds with JSON, compressed if the client accepts gzip. Callers pass clones of the same bytes.
    pub async fn respond(&self, request: &HeaderMap, json: Bytes) -> Response {
        let content_type = (header::CONTENT_TYPE, "application/json");
        if json.len() < MIN_COMPRESSED_BYTES || !accepts_encoding(request, "gzip") {
            return ([content_type], json).into_response();
        }
        let copy = self.copy(&json);
        let gzip = copy.gzip.get_or_try_init(|| tokio::task::spawn_blocking(move || compress(&json))).await;
        match gzip {
            Ok(gzip) => {
                let encoding = (header::CONTENT_ENCODING, "gzip");
                ([content_type, encoding, (header::VARY, "accept-encoding")], gzip.clone()).into_response()
            }
            // Only a runtime that stops drops the task.
            Err(_) => ([content_type], copy.json.clone()).into_response(),
        }
    }

    fn copy(&self, json: &Bytes) -> Arc<SharedCopy> {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same =
            |copy: &&Arc<SharedCopy>| copy.json.as_ptr() == json.as_ptr() && copy.json.len() == json.len();
        if let Some(copy) = copies.iter().find(is_same) {
            return copy.clone();
        }
        // Nobody else has these bytes any more, so that nobody responds with them.
        copies.retain(|copy| !copy.json.is_unique());
        if copies.len() >= MAX_COPIES {
            copies.pop_front();
        }
        let copy = Arc::new(SharedCopy { json: json.clone(), gzip: OnceCell::new() });
        copies.push_back(copy.clone());
        copy
    }
}

fn compress(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::http::HeaderValue;
    use std::io::Read as _;

    async fn body(response: Response) -> Bytes {
        to_bytes(response.into_body(), usize::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn shared_json_is_compressed_once() {
        let (shared, json) = (SharedCompression::default(), Bytes::from(vec![b'x'; 10_000]));
        let gzip: HeaderMap =
            [(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"))].into_iter().collect();
        let plain = shared.respond(&HeaderMap::new(), json.clone()).await;
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(body(plain).await, json);
        let response = shared.respond(&gzip, json.clone()).await;
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
        let (first, second) = (body(response).await, body(shared.respond(&gzip, json.clone()).await).await);
        assert_eq!(first.as_ptr(), second.as_ptr(), "the copy is shared");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&first[..]).read_to_end(&mut text).unwrap();
        assert!(text == json);
        // Other bytes with equal content are another response. Copies of bytes that nobody has end.
        let others: Vec<Bytes> = (0..2 * MAX_COPIES).map(|_| vec![b'y'; 10_000].into()).collect();
        for other in &others {
            shared.respond(&gzip, other.clone()).await;
        }
        assert_eq!(shared.0.lock().unwrap().len(), MAX_COPIES);
        drop(others);
        shared.respond(&gzip, json.clone()).await;
        assert_eq!(shared.0.lock().unwrap().len(), 1);
        let small = shared.respond(&gzip, Bytes::from_static(b"{}")).await;
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }
}
