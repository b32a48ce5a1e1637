//! The segment files that exist, and how those that are given up go.
//!
//! A segment's name is removed as soon as it is given up, strictly in the order of the log: no start finds
//! a record without the later ones that replaced it. Its bytes count until its last reader is done too.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::health::Health;
use super::io::Disk;
use super::pool::Pool;
use super::segment::Segment;
use crate::region::Arena;

/// Threads that read for those who must not wait.
const READERS: usize = 4;

/// What segments share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: Pool,
    /// One thread that syncs, unmaps and unlinks: reads never queue behind that, and names go in the
    /// order in which segments are given up.
    pub(super) chores: Pool,
    pub(super) health: Arc<Health>,
    pub(super) arena: Arc<Arena>,
    files: Mutex<Files>,
    freed: Condvar,
}

/// All segment files that exist, those that are given up and still there among them.
#[derive(Debug, Default)]
struct Files {
    bytes: u64,
    given_up: BTreeMap<u32, GivenUp>,
}

/// A segment that is no part of the store any more. It takes room as long as it has a name or readers.
#[derive(Debug)]
struct GivenUp {
    segment: Weak<Segment>,
    length: u64,
    is_named: bool,
    is_mapped: bool,
    /// Whether somebody reads from it.
    is_read: bool,
}

impl Files {
    /// Notes what became of a segment that is given up; true: its room is free.
    fn update(&mut self, id: u32, change: impl FnOnce(&mut GivenUp)) -> bool {
        let Some(given_up) = self.given_up.get_mut(&id) else { return false };
        change(given_up);
        let is_free = !given_up.is_named && !given_up.is_mapped;
        if is_free {
            self.bytes -= given_up.length;
            self.given_up.remove(&id);
        }
        is_free
    }
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, health: Arc<Health>, arena: Arc<Arena>) -> io::Result<Arc<Self>> {
        let (pool, chores) = (Pool::start("io", READERS)?, Pool::start("chores", 1)?);
        let (files, freed) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(Self { disk, pool, chores, health, arena, files, freed }))
    }

    /// Adds to the bytes of the files that are part of the store, or takes away.
    pub(super) fn count(&self, bytes: i64) {
        let files = &mut *self.files.lock();
        files.bytes = files.bytes.saturating_add_signed(bytes);
    }

    /// Takes a segment's name away, and its bytes when its last reader is done.
    pub(super) fn give_up(self: &Arc<Self>, segment: &Arc<Segment>) {
        let (id, length) = (segment.id, segment.length);
        let segment = Arc::downgrade(segment);
        let given_up = GivenUp { segment, length, is_named: true, is_mapped: true, is_read: true };
        self.files.lock().given_up.insert(id, given_up);
        self.unlink();
    }

    /// The last reader of what is given up is done; it is about to be unmapped.
    pub(super) fn unread(&self, id: u32) {
        self.update(id, |given_up| given_up.is_read = false);
    }

    /// What is given up is mapped no more.
    pub(super) fn unmapped(&self, id: u32) {
        self.update(id, |given_up| given_up.is_mapped = false);
    }

    /// Bytes of all segment files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.files.lock().bytes
    }

    /// Bytes of those that are no part of the store any more: readers hold them, or their name is still
    /// to be removed.
    pub(super) fn given_up_bytes(&self) -> u64 {
        self.files.lock().given_up.values().map(|given_up| given_up.length).sum()
    }

    /// Whether room is on its way: a segment that nobody reads any more is about to go.
    pub(super) fn is_freeing(&self) -> bool {
        self.files.lock().given_up.values().any(|given_up| !given_up.is_read)
    }

    /// Bytes of the segments that are part of the store.
    pub(super) fn kept_bytes(&self) -> u64 {
        let files = self.files.lock();
        files.bytes - files.given_up.values().map(|given_up| given_up.length).sum::<u64>()
    }

    /// Waits until all files take no more than `bytes`, for so long at most; whether they do.
    pub(super) fn wait_for_room(&self, bytes: u64, timeout: Duration) -> bool {
        let mut files = self.files.lock();
        !self.freed.wait_while_for(&mut files, |files| files.bytes > bytes, timeout).timed_out()
    }

    /// Has a file removed that never became a segment; it counts until it is gone.
    pub(super) fn discard(self: &Arc<Self>, id: u32, length: u64) {
        let given_up =
            GivenUp { segment: Weak::new(), length, is_named: true, is_mapped: false, is_read: false };
        let mut files = self.files.lock();
        files.bytes += length;
        files.given_up.insert(id, given_up);
        drop(files);
        self.unlink();
    }

    /// Removes the names of what is given up, the oldest first, on the thread for that. One that can't be
    /// removed is tried again before any later one: else its records could come back at a start when the
    /// later ones that replaced them are gone.
    pub(super) fn unlink(self: &Arc<Self>) {
        let shared = self.clone();
        self.chores.run(move || {
            while let Some(id) = shared.named() {
                if let Err(error) = shared.disk.remove(id) {
                    tracing::warn!(segment = id, %error, "an evicted segment's file can't be removed yet");
                    return;
                }
                shared.update(id, |given_up| given_up.is_named = false);
            }
        });
    }

    /// The oldest that is given up and has its name yet.
    fn named(&self) -> Option<u32> {
        let files = self.files.lock();
        files.given_up.iter().find(|(_, given_up)| given_up.is_named).map(|(id, _)| *id)
    }

    /// Whether a name waits for another attempt at removing it.
    pub(super) fn has_names_left(&self) -> bool {
        self.named().is_some()
    }

    fn update(&self, id: u32, change: impl FnOnce(&mut GivenUp)) {
        if self.files.lock().update(id, change) {
            self.freed.notify_all();
        }
    }

    /// Has the readers of the oldest segment that is given up end.
    pub(super) fn revoke_oldest(&self) {
        let files = self.files.lock();
        let segments: Vec<_> =
            files.given_up.values().filter_map(|given_up| given_up.segment.upgrade()).collect();
        // A segment that goes here takes the lock again.
        drop(files);
        if let Some(segment) = segments.iter().find(|segment| segment.revoke()) {
            tracing::warn!(
                segment = segment.id,
                "slow readers of an evicted segment are ended: its room is needed"
            );
        }
    }
}
