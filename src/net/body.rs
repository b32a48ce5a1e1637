//! Bodies with a connection's limits on them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::Outgoing;
use super::activity::Activity;
use super::copies;
use crate::region;

/// Why a request's body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// It is larger than the limit.
    #[error("the request's body is larger than the limit")]
    TooLarge,
    /// The client sent nothing for the body timeout.
    #[error("the request's body did not arrive in time")]
    Timeout,
    /// The client broke off or broke the framing.
    #[error("the request's body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

/// A request's body, bounded in size and in the time between two reads.
#[derive(Debug)]
pub struct RequestBody {
    /// `None`: a body of no bytes that came from nowhere.
    inner: Option<Incoming>,
    left_bytes: u64,
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, limit_bytes: u64, timeout: Duration) -> Self {
        Self { inner: Some(inner), left_bytes: limit_bytes, timeout, sleep: None }
    }

    /// No body; for requests that do not come from a connection.
    pub fn empty() -> Self {
        Self { inner: None, left_bytes: 0, timeout: Duration::ZERO, sleep: None }
    }

    /// Whether its announced length alone is over the limit.
    pub fn is_too_large(&self) -> bool {
        self.size_hint().lower() > self.left_bytes
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.sleep = None;
                let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
                if let Some(data) = frame.data_ref() {
                    let len = data.len() as u64;
                    match self.left_bytes.checked_sub(len) {
                        Some(left) => self.left_bytes = left,
                        None => return Poll::Ready(Some(Err(RequestBodyError::TooLarge))),
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                let timeout = self.timeout;
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Some(Err(RequestBodyError::Timeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Tells the connection's [`Activity`] that a request is over, however it ends.
#[derive(Debug)]
pub(super) struct Ending {
    activity: Arc<Activity>,
    stream: Option<usize>,
}

impl Ending {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        let stream = activity.open_stream();
        Self { activity, stream }
    }

    fn with<B>(self, inner: B) -> ResponseBody<B> {
        ResponseBody { inner, ending: self }
    }
}

/// A handler's answer, whose body gets its request's ending. An `async` block would do the same and be
/// twice as large.
#[derive(Debug)]
pub(super) struct Answering<F> {
    answer: F,
    ending: Option<Ending>,
}

impl<F> Answering<F> {
    pub(super) fn new(answer: F, ending: Ending) -> Self {
        Self { answer, ending: Some(ending) }
    }
}

impl<B: Outgoing, F: Future<Output = Response<B>> + Unpin> Future for Answering<F> {
    type Output = Result<Response<ResponseBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.answer).poll(cx);
        if let Some(ending) = &self.ending {
            // What its making hits, on HTTP/2 in a task of its own, is the connection's.
            ending.activity.integrity.take_poison();
        }
        let mut response = ready!(polled);
        if let Some(ending) = &self.ending
            && ending.activity.is_leaving()
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(ending) = &self.ending
            && let Some(lines) = response.body_mut().take_lines()
        {
            // Whoever was promised a body of HTTP/1.1 speaks it.
            ending.activity.lines.put(lines);
        }
        match self.ending.take() {
            Some(ending) => Poll::Ready(Ok(response.map(|body| ending.with(body)))),
            // Polled after its end, which nobody does.
            None => Poll::Pending,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(stream) = self.stream {
            self.activity.close_stream(stream);
        }
        self.activity.end();
    }
}

/// A response's body that ends its request when it is finished or dropped and tells, on HTTP/2,
/// whether its client still takes it.
#[derive(Debug)]
pub(super) struct ResponseBody<B> {
    inner: B,
    ending: Ending,
}

impl<B: Outgoing> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let losses = region::losses();
        let may_be_copied = self.ending.activity.is_plain() && self.inner.is_stored_chunk();
        let mut frame = Pin::new(&mut self.inner).poll_frame(cx);
        let activity = &self.ending.activity;
        let integrity = &activity.integrity;
        integrity.take_poison();
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(chunk) = frame.data_mut()
        {
            if may_be_copied {
                copies::swap(chunk);
            }
            integrity.on_chunk(chunk, losses);
        }
        if let Some(stream) = self.ending.stream {
            self.ending.activity.on_stream(stream, frame.is_ready());
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
