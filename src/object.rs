//! The stored response: what the store keeps, `edge` serves and `rules` decides on.
//!
//! # The life of an object
//!
//! 1. *Reserved*: a fill asks the store for room and gets a [`Charge`].
//! 2. *Filling*: body chunks arrive; followers read them from the flight, nothing is visible yet.
//! 3. *Complete*: the [`Object`] is built once, with its head ready to serve, and is immutable from
//!    then on but for the mark "must be revalidated".
//! 4. *Evicted or replaced*: the store forgets it; responses that still hold it keep it alive, and
//!    its charge with it, so that pinned bytes count against the memory budget.
//! 5. *Gone*: the last response ends, the charge is given back.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::rules::conditional::Validators;
use crate::rules::date;
use crate::rules::freshness::{Freshness, State};
use crate::rules::key::CacheKey;
use crate::rules::time::Millis;
use crate::rules::vary::{VariantKey, VaryRule};

mod body;
mod charge;
mod compared;
mod encodings;
mod part;

pub use body::{Body, Growing, Reader};
pub use charge::{CHUNK_OVERHEAD_BYTES, Charge, charged_chunk};
pub use encodings::{CodingSet, Delta, Encoded, Encodings, Made, Negotiated, Offer};
pub use part::{Answer, Lost, Pages, Part, PartReader, Place, Sum};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The head of a shared response: what is known of it before its body is.
#[derive(Debug)]
pub struct Head {
    /// The key it is stored under; compared in full, so that a hash collision serves nothing wrong.
    pub key: CacheKey,
    /// The status to serve.
    pub status: StatusCode,
    /// The fields, ready to serve: end-to-end ones, `Via`, `Date`, `Content-Length`. `Age` and
    /// `Cache-Status` hold places that each answer fills: a copy that need not grow is the cheaper one.
    pub headers: HeaderMap,
    /// The origin's `Age`, which a miss passes on.
    pub origin_age: Option<HeaderValue>,
    /// Which request fields select it.
    pub vary: VaryRule,
    /// Their values in the request it answers.
    pub variant: VariantKey,
    /// How long it may be served.
    pub freshness: Freshness,
    /// Names under which it may be purged.
    pub tags: Arc<[Box<str>]>,
    /// The last purge that was applied before its fetch began.
    pub as_of: u64,
    /// The store's count when its fetch began: of two responses to the same requests the higher one
    /// stays.
    pub version: u64,
    /// The same of the fetch that brought the body, which a 304 does not.
    pub generation: u64,
    /// Whether each client gets it in the coding that it prefers.
    pub negotiated: Option<Negotiated>,
    last_modified: Option<i64>,
    date: Option<i64>,
}

impl Head {
    /// Builds a head; the dates that conditions need are parsed here, once.
    pub fn new(
        key: CacheKey,
        status: StatusCode,
        headers: HeaderMap,
        selecting: (VaryRule, VariantKey),
        freshness: Freshness,
    ) -> Self {
        Self::of_compact(key, status, compact(&headers), selecting, freshness)
    }

    /// The same of fields whose values are [`compact`] already.
    pub fn of_compact(
        key: CacheKey,
        status: StatusCode,
        mut headers: HeaderMap,
        (vary, variant): (VaryRule, VariantKey),
        freshness: Freshness,
    ) -> Self {
        hold_places(&mut headers);
        let now = freshness.response_time;
        let secs =
            |name| headers.get(name).and_then(|value: &HeaderValue| date::parse(value.as_bytes(), now));
        Self {
            last_modified: secs(header::LAST_MODIFIED),
            date: secs(header::DATE),
            origin_age: None,
            version: 0,
            generation: 0,
            negotiated: None,
            tags: Arc::default(),
            as_of: 0,
            key,
            status,
            headers,
            vary,
            variant,
            freshness,
        }
    }

