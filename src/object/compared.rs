//! What an object notes of the purges and the configuration that it was compared with.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Object;
use crate::rules::time::Millis;

impl Object {
    /// The last purge that it was compared with.
    #[inline]
    pub fn checked(&self) -> u64 {
        self.checked.load(Relaxed)
    }

    /// The last purge that it outlived untouched, for what is written down of it.
    pub fn as_of(&self) -> u64 {
        // First: what a soft purge did to it is noted before the purge's number is.
        let checked = self.checked.load(Acquire);
        match self.stale_since.load(Relaxed) {
            i64::MAX => checked,
            _ => self.head.as_of,
        }
    }

    /// Notes that it was compared with all purges up to `seq`, and is kept; perhaps stale by a soft one.
    pub fn set_checked(&self, seq: u64, stale_since: Option<Millis>) {
        if let Some(since) = stale_since {
            let since = since.max(self.head.freshness.response_time);
            self.stale_since.fetch_min(since.0, Relaxed);
        }
        self.checked.fetch_max(seq, Release);
    }

    /// Since when it is stale by a soft purge; `None`: it is not, or it would be without.
    pub fn stale_since(&self) -> Option<Millis> {
        let since = Millis(self.stale_since.load(Relaxed));
        (since < self.head.freshness.fresh_until && !self.head.freshness.no_cache).then_some(since)
    }

    /// Under which configuration it was decided whether clients choose its coding; 0: none.
    #[inline]
    pub fn settled(&self) -> u64 {
        self.settled.load(Relaxed)
    }

    /// Notes that it was decided.
    pub fn set_settled(&self, epoch: u64) {
        self.settled.store(epoch, Relaxed);
    }
}
