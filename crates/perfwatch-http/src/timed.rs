//! Time limits of a connection's bytes: a stream whose writes and idle time are limited, and a request body with
//! a deadline. The time limit of a request's head is that of the HTTP library.

use crate::connections::ConnectionPermit;
use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use perfwatch_model::limit_table::{self, Limit};
use perfwatch_model::limits;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes that a slow reader must accept within the write timeout.
const MIN_WRITE_PROGRESS_BYTES: usize = limits::MIN_RESPONSE_PROGRESS_BYTES;

/// Time limits of the states of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionTimeouts {
    /// First byte of a connection on a TLS port, and the TLS handshake.
    pub handshake: Duration,
    /// Head of a request, including the idle time of a kept-alive connection.
    pub head: Duration,
    /// Body of a request, from its head to its last byte.
    pub body: Duration,
    /// Time in which a slow reader must accept 16 KiB.
    pub write: Duration,
    /// Time without a byte in either direction, also of a WebSocket.
    pub idle: Duration,
}

impl Default for ConnectionTimeouts {
    fn default() -> Self {
        Self {
            handshake: limits::HANDSHAKE_TIMEOUT,
            head: limits::REQUEST_HEAD_TIMEOUT,
            body: limits::REQUEST_BODY_TIMEOUT,
            write: limits::RESPONSE_STALL_TIMEOUT,
            idle: limits::CONNECTION_IDLE_TIMEOUT,
        }
    }
}

/// Write that waits for its reader.
struct StalledWrite {
    deadline: Pin<Box<Sleep>>,
    /// Bytes accepted since the write stalled.
    progress: usize,
    /// Whether the latest write had to wait.
    is_waiting: bool,
}

/// Stream that fails if its reader is too slow, or if nothing is sent in either direction for too long. Occupies
/// a slot of the connection limit as long as it exists, also after an upgrade.
pub(crate) struct TimedStream<S> {
    inner: S,
    timeouts: ConnectionTimeouts,
    stalled: Option<StalledWrite>,
    idle: Pin<Box<Sleep>>,
    active_at: Instant,
    _permit: ConnectionPermit,
}

fn timed_out(limit: &Limit, reason: &'static str) -> io::Error {
    limit.refuse();
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

impl<S> TimedStream<S> {
    pub(crate) fn new(inner: S, timeouts: ConnectionTimeouts, permit: ConnectionPermit) -> Self {
        let idle = Box::pin(tokio::time::sleep(timeouts.idle));
        Self { inner, timeouts, stalled: None, idle, active_at: Instant::now(), _permit: permit }
    }

    /// Result of a write: fails if the reader did not accept enough bytes in time.
    fn check_write(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.active_at = Instant::now();
                if let Some(stalled) = &mut self.stalled {
                    stalled.progress += bytes;
                    if !stalled.is_waiting || stalled.progress >= MIN_WRITE_PROGRESS_BYTES {
                        self.stalled = None;
                    } else {
                        stalled.is_waiting = false;
                    }
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                let stalled = self.stalled.get_or_insert_with(|| StalledWrite {
                    deadline: Box::pin(tokio::time::sleep(self.timeouts.write)),
                    progress: 0,
                    is_waiting: true,
                });
                stalled.is_waiting = true;
                ready!(stalled.deadline.as_mut().poll(cx));
                Poll::Ready(Err(timed_out(&limit_table::RESPONSE_STALL_TIME, "client reads too slowly")))
            }
            result => result,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.active_at = Instant::now();
            return Poll::Ready(result);
        }
        // Writes move the deadline, too: the timer is set again only when it fires.
        while this.idle.as_mut().poll(cx).is_ready() {
            let deadline = this.active_at + this.timeouts.idle;
            if deadline <= Instant::now() {
                return Poll::Ready(Err(timed_out(&limit_table::CONNECTION_IDLE_TIME, "connection is idle")));
            }
            this.idle.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.check_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Request body that fails if it is not complete at its deadline.
pub(crate) struct TimedBody {
    inner: Incoming,
    timeout: Duration,
    /// Starts with the first read that has to wait.
    deadline: Option<Pin<Box<Sleep>>>,
    head_at: Instant,
}

impl TimedBody {
    pub(crate) fn new(inner: Incoming, timeout: Duration) -> Self {
        Self { inner, timeout, deadline: None, head_at: Instant::now() }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = this
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(this.head_at + this.timeout)));
        ready!(deadline.as_mut().poll(cx));
        let error = timed_out(&limit_table::REQUEST_BODY_TIME, "request body is too slow");
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
