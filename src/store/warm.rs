//! What warming asks of the store: to take what it fetches whatever the admission, and to hold it for a time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::holds::{Hold, Holds};
use super::{Entry, Store};
use crate::object::Object;
use crate::rules::key::{CacheKey, KeyHash};

/// By key: how many requests want it, and for which job the last of them does.
type Counts = Arc<Mutex<HashMap<KeyHash, (usize, u64)>>>;

/// Keys that enter the tier that outlives the others, whether they were asked for before or not: the disk, or without
/// one the memory. As many as there are requests that warm, and slices of what they ask for.
#[derive(Debug, Default)]
pub(super) struct Wants(Counts);

impl Wants {
    pub(super) fn has(&self, key: KeyHash) -> bool {
        self.0.lock().contains_key(&key)
    }

    /// The job that wants a key.
    pub(super) fn job(&self, key: KeyHash) -> Option<u64> {
        self.0.lock().get(&key).map(|(_, job)| *job)
    }

    fn add(&self, key: KeyHash, job: u64) -> Wanted {
        let mut counts = self.0.lock();
        let count = counts.get(&key).map_or(0, |(count, _)| *count);
        counts.insert(key, (count + 1, job));
        Wanted { counts: self.0.clone(), key }
    }
}

/// A key is wanted as long as this lives.
#[derive(Debug)]
pub struct Wanted {
    counts: Counts,
    key: KeyHash,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some((count, _)) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Why what is stored under a key is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// Nothing is: it was purged, or is kept in slices under keys of their own.
    #[error("nothing is stored as a whole")]
    NotThere,
    /// There are too many other holds.
    #[error("{} KiB of the {tier} may be held, and are", .bytes / 1024)]
    Full {
        /// Of what: the disk tier, or the memory.
        tier: &'static str,
        /// Bytes that may be held.
        bytes: u64,
    },
}

impl Store {
    /// Has whatever is fetched under a key enter the store whatever its admission, for a job that warms.
    pub fn want(&self, key: &CacheKey, job: u64) -> Wanted {
        self.tier.wants.add(key.hash(), job)
    }

    /// The job for which a key is to enter the memory tier. Where there is a disk, that has it.
    pub(super) fn wanted_in_memory(&self, key: KeyHash) -> Option<u64> {
        if self.tier.is_persistent() { None } else { self.tier.wants.job(key) }
    }

    /// Waits until the writer takes more.
    pub async fn ready_to_write(&self) {
        drop(self.tier.wait_for_queue(1).await);
    }

    /// Has what is in memory only written to disk: it came when it was not admitted, or the writer was behind. Without a
    /// disk it gets a lasting place in memory, where it is wanted.
    pub async fn write_out(&self, key: &CacheKey) {
        if !self.tier.is_persistent() {
            let job = self.wanted_in_memory(key.hash());
            self.budget.memory.update_for(job, key.hash(), |old| Some(old?.clone()));
            return;
        }
        if self.tier.may_have(key.hash()) {
            return;
        }
        let Some(entry) = self.get(key) else { return };
        let Some(permit) = self.tier.wait_for_queue(entry.weight()).await else { return };
        self.budget.memory.update(key.hash(), |old| {
            let old = old.cloned();
            if let Some(entry) = old.as_ref().filter(|entry| entry.key() == key)
                && !self.tier.may_have(key.hash())
            {
                self.tier.put(entry, None, Some(permit));
            }
            old
        });
    }

    /// Exempts what is stored under a key, now or later, from eviction for a time; false: too many are held.
    pub fn hold(&self, key: &CacheKey, hold: Hold) -> bool {
        self.budget.memory.holds().hold(key.hash(), hold) && self.tier.holds.hold(key.hash(), hold)
    }

    /// What a job holds goes to who holds it next, or is released by [`Store::release_disowned`].
    pub fn disown(&self, job: u64) {
        self.budget.memory.holds().disown(job);
        self.tier.holds.disown(job);
    }

    /// Ends the holds that are nobody's any more.
    pub fn release_disowned(&self) {
        self.budget.memory.holds().release_disowned();
        self.tier.holds.release_disowned();
    }

    /// Ends the hold of a key when all that is stored under it was purged since.
    pub fn end_hold_of_purged(&self, entry: &Entry) {
        let url = entry.key().canonical();
        for holds in [self.budget.memory.holds(), &self.tier.holds] {
            let tags = entry.variants().iter().map(|object| &*object.head.tags);
            holds.end_of_purged(entry.key().hash(), url, tags);
        }
    }

    /// Looks whether what is stored under a key is held where it outlives the others: on disk, or in memory where there is
    /// no disk. What is not charged to the holds yet is.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn look_at_hold(&self, key: &CacheKey) -> Result<(), NotHeld> {
        let entry = self.load(key).await.ok_or(NotHeld::NotThere)?;
        let (in_memory, in_log) = (self.budget.memory.holds(), &self.tier.holds);
        let is_in_memory = in_memory.keeps(&entry, entry.weight());
        let is_in_log = in_log.keeps(&entry, logged_bytes(&entry));
        let (is_persistent, is_mapped) = (self.tier.is_persistent(), entry.is_mapped());
        let full = |tier, holds: &Holds| Err(NotHeld::Full { tier, bytes: holds.limit() });
        if (is_persistent || is_mapped) && !is_in_log {
            full(if is_persistent { "disk tier" } else { "memory for larger bodies" }, in_log)
        } else if !is_persistent && !is_in_memory {
            full("memory for small bodies", in_memory)
        } else {
            Ok(())
        }
    }
}

/// About what an entry takes in the log.
pub(super) fn logged_bytes(entry: &Entry) -> u64 {
    let encodings = |object: &Object| -> u64 {
        let kept = object.encodings.iter().flat_map(|encodings| encodings.all());
        kept.map(|encoded| encoded.body.len()).sum()
    };
    let of = |object: &Arc<Object>| object.head.weight() + object.body.len() + encodings(object);
    entry.variants().iter().map(of).sum()
}
