//! Large responses in slices: who asks for a range of something large gets the aligned slices that the
//! range lies in, fetched one by one, each by one request however many ask, and stored under a key of
//! its own. Later ranges, and the whole, are put together from stored slices and new ones.
//!
//! The first range of a URL whose size nobody knows asks for the whole; when the answer's head says
//! that it is larger than a slice, has a strong tag and can be had in ranges, the answer is given up and
//! slices are fetched instead. Every slice is asked for with `If-Range` and must carry the same tag and
//! length: another one ends the memory of the slices, and what was stored of the old ones is never used
//! again.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::admit::Admitted;
use super::body::{Body, BodyError};
use super::collapse::Join;
use super::fill::{Answer, Fill, Wanted, find_fresh};
use super::flight::{Flight, Follower, Published};
use super::respond;
use super::{Edge, Outcome};
use crate::object::{self, Head, Object};
use crate::origin::OriginBody;
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::key::CacheKey;
use crate::rules::range::{self, Requested};
use crate::rules::{etag, hop};

/// Flights of a slice that one request joins.
const ATTEMPTS: usize = 3;

/// A response that is fetched in slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sliced {
    /// Its length in bytes.
    pub(super) length: u64,
    /// Its strong entity tag.
    tag: HeaderValue,
    /// The length of a slice.
    pub(super) size: u64,
}

impl Sliced {
    /// Whether the whole that an origin has begun to send had better be had in slices.
    pub(super) fn of(response: &Response<OriginBody>, size: u64) -> Option<Self> {
        let headers = response.headers();
        let length = respond::content_length(headers)?;
        let tag = headers.get(header::ETAG).filter(|tag| etag::is_strong(tag.as_bytes()))?;
        let takes_ranges = headers.get(header::ACCEPT_RANGES).is_some_and(|value| value == "bytes");
        let is_large = response.status() == StatusCode::OK && length > size && takes_ranges;
        is_large.then(|| Self { length, tag: tag.clone(), size })
    }

    /// The key of a slice.
    pub(super) fn key(&self, whole: &CacheKey, index: u64) -> CacheKey {
        whole.part(&format!("slice-{}-{index}", self.size))
    }

    fn range_of(&self, index: u64) -> Range<u64> {
        let start = index * self.size;
        start..(start + self.size).min(self.length)
    }

    /// The slice that the answer to a request begins with.
    pub(super) fn first(&self, request: &HeaderMap) -> u64 {
        match range::parse(request, self.length) {
            Requested::Single(range) => range.start / self.size,
            Requested::Ignored | Requested::Unsatisfiable | Requested::Multiple(_) => 0,
        }
    }

    /// Asks an origin for a slice.
    pub(super) fn ask_for(&self, index: u64, headers: &mut HeaderMap) {
        let Range { start, end } = self.range_of(index);
        if let Ok(range) = HeaderValue::try_from(format!("bytes={start}-{}", end - 1)) {
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_RANGE, self.tag.clone());
        }
    }

    /// Whether an answer or a stored part is this slice.
    pub(super) fn is(&self, index: u64, headers: &HeaderMap) -> bool {
        let Some(found) = range::content_range_of(headers) else { return false };
        let Range { start, end } = self.range_of(index);
        (found.first, found.last + 1, found.complete) == (start, end, Some(self.length))
            && headers.get(header::ETAG) == Some(&self.tag)
    }
}

/// A slice that can be read.
enum Slice {
    Stored(Arc<Object>),
    Coming(Arc<Head>, Arc<Flight>),
}

impl Slice {
    fn head(&self) -> &Arc<Head> {
        match self {
            Self::Stored(object) => &object.head,
            Self::Coming(head, _) => head,
        }
    }
}

impl Fill {
    /// Fetches a slice for all who ask for it.
    pub(super) async fn run_slice(mut self, sliced: &Sliced, index: u64) {
        let answer = match self.ask(None).await {
            Ok(answer) => answer,
            Err(error) => return self.lead.flight.publish(Published::Failed(Arc::new(error))),
        };
        if !is_slice(&answer, sliced, index) {
            self.edge.collapse.forget_sliced(self.admitted.key.hash());
            self.lead.leave();
            return self.lead.flight.publish(Published::Unshared);
        }
        match self.accept(&answer) {
            Ok((head, deposit)) => self.stream(answer.response.into_body(), Arc::new(head), deposit).await,
            Err(_) => {
                self.lead.leave();
                self.lead.flight.publish(Published::Unshared);
            }
        }
    }
}