    /// The validators that conditions compare with.
    #[inline]
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: self.headers.get(header::ETAG),
            last_modified: self.last_modified,
            date: self.date,
        }
    }

    /// The stored fields without the places held for each answer: what a 304 is merged into.
    pub fn fields(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        encodings::take_vary(&mut headers, self.negotiated);
        headers.remove(header::AGE);
        if headers.get(&CACHE_STATUS).is_some_and(HeaderValue::is_empty) {
            headers.remove(&CACHE_STATUS);
        }
        headers
    }

    /// Whether the origin can be asked "is it still this one?".
    pub fn has_validator(&self) -> bool {
        self.last_modified.is_some() || self.headers.contains_key(header::ETAG)
    }

    /// The same head with the length that was not known before.
    #[must_use]
    pub fn with_length(&self, length: u64) -> Self {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_LENGTH, length.into());
        Self {
            key: self.key.clone(),
            status: self.status,
            headers,
            origin_age: self.origin_age.clone(),
            vary: self.vary.clone(),
            variant: self.variant.clone(),
            freshness: self.freshness.clone(),
            version: self.version,
            generation: self.generation,
            negotiated: self.negotiated,
            tags: self.tags.clone(),
            as_of: self.as_of,
            last_modified: self.last_modified,
            date: self.date,
        }
    }

    /// The head of the whole of which this is the head of a part.
    #[must_use]
    pub fn of_whole(&self, length: u64) -> Self {
        let mut whole = self.with_length(length);
        whole.status = StatusCode::OK;
        whole.headers.remove(header::CONTENT_RANGE);
        whole
    }

    /// An estimate of its memory in bytes.
    pub fn weight(&self) -> u64 {
        OBJECT_OVERHEAD_BYTES
            + 2 * self.key.canonical().len() as u64
            + self.variant.as_bytes().len() as u64
            + field_bytes(&self.headers)
            + self.tags.iter().map(|tag| tag.len() as u64 + TAG_OVERHEAD_BYTES).sum::<u64>()
    }
}

/// One stored response: a variant of its cache key.
#[derive(Debug)]
pub struct Object {
    /// The head; a flight that streams it shares it.
    pub head: Arc<Head>,
    /// The body; refreshes by 304 share it.
    pub body: Arc<Body>,
    /// The same in other codings, where clients choose.
    pub encodings: Option<Arc<Encodings>>,
    must_revalidate: AtomicBool,
    last_used_ms: AtomicI64,
    inline: OnceLock<(u32, Place)>,
    /// The last purge that it was compared with.
    checked: AtomicU64,
    /// Under which configuration it was decided whether clients choose its coding; 0: none.
    settled: AtomicU64,
    /// Since when it is stale by a soft purge, in milliseconds of node time; `i64::MAX`: it is not.
    stale_since: AtomicI64,
    _charge: Charge,
}

/// What a stored object costs beside its body and its header text: the structs, their reference
/// counts, the entry, the map's node and slot.
const OBJECT_OVERHEAD_BYTES: u64 = 1024;
/// A tag's own allocation, and its place in the list.
const TAG_OVERHEAD_BYTES: u64 = 32;
/// A field in a `HeaderMap`: bucket, index slot, and the shared state of its value.
const FIELD_OVERHEAD_BYTES: u64 = 168;

impl Object {
    /// A complete object; `gauge` is charged for its head until it is gone.
    pub fn new(head: Arc<Head>, body: Arc<Body>, gauge: &Arc<AtomicU64>) -> Self {
        Self {
            must_revalidate: AtomicBool::new(false),
            last_used_ms: AtomicI64::new(head.freshness.response_time.0),
            inline: OnceLock::new(),
            checked: AtomicU64::new(head.as_of),
            settled: AtomicU64::new(0),
            encodings: head.negotiated.map(|_| Arc::default()),
            stale_since: AtomicI64::new(i64::MAX),
            _charge: Charge::new(gauge, head.weight() + body.uncharged_weight()),
            head,
            body,
        }
    }

    /// The same body under a renewed head: what a 304 makes of it.
    #[must_use]
    pub fn renewed(&self, head: Arc<Head>, gauge: &Arc<AtomicU64>) -> Self {
        let mut renewed = Self::new(head, self.body.clone(), gauge);
        if let (Some(shared), true) = (&self.encodings, renewed.encodings.is_some()) {
            renewed.encodings = Some(shared.clone());
        }
        if let Some((segment, place)) = self.inline() {
            renewed.set_inline(segment, place);
        }
        renewed.set_settled(self.settled());
        renewed
    }

    /// Its body, and those of its encodings.
    pub fn bodies(&self) -> impl Iterator<Item = &Arc<Body>> {
        let encoded = self.encodings.iter().flat_map(|encodings| encodings.bodies());
        std::iter::once(&self.body).chain(encoded)
    }

