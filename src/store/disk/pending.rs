//! What was said of a key and is not written yet: it stands before what the index knows.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Tier;
use crate::rules::key::KeyHash;
use crate::store::Entry;

/// A change that the writer has not made yet.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Put(Arc<Entry>),
    Removed,
}

impl Tier {
    /// The entry that is about to be written.
    pub(in crate::store) fn pending_entry(&self, key: KeyHash) -> Option<Arc<Entry>> {
        match self.pending(key) {
            Some(Pending::Put(entry)) => Some(entry),
            Some(Pending::Removed) | None => None,
        }
    }

    /// What was said last of a key, while the writer has not done it.
    pub(super) fn pending(&self, key: KeyHash) -> Option<Pending> {
        self.pending.lock().get(&key).map(|(_, pending)| pending.clone())
    }

    pub(super) fn is_pending(&self, key: KeyHash) -> bool {
        self.pending.lock().contains_key(&key)
    }

    pub(super) fn note(&self, key: KeyHash, pending: Pending) -> u64 {
        let mut all = self.pending.lock();
        let number = self.next_number.fetch_add(1, Relaxed);
        all.insert(key, (number, pending));
        number
    }

    /// Up to which number everything is written.
    pub(super) fn written_changes(&self) -> u64 {
        let pending = self.pending.lock();
        let oldest = pending.values().map(|(number, _)| *number).min();
        oldest.unwrap_or_else(|| self.next_number.load(Relaxed))
    }

    /// The writer has done an operation.
    pub(super) fn settled(&self, key: KeyHash, number: u64) {
        let mut pending = self.pending.lock();
        if pending.get(&key).is_some_and(|(last, _)| *last == number) {
            pending.remove(&key);
        }
    }
}
