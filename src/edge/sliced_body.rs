//! A body that is put together from slices, each found or fetched when a reader comes to it.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use super::Edge;
use super::admit::Admitted;
use super::body::BodyError;
use super::flight::Follower;
use super::slices::{Slice, Sliced, Standing, Wish};
use crate::object;
use crate::rules::hop;

/// What the fetches of slices need of a request; it lives as long as the body.
fn request_of(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    hop::strip_request(&mut headers);
    object::compact(&headers)
}

/// A body whose slices are found or fetched when it comes to them.
pub(super) struct SlicedBody {
    edge: Arc<Edge>,
    admitted: Arc<Admitted>,
    request: HeaderMap,
    sliced: Sliced,
}

impl SlicedBody {
    /// Of the slices that a request selects.
    pub(super) fn new(
        edge: &Arc<Edge>,
        admitted: &Arc<Admitted>,
        request: &HeaderMap,
        sliced: &Sliced,
    ) -> Self {
        let (edge, admitted, request) = (edge.clone(), admitted.clone(), request_of(request));
        Self { edge, admitted, request, sliced: sliced.clone() }
    }
}

enum Current {
    None,
    Waiting(Pin<Box<dyn Future<Output = Option<Slice>> + Send>>),
    Stored(object::Reader),
    Coming(Follower),
}

/// Reads a range of a [`SlicedBody`].
pub(super) struct SlicesReader {
    body: Arc<SlicedBody>,
    left: Range<u64>,
    current: Current,
}

impl std::fmt::Debug for SlicesReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlicesReader").field("left", &self.left).finish_non_exhaustive()
    }
}

impl SlicesReader {
    pub(super) fn new(body: Arc<SlicedBody>, range: Range<u64>) -> Self {
        Self { body, left: range, current: Current::None }
    }

    /// Bytes not yet read.
    pub(super) fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        while !self.left.is_empty() {
            let next = match &mut self.current {
                Current::None => {
                    self.current = self.find();
                    continue;
                }
                Current::Waiting(slice) => {
                    let Some(slice) = ready!(slice.as_mut().poll(cx)) else {
                        return Poll::Ready(Some(Err(BodyError::Flight("a slice can't be had".into()))));
                    };
                    self.current = self.open(slice);
                    continue;
                }
                Current::Stored(reader) => {
                    ready!(reader.poll_next(cx)).map(|slice| slice.map_err(BodyError::from))
                }
                Current::Coming(follower) => ready!(follower.poll_next(cx)),
            };
            match next {
                None => self.current = Current::None,
                Some(Ok(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(None)
    }

    fn find(&self) -> Current {
        let body = self.body.clone();
        let index = body.sliced.index_of(self.left.start);
        Current::Waiting(Box::pin(async move {
            let SlicedBody { edge, admitted, request, sliced } = &*body;
            edge.slice(Wish { admitted, request, sliced, index }).await
        }))
    }

    /// From where the reader is to the end of the slice or of what it reads.
    fn open(&self, slice: Slice) -> Current {
        let sliced = &self.body.sliced;
        let there = sliced.range_of(sliced.index_of(self.left.start));
        let range = self.left.start - there.start..self.left.end.min(there.end) - there.start;
        match slice {
            Slice::Stored(object) | Slice::Stale(Standing { object, .. }) => {
                Current::Stored(object::Reader::new(object.body.clone(), range))
            }
            Slice::Coming(_, flight) => Current::Coming(flight.follow(range.start, Some(range.end))),
        }
    }
}
