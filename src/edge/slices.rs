//! Large responses in slices: who asks for a range of something large gets the aligned slices that the
//! range lies in, fetched one by one, each by one request however many ask, and stored under a key of
//! its own. Later ranges, and the whole, are put together from stored slices and new ones.
//!
//! The first range of a URL whose size nobody knows asks for the whole; when the answer's head says
//! that it is larger than a slice, has a strong tag and can be had in ranges, the answer is given up and
//! slices are fetched instead. Every slice is asked for with `If-Range` and must carry the same tag and
//! length: another one ends the memory of the slices, and what was stored of the old ones is never used
//! again. An unsafe method ends it too: what is stored is used again only when the origin has told the same tag after it.

use std::ops::Range;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;

use super::admit::Admitted;
use super::body::Body;
use super::collapse::Join;
use super::fill::{Answer, Fill, Wanted, find_fresh, is_failure};
use super::flight::{Flight, Published, Reader};
use super::lookup::wants_only_stored;
use super::respond;
use super::sliced_body::SlicedBody;
use super::{Edge, Outcome};
use crate::object::{Head, Object};
use crate::origin::OriginBody;
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::etag;
use crate::rules::freshness::State;
use crate::rules::key::CacheKey;
use crate::rules::range::{self, Requested};

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

    /// In which slice a position lies.
    pub(super) fn index_of(&self, position: u64) -> u64 {
        position / self.size
    }

    /// Where a slice lies.
    pub(super) fn range_of(&self, index: u64) -> Range<u64> {
        let start = index * self.size;
        start..(start + self.size).min(self.length)
    }

    fn length_of(&self, index: u64) -> u64 {
        let Range { start, end } = self.range_of(index);
        end - start
    }

    /// The slices that an answer to a request is made of.
    fn asked_for(&self, request: &HeaderMap) -> Range<u64> {
        let range = match range::parse(request, self.length) {
            // Whether If-Range holds is seen later.
            Requested::Single(range) if !request.contains_key(header::IF_RANGE) => range,
            _ => 0..self.length,
        };
        self.index_of(range.start)..range.end.div_ceil(self.size)
    }

    /// The slice that the answer to a request begins with.
    pub(super) fn first(&self, request: &HeaderMap) -> u64 {
        match range::parse(request, self.length) {
            Requested::Single(range) => range.start / self.size,
            Requested::Ignored | Requested::Unsatisfiable | Requested::Multiple(_) => 0,
        }
    }

    /// Whether a stored part is this slice, and all of it.
    pub(super) fn is_stored_as(&self, index: u64, object: &Object) -> bool {
        self.is(index, &object.head.headers) && object.body.len() == self.length_of(index)
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
pub(super) enum Slice {
    Stored(Arc<Object>),
    Stale(Standing),
    Coming(Arc<Head>, Arc<Flight>),
}

/// What is stale and served all the same.
pub(super) struct Standing {
    pub(super) object: Arc<Object>,
    fwd: Option<(Fwd, Option<u16>)>,
    detail: &'static str,
}

impl Slice {
    fn head(&self) -> &Arc<Head> {
        match self {
            Self::Stored(object) => &object.head,
            Self::Stale(standing) => &standing.object.head,
            Self::Coming(head, _) => head,
        }
    }
}

impl Fill {
    /// Fetches a slice for all who ask for it.
    pub(super) async fn run_slice(mut self, sliced: &Sliced, index: u64) {
        let base = self.base.take();
        let answer = match self.ask(None).await {
            Ok(answer) => answer,
            Err(error) => return self.failed(error, base),
        };
        let status = answer.response.status();
        if is_failure(status)
            && let Some(base) = base.filter(|base| self.edge.may_stand_in(base))
        {
            return self.covered(base, Some(status.as_u16()));
        }
        if !is_slice(&answer, sliced, index) {
            if !is_failure(status) {
                self.edge.collapse.forget_sliced(self.admitted.key.hash());
            }
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
    let exact = answer.response.body().size_hint().exact();
    answer.response.status() == StatusCode::PARTIAL_CONTENT
        && sliced.is(index, answer.response.headers())
        && exact.is_none_or(|exact| exact == sliced.length_of(index))
}

/// A request for a slice.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) admitted: &'a Arc<Admitted>,
    pub(super) request: &'a HeaderMap,
    pub(super) sliced: &'a Sliced,
    pub(super) index: u64,
}

impl Wish<'_> {
    fn key(&self) -> CacheKey {
        self.sliced.key(&self.admitted.key, self.index)
    }

    fn is_met_by(&self, object: &Object) -> bool {
        self.sliced.is_stored_as(self.index, object)
    }
}

impl Edge {
    /// The answer from slices; `None`: they can't be had, and the whole is to be fetched.
    pub(super) async fn from_slices(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        sliced: &Sliced,
    ) -> Option<(Outcome, Response<Body>)> {
        let wish = |index| Wish { admitted, request: &parts.headers, sliced, index };
        if wants_only_stored(admitted, &parts.headers) {
            // None of them is fetched, so all have to be there.
            for index in sliced.asked_for(&parts.headers) {
                self.slice(wish(index)).await?;
            }
        }
        let slice = self.slice(wish(sliced.first(&parts.headers))).await?;
        let now = self.clock.now();
        let head = slice.head().of_whole(sliced.length);
        let age_of = |object: &Object| Some(HeaderValue::from(object.head.freshness.age_secs(now)));
        let (outcome, status, age) = match &slice {
            Slice::Stored(object) => {
                let ttl = Some(object.head.freshness.ttl_secs(now));
                let status = CacheStatus { hit: true, ttl, detail: Some("slices"), ..CacheStatus::default() };
                (Outcome::Hit, status, age_of(object))
            }
            Slice::Stale(Standing { object, fwd, detail }) => {
                (Outcome::HitStale, self.stale_status(object, *fwd, detail), age_of(object))
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
        let mut request = parts.headers.clone();
        if matches!(slice, Slice::Coming(..)) {
            // The origin has just told the tag, which is all that a client can ask for of the others.
            request.remove(header::CACHE_CONTROL);
        }
        let whole = SlicedBody::new(self, admitted, &request, sliced);
        let response = respond::from_slices(&serving, &head, Arc::new(whole), sliced.length, age);
        Some((outcome, response))
    }

    /// A slice: stored, or on its way.
    pub(super) async fn slice(self: &Arc<Self>, wish: Wish<'_>) -> Option<Slice> {
        let key = wish.key();
        let stored = self.stored_slice(&wish, &key).await;
        if let Some(object) = &stored {
            let stale = |detail| Some(Slice::Stale(Standing { object: object.clone(), fwd: None, detail }));
            match self.state_for(wish.admitted, wish.request, object) {
                State::Fresh => {
                    self.store.promote(key.hash());
                    return Some(Slice::Stored(object.clone()));
                }
                State::StaleWhileRevalidate => {
                    if !self.collapse.has_failed(key.hash(), self.clock.now()) {
                        // It runs on without this one.
                        let _ = self.join_slice(&wish, &key, stored.as_ref()).await;
                    }
                    return stale("stale-revalidating");
                }
                State::MustRevalidate if self.stands_in(object) => return stale("stale-if-error"),
                State::MustRevalidate => {}
            }
        }
        if wants_only_stored(wish.admitted, wish.request) {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let (reader, flight) = match self.join_slice(&wish, &key, stored.as_ref()).await {
                Ok(joined) => joined,
                Err(found) => return Some(Slice::Stored(found)),
            };
            match reader.published().await {
                Published::Streaming(head, _) if wish.sliced.is(wish.index, &head.headers) => {
                    // Kept for this one until it follows.
                    let _reader = reader;
                    return Some(Slice::Coming(head, flight));
                }
                Published::Stored(found) if wish.is_met_by(&found) => return Some(Slice::Stored(found)),
                Published::Stale { object, fwd_status } if wish.is_met_by(&object) => {
                    let (fwd, detail) = (Some((Fwd::Stale, fwd_status)), "stale-if-error");
                    return Some(Slice::Stale(Standing { object, fwd, detail }));
                }
                Published::Aborted | Published::Streaming(..) => {}
                _ => return None,
            }
        }
        None
    }

    /// What is stored of a slice, in whatever state.
    async fn stored_slice(&self, wish: &Wish<'_>, key: &CacheKey) -> Option<Arc<Object>> {
        let entry = self.store.load(key).await?;
        let object = entry.select(wish.request)?;
        let is_it = self.survives(object) && wish.is_met_by(object) && object.body.is_readable().await;
        is_it.then(|| object.clone())
    }

    /// Joins the fetch of a slice, or begins one.
    ///
    /// # Errors
    /// It was stored meanwhile.
    async fn join_slice(
        self: &Arc<Self>,
        wish: &Wish<'_>,
        key: &CacheKey,
        base: Option<&Arc<Object>>,
    ) -> Result<(Reader, Arc<Flight>), Arc<Object>> {
        let find = || find_fresh(self, key, wish.request, base).filter(|found| wish.is_met_by(found));
        let as_of = self.purges.applied();
        let is_outdated = |flight: &Flight| self.is_outdated(key, flight);
        let mut lead = match self.collapse.join(key.hash(), wish.request, as_of, is_outdated, find)? {
            Join::Follow(reader, flight) => return Ok((reader, flight)),
            Join::Lead(lead) => lead,
        };
        if let Some(found) = self.landed(key, wish.request, base).await.filter(|found| wish.is_met_by(found))
        {
            lead.found(&found);
            return Err(found);
        }
        let flight = lead.flight.clone();
        let reader = flight.join();
        let mut fill = Fill::new(self, wish.admitted, wish.request, lead);
        fill.wanted = Wanted::Slice(wish.sliced.clone(), wish.index);
        fill.base = base.cloned();
        fill.launch();
        Ok((reader, flight))
    }
}
