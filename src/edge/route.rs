//! What a URL comes to: its site, its treatment, its cache key. Each worker remembers the routes that it
//! is asked for again and again, so that a hit skips normalisation, rules and hashing.
//!
//! A route follows from the configuration, which an edge never changes, and from what is compared in
//! full before it is used again: scheme, host and target as they were sent, with GET.

use std::sync::{Arc, Weak};

use http::HeaderMap;
use parking_lot::Mutex;

use super::config::{Site, Treatment};
use crate::object::{self, Object};
use crate::rules::key::{CacheKey, Scheme};
use crate::telemetry::worker_slot;

/// Routes that a worker remembers; a power of two. Each takes some 2 KiB at the most.
const ROUTES: usize = 256;
/// Longer hosts and targets are not remembered.
const URL_BYTES: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) site: Arc<Site>,
    pub(super) treatment: Arc<Treatment>,
    pub(super) key: CacheKey,
    pub(super) scheme: Scheme,
    pub(super) host_at: usize,
    pub(super) path_at: usize,
    sent: Mutex<Sent>,
}

/// The head that whole hits were last sent with. Within a second it does not change.
#[derive(Debug, Default)]
struct Sent {
    object: Weak<Object>,
    age_secs: u64,
    ttl_secs: i64,
    /// From the second hit in that second on.
    headers: Option<HeaderMap>,
}

impl Route {
    pub(super) fn new(
        site: Arc<Site>,
        treatment: Arc<Treatment>,
        key: CacheKey,
        scheme: Scheme,
        host: &str,
    ) -> Self {
        let host_at = scheme.as_str().len() + "://".len();
        let path_at = host_at + host.len();
        Self { site, treatment, key, scheme, host_at, path_at, sent: Mutex::default() }
    }

    /// The normalised host.
    pub(super) fn host(&self) -> &str {
        &self.key.canonical()[self.host_at..self.path_at]
    }

    /// The normalised path.
    pub(super) fn path(&self) -> &str {
        let target = &self.key.canonical()[self.path_at..];
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// The head of a whole hit: made by `make`, or a copy of what that made in this second.
    pub(super) fn head_of(
        &self,
        object: &Arc<Object>,
        age_secs: u64,
        ttl_secs: i64,
        make: impl FnOnce() -> HeaderMap,
    ) -> HeaderMap {
        let Some(mut sent) = self.sent.try_lock() else { return make() };
        let is_same = sent.age_secs == age_secs
            && sent.ttl_secs == ttl_secs
            // The weak reference keeps the address from being another object's.
            && std::ptr::eq(sent.object.as_ptr(), Arc::as_ptr(object));
        if !is_same {
            *sent = Sent { object: Arc::downgrade(object), age_secs, ttl_secs, headers: None };
            return make();
        }
        if let Some(headers) = &sent.headers {
            return headers.clone();
        }
        let headers = make();
        // Values of its own: the workers would fight over the reference count of the stored ones.
        sent.headers = Some(object::compact(&headers));
        headers
    }
}

/// A GET as it was sent.
#[derive(Clone, Copy)]
pub(super) struct Url<'a> {
    pub(super) scheme: Scheme,
    pub(super) host: &'a [u8],
    pub(super) target: &'a str,
}

impl Url<'_> {
    /// Not for enemies: who finds two URLs with one hash makes them share a place, no more.
    fn hash(&self) -> u64 {
        let mut hash = self.scheme as u64;
        for bytes in [self.host, self.target.as_bytes()] {
            let mut add = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let (words, rest) = bytes.as_chunks::<8>();
            for word in words {
                add(u64::from_le_bytes(*word));
            }
            add(rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
        }
        hash ^ hash >> 32
    }
}

/// The routes of all workers.
#[derive(Debug)]
pub(super) struct Routes {
    /// The first are of all threads that are no workers. Locks that are only ever tried.
    workers: Box<[Places]>,
}

/// Those of one worker, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Places(Mutex<Vec<Place>>);

#[derive(Debug, Default)]
struct Place {
    /// The hash of who came last. Who comes twice in a row takes the place.
    last: u64,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    scheme: Scheme,
    host: Box<[u8]>,
    target: Box<str>,
    route: Arc<Route>,
}

impl Routes {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: (0..=workers).map(|_| Places::default()).collect() }
    }

    /// The route of a URL, found by `find` unless it is known.
    pub(super) fn get<E>(
        &self,
        url: Url<'_>,
        find: impl FnOnce() -> Result<Route, E>,
    ) -> Result<Arc<Route>, E> {
        let slot = worker_slot().min(self.workers.len() - 1);
        let places = self.workers[slot].0.try_lock();
        let Some(mut places) = places.filter(|_| url.host.len() + url.target.len() <= URL_BYTES) else {
            return find().map(Arc::new);
        };
        if places.is_empty() {
            places.resize_with(ROUTES, Place::default);
        }
        let hash = url.hash();
        let place = &mut places[hash as usize % ROUTES];
        if let Some(known) = &place.known
            && (known.scheme, &*known.host, &*known.target) == (url.scheme, url.host, url.target)
        {
            return Ok(known.route.clone());
        }
        let route = Arc::new(find()?);
        if std::mem::replace(&mut place.last, hash) == hash {
            let (host, target) = (url.host.into(), url.target.into());
            place.known = Some(Known { scheme: url.scheme, host, target, route: route.clone() });
        }
        Ok(route)
    }
}
