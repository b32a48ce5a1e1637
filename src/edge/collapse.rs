//! Who fetches? One flight for each key and variant, and what is remembered of keys whose answers
//! can't be shared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use super::flight::{Flight, Published, Reader};
use super::slices::Sliced;
use crate::object::Object;
use crate::rules::key::KeyHash;
use crate::rules::time::Millis;
use crate::rules::vary::{VariantKey, VaryRule};

/// Keys that something is remembered of; the least recently used are forgotten. Some 190 bytes each.
const HINTS: usize = 65_536;
/// Of the least recently used, so many are looked at with each mark: what is over goes before there are that many.
const SWEPT: usize = 2;
/// How long an answer that can't be shared keeps the next requests from queueing for one.
const HIT_FOR_MISS_MS: i64 = 30_000;
/// How long a failed fetch keeps the next requests from another one, where there is something stale to answer them: as long
/// as it took to fail, so that an origin that hangs makes nobody wait most of the time, but within these.
const FAILED_MS: i64 = 1_000;
const FAILED_MAX_MS: i64 = 30_000;

/// A key and, where its answers are known to vary, the values this request sends.
type FlightKey = (KeyHash, Option<VariantKey>);

/// What earlier answers under a key were like.
#[derive(Clone, Debug, Default)]
struct Hint {
    unshared_until: Option<Millis>,
    too_large_until: Option<Millis>,
    failed_until: Option<Millis>,
    vary: Option<VaryRule>,
    sliced: Option<Sliced>,
}

impl Hint {
    /// It says nothing any more.
    fn is_over(&self, now: Millis) -> bool {
        let untils = [self.unshared_until, self.too_large_until, self.failed_until];
        self.vary.is_none() && self.sliced.is_none() && untils.iter().flatten().all(|until| *until <= now)
    }
}

/// The flights of a node and its hints. Its locks are on the way of a miss only.
#[derive(Debug)]
pub(super) struct Collapse {
    /// In order, so that all of a key stand together.
    flights: Mutex<BTreeMap<FlightKey, Arc<Flight>>>,
    hints: Mutex<LruCache<KeyHash, Hint>>,
}

/// What a request is to do.
pub(super) enum Join {
    /// Fetch; everybody else follows.
    Lead(Lead),
    /// Follow the fetch that runs: joined already, since a flight that has left the map may drop its begin.
    Follow(Reader, Arc<Flight>),
}

/// The right, and the duty, to fetch. Dropped without a word (a panic, a runtime that ends), it tells
/// the followers so.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) flight: Arc<Flight>,
    /// `None`: a fetch of one's own that nobody follows.
    registered: Option<(Arc<Collapse>, FlightKey)>,
    since: Instant,
}

impl Lead {
    /// A fetch that nobody may follow.
    pub(super) fn alone(as_of: u64) -> Self {
        Self { flight: Arc::new(Flight::new(as_of)), registered: None, since: Instant::now() }
    }

    /// For how long it has been led.
    pub(super) fn took(&self) -> Duration {
        self.since.elapsed()
    }

    /// Nothing is fetched: it was stored.
    pub(super) fn found(&mut self, object: &Arc<Object>) {
        self.leave();
        self.flight.publish(Published::Stored(object.clone()));
    }

