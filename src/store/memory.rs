//! The memory tier: sharded LRU lists with W-TinyLFU admission.
//!
//! Each shard has a small *window* that admits everything and a *main* list. What leaves the window
//! enters the main list only if it is asked for more often than all that it would push out, so a
//! scan passes through the window and leaves the hot set alone; the sketch ages, so yesterday's
//! favourites do not lock out today's. What a job warms nobody has asked for yet: it enters the main
//! list at once, in the place of what was used least recently, but never of what the same job brought,
//! so that a job that is larger than the tier fills it once and finds no room for the rest.
//!
//! A hit takes a shard's lock for reading and moves nothing. Promotions are collected by worker and
//! applied in batches, if the shard is free at that moment: losing one costs a little precision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use super::Entry;
use super::holds::Holds;
use super::shard::{Outcome, Shard, WINDOW_DIVISOR};
use crate::rules::key::KeyHash;
use crate::telemetry::worker_slot;

/// Promotions that a worker collects before it applies them.
const PROMOTION_BATCH: usize = 64;
/// Enough that workers seldom meet; a power of two.
const SHARDS: usize = 16;

/// See the module.
pub(super) struct MemoryTier {
    shards: Box<[RwLock<Shard>]>,
    /// One buffer for each worker, the first for all other threads; a lock that is only ever tried.
    promotions: Box<[Mutex<Vec<KeyHash>>]>,
    /// Bytes of all shards together, in windows and in main lists: the shards share one budget, so that
    /// no object is too large for its shard. Changed with a shard's lock held, on the way of a miss.
    window_used: AtomicU64,
    main_used: AtomicU64,
    capacity: u64,
    /// The main lists' own share. What a window leaves unused for a moment is not theirs: else every
    /// newcomer would find some room without having to earn it.
    main_capacity: u64,
    holds: Holds,
    /// The job that found no room last: all that is left is held, or its own.
    full_for: AtomicU64,
}

