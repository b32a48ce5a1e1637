//! Keys that are exempt from eviction for a time, of one tier.
//!
//! A hold is a promise on a key, not on bytes: it is made before the response is there, and charged with what the tier
//! holds under the key each time the tier looks. All holds together are charged with half of the tier at most; the one
//! that would go beyond ends, as if its time were over. Holds are not durable: who wants them after a restart asks again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::rules::key::KeyHash;
use crate::rules::time::Millis;
use crate::telemetry::Clock;

/// Keys that are held at once: some 20 MiB of them.
const MAX_KEYS: usize = 262_144;

#[derive(Debug)]
struct Hold {
    until: Millis,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Held {
    keys: HashMap<KeyHash, Hold>,
    bytes: u64,
}

impl Held {
    fn end(&mut self, key: KeyHash) {
        if let Some(hold) = self.keys.remove(&key) {
            self.bytes -= hold.bytes;
        }
    }

    fn sweep(&mut self, now: Millis) {
        self.keys.retain(|_, hold| now < hold.until);
        self.bytes = self.keys.values().map(|hold| hold.bytes).sum();
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
}

impl Holds {
    pub(super) fn new(limit: u64, clock: Clock) -> Self {
        Self { held: Mutex::default(), count: AtomicUsize::new(0), limit, clock }
    }

    /// Holds a key, or holds it longer; false: too many are held.
    pub(super) fn hold(&self, key: KeyHash, until: Millis) -> bool {
        let mut held = self.held.lock();
        if held.keys.len() >= MAX_KEYS && !held.keys.contains_key(&key) {
            held.sweep(self.clock.now());
        }
        if held.keys.len() >= MAX_KEYS && !held.keys.contains_key(&key) {
            return false;
        }
        let hold = held.keys.entry(key).or_insert(Hold { until, bytes: 0 });
        hold.until = hold.until.max(until);
        self.count.store(held.keys.len(), Relaxed);
        true
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
            held.keys.get(&key).is_some_and(|hold| self.clock.now() < hold.until)
        }
    }

    /// Whether what the tier has under a key, of so many bytes, stays; it is charged with them.
    #[inline]
    pub(super) fn keeps(&self, key: KeyHash, bytes: u64) -> bool {
        !self.is_empty() && self.charge(key, bytes)
    }

    #[cold]
    fn charge(&self, key: KeyHash, bytes: u64) -> bool {
        let now = self.clock.now();
        let mut held = self.held.lock();
        let held = &mut *held;
        let before = held.keys.get(&key).filter(|hold| now < hold.until).map(|hold| hold.bytes);
        let is_kept = before.is_some_and(|before| {
            if held.bytes - before + bytes > self.limit {
                held.sweep(now);
            }
            held.bytes - before + bytes <= self.limit
        });
        match held.keys.get_mut(&key) {
            Some(hold) if is_kept => {
                held.bytes = held.bytes - hold.bytes + bytes;
                hold.bytes = bytes;
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

    const FOREVER: Millis = Millis::MAX;

    #[test]
    fn half_of_a_tier_is_held_and_no_more() {
        let holds = Holds::new(100, Clock::start());
        let key = |n| KeyHash(n);
        assert!(!holds.keeps(key(1), 10), "nobody asked for it");
        for n in 1..=3 {
            assert!(holds.hold(key(n), FOREVER));
        }
        assert!(holds.keeps(key(1), 60));
        assert!(holds.keeps(key(1), 60), "charged once, however often it is asked about");
        assert!(holds.keeps(key(2), 40));
        assert!(!holds.keeps(key(3), 1), "the tier's half is used up");
        assert!(!holds.has(key(3)), "and the hold has ended");
        assert!(holds.keeps(key(1), 20), "it has become smaller");
        assert!(holds.hold(key(3), FOREVER) && holds.keeps(key(3), 40));
        assert!(!holds.keeps(key(2), 41), "or larger");
        assert!(holds.has(key(1)) && !holds.has(key(2)));
    }

    #[test]
    fn a_hold_ends_with_its_time() {
        let clock = Clock::start();
        let holds = Holds::new(100, clock);
        assert!(holds.hold(KeyHash(1), clock.now()));
        assert!(!holds.keeps(KeyHash(1), 1));
        assert!(holds.is_empty());
        // What is over makes room for what is not.
        holds.hold(KeyHash(2), FOREVER);
        assert!(holds.keeps(KeyHash(2), 90));
        holds.held.lock().keys.get_mut(&KeyHash(2)).unwrap().until = clock.now();
        holds.hold(KeyHash(3), FOREVER);
        assert!(holds.keeps(KeyHash(3), 50));
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
}