    /// Takes the flight off the map: who comes from now on finds the store, or fetches anew.
    pub(super) fn leave(&mut self) {
        if let Some((collapse, key)) = self.registered.take() {
            let mut flights = collapse.flights.lock();
            if flights.get(&key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&key);
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
        self.flight.publish(Published::Aborted);
        self.flight.finish(super::flight::End::Broken("the fetch was aborted".into()));
    }
}

impl Collapse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { flights: Mutex::default(), hints: Mutex::new(LruCache::unbounded()) })
    }

    /// Joins the flight of a key, unless it `is_outdated`, or leads a new one. `found` looks into the store once more under
    /// the lock: a flight that has just landed is there, since it leaves the map after storing.
    pub(super) fn join<T>(
        self: &Arc<Self>,
        key: KeyHash,
        request: &http::HeaderMap,
        as_of: u64,
        is_outdated: impl FnOnce(&Flight) -> bool,
        found: impl FnOnce() -> Option<T>,
    ) -> Result<Join, T> {
        let key = self.flight_key(key, request);
        let mut flights = self.flights.lock();
        // What was purged, or changed, since its origin was asked goes on for those who have it, and for nobody else.
        if let Some(flight) = flights.get(&key).filter(|flight| !is_outdated(flight)) {
            return Ok(Join::Follow(flight.join(), flight.clone()));
        }
        if let Some(found) = found() {
            return Err(found);
        }
        let flight = Arc::new(Flight::new(as_of));
        flights.insert(key.clone(), flight.clone());
        Ok(Join::Lead(Lead { flight, registered: Some((self.clone(), key)), since: Instant::now() }))
    }

    /// The flight of a key that is under way, for who would not lead one.
    pub(super) fn flight(&self, key: KeyHash, request: &http::HeaderMap) -> Option<Arc<Flight>> {
        let key = self.flight_key(key, request);
        self.flights.lock().get(&key).cloned()
    }

    /// Nobody joins the flights of a key any more that are under way.
    pub(super) fn outdate(&self, key: KeyHash) {
        let flights = self.flights.lock();
        let of_key = flights.range((key, None)..).take_while(|((other, _), _)| *other == key);
        of_key.for_each(|(_, flight)| flight.is_outdated.store(true, Relaxed));
    }

    fn flight_key(&self, key: KeyHash, request: &http::HeaderMap) -> FlightKey {
        let vary = self.hints.lock().peek(&key).and_then(|hint| hint.vary.clone());
        (key, vary.map(|rule| rule.key(request)))
    }

    /// Whether the answers under a key could not be shared lately.
    pub(super) fn is_unshared(&self, key: KeyHash, now: Millis) -> bool {
        let hints = self.hints.lock();
        hints.peek(&key).and_then(|hint| hint.unshared_until).is_some_and(|until| now < until)
    }

    /// Whether the answers under a key were too large to be stored lately.
    pub(super) fn is_too_large(&self, key: KeyHash, now: Millis) -> bool {
        let hints = self.hints.lock();
        hints.peek(&key).and_then(|hint| hint.too_large_until).is_some_and(|until| now < until)
    }

    /// Remembers that an answer could not be shared.
    pub(super) fn mark_unshared(&self, key: KeyHash, now: Millis, is_too_large: bool) {
        let until = Some(now.saturating_add(HIT_FOR_MISS_MS));
        let mut hints = self.hints.lock();
        sweep(&mut hints, now);
        let hint = hint_of(&mut hints, key);
        hint.unshared_until = until;
        hint.failed_until = None;
        hint.too_large_until = if is_too_large { until } else { None };
    }

    /// Whether a fetch of a key failed a moment ago.
    pub(super) fn has_failed(&self, key: KeyHash, now: Millis) -> bool {
        let hints = self.hints.lock();
        hints.peek(&key).and_then(|hint| hint.failed_until).is_some_and(|until| now < until)
    }

    /// Remembers that a fetch failed, and how long it took; the next answer clears the mark.
    pub(super) fn mark_failed(&self, key: KeyHash, took: Duration, now: Millis) {
        let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let until = now.saturating_add(took.clamp(FAILED_MS, FAILED_MAX_MS));
        let mut hints = self.hints.lock();
        sweep(&mut hints, now);
        hint_of(&mut hints, key).failed_until = Some(until);
    }

    /// What is known of a response that is fetched in slices.
    pub(super) fn sliced(&self, key: KeyHash) -> Option<Sliced> {
        self.hints.lock().peek(&key)?.sliced.clone()
    }

    /// Remembers that a response is fetched in slices.
    pub(super) fn mark_sliced(&self, key: KeyHash, sliced: &Sliced) {
        let mut hints = self.hints.lock();
        *hint_of(&mut hints, key) = Hint { sliced: Some(sliced.clone()), ..Hint::default() };
    }

    /// It is, or may be, another one now.
    pub(super) fn forget_sliced(&self, key: KeyHash) {
        let mut hints = self.hints.lock();
        if hints.peek(&key).is_some_and(|hint| hint.sliced.is_some()) {
            hints.pop(&key);
        }
    }

    /// Remembers what a shared answer varies on; it clears the mark.
    pub(super) fn mark_shared(&self, key: KeyHash, vary: &VaryRule) {
        let mut hints = self.hints.lock();
        if vary.is_empty() {
            hints.pop(&key);
            return;
        }
        let hint = hint_of(&mut hints, key);
        *hint = Hint { vary: Some(vary.clone()), ..Hint::default() };
    }

    /// Requests that are answered from flights under way, beside the one a flight that leads it.
    pub(super) fn followers(&self) -> usize {
        self.flights.lock().values().map(|flight| flight.readers().saturating_sub(1)).sum()
    }

    /// The lowest `as_of` of the flights under way.
    pub(super) fn oldest_as_of(&self) -> Option<u64> {
        self.flights.lock().values().map(|flight| flight.as_of()).min()
    }

    /// Flights under way.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.lock().len()
    }
}

