//! Responses that leave their thread to other requests. Compression polls its input until its output is
//! full, and the connection polls the response until its buffer is full: for a large response, this takes
//! seconds without a pause. Compression therefore receives its input in small frames, and the response pauses
//! after each frame.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_http::compression::{CompressionBody, CompressionLayer};
use tower_http::map_response_body::MapResponseBodyLayer;
use tower_layer::Stack;

/// Maximum size of a frame: less than a millisecond of compression.
const MAX_FRAME_BYTES: usize = 16 << 10;

/// Layer that compresses responses in small frames, with a pause after each.
pub type CompressionLayers = Stack<
    Stack<MapResponseBodyLayer<fn(Body) -> SmallFrames>, CompressionLayer>,
    MapResponseBodyLayer<fn(CompressionBody<SmallFrames>) -> Pauses>,
>;

/// Layer of all routes whose responses are compressed.
pub fn compression() -> CompressionLayers {
    let split = MapResponseBodyLayer::new(SmallFrames::new as fn(Body) -> SmallFrames);
    let pause = MapResponseBodyLayer::new(Pauses::new as fn(CompressionBody<SmallFrames>) -> Pauses);
    Stack::new(Stack::new(split, CompressionLayer::new()), pause)
}

/// Returns whether a client accepts an encoding (RFC 9110, 12.5.3).
pub fn accepts_encoding(request: &HeaderMap, encoding: &str) -> bool {
    let accepted = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|entry| {
        let (name, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let weight = weight.trim().trim_start_matches("q=").trim_end_matches(['0', '.']);
        name.trim().eq_ignore_ascii_case(encoding) && (!weight.is_empty() || !entry.contains(';'))
    })
}

/// Body that is not ready once after each frame.
pub struct Pauses {
    inner: Body,
    must_pause: bool,
}

impl Pauses {
    fn new(inner: CompressionBody<SmallFrames>) -> Self {
        Self { inner: Body::new(inner), must_pause: false }
    }
}

impl HttpBody for Pauses {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if std::mem::take(&mut self.must_pause) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        self.must_pause = frame.is_some();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Body in frames of limited size. After as many bytes, it is not ready once, so that the compression returns
/// what it has.
pub struct SmallFrames {
    inner: Body,
    /// Rest of a frame that was too large.
    rest: Bytes,
    /// Bytes since the last pause.
    passed: usize,
}

impl SmallFrames {
    fn new(inner: Body) -> Self {
        Self { inner, rest: Bytes::new(), passed: 0 }
    }

    /// Next frame from data that is not empty.
    fn split(&mut self, mut data: Bytes) -> Frame<Bytes> {
        let frame = data.split_to(data.len().min(MAX_FRAME_BYTES));
        self.passed += frame.len();
        self.rest = data;
        Frame::data(frame)
    }
}

impl HttpBody for SmallFrames {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.passed >= MAX_FRAME_BYTES {
            self.passed = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.split(rest))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            Ok(match frame?.into_data() {
                Ok(data) => self.split(data),
                Err(trailers) => trailers,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::Request;
    use axum::http::HeaderValue;
    use axum::routing::get;
    use std::io::Read as _;
    use std::task::Waker;
    use tower_service::Service as _;

    /// Issue 16: a compressed response of 8 MiB was one poll of a serving thread.
    #[tokio::test]
    async fn compression_pauses_after_each_small_frame() {
        const BYTES: usize = 8 << 20;
        let mut router: Router =
            Router::new().route("/", get(async || vec![b'x'; BYTES])).layer(compression());
        let request = Request::get("/").header(header::ACCEPT_ENCODING, "gzip").body(Body::empty()).unwrap();
        let response = router.call(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        let (mut body, mut pauses, mut compressed) = (response.into_body(), 0, Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Pending => pauses += 1,
                Poll::Ready(Some(frame)) => compressed.extend(frame.unwrap().into_data().unwrap()),
                Poll::Ready(None) => break,
            }
        }
        assert!(pauses >= BYTES / MAX_FRAME_BYTES, "{pauses} pauses");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut text).unwrap();
        assert!(text == vec![b'x'; BYTES]);
    }

    #[test]
    fn encodings_are_accepted_by_name_and_weight() {
        for (accepted, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("br;q=1.0, gzip;q=1.0", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("xgzip, br", false),
            ("", false),
        ] {
            let value = (header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            assert_eq!(accepts_encoding(&[value].into_iter().collect(), "gzip"), expected, "{accepted}");
        }
    }

    #[tokio::test]
    async fn uncompressed_responses_keep_their_length() {
        let mut body = SmallFrames::new(Body::from(vec![7; 3 * MAX_FRAME_BYTES + 5]));
        let (mut sizes, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
        while body.size_hint().exact() != Some(0) {
            let before = body.size_hint().exact().unwrap();
            if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
                let len = frame.into_data().unwrap().len();
                assert_eq!(body.size_hint().exact(), Some(before - len as u64));
                sizes.push(len);
            }
        }
        assert_eq!(sizes, [MAX_FRAME_BYTES, MAX_FRAME_BYTES, MAX_FRAME_BYTES, 5]);
        assert!(body.is_end_stream());
    }
}
