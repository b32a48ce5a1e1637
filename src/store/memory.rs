//! The memory tier: sharded LRU lists with W-TinyLFU admission.
//!
//! Each shard has a small *window* that admits everything and a *main* list. What leaves the window
//! enters the main list only if it is asked for more often than all that it would push out, so a
//! scan passes through the window and leaves the hot set alone; the sketch ages, so yesterday's
//! favourites do not lock out today's.
//!
//! A hit takes a shard's lock for reading and moves nothing. Promotions are collected by worker and
//! applied in batches, if the shard is free at that moment: losing one costs a little precision.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use super::Entry;
use super::admission::Sketch;
use super::holds::Holds;
use crate::rules::key::KeyHash;
use crate::telemetry::worker_slot;

/// Promotions that a worker collects before it applies them.
const PROMOTION_BATCH: usize = 64;
/// The window's share of a shard.
const WINDOW_DIVISOR: u64 = 20;
/// Enough that workers seldom meet; a power of two.
const SHARDS: usize = 16;
/// What an average object is taken to weigh when the sketch is sized.
const TYPICAL_OBJECT_BYTES: u64 = 2048;

/// The key is a cryptographic hash already; hashing it again would be waste.
#[derive(Default)]
struct TakeLow64(u64);

impl Hasher for TakeLow64 {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

struct Node {
    entry: Arc<Entry>,
    weight: u64,
}

type List = LruCache<KeyHash, Node, BuildHasherDefault<TakeLow64>>;

struct Shard {
    window: List,
    main: List,
    window_bytes: u64,
    main_bytes: u64,
    window_capacity: u64,
    sketch: Sketch,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Entries that were pushed out, the newcomer itself included.
    pub(super) evicted: u64,
    /// Whether the entry was kept.
    pub(super) kept: bool,
}

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
        }
    }

    /// What is not to be evicted.
    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    #[inline]
    pub(super) fn get(&self, key: KeyHash) -> Option<Arc<Entry>> {
        let shard = self.shard(key).read();
        shard.main.peek(&key).or_else(|| shard.window.peek(&key)).map(|node| node.entry.clone())
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
        let mut outcome = Outcome::default();
        {
            let mut shard = self.shard(key).write();
            let old = shard.peek(key).cloned();
            let before = (shard.window_bytes, shard.main_bytes);
            match change(old.as_ref()) {
                Some(entry) => {
                    let free = self.main_capacity.saturating_sub(self.main_used.load(Relaxed));
                    outcome = shard.insert(key, entry, free, &self.holds);
                }
                None => shard.remove(key),
            }
            account(&self.window_used, before.0, shard.window_bytes);
            account(&self.main_used, before.1, shard.main_bytes);
        }
        // What the own shard could not give, the others do: without holding two locks at once.
        let over = self.used().saturating_sub(self.capacity);
        outcome.evicted += if over > 0 { self.evict(over) } else { 0 };
        outcome
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
        let shard = self.shard(key).read();
        shard.peek(key).map_or(0, |_| shard.sketch.estimate(key).saturating_sub(1))
    }

    /// Whether so much more fits without an eviction. What the windows leave unused for a moment does not count.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.main_used.load(Relaxed) + bytes <= self.main_capacity
    }

    fn used(&self) -> u64 {
        self.window_used.load(Relaxed) + self.main_used.load(Relaxed)
    }

    /// Evicts entries of `bytes` in all, from the fullest shards first; returns how many went.
    pub(super) fn evict(&self, bytes: u64) -> u64 {
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
                if let Some(weight) = shard.evict_one(&self.holds) {
                    account(&self.window_used, before.0, shard.window_bytes);
                    account(&self.main_used, before.1, shard.main_bytes);
                    freed += weight;
                    entries += 1;
                }
            }
            if entries == before {
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
            keys.extend(shard.main.iter().chain(shard.window.iter()).map(|(key, _)| *key));
        }
        keys
    }

    /// Entries and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        let entries = |shard: &RwLock<Shard>| {
            let shard = shard.read();
            (shard.window.len() + shard.main.len()) as u64
        };
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

