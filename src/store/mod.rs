//! The store: what is kept, under which key, within which budget.
//!
//! Two tiers. The *memory* tier holds responses ready to serve: parsed heads, and small bodies. The
//! *disk* tier is a log that holds everything and serves larger bodies from its mapping; with
//! `disk = 0` the log is in memory and holds larger bodies only.
//!
//! Two numbers bound the memory: the *resident* bytes of the memory tier's objects, which replacement
//! keeps under seven eighths of the budget, and the *charged* bytes of everything alive, which never
//! exceed the budget: a fill that finds no room is served without being stored.
//!
//! Not here: what may be stored and for how long (`rules`), and who fetches it (`edge`).

mod admission;
mod budget;
mod changes;
mod comparison;
mod deposit;
mod disk;
mod encodings;
mod holds;
mod memory;
mod metrics;
mod shard;
mod versions;
mod warm;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use crate::object::{Charge, Object};
use crate::rules::key::{CacheKey, KeyHash};
use crate::telemetry::Clock;
use budget::Budget;
use changes::Changes;
pub use deposit::{Complete, Deposit, NoRoom};
use disk::Tier;
pub use disk::{Admission, DiskConfig, DiskStats, Held, Mode, OpenError, Order, Position, lock_unused};
pub use encodings::{BodyId, NewEncoding};
pub use holds::Hold;
use versions::Versions;
pub use warm::{NotHeld, Wanted};

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Budget of the memory tier in bytes.
    pub memory_bytes: u64,
    /// The largest response that is stored, in bytes.
    pub max_object_bytes: u64,
    /// Worker threads, for what is kept per worker.
    pub workers: usize,
    /// The log.
    pub disk: DiskConfig,
}

/// The variants stored under one key, the newest first; at least one. Immutable; a change makes a new
/// one.
#[derive(Debug)]
pub struct Entry {
    variants: Vec<Arc<Object>>,
}

impl Entry {
    /// An entry, unless there is no variant.
    fn new(variants: Vec<Arc<Object>>) -> Option<Self> {
        (!variants.is_empty()).then_some(Self { variants })
    }

    /// The key of all its variants.
    fn key(&self) -> &CacheKey {
        &self.variants[0].head.key
    }

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

    fn is_mapped(&self) -> bool {
        self.variants.iter().any(|object| object.parts().next().is_some())
    }
}

/// The store of a node.
#[derive(Debug)]
pub struct Store {
    budget: Arc<Budget>,
    tier: Arc<Tier>,
    versions: Arc<Versions>,
    changes: Changes,
    max_object_bytes: u64,
}

impl Store {
    /// Opens the store; recovers what its directory holds.
    pub fn open(config: &Config, clock: Clock) -> Result<Arc<Self>, OpenError> {
        Self::open_with(config, clock, None)
    }

    /// The same, under a lock that another process has handed over.
    pub fn open_with(config: &Config, clock: Clock, lock: Option<OwnedFd>) -> Result<Arc<Self>, OpenError> {
        let is_persistent = config.disk.path.is_some();
        let budget = Budget::new(config.memory_bytes, config.workers, is_persistent, clock);
        let versions = Arc::new(Versions::new(clock));
        let tier = Tier::open(&config.disk, budget.clone(), versions.clone(), clock, lock)?;
        let (changes, max_object_bytes) = (Changes::new(), config.max_object_bytes);
        Ok(Arc::new(Self { budget, tier, versions, changes, max_object_bytes }))
    }

    /// Room for what is beside the store and part of its budget, made by eviction if need be.
    pub fn reserve(&self, bytes: u64) -> Option<Charge> {
        self.budget.reserve(bytes)
    }

