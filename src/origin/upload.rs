//! How far a request's body is on its way to an origin: the wait for the answer begins when it is out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either};
use parking_lot::Mutex;

use super::OutBody;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An upload that makes no progress for this many first-byte timeouts is given up: its origin does not
/// read. A client that does not send is ended sooner, by its own limit.
const STALL_FACTOR: u32 = 4;

#[derive(Clone, Copy, Debug)]
struct Progress {
    last: Instant,
    is_done: bool,
}

/// Watches one request's body.
pub(super) struct Upload(Option<Arc<Mutex<Progress>>>);

impl Upload {
    /// Wraps the body, if there is one.
    pub(super) fn watch(request: Request<OutBody>) -> (Request<OutBody>, Self) {
        if request.body().is_end_stream() {
            return (request, Self(None));
        }
        let progress = Arc::new(Mutex::new(Progress { last: Instant::now(), is_done: false }));
        let request =
            request.map(|inner| Either::Right(Watched { inner, progress: progress.clone() }.boxed_unsync()));
        (request, Self(Some(progress)))
    }

    /// Waits for an answer until `limit` after the body's end; `Err` when that has passed.
    pub(super) async fn within<T>(&self, limit: Duration, answer: impl Future<Output = T>) -> Result<T, ()> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let left = self.left(limit).ok_or(())?;
            if let Ok(answer) = tokio::time::timeout(left, answer.as_mut()).await {
                return Ok(answer);
            }
            // Without a body to wait for, that was it.
            self.0.as_ref().ok_or(())?;
        }
    }

    fn left(&self, limit: Duration) -> Option<Duration> {
        let Some(progress) = &self.0 else { return Some(limit) };
        let Progress { last, is_done } = *progress.lock();
        let limit = if is_done { limit } else { limit * STALL_FACTOR };
        limit.checked_sub(last.elapsed()).filter(|left| !left.is_zero())
    }
}

struct Watched {
    inner: OutBody,
    progress: Arc<Mutex<Progress>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_ready() {
            let is_done = matches!(frame, Poll::Ready(None)) || self.inner.is_end_stream();
            *self.progress.lock() = Progress { last: Instant::now(), is_done };
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