fn is_slice(answer: &Answer, sliced: &Sliced, index: u64) -> bool {
    answer.response.status() == StatusCode::PARTIAL_CONTENT && sliced.is(index, answer.response.headers())
}

impl Edge {
    /// The answer from slices; `None`: they can't be had, and the whole is to be fetched.
    pub(super) async fn from_slices(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        sliced: &Sliced,
    ) -> Option<(Outcome, Response<Body>)> {
        let slice = self.slice(admitted, &parts.headers, sliced, sliced.first(&parts.headers)).await?;
        let now = self.clock.now();
        let head = slice.head().of_whole(sliced.length);
        let (outcome, status, age) = match &slice {
            Slice::Stored(object) => {
                let ttl = Some(object.head.freshness.ttl_secs(now));
                let status = CacheStatus { hit: true, ttl, detail: Some("slices"), ..CacheStatus::default() };
                let age = HeaderValue::from(object.head.freshness.age_secs(now));
                (Outcome::Hit, status, Some(age))
            }
            Slice::Coming(head, _) => {
                let fwd_status = Some(head.status.as_u16());
                let detail = Some("slices");
                let fwd = Some(Fwd::Partial);
                let status = CacheStatus { fwd, fwd_status, detail, ..CacheStatus::default() };
                (Outcome::Miss, status, head.origin_age.clone())
            }
        };
        let serving = self.serving(admitted, parts, status, outcome == Outcome::Miss);
        let whole = SlicedBody {
            edge: self.clone(),
            admitted: admitted.clone(),
            request: request_of(&parts.headers),
            sliced: sliced.clone(),
        };
        let response = respond::from_slices(&serving, &head, Arc::new(whole), sliced.length, age);
        Some((outcome, response))
    }

    /// A slice: stored, or on its way.
    async fn slice(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        request: &HeaderMap,
        sliced: &Sliced,
        index: u64,
    ) -> Option<Slice> {
        let key = sliced.key(&admitted.key, index);
        if let Some(entry) = self.store.load(&key).await
            && let Some(object) = entry.select(request)
            && self.is_fresh(object)
            && sliced.is(index, &object.head.headers)
            && object.body.is_readable().await
        {
            self.store.promote(key.hash());
            return Some(Slice::Stored(object.clone()));
        }
        for _ in 0..ATTEMPTS {
            let is_slice = |found: &Arc<Object>| sliced.is(index, &found.head.headers);
            let find = || find_fresh(self, &key, request, None).filter(is_slice);
            let as_of = self.purges.applied();
            let is_outdated = |flight: &Flight| self.is_outdated(&key, flight);
            let joined = self.collapse.join(key.hash(), request, as_of, is_outdated, find);
            let (reader, flight) = match joined {
                Err(found) => return Some(Slice::Stored(found)),
                Ok(Join::Follow(reader, flight)) => (reader, flight),
                Ok(Join::Lead(mut lead)) => {
                    if let Some(found) = self.landed(&key, request, None).await.filter(is_slice) {
                        lead.found(&found);
                        return Some(Slice::Stored(found));
                    }
                    let flight = lead.flight.clone();
                    let reader = flight.join();
                    let mut fill = Fill::new(self, admitted, request, lead);
                    fill.wanted = Wanted::Slice(sliced.clone(), index);
                    fill.launch();
                    (reader, flight)
                }
            };
            match reader.published().await {
                Published::Streaming(head, _) if sliced.is(index, &head.headers) => {
                    // Kept for this one until it follows.
                    let _reader = reader;
                    return Some(Slice::Coming(head, flight));
                }
                Published::Stored(found) if is_slice(&found) => return Some(Slice::Stored(found)),
                Published::Aborted | Published::Streaming(..) => {}
                _ => return None,
            }
        }
        None
    }
}

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
        let index = self.left.start / body.sliced.size;
        Current::Waiting(Box::pin(async move {
            body.edge.slice(&body.admitted, &body.request, &body.sliced, index).await
        }))
    }

    /// From where the reader is to the end of the slice or of what it reads.
    fn open(&self, slice: Slice) -> Current {
        let sliced = &self.body.sliced;
        let there = sliced.range_of(self.left.start / sliced.size);
        let range = self.left.start - there.start..self.left.end.min(there.end) - there.start;
        match slice {
            Slice::Stored(object) => Current::Stored(object::Reader::new(object.body.clone(), range)),
            Slice::Coming(_, flight) => Current::Coming(flight.follow(range.start, Some(range.end))),
        }
    }
}