    /// The variants stored under a key, when they are in memory.
    #[inline]
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        let entry = self.budget.memory.get(key.hash())?;
        // The hash is 128 bits of BLAKE3; the full comparison makes even a collision harmless.
        (entry.key() == key).then_some(entry)
    }

    /// Whether there may be something under a key that is not in memory.
    pub fn may_load(&self, key: &CacheKey) -> bool {
        self.tier.may_have(key.hash())
    }

    /// Reads what is stored under a key, and not in memory, into it; pending when that has to wait for the disk.
    pub fn load_now(&self, key: &CacheKey) -> Poll<Option<Arc<Entry>>> {
        self.tier.load_now(key).map(|entry| entry.filter(|entry| entry.key() == key))
    }

    /// The same, waiting, of what may be in memory.
    pub async fn load(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        match self.get(key) {
            Some(entry) => Some(entry),
            None => self.tier.load(key).await.filter(|entry| entry.key() == key),
        }
    }

    /// Counts a hit for replacement. Lossy and cheap.
    #[inline]
    pub fn promote(&self, key: KeyHash) {
        self.budget.memory.promote(key);
    }

    /// The gauge that objects charge their heads to.
    pub fn gauge(&self) -> &Arc<AtomicU64> {
        &self.budget.gauge
    }

    /// The version of a fetch that begins now.
    pub fn version(&self) -> u64 {
        self.versions.next()
    }

    /// Stores a complete object; it replaces the variant that the same requests select, unless that
    /// one's fetch began later.
    pub fn insert(&self, object: Arc<Object>, max_variants: usize, complete: Complete) {
        self.change(object, max_variants, complete.permit, complete.is_admitted);
    }

    /// Stores an object whose body is stored already, under a renewed head.
    pub fn refresh(&self, object: Arc<Object>, max_variants: usize) {
        let is_on_disk = self.tier.may_have(object.head.key.hash());
        let permit = if is_on_disk { self.tier.queue_room(1) } else { None };
        let is_written = permit.is_some();
        self.change(object, max_variants, permit, is_written);
    }

    fn change(
        &self,
        object: Arc<Object>,
        max_variants: usize,
        permit: Option<OwnedSemaphorePermit>,
        is_written: bool,
    ) {
        let key = object.head.key.hash();
        let outcome = self.budget.memory.update_for(self.wanted_in_memory(key), key, |old| {
            if self.changes.has_since(key, object.head.version) {
                object.invalidate();
            }
            let old = old.cloned().or_else(|| self.tier.pending_entry(key));
            let old = old.filter(|entry| *entry.key() == object.head.key);
            let entry = match &old {
                Some(old) => merged(old, &object, max_variants.max(1))?,
                None => Arc::new(Entry { variants: vec![object] }),
            };
            if entry.is_mapped() || (is_written && self.tier.is_persistent()) {
                self.tier.put(&entry, old, permit);
            } else {
                // What is on disk is older.
                self.tier.remove(key);
            }
            Some(entry)
        });
        self.budget.counters.stored(&outcome);
    }

    /// What is asked for under a key has changed (RFC 9111 §4.4): what is stored is revalidated before its next use, and so is
    /// what comes of fetches under way.
    pub fn changed(&self, key: &CacheKey) {
        // Before the lock: what is stored after it finds the note, and what was stored before is found.
        self.changes.note(key.hash(), self.versions.next());
        self.invalidate(key);
    }

    /// Marks every variant of a key to be revalidated before its next use.
    pub fn invalidate(&self, key: &CacheKey) {
        // Under the lock of all that changes what stands there: a copy that takes an object's place has the mark of what
        // it was made of, or is found here; what is being read into memory finds the mark in the index, or is found here;
        // and what is queued to be written comes before the mark's own record, or has the mark.
        self.budget.memory.look(key.hash(), |entry| {
            self.tier.invalidate(key.hash());
            if let Some(entry) = entry.filter(|entry| entry.key() == key) {
                entry.variants.iter().for_each(|object| object.invalidate());
            }
        });
    }

    /// Whether this very object is still stored.
    pub fn holds(&self, object: &Arc<Object>) -> bool {
        let entry = self.get(&object.head.key);
        entry.is_some_and(|entry| entry.variants.iter().any(|stored| Arc::ptr_eq(stored, object)))
    }

    /// Forgets one variant, if it is still the stored one.
    pub fn remove(&self, object: &Arc<Object>) {
        let key = object.head.key.hash();
        self.budget.memory.update(key, |old| {
            let pending = || self.tier.pending_entry(key);
            let Some(old) = old.cloned().or_else(pending).filter(|old| *old.key() == object.head.key) else {
                // It may be the one on disk; to fetch that again costs less than to serve it.
                self.tier.remove(key);
                return None;
            };
            let rest = old.variants.iter().filter(|o| !Arc::ptr_eq(o, object)).cloned().collect();
            let rest = Entry::new(rest).map(Arc::new);
            match &rest {
                // It was replaced meanwhile.
                Some(rest) if rest.variants.len() == old.variants.len() => {}
                Some(rest) if self.tier.may_have(key) => self.tier.put(rest, Some(old), None),
                Some(_) => {}
                None => self.tier.remove(key),
            }
            rest
        });
    }

    /// Says, once, how what is written again is compared with purges: given its URL, its tags and its `as_of`, its `as_of`
    /// from now on; `None`: it is purged.
    pub fn let_compare(
        &self,
        compare: impl Fn(&str, &[Box<str>], u64) -> Option<u64> + Send + Sync + 'static,
    ) {
        let compare: comparison::Compare = Arc::new(compare);
        self.tier.comparison.set(compare.clone());
        self.tier.holds.comparison.set(compare.clone());
        self.budget.memory.holds().comparison.set(compare);
    }

    /// Walks over everything that is held, behind `after`, until `visit` breaks off. Waits for the disk.
    pub fn scan(
        &self,
        order: Order,
        after: Option<Position>,
        visit: impl FnMut(Position, &[Held<'_>]) -> ControlFlow<()>,
    ) {
        self.tier.scan(order, after, visit);
    }

    /// Writes what is queued and seals what is open, so that the next start is quick.
    pub async fn close(&self) {
        self.tier.close().await;
    }

    /// Writes what is queued, seals what is open, and writes nothing until [`Self::resume`]: another process may have
    /// the store. Fills under way are waited for as long as `patience`; what is not complete by then is served
    /// to its end, and not stored.
    pub async fn pause(&self, patience: Duration) {
        self.tier.pause(patience).await;
    }

    /// Nobody else has the store any more.
    pub async fn resume(&self) -> io::Result<()> {
        self.tier.resume().await
    }

    /// The lock of the store's directory, for another process.
    pub fn share_lock(&self) -> io::Result<Option<OwnedFd>> {
        self.tier.share_lock()
    }

    #[cfg(test)]
    fn on(tier: Arc<Tier>, budget: Arc<Budget>, versions: Arc<Versions>, max_object_bytes: u64) -> Arc<Self> {
        Arc::new(Self { budget, tier, versions, changes: Changes::new(), max_object_bytes })
    }

    /// Figures for `status` and the metrics.
    pub fn stats(&self) -> Stats {
        let (objects, resident_bytes) = self.budget.memory.size();
        Stats {
            objects,
            resident_bytes,
            charged_bytes: self.budget.gauge.load(Relaxed),
            capacity_bytes: self.budget.limit,
            disk: self.tier.stats(),
        }
    }
}

impl Drop for Store {
    /// The writer holds the tier, and ends when it is told to.
    fn drop(&mut self) {
        self.tier.end();
    }
}

/// How full the store is.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Keys in the memory tier.
    pub objects: u64,
    /// Bytes of the objects in the memory tier.
    pub resident_bytes: u64,
    /// Bytes of everything alive: resident, in flight, pinned by responses.
    pub charged_bytes: u64,
    /// The budget.
    pub capacity_bytes: u64,
    /// The log.
    pub disk: DiskStats,
}

/// An entry with one more variant, or one renewed. The old one as it is when the newcomer's fetch began
/// before that of the variant it would replace.
fn merged(old: &Arc<Entry>, object: &Arc<Object>, max: usize) -> Option<Arc<Entry>> {
    let same = |o: &Object| o.head.vary == object.head.vary && o.head.variant == object.head.variant;
    if old.variants.iter().any(|o| same(o) && o.head.version > object.head.version) {
        return Some(old.clone());
    }
    let mut variants = vec![object.clone()];
    variants.extend(old.variants.iter().filter(|o| !same(o)).cloned());
    drop_least_recent(&mut variants, max);
    Entry::new(variants).map(Arc::new)
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
