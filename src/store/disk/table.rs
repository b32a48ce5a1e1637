//! Which segments there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::segment::Segment;

/// The segments that belong to the store.
#[derive(Debug)]
pub(super) struct Table {
    by_id: RwLock<BTreeMap<u32, Arc<Segment>>>,
    by_slot: RwLock<Vec<Option<Arc<Segment>>>>,
}

impl Table {
    pub(super) fn new(slots: usize) -> Self {
        Self { by_id: RwLock::default(), by_slot: RwLock::new(vec![None; slots]) }
    }

    pub(super) fn add(&self, segment: &Arc<Segment>) {
        self.by_id.write().insert(segment.id, segment.clone());
        self.by_slot.write()[usize::from(segment.slot())] = Some(segment.clone());
    }

    pub(super) fn remove(&self, id: u32) {
        let removed = self.by_id.write().remove(&id);
        if let Some(segment) = removed {
            self.by_slot.write()[usize::from(segment.slot())] = None;
            segment.give_up();
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        self.by_id.read().get(&id).cloned()
    }

    pub(super) fn at(&self, slot: u16) -> Option<Arc<Segment>> {
        self.by_slot.read().get(usize::from(slot))?.clone()
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.by_id.read().values().cloned().collect()
    }
}
