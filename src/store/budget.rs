//! The memory budget: what is charged to it, and how room is made in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::holds::Holds;
use super::memory::MemoryTier;
use super::metrics::Counters;
use crate::object::Charge;
use crate::telemetry::Clock;

/// Everything alive that takes memory: resident objects, fills in flight, what a response still holds
/// of an evicted object, and with `disk = 0` the log's segments. Never more than the limit.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) memory: MemoryTier,
    pub(super) gauge: Arc<AtomicU64>,
    pub(super) limit: u64,
    pub(super) counters: Counters,
}

impl Budget {
    pub(super) fn new(limit: u64, workers: usize, is_persistent: bool, clock: Clock) -> Arc<Self> {
        let capacity = limit / 8 * 7;
        // Without a disk the log takes up to three quarters of the limit, and what it took is not given back for small
        // bodies: half of what it leaves at least may be held. With more, held entries and a full log together would leave
        // no room for any fill.
        let held = if is_persistent { capacity / 2 } else { limit / 8 };
        Arc::new(Self {
            memory: MemoryTier::new(capacity, workers, Holds::new(held, clock)),
            gauge: Arc::default(),
            limit,
            counters: Counters::default(),
        })
    }

    /// Whether there is room for `bytes` in the memory tier without anything having to go for them.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        // What responses still hold of what was evicted counts: to evict more does not free it.
        self.gauge.load(Relaxed) + bytes <= self.limit && self.memory.has_room(bytes)
    }

    /// Room for `bytes`, made by eviction if need be; `None`: there is none.
    pub(super) fn reserve(&self, bytes: u64) -> Option<Charge> {
        self.reserve_for(None, bytes)
    }

    /// The same for what a job warms: nothing that it warmed gives way.
    pub(super) fn reserve_for(&self, job: Option<u64>, bytes: u64) -> Option<Charge> {
        let mut charge = Charge::new(&self.gauge, 0);
        self.grow(job, &mut charge, bytes).then_some(charge)
    }

    /// Adds `bytes` to a reservation, of a job's perhaps; false, and nothing changed, when there is no room.
    pub(super) fn grow(&self, job: Option<u64>, charge: &mut Charge, bytes: u64) -> bool {
        let before = charge.bytes();
        charge.resize(before + bytes);
        let over = self.gauge.load(Relaxed).saturating_sub(self.limit);
        if over == 0 {
            return true;
        }
        // What readers pin is not freed by evicting it, so more than twice the need is not tried.
        let evicted = self.memory.evict(job, 2 * over);
        self.counters.evicted_for_room(evicted);
        if self.gauge.load(Relaxed) <= self.limit {
            return true;
        }
        charge.resize(before);
        self.counters.refuse();
        false
    }
}
