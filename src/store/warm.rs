//! What warming asks of the store: to take what it fetches whatever the admission, and to hold it for a time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::holds::Hold;
use super::{Entry, Store};
use crate::object::Object;
use crate::rules::key::{CacheKey, KeyHash};

type Counts = Arc<Mutex<HashMap<KeyHash, usize>>>;

/// Keys that enter the disk tier whether they were asked for before or not. As many as there are requests that warm.
#[derive(Debug, Default)]
pub(super) struct Wants(Counts);

impl Wants {
    pub(super) fn has(&self, key: KeyHash) -> bool {
        self.0.lock().contains_key(&key)
    }

    fn add(&self, key: KeyHash) -> Wanted {
        *self.0.lock().entry(key).or_default() += 1;
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
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl Store {
    /// Has whatever is fetched under a key enter the disk tier.
    pub fn want(&self, key: &CacheKey) -> Wanted {
        self.tier.wants.add(key.hash())
    }

    /// Waits until the writer takes more.
    pub async fn ready_to_write(&self) {
        drop(self.tier.wait_for_queue(1).await);
    }

    /// Has what is in memory only written to disk: it came when it was not admitted, or the writer was behind.
    pub async fn write_out(&self, key: &CacheKey) {
        if !self.tier.is_persistent() || self.tier.may_have(key.hash()) {
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

    /// Whether what is stored under a key is held where it outlives the others: on disk, or in memory where there is no
    /// disk.
    pub async fn is_held(&self, key: &CacheKey) -> bool {
        let Some(entry) = self.load(key).await else { return false };
        let in_memory = self.budget.memory.holds().keeps(&entry, entry.weight());
        let in_log = self.tier.holds.keeps(&entry, logged_bytes(&entry));
        match (self.tier.is_persistent(), entry.is_mapped()) {
            (true, _) => in_log,
            (false, true) => in_log && in_memory,
            (false, false) => in_memory,
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
