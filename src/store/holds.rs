//! Keys that are exempt from eviction for a time, of one tier.
//!
//! A hold is a promise on a key, not on bytes: it is made before the response is there, and charged with what the tier
//! holds under the key each time the tier looks. All holds together are charged with half of the tier at most (without a
//! disk, less of the memory: see `budget.rs`); the one that would go beyond ends, as if its time were over. A purge of all that is under the key ends it, found out by
//! comparison as with objects; so does the end of the job that holds it. Holds are not durable: who wants them after a
//! restart asks again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Entry;
use super::comparison::Comparison;
use crate::rules::key::KeyHash;
use crate::rules::time::Millis;
use crate::telemetry::Clock;

/// Keys that are held at once: some 20 MiB of them.
const MAX_KEYS: usize = 262_144;

/// Who holds a key, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// When it ends.
    pub until: Millis,
    /// The job that asked for it.
    pub job: u64,
    /// The last purge that was applied when it did.
    pub as_of: u64,
}

/// The longest hold of a key.
#[derive(Debug)]
struct Kept {
    hold: Hold,
    /// Nobody's any more, unless another job takes it over.
    is_disowned: bool,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Held {
    keys: HashMap<KeyHash, Kept>,
    bytes: u64,
}

impl Held {
    fn end(&mut self, key: KeyHash) {
        if let Some(kept) = self.keys.remove(&key) {
            self.bytes -= kept.bytes;
        }
    }

    fn sweep(&mut self, now: Millis) {
        self.keep_if(|kept| now < kept.hold.until);
    }