/// The hint of a key, made when missing. The list grows as needed: a bounded one of this crate takes
/// all its memory at once.
fn hint_of(hints: &mut LruCache<KeyHash, Hint>, key: KeyHash) -> &mut Hint {
    if hints.len() >= HINTS {
        hints.pop_lru();
    }
    hints.get_or_insert_mut(key, Hint::default)
}

/// Forgets what is over among the oldest. What is not has another round: else one answer that varies would keep all behind
/// it.
fn sweep(hints: &mut LruCache<KeyHash, Hint>, now: Millis) {
    for _ in 0..SWEPT {
        let Some((key, is_over)) = hints.peek_lru().map(|(key, hint)| (*key, hint.is_over(now))) else {
            return;
        };
        if is_over {
            hints.pop(&key);
        } else {
            hints.promote(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn join(collapse: &Arc<Collapse>, key: u128) -> Join {
        let joined = collapse.join(KeyHash(key), &HeaderMap::new(), 0, |_| false, || None::<()>);
        joined.unwrap_or_else(|()| unreachable!("nothing is found"))
    }

    #[tokio::test]
    async fn one_leads_and_the_others_hear_of_its_death() {
        let collapse = Collapse::new();
        let Join::Lead(lead) = join(&collapse, 1) else { panic!("first") };
        let Join::Follow(_, flight) = join(&collapse, 1) else { panic!("second") };
        assert!(matches!(join(&collapse, 2), Join::Lead(_)));
        drop(lead);
        assert!(matches!(flight.join().published().await, Published::Aborted));
        assert!(matches!(join(&collapse, 1), Join::Lead(_)));
    }

    #[test]
    fn a_landed_flight_is_found_in_the_store() {
        let collapse = Collapse::new();
        assert_eq!(collapse.join(KeyHash(1), &HeaderMap::new(), 0, |_| false, || Some(7)).err(), Some(7));
        assert_eq!(collapse.in_flight(), 0);
    }

    #[test]
    fn what_is_over_is_not_kept_and_what_varies_is() {
        let collapse = Collapse::new();
        let vary = VaryRule::new(vec![http::header::ACCEPT_LANGUAGE]);
        collapse.mark_shared(KeyHash(0), &vary);
        for n in 1..=1000 {
            collapse.mark_unshared(KeyHash(n), Millis(0), true);
        }
        let later = Millis(HIT_FOR_MISS_MS);
        for n in 1001..=3000 {
            collapse.mark_failed(KeyHash(n), Duration::ZERO, later);
        }
        assert!(collapse.hints.lock().len() <= 2001, "{}", collapse.hints.lock().len());
        assert!((1001..=3000).all(|n| collapse.has_failed(KeyHash(n), later)));
        assert!(collapse.hints.lock().peek(&KeyHash(0)).is_some_and(|hint| hint.vary == Some(vary)));
    }

    #[test]
    fn marks_end_and_are_cleared_by_a_shared_answer() {
        let collapse = Collapse::new();
        let key = KeyHash(9);
        collapse.mark_unshared(key, Millis(0), true);
        assert!(collapse.is_unshared(key, Millis(1)));
        assert!(collapse.is_too_large(key, Millis(1)));
        assert!(!collapse.is_unshared(key, Millis(HIT_FOR_MISS_MS)));
        collapse.mark_failed(key, Duration::ZERO, Millis(0));
        assert!(collapse.has_failed(key, Millis(1)) && collapse.is_unshared(key, Millis(1)));
        assert!(!collapse.has_failed(key, Millis(FAILED_MS)));
        collapse.mark_failed(key, Duration::from_secs(15), Millis(15_000));
        assert!(collapse.has_failed(key, Millis(29_999)) && !collapse.has_failed(key, Millis(30_000)));
        collapse.mark_failed(key, Duration::from_secs(3600), Millis(3_600_000));
        assert!(!collapse.has_failed(key, Millis(3_600_000 + FAILED_MAX_MS)), "not for ever");
        collapse.mark_shared(key, &VaryRule::new(vec![]));
        assert!(!collapse.is_unshared(key, Millis(1)) && !collapse.has_failed(key, Millis(1)));
    }
}
