//! The purges of the recent past, for people. Bounded by number and by bytes, whichever is reached first.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Purge;

/// In memory.
const MAX_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    kept: RwLock<Kept>,
    max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    purges: VecDeque<Arc<Purge>>,
    bytes: usize,
}

impl History {
    pub(super) fn new(max: usize) -> Self {
        Self { kept: RwLock::default(), max }
    }

    pub(super) fn push(&self, purge: Arc<Purge>) {
        let mut kept = self.kept.write();
        kept.bytes += purge.request.bytes();
        kept.purges.push_back(purge);
        while kept.purges.len() > self.max || kept.bytes > MAX_BYTES && kept.purges.len() > 1 {
            let oldest = kept.purges.pop_front();
            kept.bytes -= oldest.map_or(0, |purge| purge.request.bytes());
        }
    }

    /// The newest first, those before `after`.
    pub(super) fn list(&self, after: Option<u64>, limit: usize) -> Vec<Arc<Purge>> {
        let kept = self.kept.read();
        let end = after.map_or(kept.purges.len(), |after| kept.purges.partition_point(|p| p.seq < after));
        kept.purges.range(..end).rev().take(limit).cloned().collect()
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Purge>> {
        self.kept.read().purges.iter().rev().find(|purge| *purge.id == *id).cloned()
    }

    /// The number of the oldest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.kept.read().purges.front().map(|purge| purge.seq)
    }

    pub(super) fn len(&self) -> usize {
        self.kept.read().purges.len()
    }
}

/// The last records of a log that is being read, still encoded.
#[derive(Debug)]
pub(super) struct Tail {
    records: VecDeque<Vec<u8>>,
    bytes: usize,
    max: usize,
}

impl Tail {
    pub(super) fn new(max: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, max }
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        // The oldest one's memory is used again.
        let is_full = self.records.len() >= self.max || self.bytes + record.len() > MAX_BYTES;
        let mut room = if is_full { self.records.pop_front().unwrap_or_default() } else { Vec::new() };
        self.bytes = self.bytes + record.len() - room.len();
        room.clear();
        room.extend_from_slice(record);
        self.records.push_back(room);
    }

    pub(super) fn into_records(self) -> impl Iterator<Item = Vec<u8>> {
        self.records.into_iter()
    }
}
