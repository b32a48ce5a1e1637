//! A segment: a file of the log, written once from its start to its end and mapped for reading.
//!
//! It lives as long as somebody reads from it. When the store gives it up, its name is removed, in the
//! order of the log, so that no start finds a record without the later ones that replaced it. After the
//! last reader it is unmapped on an I/O thread, and only then its bytes are free.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::format::{self, Entry};
use super::health::{Fault, Health};
use super::io::{Disk, DiskFile};
use super::pool::Pool;
use crate::object::{Answer, Charge, Lost, Pages, Place, Sum};
use crate::region::{self, Arena, Mapping};
use crate::rules::key::KeyHash;
use crate::rules::time::Millis;
use crate::store::versions::Versions;

/// What is read ahead behind a place that was asked for.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;
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

    /// Bytes of all segment files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.files.lock().bytes
    }

    /// Bytes of those that are no part of the store any more: readers hold them, or their name is still
    /// to be removed.
    pub(super) fn given_up_bytes(&self) -> u64 {
        self.files.lock().given_up.values().map(|given_up| given_up.length).sum()
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
        let given_up = GivenUp { segment: Weak::new(), length, is_named: true, is_mapped: false };
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
        let oldest = segments.iter().find(|segment| !segment.revoked.load(Relaxed));
        if let Some(segment) = oldest {
            tracing::warn!(
                segment = segment.id,
                "slow readers of an evicted segment are ended: its room is needed"
            );
            segment.revoked.store(true, Relaxed);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) length: u64,
    file: Arc<dyn DiskFile>,
    bytes: Bytes,
    mapping: Arc<Lifeline>,
    shared: Arc<Shared>,
    /// Offsets whose sums were compared since the start. `None`: this process has written all of it.
    verified: Option<Mutex<HashSet<u32>>>,
    /// Its frames, until the footer that lists them is written.
    frames: Mutex<Option<Vec<Entry>>>,
    is_live: AtomicBool,
    revoked: AtomicBool,
    made_at: OnceLock<Millis>,
    /// Bytes of frames that are referred to.
    live_bytes: AtomicI64,
    /// Bytes from its start to the end of its last frame.
    used_bytes: AtomicU64,
    /// Whom to tell that a stored response can't be read.
    lost: std::sync::mpsc::Sender<super::log::Op>,
}

/// The mapping's owner: dropped when the last reader is done.
#[derive(Debug)]
struct Lifeline {
    mapping: Option<Mapping>,
    id: u32,
    length: u64,
    is_given_up: AtomicBool,
    shared: Arc<Shared>,
    charge: Option<Charge>,
}

struct Owner(Arc<Lifeline>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.mapping.as_ref().map_or(&[], AsRef::as_ref)
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let (mapping, charge) = (self.mapping.take(), self.charge.take());
        if !self.is_given_up.load(Relaxed) {
            // The store closes, or the file never became a segment.
            self.shared.files.lock().bytes -= self.length;
            return;
        }
        let (shared, id) = (self.shared.clone(), self.id);
        self.shared.chores.run(move || {
            drop((mapping, charge));
            shared.update(id, |given_up| given_up.is_mapped = false);
        });
    }
}

/// How a segment comes to be.
pub(super) enum Origin {
    /// Made now, by this process.
    New,
    /// Found at the start.
    Found,
}

impl Segment {
    /// Maps a segment's file; `charge` is what it takes of the memory budget.
    pub(super) fn map(
        (id, length): (u32, u64),
        file: Arc<dyn DiskFile>,
        origin: &Origin,
        shared: &Arc<Shared>,
        lost: std::sync::mpsc::Sender<super::log::Op>,
        charge: Option<Charge>,
    ) -> io::Result<Arc<Self>> {
        let mapping = shared.arena.map(file.file(), length)?;
        shared.files.lock().bytes += length;
        let mapping = Arc::new(Lifeline {
            mapping: Some(mapping),
            id,
            length,
            is_given_up: AtomicBool::new(false),
            shared: shared.clone(),
            charge,
        });
        Ok(Arc::new(Self {
            id,
            length,
            file,
            bytes: Bytes::from_owner(Owner(mapping.clone())),
            mapping,
            shared: shared.clone(),
            verified: matches!(origin, Origin::Found).then(Mutex::default),
            frames: Mutex::default(),
            is_live: AtomicBool::new(true),
            revoked: AtomicBool::new(false),
            made_at: OnceLock::new(),
            live_bytes: AtomicI64::new(0),
            used_bytes: AtomicU64::new(format::HEADER_BYTES as u64),
            lost,
        }))
    }

    /// Its place in the index's locations.
    pub(super) fn slot(&self) -> u16 {
        self.mapping.mapping.as_ref().map_or(0, |mapping| mapping.slot() as u16)
    }

    pub(super) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The mapped bytes of a place; `None`: it is not inside.
    pub(super) fn slice(&self, offset: u32, length: u32) -> Option<Bytes> {
        let range = offset as usize..(offset as usize).checked_add(length as usize)?;
        (range.end as u64 <= self.length).then(|| self.bytes.slice(range))
    }

