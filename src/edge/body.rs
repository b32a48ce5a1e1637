//! The body of an answer, whatever it comes from, and the bookkeeping at its end.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::coded::Coded;
use super::flight::Follower;
use super::record::Record;
use super::sliced_body::SlicesReader;
use crate::net::Outgoing;
use crate::object;
use crate::origin::{OriginBody, OriginError};

/// Why a body ends before its end. The connection is broken off, so that no client takes a part
/// for the whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The origin's answer to this request broke.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The fetch that this request follows broke.
    #[error("the shared fetch broke off: {0}")]
    Flight(Arc<str>),
    /// The store can't read what it has.
    #[error(transparent)]
    Lost(#[from] object::Lost),
    /// What is stored can't be had in a coding that this client takes.
    #[error(transparent)]
    Coding(#[from] crate::encode::Failure),
    /// This client is too slow for a response that is not stored.
    #[error("the client fell out of the window of a response that is not stored")]
    OutOfWindow,
}

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Bytes),
    Stored(object::Reader),
}

#[derive(Debug)]
enum Kind {
    Empty,
    Bytes(Bytes),
    Stored(object::Reader),
    Parts(VecDeque<Part>),
    // Boxed: a hit's body is moved about with the room that these take.
    Flight(Box<Follower>),
    Slices(Box<SlicesReader>),
    Origin(Box<OriginBody>),
    Coded(Box<Coded>),
}

/// See the module.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    record: Option<Record>,
    /// Lines of the head that go with it.
    lines: Option<Bytes>,
}

impl Body {
    fn of(kind: Kind) -> Self {
        Self { kind, record: None, lines: None }
    }

    pub(super) fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    pub(super) fn bytes(bytes: Bytes) -> Self {
        Self::of(Kind::Bytes(bytes))
    }

    pub(super) fn stored(body: Arc<object::Body>, range: Range<u64>) -> Self {
        Self::of(Kind::Stored(object::Reader::new(body, range)))
    }

    pub(super) fn parts(parts: VecDeque<Part>) -> Self {
        Self::of(Kind::Parts(parts))
    }

    pub(super) fn flight(follower: Follower) -> Self {
        Self::of(Kind::Flight(Box::new(follower)))
    }

    pub(super) fn slices(reader: SlicesReader) -> Self {
        Self::of(Kind::Slices(Box::new(reader)))
    }

    pub(super) fn origin(body: OriginBody) -> Self {
        Self::of(Kind::Origin(Box::new(body)))
    }

    pub(super) fn coded(coded: Coded) -> Self {
        Self::of(Kind::Coded(Box::new(coded)))
    }

    /// With lines of an HTTP/1.1 head: see [`Outgoing::take_lines`].
    pub(super) fn with_lines(self, lines: Option<Bytes>) -> Self {
        Self { lines, ..self }
    }

    pub(super) fn with(self, record: Record) -> Self {
        Self { record: Some(record), ..self }
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Kind::Stored(reader) => reader.poll_next(cx).map(|next| next.map(|slice| Ok(slice?))),
            Kind::Parts(parts) => poll_parts(parts, cx),
            Kind::Flight(follower) => follower.poll_next(cx),
            Kind::Slices(reader) => reader.poll_next(cx),
            Kind::Origin(body) => poll_origin(body, cx),
            Kind::Coded(coded) => coded.poll_next(cx),
        }
    }
}

fn poll_parts(parts: &mut VecDeque<Part>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
    while let Some(part) = parts.front_mut() {
        match part {
            Part::Bytes(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Part::Stored(reader) if reader.left() > 0 => {
                return reader.poll_next(cx).map(|next| next.map(|slice| Ok(slice?)));
            }
            Part::Bytes(_) | Part::Stored(_) => parts.pop_front(),
        };
    }
    Poll::Ready(None)
}

fn poll_origin(body: &mut OriginBody, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
    use http_body::Body as _;
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                // Trailers are hop by hop unless known otherwise (RFC 9110 §6.5.1): dropped.
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

impl Outgoing for Body {
    #[inline]
    fn take_lines(&mut self) -> Option<Bytes> {
        self.lines.take()
    }

    #[inline]
    fn is_stored_chunk(&self) -> bool {
        matches!(&self.kind, Kind::Stored(reader) if reader.is_at_one_chunk())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_kind(cx);
        // hyper does not ask again for what it knows to be over.
        let is_over = http_body::Body::is_end_stream(&*self);
        if let Poll::Ready(next) = &polled
            && let Some(record) = &mut self.record
        {
            match next {
                Some(Ok(data)) => record.sent(data.len()),
                None => record.complete(),
                Some(Err(_)) => {}
            }
            if is_over && !matches!(next, Some(Err(_))) {
                record.complete();
            }
        }
        polled.map(|next| next.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stored(reader) => reader.left() == 0,
            Kind::Parts(parts) => parts.is_empty(),
            Kind::Flight(follower) => follower.is_done(),
            Kind::Slices(reader) => reader.left() == 0,
            Kind::Origin(body) => body.is_end_stream(),
            Kind::Coded(coded) => coded.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stored(reader) => SizeHint::with_exact(reader.left()),
            Kind::Parts(parts) => SizeHint::with_exact(parts.iter().map(part_len).sum()),
            Kind::Slices(reader) => SizeHint::with_exact(reader.left()),
            Kind::Flight(follower) => follower.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::Origin(body) => body.size_hint(),
            Kind::Coded(_) => SizeHint::default(),
        }
    }
}

fn part_len(part: &Part) -> u64 {
    match part {
        Part::Bytes(bytes) => bytes.len() as u64,
        Part::Stored(reader) => reader.left(),
    }
}
