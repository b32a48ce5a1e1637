//! The store-wide counter: what happened before what.
//!
//! A version is the time in milliseconds, shifted left by 16 bits, or one more than the version before
//! it, whichever is higher. So versions only grow, across restarts too, and tell roughly when.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::rules::time::Millis;
use crate::telemetry::Clock;

const SHIFT: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Versions {
    last: AtomicU64,
    clock: Clock,
}

impl Versions {
    pub(super) fn new(clock: Clock) -> Self {
        Self { last: AtomicU64::new(0), clock }
    }

    /// The next version: higher than all before.
    pub(super) fn next(&self) -> u64 {
        let now = (self.clock.now().0.max(0) as u64) << SHIFT;
        let before = self.last.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1)));
        now.max(before.unwrap_or(0) + 1)
    }

    /// Goes on behind what an earlier process gave out.
    pub(super) fn resume(&self, last: u64) {
        self.last.fetch_max(last, Relaxed);
    }

    /// When a version was given out, at the earliest.
    pub(super) fn time_of(version: u64) -> Millis {
        Millis((version >> SHIFT) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_also_when_the_clock_is_behind() {
        let clock = Clock::start();
        let versions = Versions::new(clock);
        let first = versions.next();
        assert!(versions.next() > first);
        assert!((Versions::time_of(first).0 - clock.now().0).abs() < 10_000);
        let future = first + (3_600_000 << SHIFT);
        versions.resume(future);
        assert_eq!(versions.next(), future + 1);
    }
}