    /// Adds to the bytes that are referred to, or takes away.
    pub(super) fn account(&self, bytes: i64) {
        self.live_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed).max(0) as u64
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    pub(super) fn set_used_bytes(&self, bytes: u64) {
        self.used_bytes.store(bytes, Relaxed);
    }

    /// When its first frame was written.
    pub(super) fn made_at(&self) -> Option<Millis> {
        self.made_at.get().copied()
    }

    /// Notes the version of its first frame.
    pub(super) fn set_first_version(&self, version: u64) {
        let _ = self.made_at.set(Versions::time_of(version));
    }

    /// Keeps the frames until the footer is written.
    pub(super) fn keep_frames(&self, frames: Vec<Entry>) {
        *self.frames.lock() = Some(frames);
    }

    /// Its frames: those kept, or those of the footer.
    pub(super) fn frames(&self) -> io::Result<Vec<Entry>> {
        if let Some(frames) = &*self.frames.lock() {
            return Ok(frames.clone());
        }
        super::recover::read_frames(self.id, self.length, self.file())
    }

    /// Makes it whole: data synced, then footer, then synced. Until then it is scanned at a start.
    pub(super) fn seal(&self) {
        let Some(frames) = self.frames.lock().clone() else { return };
        let (at, footer) = format::encode_footer(self.id, self.length, &frames);
        if at < self.used_bytes() {
            // A file that was cut short: no room for a footer.
            return;
        }
        let sealed = self
            .file
            .sync()
            .and_then(|()| self.file.write_at(&[io::IoSlice::new(&footer)], at))
            .and_then(|()| self.file.sync());
        self.shared.health.wrote(&sealed);
        if sealed.is_ok() {
            *self.frames.lock() = None;
        }
    }

    /// Gives it up: its name goes now, and its bytes when its last reader is done.
    pub(super) fn give_up(self: Arc<Self>) {
        self.is_live.store(false, Relaxed);
        self.mapping.is_given_up.store(true, Relaxed);
        let segment = Arc::downgrade(&self);
        let given_up = GivenUp { segment, length: self.length, is_named: true, is_mapped: true };
        self.shared.files.lock().given_up.insert(self.id, given_up);
        self.shared.unlink();
    }

    /// Whether it was found to be shorter than it was made.
    pub(super) fn is_bad(&self) -> bool {
        self.mapping.mapping.as_ref().is_some_and(Mapping::is_bad)
    }

    /// Looks whether its file has become shorter.
    pub(super) fn check_length(&self) {
        let is_shorter =
            rustix::fs::fstat(self.file.file()).is_ok_and(|stat| (stat.st_size as u64) < self.length);
        if is_shorter && let Some(mapping) = &self.mapping.mapping {
            mapping.mark_bad();
        }
    }

    fn bring_in(&self, place: Place) -> Result<(), Lost> {
        let mapping = self.mapping.mapping.as_ref().ok_or(Lost)?;
        let range = u64::from(place.offset)..u64::from(place.offset) + u64::from(place.length);
        if mapping.is_bad() || range.end > self.length {
            return Err(Lost);
        }
        if !mapping.is_resident(range.clone()) {
            mapping.will_need(ahead_of(&range, self.length));
            let populated = mapping.populate(range.clone());
            self.shared.health.read(&populated);
            if populated.is_err() {
                self.check_length();
                return Err(Lost);
            }
        }
        let Some(verified) = &self.verified else { return Ok(()) };
        if verified.lock().contains(&place.offset) {
            return Ok(());
        }
        let bytes = self.slice(place.offset, place.length).ok_or(Lost)?;
        let Ok(sum) = region::guarded(|| Sum::of(&bytes)) else {
            self.shared.health.note(Fault::Truncated);
            return Err(Lost);
        };
        if sum != place.sum {
            self.shared.health.note(Fault::Checksum);
            tracing::warn!(
                segment = self.id,
                offset = place.offset,
                "stored bytes are damaged; they are fetched again"
            );
            return Err(Lost);
        }
        verified.lock().insert(place.offset);
        Ok(())
    }
}

/// What lies behind a range, to be read while the range is served.
fn ahead_of(range: &Range<u64>, length: u64) -> Range<u64> {
    range.end.min(length)..(range.end + READ_AHEAD_BYTES).min(length)
}

impl Pages for Segment {
    fn segment(&self) -> u32 {
        self.id
    }

    fn fetch(self: Arc<Self>, place: Place, key: KeyHash) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let pool = self.shared.pool.clone();
        pool.run(move || {
            let result = self.bring_in(place);
            if result.is_err() {
                let _ = self.lost.send(super::log::Op::Lost { key, segment: self.id });
            }
            let _ = sender.send(result);
        });
        receiver
    }

    fn is_resident(&self) -> bool {
        !self.shared.disk.is_persistent()
    }

    fn is_revoked(&self) -> bool {
        self.revoked.load(Relaxed)
    }

    fn is_live(&self) -> bool {
        self.is_live.load(Relaxed)
    }
}
