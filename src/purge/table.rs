//! A hash table that one thread fills while others read, without a lock: keys are never taken out, so a reader finds a key
//! or an empty slot.
//!
//! ```text
//! slot  ┌─────┬────────┬ ─ ─ ─ ┐
//!       │ key │ word 0 │ word W│   all of them atomic u64; key 0: empty
//!       └─────┴────────┴ ─ ─ ─ ┘
//! ```
//!
//! Open addressing with linear probing, at most two thirds full. Not here: hashing (keys are hashes), and publishing the
//! larger copy when the table is full.

use std::fmt;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

const MIN_SLOTS: usize = 256;

/// See the module. `W` numbers stand under each key.
pub(super) struct Table<const W: usize> {
    slots: Box<[Slot<W>]>,
    len: AtomicUsize,
}

struct Slot<const W: usize> {
    key: AtomicU64,
    words: [AtomicU64; W],
}

impl<const W: usize> fmt::Debug for Table<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<const W: usize> Table<W> {
    /// An empty one that takes so many keys.
    pub(super) fn for_keys(keys: usize) -> Self {
        let slots = (keys + keys / 2 + 2).next_power_of_two().max(MIN_SLOTS);
        let empty = |_| Slot { key: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self { slots: (0..slots).map(empty).collect(), len: AtomicUsize::new(0) }
    }

    /// The numbers under a key, which the one that fills the table may change.
    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&[AtomicU64; W]> {
        let key = key.max(1);
        let mut at = self.first(key);
        loop {
            let slot = &self.slots[at];
            match slot.key.load(Acquire) {
                0 => return None,
                found if found == key => return Some(&slot.words),
                _ => at = self.next(at),
            }
        }
    }

    /// Puts in a key that is not there. The table is not full, and nobody else fills it.
    pub(super) fn insert(&self, key: u64, words: [u64; W]) {
        let key = key.max(1);
        let mut at = self.first(key);
        while self.slots[at].key.load(Relaxed) != 0 {
            at = self.next(at);
        }
        let slot = &self.slots[at];
        for (cell, word) in slot.words.iter().zip(words) {
            cell.store(word, Relaxed);
        }
        // Who sees the key sees its numbers.
        slot.key.store(key, Release);
        self.len.fetch_add(1, Relaxed);
    }

    /// Whether a copy is needed before the next key.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.slots.len() / 3 * 2
    }

    /// Keys.
    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// In memory.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot<W>>()
    }

    /// A copy with room for as many keys again, without those that are not wanted any more.
    pub(super) fn copy(&self, wanted: impl Fn(&[u64; W]) -> bool) -> Self {
        let entries = || {
            let full = self.slots.iter().filter(|slot| slot.key.load(Relaxed) != 0);
            full.map(|slot| (slot.key.load(Relaxed), slot.words.each_ref().map(|word| word.load(Relaxed))))
                .filter(|(_, words)| wanted(words))
        };
        let copy = Self::for_keys(entries().count() * 2);
        entries().for_each(|(key, words)| copy.insert(key, words));
        copy
    }

    fn first(&self, key: u64) -> usize {
        key as usize & (self.slots.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_also_where_slots_collide() {
        let table = Table::<2>::for_keys(100);
        let keys: Vec<u64> = (0..100).map(|i| (i / 10) + (i % 10) * 1024 * 1024).collect();
        for (i, key) in (0..).zip(&keys) {
            // 0 and 1 are one key here, as they are to the table.
            if table.get(*key).is_none() {
                table.insert(*key, [i, i + 1]);
            }
        }
        assert_eq!(table.len(), 99);
        assert_eq!(table.get(0).unwrap()[1].load(Relaxed), 1);
        assert_eq!(table.get(5 * 1024 * 1024 + 3).unwrap()[0].load(Relaxed), 35);
        assert!(table.get(77).is_none());
    }

    #[test]
    fn a_copy_has_room_and_drops_what_is_not_wanted() {
        let table = Table::<1>::for_keys(0);
        let mut key = 0;
        while !table.is_full() {
            key += 1;
            table.insert(key * 0x9e37_79b9, [key]);
        }
        let copy = table.copy(|_| true);
        assert!(!copy.is_full() && copy.len() == table.len());
        let few = table.copy(|[number]| *number <= 10);
        assert_eq!(few.len(), 10);
        assert!(few.get(10 * 0x9e37_79b9).is_some() && few.get(11 * 0x9e37_79b9).is_none());
    }
}