impl std::fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTier").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl MemoryTier {
    pub(super) fn new(capacity: u64, workers: usize, holds: Holds) -> Self {
        let shard = || RwLock::new(Shard::new(capacity / SHARDS as u64));
        let batch = || Mutex::new(Vec::with_capacity(PROMOTION_BATCH));
        let windows = capacity / SHARDS as u64 / WINDOW_DIVISOR * SHARDS as u64;
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            promotions: (0..=workers).map(|_| batch()).collect(),
            window_used: AtomicU64::new(0),
            main_used: AtomicU64::new(0),
            capacity,
            main_capacity: capacity - windows,
            holds,
            full_for: AtomicU64::new(u64::MAX),
        }
    }

    /// What is not to be evicted.
    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    #[inline]
    pub(super) fn get(&self, key: KeyHash) -> Option<Arc<Entry>> {
        let shard = self.shard(key).read();
        shard.peek(key).cloned()
    }

    /// Looks at what stands under a key, while nobody changes it.
    pub(super) fn look(&self, key: KeyHash, look: impl FnOnce(Option<&Arc<Entry>>)) {
        look(self.shard(key).read().peek(key));
    }

    #[inline]
    pub(super) fn promote(&self, key: KeyHash) {
        let slot = worker_slot().min(self.promotions.len() - 1);
        let Some(mut batch) = self.promotions[slot].try_lock() else { return };
        batch.push(key);
        if batch.len() == PROMOTION_BATCH {
            for key in batch.drain(..) {
                if let Some(mut shard) = self.shard(key).try_write() {
                    shard.touch(key);
                }
            }
        }
    }

    /// Replaces what stands under a key by what `change` makes of it; `None` removes it.
    pub(super) fn update(
        &self,
        key: KeyHash,
        change: impl FnOnce(Option<&Arc<Entry>>) -> Option<Arc<Entry>>,
    ) -> Outcome {
        self.update_for(None, key, change)
    }

    /// The same of what a job warms.
    pub(super) fn update_for(
        &self,
        job: Option<u64>,
        key: KeyHash,
        change: impl FnOnce(Option<&Arc<Entry>>) -> Option<Arc<Entry>>,
    ) -> Outcome {
        let job = job.filter(|job| !self.is_full_for(*job));
        let mut outcome = Outcome::default();
        {
            let mut shard = self.shard(key).write();
            let old = shard.peek(key).cloned();
            let before = (shard.window_bytes, shard.main_bytes);
            match change(old.as_ref()) {
                Some(entry) => {
                    let free = self.main_capacity.saturating_sub(self.main_used.load(Relaxed));
                    outcome = match job {
                        Some(job) => shard.insert_for(job, key, entry),
                        None => shard.insert(key, entry, free, &self.holds),
                    };
                }
                None => shard.remove(key),
            }
            account(&self.window_used, before.0, shard.window_bytes);
            account(&self.main_used, before.1, shard.main_bytes);
        }
        // What the own shard could not give, the others do: without holding two locks at once.
        let over = self.over(job);
        outcome.evicted += if over > 0 { self.evict(job, over) } else { 0 };
        if outcome.kept && job.is_some() && self.over(job) > 0 {
            let mut shard = self.shard(key).write();
            let before = (shard.window_bytes, shard.main_bytes);
            shard.remove(key);
            account(&self.main_used, before.1, shard.main_bytes);
            outcome = Outcome { evicted: outcome.evicted + 1, kept: false };
        }
        outcome
    }

    /// Bytes that are to go. What is warmed may not take the windows' share, which others need.
    fn over(&self, job: Option<u64>) -> u64 {
        let over = self.used().saturating_sub(self.capacity);
        let of_main = self.main_used.load(Relaxed).saturating_sub(self.main_capacity);
        if job.is_some() { over.max(of_main) } else { over }
    }

    fn is_full_for(&self, job: u64) -> bool {
        self.full_for.load(Relaxed) == job
    }

    /// Forgets a key when a body of it lies in a segment that is on its way out.
    pub(super) fn forget_mapped(&self, key: KeyHash, segment: u32) {
        let is_in = |entry: &Arc<Entry>| {
            let mut parts = entry.variants().iter().flat_map(|object| object.parts());
            parts.any(|part| part.place().0 == segment)
        };
        if self.get(key).is_some_and(|entry| is_in(&entry)) {
            self.update(key, |old| old.filter(|entry| !is_in(entry)).cloned());
        }
    }

    /// Requests lately for a key that is in memory, without its fill.
    pub(super) fn asked(&self, key: KeyHash) -> u8 {
        self.shard(key).read().asked(key)
    }

    /// Whether so much more fits without an eviction. What the windows leave unused for a moment does not count.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.main_used.load(Relaxed) + bytes <= self.main_capacity
    }

    fn used(&self) -> u64 {
        self.window_used.load(Relaxed) + self.main_used.load(Relaxed)
    }

    /// Evicts entries of `bytes` in all, from the fullest shards first; returns how many went. For what a job warms:
    /// nothing that it warmed.
    pub(super) fn evict(&self, job: Option<u64>, bytes: u64) -> u64 {
        if job.is_some_and(|job| self.is_full_for(job)) {
            return 0;
        }
        let (mut freed, mut entries) = (0, 0);
        let mut order: Vec<_> = self.shards.iter().collect();
        order.sort_by_cached_key(|shard| std::cmp::Reverse(shard.read().bytes()));
        while freed < bytes {
            let before = entries;
            for shard in &order {
                if freed >= bytes {
                    break;
                }
                let mut shard = shard.write();
                let before = (shard.window_bytes, shard.main_bytes);
                if let Some(weight) = shard.evict_one(&self.holds, job) {
                    account(&self.window_used, before.0, shard.window_bytes);
                    account(&self.main_used, before.1, shard.main_bytes);
                    freed += weight;
                    entries += 1;
                }
            }
            if entries == before {
                // It is not looked for in vain with each of the job's URLs.
                job.inspect(|job| self.full_for.store(*job, Relaxed));
                break;
            }
        }
        entries
    }

    /// The keys of all that is there. Copied shard by shard; fills of that shard wait meanwhile, hits do not.
    pub(super) fn keys(&self) -> Vec<KeyHash> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            keys.extend(shard.keys());
        }
        keys
    }

    /// Entries and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        let entries = |shard: &RwLock<Shard>| shard.read().len() as u64;
        (self.shards.iter().map(entries).sum(), self.used())
    }

    fn shard(&self, key: KeyHash) -> &RwLock<Shard> {
        // The map takes the low bits, the shard the high ones.
        &self.shards[(key.0 >> 120) as usize % SHARDS]
    }
}

fn account(used: &AtomicU64, before: u64, after: u64) {
    if after >= before {
        used.fetch_add(after - before, Relaxed);
    } else {
        used.fetch_sub(before - after, Relaxed);
    }
}
