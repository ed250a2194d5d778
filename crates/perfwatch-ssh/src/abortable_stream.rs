//! A stream that can be aborted from outside. The task of a connection owns the stream; the session
//! owns the [`DropGuard`](tokio_util::sync::DropGuard). Dropping the guard ends the stream and with
//! it the task, so that no task or socket leaks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Stream that fails with `ConnectionAborted` after its token is cancelled.
pub(crate) struct AbortableStream<S> {
    inner: S,
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> AbortableStream<S> {
    pub(crate) fn new(inner: S, token: CancellationToken) -> Self {
        Self { inner, aborted: Box::pin(token.cancelled_owned()) }
    }

    /// Returns true after the token is cancelled, else registers the task for waking.
    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> bool {
        self.aborted.as_mut().poll(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AbortableStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_aborted(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AbortableStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.poll_aborted(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
