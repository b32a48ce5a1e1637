//! Encodings on their way into the store.
//!
//! An encoding is made of a body that is stored already, and belongs to it: it is added to the object that has that
//! body now, under the lock that every change of its key takes, or to none. On disk it stands in the object's record,
//! which is written again with one part more; a record that is there is complete, so that there are no half encodings.

use std::sync::Arc;

use super::{Complete, Deposit, Entry, NoRoom, Store};
use crate::object::{Delta, Encoded, Head, Made, Object};
use crate::rules::dictionary::DictionaryHash;
use crate::rules::encoding::Coding;
use crate::rules::key::{CacheKey, KeyHash};
use crate::rules::vary::{VariantKey, VaryRule};

/// An encoding that was made.
#[derive(Debug)]
pub struct NewEncoding {
    /// The coding.
    pub coding: Coding,
    /// What it is encoded against, if anything.
    pub dictionary: Option<DictionaryHash>,
    /// The first 32 bits of the BLAKE3 hash of its bytes.
    pub sum: [u8; 4],
    /// Made at the highest level.
    pub is_best: bool,
    /// Its bytes; `None`: it would save next to nothing, or can't be made.
    pub complete: Option<Complete>,
}

/// Which body: that of a variant, as one fetch has brought it.
#[derive(Clone, Debug)]
pub struct BodyId {
    key: CacheKey,
    selecting: (VaryRule, VariantKey),
    generation: u64,
}

impl BodyId {
    /// Of what stands under this head.
    pub fn of(head: &Head) -> Self {
        let selecting = (head.vary.clone(), head.variant.clone());
        Self { key: head.key.clone(), selecting, generation: head.generation }
    }

    /// The key it is stored under.
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Whether it stands under this head: the first one, or one that a 304 has renewed.
    pub fn names(&self, head: &Head) -> bool {
        let (vary, variant) = &self.selecting;
        (head.generation, &head.vary, &head.variant) == (self.generation, vary, variant)
            && head.key == self.key
    }
}

impl Store {
    /// Room for an encoding of what is stored under a key. It goes where that is.
    pub fn deposit_encoding(self: &Arc<Self>, key: KeyHash) -> Result<Deposit, NoRoom> {
        self.deposit_as(key, None, !self.tier.is_persistent() || self.tier.may_have(key))
    }

    /// Puts the same body under another head, in the place of what is in memory; false: that is there no more.
    pub fn replace(&self, old: &Arc<Object>, new: Arc<Object>) -> bool {
        let key = old.head.key.hash();
        let is_on_disk = self.tier.may_have(key);
        let permit = if is_on_disk { self.tier.queue_room(1) } else { None };
        let mut is_replaced = false;
        self.budget.memory.update(key, |before| {
            let before = before?;
            let mut variants = before.variants.clone();
            if let Some(place) = variants.iter_mut().find(|object| Arc::ptr_eq(object, old)) {
                *place = new.clone();
                is_replaced = true;
            }
            if !is_replaced {
                return Some(before.clone());
            }
            // Before anybody finds the copy, and before it is written.
            if old.is_invalidated() {
                new.invalidate();
            }
            let entry = Arc::new(Entry { variants });
            if entry.is_mapped() || (permit.is_some() && self.tier.is_persistent()) {
                self.tier.put(&entry, Some(before.clone()), permit);
            }
            Some(entry)
        });
        is_replaced
    }

    /// Adds an encoding to the object that has the body it was made of; false when that is not stored any more, or it
    /// was there already.
    pub fn add_encoding(&self, of: &BodyId, new: NewEncoding) -> bool {
        let key = of.key.hash();
        let NewEncoding { coding, dictionary, sum, is_best, complete } = new;
        let (made, permit, is_written) = match complete {
            None => (Made::NotWorth, self.tier.queue_room(1), true),
            Some(Complete { body, is_admitted, permit }) => {
                let encoded = Encoded::new(coding, sum, is_best, Arc::new(body), &self.budget.gauge);
                (Made::Kept(Arc::new(encoded)), permit, is_admitted)
            }
        };
        let mut is_added = false;
        self.budget.memory.update(key, |old| {
            let entry = old.cloned().or_else(|| self.tier.pending_entry(key))?;
            let object = entry.variants.iter().find(|object| of.names(&object.head));
            if let Some(encodings) = object.and_then(|object| object.encodings.as_ref()) {
                is_added = match dictionary {
                    Some(dictionary) => encodings.add_delta(Delta { dictionary, coding, made }),
                    None => encodings.add(coding, made),
                };
            }
            let is_on_disk = self.tier.is_persistent() && self.tier.may_have(key);
            if is_added && (entry.is_mapped() || (is_written && is_on_disk)) {
                self.tier.put(&entry, Some(entry.clone()), permit);
            }
            // Under its new weight; what was not in memory was about to be written and is loaded from there.
            old.is_some().then_some(entry)
        });
        is_added
    }
}
