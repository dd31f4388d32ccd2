//! A connection that says when something last happened on it, so that idle and stalled ones can be ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long a connection may do nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until its first request has begun.
    pub(super) first_request: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// In the middle of a request or its answer, without a byte in either direction.
    pub(super) stalled: Duration,
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Milliseconds from `opened` to the last byte.
    last_byte: AtomicU64,
    /// Milliseconds from `opened` to the end of the last request's handling.
    last_request: AtomicU64,
    under_way: AtomicUsize,
    started: AtomicBool,
}

impl Activity {
    /// A connection that was just opened.
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            last_byte: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            started: AtomicBool::new(false),
        }
    }

    fn millis(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    fn byte(&self) {
        self.last_byte.store(self.millis(), Ordering::Relaxed);
    }

    /// A request is under way until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.started.store(true, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// How much longer the connection may go on; `None`: its time is over.
    fn remaining(&self, limits: Limits) -> Option<Duration> {
        let busy = self.under_way.load(Ordering::Relaxed) > 0;
        let last_byte = self.last_byte.load(Ordering::Relaxed);
        let last_request = self.last_request.load(Ordering::Relaxed);
        let (since, limit) = if busy {
            (last_byte.max(last_request), limits.stalled)
        } else if self.started.load(Ordering::Relaxed) {
            // A long answer is still being sent after its request was handled: its bytes count.
            (last_byte.max(last_request), limits.idle)
        } else {
            // Bytes do not count before the first head is whole, or one byte a second would hold the place for ever.
            (0, limits.first_request)
        };
        let deadline = Duration::from_millis(since) + limit;
        deadline.checked_sub(self.opened.elapsed()).filter(|remaining| !remaining.is_zero())
    }

    /// Comes back when the connection has been silent for too long.
    pub(super) async fn expired(&self, limits: Limits) {
        while let Some(remaining) = self.remaining(limits) {
            tokio::time::sleep(remaining).await;
        }
    }
}

/// A request that is being handled.
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.last_request.store(self.0.millis(), Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that notes when bytes move.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    /// `stream`, noted in `activity`.
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.byte();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.activity.byte();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.activity.byte();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A body that keeps its request under way until it is sent or given up.
pub(super) struct Held {
    body: Body,
    _under_way: UnderWay,
}

impl Held {
    /// `body`, on behalf of `under_way`.
    pub(super) fn new(body: Body, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Activity, Limits};

    const NEVER: Duration = Duration::from_hours(1);

    #[test]
    fn a_connection_without_a_request_and_an_idle_one_expire() {
        let activity = Arc::new(Activity::new());
        let limits = |first_request, idle| Limits { first_request, idle, stalled: NEVER };
        activity.byte();
        assert_eq!(activity.remaining(limits(Duration::ZERO, NEVER)), None);
        assert!(activity.remaining(limits(NEVER, Duration::ZERO)).is_some());
        let request = activity.request();
        assert!(activity.remaining(limits(Duration::ZERO, Duration::ZERO)).is_some());
        drop(request);
        assert!(activity.remaining(limits(Duration::ZERO, NEVER)).is_some());
        assert_eq!(activity.remaining(limits(NEVER, Duration::ZERO)), None);
    }
}