    /// All that lies in the log of it.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.bodies().flat_map(|body| body.parts())
    }

    /// Whether its body is in the log, and so perhaps others that were read with it.
    #[inline]
    pub fn is_mapped(&self) -> bool {
        !self.body.parts().is_empty()
    }

    /// Where its body is: `memory` or `disk`.
    #[inline]
    pub fn tier(&self) -> &'static str {
        match self.body.parts().first() {
            Some(part) if !part.pages().is_resident() => "disk",
            _ => "memory",
        }
    }

    /// Notes where a copy of its heap body is in the log: segment and place. The first word counts.
    pub fn set_inline(&self, segment: u32, place: Place) {
        let _ = self.inline.set((segment, place));
    }

    /// What [`Object::set_inline`] noted.
    pub fn inline(&self) -> Option<(u32, Place)> {
        self.inline.get().copied()
    }

    /// Marks it to be revalidated before its next use (RFC 9111 §4.4); never undone, a
    /// revalidation makes a new object.
    pub fn invalidate(&self) {
        self.must_revalidate.store(true, Relaxed);
    }

    /// What may be done with it now.
    #[inline]
    pub fn state(&self, now: Millis) -> State {
        if self.is_invalidated() {
            return State::MustRevalidate;
        }
        match self.stale_since.load(Relaxed) {
            i64::MAX => self.head.freshness.state(now),
            since => self.expired(since).state(now),
        }
    }

    /// Whether it may stand in for an origin that fails.
    pub fn may_serve_on_error(&self, now: Millis) -> bool {
        !self.is_invalidated() && self.freshness().may_serve_on_error(now)
    }

    /// How long it may be served, soft purges considered.
    pub fn freshness(&self) -> Cow<'_, Freshness> {
        match self.stale_since.load(Relaxed) {
            i64::MAX => Cow::Borrowed(&self.head.freshness),
            since => Cow::Owned(self.expired(since)),
        }
    }

    #[cold]
    fn expired(&self, since: i64) -> Freshness {
        let mut freshness = self.head.freshness.clone();
        freshness.expire(Millis(since));
        freshness
    }

    /// Whether [`Object::invalidate`] was called.
    #[inline]
    pub fn is_invalidated(&self) -> bool {
        self.must_revalidate.load(Relaxed)
    }

    /// Notes a use, for the choice of the variant that leaves. What has no variants is left alone:
    /// a hot object's cache line is not written.
    #[inline]
    pub fn touch(&self, now: Millis) {
        if !self.head.vary.is_empty() {
            self.last_used_ms.store(now.0, Relaxed);
        }
    }

    /// When it was used last, in milliseconds of node time.
    pub fn last_used_ms(&self) -> i64 {
        self.last_used_ms.load(Relaxed)
    }

    /// Everything it costs, in bytes of memory.
    pub fn weight(&self) -> u64 {
        let encodings = self.encodings.as_ref().map_or(0, |encodings| encodings.weight());
        self.head.weight() + self.body.weight() + encodings
    }
}

/// What other caches on the way said stays in front of our own word (RFC 9211 §2).
fn hold_places(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(&CACHE_STATUS).iter().map(HeaderValue::as_bytes).collect();
    let before = match &lines[..] {
        [] => HeaderValue::from_static(""),
        lines => HeaderValue::from_bytes(&lines.join(&b", "[..])).unwrap_or(HeaderValue::from_static("")),
    };
    headers.insert(&CACHE_STATUS, before);
    headers.insert(header::AGE, HeaderValue::from_static("0"));
}

/// The same fields with their values in one allocation of their own. A value as it was parsed is a
/// slice of the connection's read buffer, and would keep all of that alive for as long as the object
/// is stored.
pub fn compact(headers: &HeaderMap) -> HeaderMap {
    let mut text = Vec::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| text.extend_from_slice(value.as_bytes()));
    let mut text = Bytes::from(text);
    let mut compacted = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let own = text.split_to(value.len());
        if let Ok(own) = HeaderValue::from_maybe_shared(own) {
            compacted.append(name.clone(), own);
        }
    }
    compacted
}

/// An estimate of the heap a header map takes, in bytes.
pub fn field_bytes(headers: &HeaderMap) -> u64 {
    let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    text as u64 + headers.len() as u64 * FIELD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacted_fields_are_the_same_fields() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("etag", "\"a\""), ("x-two", "1"), ("x-two", ""), ("x-bytes", "\u{e9}")] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        assert_eq!(compact(&headers), headers);
    }
}