    fn keep_if(&mut self, is_kept: impl Fn(&Kept) -> bool) {
        self.keys.retain(|_, kept| is_kept(kept));
        self.bytes = self.keys.values().map(|kept| kept.bytes).sum();
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Holds {
    held: Mutex<Held>,
    /// How many there are: where there are none, nobody takes the lock.
    count: AtomicUsize,
    /// Bytes that may be held.
    limit: u64,
    clock: Clock,
    pub(super) comparison: Comparison,
}

impl Holds {
    pub(super) fn new(limit: u64, clock: Clock) -> Self {
        Self {
            held: Mutex::default(),
            count: AtomicUsize::new(0),
            limit,
            clock,
            comparison: Comparison::default(),
        }
    }

    /// Holds a key, or holds it longer; false: too many are held.
    pub(super) fn hold(&self, key: KeyHash, hold: Hold) -> bool {
        let mut held = self.held.lock();
        if held.keys.len() >= MAX_KEYS && !held.keys.contains_key(&key) {
            held.sweep(self.clock.now());
        }
        if held.keys.len() >= MAX_KEYS && !held.keys.contains_key(&key) {
            return false;
        }
        let kept = held.keys.entry(key).or_insert(Kept { hold, is_disowned: false, bytes: 0 });
        let as_of = hold.as_of.max(kept.hold.as_of);
        if kept.is_disowned || hold.until > kept.hold.until {
            (kept.hold, kept.is_disowned) = (hold, false);
        }
        kept.hold.as_of = as_of;
        self.count.store(held.keys.len(), Relaxed);
        true
    }

    /// What a job holds is nobody's, until another one holds it or [`Self::release_disowned`] is called.
    pub(super) fn disown(&self, job: u64) {
        for kept in self.held.lock().keys.values_mut().filter(|kept| kept.hold.job == job) {
            kept.is_disowned = true;
        }
    }

    /// Ends what is nobody's.
    pub(super) fn release_disowned(&self) {
        let mut held = self.held.lock();
        held.keep_if(|kept| !kept.is_disowned);
        self.count.store(held.keys.len(), Relaxed);
    }

    /// Ends a hold when everything under the key, known by its tags, was purged since it was asked for.
    pub(super) fn end_of_purged<'a>(
        &self,
        key: KeyHash,
        url: &str,
        mut tags: impl Iterator<Item = &'a [Box<str>]>,
    ) {
        if self.is_empty() {
            return;
        }
        let mut held = self.held.lock();
        let Some(as_of) = held.keys.get(&key).map(|kept| kept.hold.as_of) else { return };
        if tags.all(|tags| self.comparison.outlived(url, tags, as_of).is_none()) {
            held.end(key);
            self.count.store(held.keys.len(), Relaxed);
        }
    }

    /// Bytes that may be held.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether nothing is held.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Whether a key is held, whatever is stored under it.
    pub(super) fn has(&self, key: KeyHash) -> bool {
        !self.is_empty() && {
            let held = self.held.lock();
            held.keys.get(&key).is_some_and(|kept| self.clock.now() < kept.hold.until)
        }
    }

    /// Whether an entry of the tier, of so many bytes there, stays; it is charged with them.
    #[inline]
    pub(super) fn keeps(&self, entry: &Entry, bytes: u64) -> bool {
        !self.is_empty() && {
            let key = entry.key();
            let outlived = |as_of| {
                let mut variants = entry.variants().iter();
                variants.find_map(|o| self.comparison.outlived(key.canonical(), &o.head.tags, as_of))
            };
            self.charge(key.hash(), bytes, outlived)
        }
    }

    /// `outlived` gives the last purge that what is there outlived, after a given one; `None`: it did not.
    #[cold]
    fn charge(&self, key: KeyHash, bytes: u64, outlived: impl Fn(u64) -> Option<u64>) -> bool {
        let now = self.clock.now();
        let mut held = self.held.lock();
        let held = &mut *held;
        let before = held.keys.get_mut(&key).filter(|kept| now < kept.hold.until).and_then(|kept| {
            kept.hold.as_of = outlived(kept.hold.as_of)?;
            Some(kept.bytes)
        });
        let is_kept = before.is_some_and(|before| {
            if held.bytes - before + bytes > self.limit {
                held.sweep(now);
            }
            held.bytes - before + bytes <= self.limit
        });
        match held.keys.get_mut(&key) {
            Some(kept) if is_kept => {
                held.bytes = held.bytes - kept.bytes + bytes;
                kept.bytes = bytes;
            }
            _ => held.end(key),
        }
        self.count.store(held.keys.len(), Relaxed);
        is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Hold = until(Millis::MAX, 1);

    const fn until(until: Millis, job: u64) -> Hold {
        Hold { until, job, as_of: 0 }
    }

    impl Holds {
        fn has_room_for(&self, key: KeyHash, bytes: u64) -> bool {
            !self.is_empty() && self.charge(key, bytes, Some)
        }
    }

    #[test]
    fn half_of_a_tier_is_held_and_no_more() {
        let holds = Holds::new(100, Clock::start());
        let key = |n| KeyHash(n);
        assert!(!holds.has_room_for(key(1), 10), "nobody asked for it");
        for n in 1..=3 {
            assert!(holds.hold(key(n), FOREVER));
        }
        assert!(holds.has_room_for(key(1), 60));
        assert!(holds.has_room_for(key(1), 60), "charged once, however often it is asked about");
        assert!(holds.has_room_for(key(2), 40));
        assert!(!holds.has_room_for(key(3), 1), "the tier's half is used up");
        assert!(!holds.has(key(3)), "and the hold has ended");
        assert!(holds.has_room_for(key(1), 20), "it has become smaller");
        assert!(holds.hold(key(3), FOREVER) && holds.has_room_for(key(3), 40));
        assert!(!holds.has_room_for(key(2), 41), "or larger");
        assert!(holds.has(key(1)) && !holds.has(key(2)));
    }

    #[test]
    fn a_hold_ends_with_its_time() {
        let clock = Clock::start();
        let holds = Holds::new(100, clock);
        assert!(holds.hold(KeyHash(1), until(clock.now(), 1)));
        assert!(!holds.has_room_for(KeyHash(1), 1));
        assert!(holds.is_empty());
        // What is over makes room for what is not.
        holds.hold(KeyHash(2), FOREVER);
        assert!(holds.has_room_for(KeyHash(2), 90));
        holds.held.lock().keys.get_mut(&KeyHash(2)).unwrap().hold.until = clock.now();
        holds.hold(KeyHash(3), FOREVER);
        assert!(holds.has_room_for(KeyHash(3), 50));
    }

    #[test]
    fn there_are_only_so_many() {
        let holds = Holds::new(100, Clock::start());
        for n in 0..MAX_KEYS as u128 {
            assert!(holds.hold(KeyHash(n), FOREVER));
        }
        assert!(!holds.hold(KeyHash(u128::MAX), FOREVER));
        assert!(holds.hold(KeyHash(0), FOREVER), "one of them may be held longer");
    }

    #[test]
    fn a_job_releases_what_no_other_one_holds() {
        let holds = Holds::new(100, Clock::start());
        let (short, long) = (until(Millis(i64::MAX / 2), 1), until(Millis::MAX, 2));
        assert!(holds.hold(KeyHash(1), short) && holds.hold(KeyHash(1), long));
        assert!(holds.hold(KeyHash(2), long) && holds.has_room_for(KeyHash(2), 60));
        holds.disown(2);
        assert!(holds.has(KeyHash(2)), "not yet");
        // The shorter one is asked for once more.
        assert!(holds.hold(KeyHash(1), short));
        holds.release_disowned();
        assert!(holds.has(KeyHash(1)) && !holds.has(KeyHash(2)));
        assert!(holds.has_room_for(KeyHash(1), 100), "what is released is charged no more");
        holds.disown(1);
        holds.release_disowned();
        assert!(holds.is_empty());
    }

    #[test]
    fn a_purge_ends_the_holds_before_it_and_no_later_one() {
        let holds = Holds::new(100, Clock::start());
        // Of what has the tag, purge 5 is the last; 9 is the last of all.
        let compare = |_: &str, tags: &[Box<str>], as_of: u64| {
            (as_of >= 5 || !tags.iter().any(|tag| &**tag == "gone")).then_some(9)
        };
        holds.comparison.set(std::sync::Arc::new(compare));
        let (gone, kept): ([Box<str>; 1], [Box<str>; 1]) = (["gone".into()], ["kept".into()]);
        let end = |key, tags: &[&[Box<str>]]| holds.end_of_purged(key, "http://a/", tags.iter().copied());
        for (key, as_of, tags, is_held) in [
            (1, 4, vec![&gone[..]], false),
            (2, 5, vec![&gone[..]], true),
            (3, 4, vec![&kept[..]], true),
            (4, 4, vec![&gone[..], &kept[..]], true),
        ] {
            let key = KeyHash(key);
            assert!(holds.hold(key, Hold { as_of, ..FOREVER }));
            end(key, &tags);
            assert_eq!(holds.has(key), is_held, "{key:?}");
        }
        // Asked for again behind the purge.
        assert!(holds.hold(KeyHash(5), Hold { as_of: 4, ..FOREVER }));
        assert!(holds.hold(KeyHash(5), Hold { as_of: 6, ..FOREVER }));
        end(KeyHash(5), &[&gone]);
        assert!(holds.has(KeyHash(5)));
        assert!(holds.charge(KeyHash(5), 1, |as_of| (as_of == 6).then_some(9)));
        assert!(
            holds.charge(KeyHash(5), 1, |as_of| (as_of == 9).then_some(9)),
            "compared with newer ones only"
        );
        assert!(!holds.charge(KeyHash(5), 1, |_| None) && !holds.has(KeyHash(5)));
    }
}
