//! The store: what is kept, under which key, within which budget.
//!
//! One tier for now, the memory tier. Two numbers bound it: the *resident* bytes of the tier's
//! objects, which replacement keeps under seven eighths of the budget, and the *charged* bytes of
//! everything alive (resident objects, fills in flight, and evicted objects that a response still
//! holds), which never exceed the budget: a fill that finds no room is served without being stored.
//!
//! Not here: what may be stored and for how long (`rules`), and who fetches it (`edge`).

mod admission;
mod memory;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderMap;

use crate::object::{Charge, Object};
use crate::rules::key::{CacheKey, KeyHash};
use memory::MemoryTier;
use metrics::Counters;

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Budget of the memory tier in bytes.
    pub memory_bytes: u64,
    /// The largest response that is stored, in bytes.
    pub max_object_bytes: u64,
    /// Worker threads, for what is kept per worker.
    pub workers: usize,
}

/// The variants stored under one key, the newest first. Immutable; a change makes a new one.
#[derive(Debug)]
pub struct Entry {
    variants: Vec<Arc<Object>>,
}

impl Entry {
    /// The variant that a request selects (RFC 9111 §4.1): the newest whose Vary matches.
    #[inline]
    pub fn select(&self, request: &HeaderMap) -> Option<&Arc<Object>> {
        self.variants.iter().find(|object| {
            let head = &object.head;
            head.vary.is_empty() || head.vary.key(request) == head.variant
        })
    }

    /// All variants, the newest first.
    pub fn variants(&self) -> &[Arc<Object>] {
        &self.variants
    }

    fn weight(&self) -> u64 {
        self.variants.iter().map(|object| object.weight()).sum()
    }
}

/// The store of a node.
#[derive(Debug)]
pub struct Store {
    memory: MemoryTier,
    charged: Arc<AtomicU64>,
    config: Config,
    counters: Counters,
}

impl Store {
    /// An empty store.
    pub fn new(config: Config) -> Arc<Self> {
        let resident_bytes = config.memory_bytes / 8 * 7;
        Arc::new(Self {
            memory: MemoryTier::new(resident_bytes, config.workers),
            charged: Arc::default(),
            counters: Counters::default(),
            config,
        })
    }

    /// The variants stored under a key.
    #[inline]
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        let entry = self.memory.get(key.hash())?;
        // The hash is 128 bits of BLAKE3; the full comparison makes even a collision harmless.
        entry.variants.first().is_some_and(|object| object.head.key == *key).then_some(entry)
    }

    /// Counts a hit for replacement. Lossy and cheap.
    #[inline]
    pub fn promote(&self, key: KeyHash) {
        self.memory.promote(key);
    }

    /// Room for `bytes`, made by eviction if need be. `None`: there is none; the response is to be
    /// served without being stored.
    pub fn reserve(&self, bytes: u64) -> Option<Charge> {
        let mut charge = Charge::new(&self.charged, 0);
        self.grow(&mut charge, bytes).then_some(charge)
    }

    /// Adds `bytes` to a reservation; false, and nothing changed, when there is no room.
    pub fn grow(&self, charge: &mut Charge, bytes: u64) -> bool {
        let before = charge.bytes();
        charge.resize(before + bytes);
        let over = self.charged.load(Relaxed).saturating_sub(self.config.memory_bytes);
        if over == 0 {
            return true;
        }
        // What readers pin is not freed by evicting it, so more than twice the need is not tried.
        let evicted = self.memory.evict(2 * over);
        self.counters.evicted_for_room(evicted);
        if self.charged.load(Relaxed) <= self.config.memory_bytes {
            return true;
        }
        charge.resize(before);
        self.counters.refuse();
        false
    }

    /// The gauge that objects charge their heads to.
    pub fn gauge(&self) -> &Arc<AtomicU64> {
        &self.charged
    }

    /// Stores a complete object; it replaces the variant that the same requests select.
    pub fn insert(&self, object: Arc<Object>, max_variants: usize) {
        let key = object.head.key.hash();
        let outcome = self.memory.update(key, |old| {
            let mut variants = vec![object.clone()];
            if let Some(entry) =
                old.filter(|e| e.variants.first().is_some_and(|o| o.head.key == object.head.key))
            {
                let same =
                    |o: &Object| o.head.vary == object.head.vary && o.head.variant == object.head.variant;
                variants.extend(entry.variants.iter().filter(|o| !same(o)).cloned());
            }
            drop_least_recent(&mut variants, max_variants.max(1));
            Some(Arc::new(Entry { variants }))
        });
        self.counters.stored(&outcome);
    }

    /// Marks every variant of a key to be revalidated before its next use (RFC 9111 §4.4).
    pub fn invalidate(&self, key: &CacheKey) {
        if let Some(entry) = self.get(key) {
            entry.variants.iter().for_each(|object| object.invalidate());
        }
    }

    /// Whether this very object is still stored.
    pub fn holds(&self, object: &Arc<Object>) -> bool {
        let entry = self.get(&object.head.key);
        entry.is_some_and(|entry| entry.variants.iter().any(|stored| Arc::ptr_eq(stored, object)))
    }

    /// Forgets one variant, if it is still the stored one.
    pub fn remove(&self, object: &Arc<Object>) {
        self.memory.update(object.head.key.hash(), |old| {
            let rest: Vec<_> = old?.variants.iter().filter(|o| !Arc::ptr_eq(o, object)).cloned().collect();
            (!rest.is_empty()).then(|| Arc::new(Entry { variants: rest }))
        });
    }

    /// Figures for `status` and the metrics.
    pub fn stats(&self) -> Stats {
        let (objects, resident_bytes) = self.memory.size();
        Stats {
            objects,
            resident_bytes,
            charged_bytes: self.charged.load(Relaxed),
            capacity_bytes: self.config.memory_bytes,
        }
    }

    /// The largest response that is stored, in bytes.
    pub fn max_object_bytes(&self) -> u64 {
        self.config.max_object_bytes
    }
}

/// How full the store is.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// Keys in the memory tier.
    pub objects: u64,
    /// Bytes of the objects in the memory tier.
    pub resident_bytes: u64,
    /// Bytes of everything alive: resident, in flight, pinned by responses.
    pub charged_bytes: u64,
    /// The budget.
    pub capacity_bytes: u64,
}

fn drop_least_recent(variants: &mut Vec<Arc<Object>>, max: usize) {
    while variants.len() > max {
        // The newest (index 0) has just been asked for and stays.
        let oldest = (1..variants.len()).min_by_key(|i| variants[*i].last_used_ms());
        match oldest {
            Some(index) => variants.remove(index),
            None => return,
        };
    }
}

#[cfg(test)]
mod tests;
