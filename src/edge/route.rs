//! What a URL comes to: its site, its treatment, its cache key. Each worker remembers the routes that it
//! is asked for again and again, so that a hit skips normalisation, rules and hashing.
//!
//! A route follows from the configuration, which an edge never changes, and from what is compared in
//! full before it is used again: scheme, host and target as they were sent, with GET.

use std::sync::Arc;

use http::HeaderMap;
use parking_lot::Mutex;

use super::config::{Site, Treatment};
use super::sent::{ReadyHead, Sent};
use crate::object::{Encoded, Object};
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
    /// Of the response as it is stored, and of the encoding that was asked for last.
    sent: Mutex<[Sent; 2]>,
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

    /// The head of a whole hit, perhaps in an encoding, in its second (age and seconds left): made by `make`, or a copy of
    /// what that made; with most of it as lines for HTTP/1.1, if that is wanted.
    pub(super) fn head_of(
        &self,
        (object, encoded): (&Arc<Object>, Option<&Arc<Encoded>>),
        second: (u64, i64),
        as_lines: bool,
        make: impl FnOnce() -> HeaderMap,
    ) -> ReadyHead {
        match self.sent.try_lock() {
            Some(mut sent) => {
                sent[usize::from(encoded.is_some())].head_of((object, encoded), second, as_lines, make)
            }
            None => ReadyHead::of(make()),
        }
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
pub(super) struct Routes<R = Route> {
    /// The first are of all threads that are no workers. Locks that are only ever tried.
    workers: Box<[Places<R>]>,
}

/// Those of one worker, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Places<R>(Mutex<Vec<Place<R>>>);

#[derive(Debug)]
struct Place<R> {
    /// The hash of who came last. Who comes twice in a row takes the place.
    last: u64,
    known: Option<Known<R>>,
}

#[derive(Debug)]
struct Known<R> {
    scheme: Scheme,
    host: Box<[u8]>,
    target: Box<str>,
    route: Arc<R>,
}

impl<R> Routes<R> {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: (0..=workers).map(|_| Places(Mutex::default())).collect() }
    }

    /// The route of a URL, found by `find` unless it is known.
    pub(super) fn get<E>(&self, url: Url<'_>, find: impl FnOnce() -> Result<R, E>) -> Result<Arc<R>, E> {
        let slot = worker_slot().min(self.workers.len() - 1);
        let places = self.workers[slot].0.try_lock();
        let Some(mut places) = places.filter(|_| url.host.len() + url.target.len() <= URL_BYTES) else {
            return find().map(Arc::new);
        };
        if places.is_empty() {
            places.resize_with(ROUTES, || Place { last: 0, known: None });
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    fn url<'a>(host: &'a str, target: &'a str) -> Url<'a> {
        Url { scheme: Scheme::Http, host: host.as_bytes(), target }
    }

    /// The route, which is the number of those found before it, and whether it was known.
    fn get(routes: &Routes<u32>, found: &Cell<u32>, url: Url<'_>) -> (u32, bool) {
        let before = found.get();
        let route = routes.get(url, || {
            found.set(before + 1);
            Ok::<_, Infallible>(before)
        });
        (route.map_or(u32::MAX, |route| *route), found.get() == before)
    }

    #[test]
    fn who_comes_twice_is_known_and_nobody_is_taken_for_another() {
        let (routes, found) = (Routes::new(0), Cell::new(0));
        let a = url("a.example", "/x?y");
        assert_eq!(get(&routes, &found, a), (0, false));
        assert_eq!(get(&routes, &found, a), (1, false));
        assert_eq!(get(&routes, &found, a), (1, true));
        let others = [
            url("a.example", "/x?z"),
            url("b.example", "/x?y"),
            url("a.example/", "x?y"),
            Url { scheme: Scheme::Https, ..a },
        ];
        for other in others {
            assert!(!get(&routes, &found, other).1);
        }
        assert_eq!(get(&routes, &found, a), (1, true));
    }

    #[test]
    fn more_urls_than_places_and_long_ones_are_all_answered() {
        let (routes, found) = (Routes::new(0), Cell::new(0));
        let long = format!("/{}", "x".repeat(URL_BYTES));
        for _ in 0..3 {
            assert!(!get(&routes, &found, url("a.example", &long)).1);
        }
        for _ in 0..3 {
            for i in 0..2 * ROUTES {
                let before = found.get();
                let (route, known) = get(&routes, &found, url("a.example", &format!("/{i}")));
                assert!(known || route == before);
            }
        }
        assert!(routes.workers[0].0.lock().len() == ROUTES);
    }

    #[test]
    fn an_error_is_not_remembered() {
        let routes = Routes::<u32>::new(0);
        for _ in 0..3 {
            assert_eq!(routes.get(url("a.example", "/"), || Err("no")), Err("no"));
        }
        assert_eq!(routes.get(url("a.example", "/"), || Ok::<_, &str>(7)).as_deref(), Ok(&7));
    }
}