impl Shard {
    fn new(share: u64) -> Self {
        let list = || LruCache::unbounded_with_hasher(BuildHasherDefault::default());
        Self {
            window: list(),
            main: list(),
            window_bytes: 0,
            main_bytes: 0,
            window_capacity: share / WINDOW_DIVISOR,
            sketch: Sketch::new((share / TYPICAL_OBJECT_BYTES) as usize),
        }
    }

    fn bytes(&self) -> u64 {
        self.window_bytes + self.main_bytes
    }

    fn peek(&self, key: KeyHash) -> Option<&Arc<Entry>> {
        self.main.peek(&key).or_else(|| self.window.peek(&key)).map(|node| &node.entry)
    }

    fn touch(&mut self, key: KeyHash) {
        let entries = self.window.len() + self.main.len();
        self.sketch.record(key, entries);
        if self.main.get(&key).is_none() {
            self.window.promote(&key);
        }
    }

    fn remove(&mut self, key: KeyHash) {
        if let Some(node) = self.main.pop(&key) {
            self.main_bytes -= node.weight;
        } else if let Some(node) = self.window.pop(&key) {
            self.window_bytes -= node.weight;
        }
    }

    /// Stores an entry; `free` is what all main lists together have left.
    fn insert(&mut self, key: KeyHash, entry: Arc<Entry>, free: u64, holds: &Holds) -> Outcome {
        let entries = self.window.len() + self.main.len();
        self.sketch.record(key, entries);
        let weight = entry.weight();
        let in_main = self.main.contains(&key);
        // What the main list may hold without those of the other shards giving way.
        let limit = self.main_bytes + free;
        self.remove(key);
        let mut outcome = Outcome::default();
        if in_main {
            self.main.push(key, Node { entry, weight });
            self.main_bytes += weight;
        } else {
            self.window.push(key, Node { entry, weight });
            self.window_bytes += weight;
            while self.window_bytes > self.window_capacity {
                let Some((candidate, node)) = self.window.pop_lru() else { break };
                self.window_bytes -= node.weight;
                outcome.evicted += self.admit(candidate, node, limit, holds);
            }
        }
        outcome.kept = self.peek(key).is_some();
        outcome
    }

    /// Moves what left the window to the main list if it earns its place; returns how many left.
    fn admit(&mut self, key: KeyHash, node: Node, limit: u64, holds: &Holds) -> u64 {
        let need = (self.main_bytes + node.weight).saturating_sub(limit);
        let (mut victims, mut bytes, mut asked) = (0, 0, 0u64);
        for (victim, victim_node) in self.main.iter().rev() {
            if bytes >= need {
                break;
            }
            if holds.keeps(&victim_node.entry, victim_node.weight) {
                continue;
            }
            victims += 1;
            bytes += victim_node.weight;
            asked += u64::from(self.sketch.estimate(*victim));
        }
        // It has to be asked for more than all of them together. Requests a byte would let a small object
        // that was asked for once push out a large one that is asked for often, and the room that is left
        // over then takes whatever comes next. Without victims here the other shards give way: an empty
        // shard says nothing of what its newcomer is worth.
        let earns = u64::from(self.sketch.estimate(key)) > asked;
        if victims > 0 && !earns && !holds.keeps(&node.entry, node.weight) {
            return 1;
        }
        for _ in 0..victims {
            if let Some(victim) = pop_unheld(&mut self.main, holds) {
                self.main_bytes -= victim.weight;
            }
        }
        self.main_bytes += node.weight;
        self.main.push(key, node);
        victims
    }

    /// Drops the least recently used of the main list, else of the window; returns its bytes.
    fn evict_one(&mut self, holds: &Holds) -> Option<u64> {
        if let Some(node) = pop_unheld(&mut self.main, holds) {
            self.main_bytes -= node.weight;
            return Some(node.weight);
        }
        let node = pop_unheld(&mut self.window, holds)?;
        self.window_bytes -= node.weight;
        Some(node.weight)
    }
}

/// Takes the least recently used entry that is not held; held ones on the way to it count as just used.
fn pop_unheld(list: &mut List, holds: &Holds) -> Option<Node> {
    for _ in 0..list.len() {
        let (key, node) = list.pop_lru()?;
        if !holds.keeps(&node.entry, node.weight) {
            return Some(node);
        }
        list.push(key, node);
    }
    None
}
