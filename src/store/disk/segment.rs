//! A segment: a file of the log, written once from its start to its end and mapped for reading.
//!
//! It lives as long as somebody reads from it. When the store gives it up, its name is removed, in the
//! order of the log, so that no start finds a record without the later ones that replaced it. After the
//! last reader it is unmapped on an I/O thread, and only then its bytes are free.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::files::Shared;
use super::format::{self, Entry};
use super::health::Fault;
use super::io::DiskFile;
use super::ops::Op;
use crate::object::{Answer, Charge, Lost, Pages, Place, Sum};
use crate::region::{self, Mapping};
use crate::rules::key::KeyHash;
use crate::rules::time::Millis;
use crate::store::versions::Versions;

/// What is read ahead behind a place that was asked for.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;
/// The sum of a place up to here is compared by who asks for it: some 10 us, once a start.
const COMPARED_AT_ONCE_BYTES: u32 = 32 * 1024;

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
    lost: std::sync::mpsc::Sender<Op>,
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

/// A file of any kind of disk, as a mapping keeps it.
struct Mapped(Arc<dyn DiskFile>);

impl AsFd for Mapped {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file()
    }
}

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
            self.shared.count(-(self.length as i64));
            return;
        }
        let (shared, id) = (self.shared.clone(), self.id);
        shared.unread(id);
        self.shared.chores.run(move || {
            drop((mapping, charge));
            shared.unmapped(id);
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
        lost: std::sync::mpsc::Sender<Op>,
        charge: Option<Charge>,
    ) -> io::Result<Arc<Self>> {
        let mapping = shared.arena.map(Mapped(file.clone()), length)?;
        shared.count(length as i64);
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

    /// Nothing in it is stored: it is there for those who read what comes.
    pub(super) fn is_for_readers_only(&self) {
        self.is_live.store(false, Relaxed);
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

    /// The mapped bytes of a range, if they can be read without a wait. To be read inside of [`region::guarded`].
    pub(super) fn in_memory(&self, range: Range<u64>) -> Option<&[u8]> {
        let mapping = self.mapping.mapping.as_ref().filter(|mapping| !mapping.is_bad())?;
        if range.end > self.length || !self.file.is_in_memory(mapping, range.clone()) {
            return None;
        }
        self.bytes.get(range.start as usize..range.end as usize)
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
        // A footer behind the end of a file that was cut short would make its loss a hole of zeroes.
        self.check_length();
        if self.is_bad() || at < self.used_bytes() {
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
        self.shared.give_up(&self);
    }

    /// Has its readers end; false: they were told already.
    pub(super) fn revoke(&self) -> bool {
        !self.revoked.swap(true, Relaxed)
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
        self.compare(place)
    }

    /// Whether all of it was written by this process.
    pub(super) fn is_written_here(&self) -> bool {
        self.verified.is_none()
    }

    /// Whether the sum of a place need not be compared any more.
    pub(super) fn is_compared(&self, place: Place) -> bool {
        self.verified.as_ref().is_none_or(|verified| verified.lock().contains(&place.offset))
    }

    /// Compares the sum of a place that is in memory, once a start.
    fn compare(&self, place: Place) -> Result<(), Lost> {
        let Some(verified) = self.verified.as_ref().filter(|_| !self.is_compared(place)) else {
            return Ok(());
        };
        let bytes = self.slice(place.offset, place.length).ok_or(Lost)?;
        // A page that another reader found missing reads as zeroes from then on, without a fault.
        let Some(sum) = region::guarded(|| Sum::of(&bytes)).ok().filter(|_| !self.is_bad()) else {
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
            match self.bring_in(place) {
                // The reader is told when nobody else can find it any more: who asks again gets a new one.
                Err(Lost) => {
                    let _ = self.lost.send(Op::Lost { key, segment: self.id, told: Some(sender) });
                }
                Ok(()) => {
                    let _ = sender.send(Ok(()));
                }
            }
        });
        receiver
    }

    fn is_here(&self, place: Place) -> bool {
        let range = u64::from(place.offset)..u64::from(place.offset) + u64::from(place.length);
        let is_in_memory = |mapping: &Mapping| !mapping.is_bad() && mapping.is_resident(range);
        let may_compare = place.length <= COMPARED_AT_ONCE_BYTES || self.is_compared(place);
        may_compare && self.mapping.mapping.as_ref().is_some_and(is_in_memory) && self.compare(place).is_ok()
    }

    fn is_resident(&self) -> bool {
        !self.shared.disk.is_persistent()
    }

    fn is_revoked(&self) -> bool {
        self.revoked.load(Relaxed)
    }

    fn is_damaged(&self) -> bool {
        self.is_bad()
    }

    fn is_live(&self) -> bool {
        self.is_live.load(Relaxed)
    }
}
