//! An origin's body, bounded in the time between two reads. At its clean end the connection goes
//! back to the pool; dropped before, the connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::dir::FileBody;
use super::error::OriginError;
use super::lease::Lease;
use crate::telemetry::Span;

/// How long the first bytes of a body of unknown length are waited for: an origin that ends has done so by then, and one
/// that streams may mean its head to be seen before it has anything more to say.
const OPENING: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct OriginBody {
    kind: Kind,
    /// What was read before anybody wanted it.
    first: Option<Frame<Bytes>>,
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
    span: Span,
}

#[derive(Debug)]
enum Kind {
    Http { incoming: Incoming, lease: Option<Lease> },
    File(FileBody),
    Full(Option<Bytes>),
}

impl OriginBody {
    pub(super) fn http(incoming: Incoming, lease: Lease, timeout: Duration) -> Self {
        let mut body = Self::new(Kind::Http { incoming, lease: Some(lease) }, timeout);
        // A response without a body (204, 304, HEAD) ends here; nobody need poll it.
        if body.is_end_stream() {
            body.finish();
        }
        body
    }

    pub(super) fn file(file: FileBody, timeout: Duration) -> Self {
        Self::new(Kind::File(file), timeout)
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self::new(Kind::Full(Some(bytes)), Duration::MAX)
    }

    fn new(kind: Kind, timeout: Duration) -> Self {
        Self { kind, first: None, timeout, sleep: None, is_armed: false, span: Span::default() }
    }

    /// It belongs to a span, which ends with it.
    pub(super) fn within(mut self, mut span: Span) -> Self {
        if self.is_end_stream() {
            span.end();
        }
        self.span = span;
        self
    }

    /// Waits for the first bytes or the end, so that an answer which breaks off right behind its head is known for a failure
    /// before anybody has been told of it. A body of unknown length is waited for but a moment.
    ///
    /// # Errors
    /// As the body's first frame.
    pub async fn opened(&mut self) -> Result<(), OriginError> {
        if self.first.is_some() || self.is_end_stream() {
            return Ok(());
        }
        let is_announced = self.size_hint().exact().is_some();
        let first = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx));
        let first = if is_announced {
            first.await
        } else {
            let Ok(first) = tokio::time::timeout(OPENING, first).await else { return Ok(()) };
            first
        };
        self.first = first.transpose()?;
        Ok(())
    }

    /// The connection is not used again.
    pub fn close_connection(&mut self) {
        if let Kind::Http { lease, .. } = &mut self.kind {
            *lease = None;
        }
    }

    fn finish(&mut self) {
        self.span.end();
        if let Kind::Http { lease, .. } = &mut self.kind
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        match &mut self.kind {
            Kind::Http { incoming, lease } => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(lease) = lease
                    && let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    lease.count(data.len());
                }
                Poll::Ready(frame.map(|result| result.map_err(OriginError::Broken)))
            }
            Kind::File(file) => file.poll_read(cx).map(|read| {
                read.transpose().map(|result| result.map(Frame::data).map_err(OriginError::File))
            }),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match self.poll_inner(cx) {
            Poll::Ready(frame) => {
                self.is_armed = false;
                if let Some(Err(error)) = &frame {
                    self.span.failed(error.outcome());
                }
                if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.is_end_stream()) {
                    self.finish();
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let timeout = self.timeout;
                let must_arm = !std::mem::replace(&mut self.is_armed, true);
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
                if must_arm {
                    sleep.as_mut().reset(Instant::now() + timeout);
                }
                ready!(sleep.as_mut().poll(cx));
                self.span.failed(OriginError::BetweenBytesTimeout.outcome());
                Poll::Ready(Some(Err(OriginError::BetweenBytesTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.first.is_some() {
            return false;
        }
        match &self.kind {
            Kind::Http { incoming, .. } => incoming.is_end_stream(),
            Kind::File(file) => file.is_done(),
            Kind::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut left = match &self.kind {
            Kind::Http { incoming, .. } => incoming.size_hint(),
            Kind::File(file) => SizeHint::with_exact(file.left()),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        };
        let read = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        if read > 0 {
            let upper = left.upper().map(|upper| upper.saturating_add(read));
            let lower = left.lower().saturating_add(read);
            left = SizeHint::new();
            left.set_lower(lower);
            if let Some(upper) = upper {
                left.set_upper(upper);
            }
        }
        left
    }
}
