//! What a URL comes to: its site, its treatment, its cache key. Each worker remembers the routes that it
//! is asked for again and again, so that a hit skips normalisation, rules and hashing.
//!
//! A route follows from the configuration, which an edge never changes, and from what is compared in
//! full before it is used again: scheme, host and target as they were sent, with GET.

use std::sync::{Arc, Weak};

use http::HeaderMap;
use parking_lot::Mutex;

use super::config::{Site, Treatment};
use crate::object::{self, Encoded, Object};
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

/// The head that whole hits were last sent with. Within a second it does not change.
#[derive(Debug, Default)]
struct Sent {
    object: Weak<Object>,
    encoded: Weak<Encoded>,
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

    /// The head of a whole hit, perhaps in an encoding, in its second (age and seconds left): made by `make`, or a copy of
    /// what that made.
    pub(super) fn head_of(
        &self,
        object: &Arc<Object>,
        encoded: Option<&Arc<Encoded>>,
        second: (u64, i64),
        make: impl FnOnce() -> HeaderMap,
    ) -> HeaderMap {
        match self.sent.try_lock() {
            Some(mut sent) => sent[usize::from(encoded.is_some())].head_of(object, encoded, second, make),
            None => make(),
        }
    }
}

impl Sent {
    fn head_of(
        &mut self,
        object: &Arc<Object>,
        encoded: Option<&Arc<Encoded>>,
        (age_secs, ttl_secs): (u64, i64),
        make: impl FnOnce() -> HeaderMap,
    ) -> HeaderMap {
        let is_same = (self.age_secs, self.ttl_secs) == (age_secs, ttl_secs)
            // The weak references keep the addresses from being others'.
            && std::ptr::eq(self.object.as_ptr(), Arc::as_ptr(object))
            && encoded.is_none_or(|encoded| std::ptr::eq(self.encoded.as_ptr(), Arc::as_ptr(encoded)));
        if !is_same {
            let encoded = encoded.map_or_else(Weak::new, Arc::downgrade);
            *self = Self { object: Arc::downgrade(object), encoded, age_secs, ttl_secs, headers: None };
            return make();
        }
        if let Some(headers) = &self.headers {
            return headers.clone();
        }
        if let Some(encodings) = &object.encodings {
            encodings.warm();
        }
        let headers = make();
        // Values of its own: the workers would fight over the reference count of the stored ones.
        self.headers = Some(object::compact(&headers));
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

    use http::{HeaderValue, StatusCode, header};

    use super::*;
    use crate::object::{Body, Head};
    use crate::rules::freshness::Freshness;
    use crate::rules::time::Millis;
    use crate::rules::vary::VaryRule;

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

    fn object() -> Arc<Object> {
        let freshness = Freshness {
            response_time: Millis(0),
            initial_age_ms: 0,
            fresh_until: Millis(1),
            swr_until: Millis(1),
            sie_until: Millis(1),
            no_cache: false,
            never_stale: false,
            source: "max-age",
            strip_fields: Box::default(),
        };
        let rule = VaryRule::default();
        let variant = rule.key(&HeaderMap::new());
        let key = CacheKey::new(Scheme::Http, "a.example", "/", None);
        let head = Head::new(key, StatusCode::OK, HeaderMap::new(), (rule, variant), freshness);
        Arc::new(Object::new(Arc::new(head), Arc::new(Body::default()), &Arc::default()))
    }

    #[test]
    fn a_head_is_sent_again_within_its_second_and_for_its_object_only() {
        let (mut sent, made) = (Sent::default(), Cell::new(0));
        let mut send = |object: &Arc<Object>, age_secs, ttl_secs| {
            let head = sent.head_of(object, None, (age_secs, ttl_secs), || {
                made.set(made.get() + 1);
                [(header::AGE, HeaderValue::from(made.get()))].into_iter().collect()
            });
            (head[header::AGE].to_str().map(str::to_owned).unwrap_or_default(), made.get())
        };
        let (first, second) = (object(), object());
        let rows = [
            ((&first, 0, 9), ("1", 1)),
            ((&first, 0, 9), ("2", 2)),
            ((&first, 0, 9), ("2", 2)),
            ((&second, 0, 9), ("3", 3)),
            ((&second, 1, 9), ("4", 4)),
            ((&second, 1, 8), ("5", 5)),
            ((&second, 1, 8), ("6", 6)),
            ((&second, 1, 8), ("6", 6)),
            ((&first, 1, 8), ("7", 7)),
        ];
        for ((object, age, ttl), (head, made)) in rows {
            assert_eq!(send(object, age, ttl), (head.to_owned(), made));
        }
    }
}
