//! Mapped files: one reserved range of addresses, and what happens when a file is cut short below us.
//!
//! All mappings of an [`Arena`] lie in one range that is reserved once and cut into slots of equal
//! size, so that an address is turned into slot and offset by a subtraction and a division: that is
//! what a signal handler can do.
//!
//! # When a page is not there
//!
//! A file that is truncated, or can't be read, raises SIGBUS on the thread that touches the page.
//! The handler marks the mapping bad, puts a page of zeroes in place and poisons the thread. Whoever
//! reads mapped bytes asks afterwards, before it acts on them:
//!
//! - a connection: [`is_poisoned`] before each write to its socket,
//! - any other thread: it reads inside of [`guarded`].
//!
//! The page of zeroes stays for all threads, and only the first reader is poisoned. So nothing is taken
//! from a mapping that [is bad](Mapping::is_bad), and who took bytes before and may not have read them yet
//! keeps a [`Taken`] and asks that too.
//!
//! What no mapping can tell: a file's last page reads as zeroes behind the end of the file, a hole
//! reads as zeroes too, and overwritten bytes read as what they are now. Checksums find those.
//!
//! This is the one module with unsafe code, for Linux only; but for the one line that takes an inherited descriptor (`net`).

#![allow(unsafe_code)]

mod fault;
mod spare;

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{Ordering::Acquire, Ordering::Release, Ordering::SeqCst, fence};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect};
use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

use fault::{BAD, Slot, find, page_bytes, register, unregister};
pub use fault::{
    Poisoned, Taken, faults, guarded, install, is_poisoned, losses, note_efault, probe, take_poison,
};
pub use spare::{Spare, memory_file};

/// Pages that one `mincore` is asked about.
const PAGES_AT_ONCE: usize = 256;
/// Bytes of a huge page, where the kernel has them and pages of 4 KiB.
pub const HUGE_PAGE_BYTES: u64 = 2 * 1024 * 1024;

/// One reserved range of addresses, cut into slots of equal size.
#[derive(Debug)]
pub struct Arena {
    range: MmapRaw,
    /// Where the first slot begins in it.
    lead: usize,
    slot_bytes: usize,
    slots: Box<[Slot]>,
    free: Mutex<Vec<usize>>,
    /// Its entry in the table of arenas.
    entry: usize,
}

impl Arena {
    /// Reserves addresses for `slots` slots of `slot_bytes`, rounded up to whole pages; no memory. Slots that
    /// could hold a huge page begin where one can be mapped.
    pub fn reserve(slots: usize, slot_bytes: u64) -> io::Result<Arc<Self>> {
        install();
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no such range of addresses");
        let unit = if slot_bytes < HUGE_PAGE_BYTES { page_bytes() } else { HUGE_PAGE_BYTES as usize };
        let slot_bytes = usize::try_from(slot_bytes).ok().and_then(|n| n.checked_next_multiple_of(unit));
        let slot_bytes = slot_bytes.ok_or_else(invalid)?;
        let bytes = slot_bytes.checked_mul(slots).filter(|bytes| *bytes > 0).ok_or_else(invalid)?;
        let reserved = bytes.checked_add(unit - page_bytes()).ok_or_else(invalid)?;
        let range = MmapRaw::from(MmapOptions::new().len(reserved).no_reserve_swap().map_anon()?);
        // SAFETY: the range was mapped above and nothing refers into it yet.
        unsafe { mprotect(range.as_mut_ptr().cast(), reserved, MprotectFlags::empty()) }?;
        let states: Box<[Slot]> = (0..slots).map(|_| Slot::free()).collect();
        let start = range.as_ptr().addr().next_multiple_of(unit);
        let lead = start - range.as_ptr().addr();
        let entry = register(start..start + bytes, slot_bytes, &states)?;
        let free = Mutex::new((0..slots).rev().collect());
        Ok(Arc::new(Self { range, lead, slot_bytes, slots: states, free, entry }))
    }

    /// Maps the first `len` bytes of a file, shared and read-only, into a free slot.
    ///
    /// The mapping keeps the file open, for [`send`].
    pub fn map(self: &Arc<Self>, file: impl AsFd + Send + Sync + 'static, len: u64) -> io::Result<Mapping> {
        if len > self.slot_bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "larger than a slot"));
        }
        let Some(slot) = self.free.lock().pop() else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "no free slot for a mapping"));
        };
        self.slots[slot].flags.store(0, SeqCst);
        let (at, flags) = (self.start_of(slot).cast(), MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: `len` bytes from the slot's start lie in the reserved range, and a slot that was free
        // is used by nobody else.
        match unsafe { mmap(at, len as usize, ProtFlags::READ, flags, &file, 0) } {
            Ok(_) => {
                self.slots[slot].file.store(file.as_fd().as_raw_fd(), Release);
                Ok(Mapping { arena: self.clone(), slot, len, file: Box::new(file) })
            }
            Err(error) => {
                self.release(slot);
                Err(error.into())
            }
        }
    }

    /// How many files can be mapped at a time.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    fn start_of(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < self.slots());
        // SAFETY: every slot lies in the range.
        unsafe { self.range.as_mut_ptr().add(self.lead + slot * self.slot_bytes) }
    }

    /// Puts the reservation back in place of what is mapped. A slot where that fails stays as it is and is
    /// not used again.
    fn release(&self, slot: usize) {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        let at = self.start_of(slot).cast();
        // SAFETY: the slot lies in the range, and its one mapping is gone: nothing refers into it.
        if unsafe { mmap_anonymous(at, self.slot_bytes, ProtFlags::empty(), flags) }.is_ok() {
            self.free.lock().push(slot);
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        unregister(self.entry);
    }
}

/// One mapped file; on drop it is unmapped and its slot is free again.
pub struct Mapping {
    arena: Arc<Arena>,
    slot: usize,
    len: u64,
    file: Box<dyn AsFd + Send + Sync>,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, len, file, .. } = self;
        f.debug_struct("Mapping").field("slot", slot).field("len", len).field("file", &file.as_fd()).finish()
    }
}

impl Mapping {
    /// The slot of the arena.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The mapped length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a read of it ever failed, or [`Mapping::mark_bad`] was called. To be asked before bytes of
    /// it are handed out, and after they were read inside of [`guarded`].
    #[inline]
    pub fn is_bad(&self) -> bool {
        fence(Acquire);
        self.arena.slots[self.slot].flags.load(SeqCst) != 0
    }

    /// It is not to be used any more.
    pub fn mark_bad(&self) {
        self.arena.slots[self.slot].flags.fetch_or(BAD, SeqCst);
    }

    /// Whether all pages of the range are in memory.
    pub fn is_resident(&self, range: Range<u64>) -> bool {
        let Some((mut at, mut left)) = self.pages(&range) else { return false };
        let mut states = [0_u8; PAGES_AT_ONCE];
        while left > 0 {
            let bytes = left.min(PAGES_AT_ONCE * page_bytes());
            // SAFETY: the pages are mapped as long as `self`, and `states` has a byte for each.
            let result = unsafe { libc::mincore(at.cast(), bytes, states.as_mut_ptr()) };
            let pages = bytes / page_bytes();
            if result != 0 || states[..pages].iter().any(|state| state & 1 == 0) {
                return false;
            }
            at = at.wrapping_add(bytes);
            left -= bytes;
        }
        true
    }

    /// Brings the range into memory, waiting for the disk.
    ///
    /// It fails, and marks the mapping bad, when the file is shorter or can't be read.
    pub fn populate(&self, range: Range<u64>) -> io::Result<()> {
        let pages = self.pages(&range);
        let (at, bytes) = pages.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the pages are mapped as long as `self`; reading them in changes no byte.
        match unsafe { madvise(at.cast(), bytes, Advice::LinuxPopulateRead) } {
            Ok(()) => {}
            Err(Errno::FAULT | Errno::HWPOISON) => self.mark_bad(),
            // Linux before 5.14.
            Err(Errno::INVAL) => {
                if probe(&self.as_ref()[range.start as usize..range.end as usize]).is_err() {
                    self.mark_bad();
                }
            }
            Err(error) => return Err(error.into()),
        }
        if self.is_bad() { Err(io::Error::new(io::ErrorKind::UnexpectedEof, Poisoned)) } else { Ok(()) }
    }

    /// Asks the kernel to begin reading the range; a refusal is ignored.
    pub fn will_need(&self, range: Range<u64>) {
        if let Some((at, bytes)) = self.pages(&range) {
            // SAFETY: the pages are mapped as long as `self`; the advice changes no byte.
            let _ = unsafe { madvise(at.cast(), bytes, Advice::WillNeed) };
        }
    }

    /// Has the kernel put the pages of a memory file together to huge ones, so that `sendfile` looks up one page of it
    /// instead of 512. Something must be written wherever a huge page is to be. It takes up to some milliseconds for each.
    ///
    /// The process as a whole may have none (`main.rs`): they are allowed for as long as this takes. It fails with `EINVAL`
    /// where there are none, as before Linux 6.1, and otherwise when no memory lies together.
    pub fn collapse(&self) -> io::Result<()> {
        // One at a time: who forbids them again would forbid them to others that are at it.
        static ALLOWED: Mutex<()> = Mutex::new(());
        let _allowed = ALLOWED.lock();
        let are_disabled = transparent_huge_pages_are_disabled()?;
        if are_disabled {
            disable_transparent_huge_pages(false)?;
        }
        let at = self.arena.start_of(self.slot);
        // SAFETY: `len` bytes are mapped as long as `self`; where they lie in memory changes none of them.
        let result = unsafe { libc::madvise(at.cast(), self.len as usize, libc::MADV_COLLAPSE) };
        let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        if are_disabled {
            disable_transparent_huge_pages(true)?;
        }
        result
    }

    /// Start and length of the pages that hold the range; `None` when it is no range of the mapping.
    fn pages(&self, range: &Range<u64>) -> Option<(*mut u8, usize)> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        let start = range.start as usize / page_bytes() * page_bytes();
        let end = (range.end as usize).next_multiple_of(page_bytes());
        Some((self.arena.start_of(self.slot).wrapping_add(start), end - start))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` bytes from the slot's start are mapped for reading as long as `self`; a page that
        // is not there is replaced by the handler. We write no byte of a file twice, and a reader stays
        // within what was written; other processes are kept away by the lock on the folder.
        unsafe { slice::from_raw_parts(self.arena.start_of(self.slot), self.len as usize) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.arena.slots[self.slot].file.store(-1, Release);
        self.arena.release(self.slot);
    }
}

/// Where mapped bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The arena's number, unique among those that exist.
    pub arena: usize,
    /// The slot.
    pub slot: usize,
    /// From the slot's start, and so from the file's, in bytes.
    pub offset: u64,
}

/// Where `bytes` lie, if they lie in a mapping of any arena.
pub fn locate(bytes: &[u8]) -> Option<Place> {
    let (arena, entry) = find(bytes.as_ptr().addr()).filter(|_| !bytes.is_empty())?;
    let (slot, offset) = entry.slot_and_offset(bytes.as_ptr().addr());
    Some(Place { arena, slot, offset: offset as u64 })
}

/// From here on it costs less to have the kernel [send](send()) mapped bytes out of their file than to copy them into the
/// socket: two system calls instead of one have to pay.
pub const SENT_BYTES: usize = 12 * 1024;

/// Has the kernel send mapped bytes to a socket out of their file, so that no byte is copied or even read here: how
/// many it took. `None`: these bytes are not of a mapping.
///
/// A file that has become shorter, or can't be read, marks the mapping bad and poisons the thread, as a read would.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> Option<io::Result<usize>> {
    let (_, entry) = find(bytes.as_ptr().addr()).filter(|_| !bytes.is_empty())?;
    let (slot, offset) = entry.slot_and_offset(bytes.as_ptr().addr());
    // SAFETY: the bytes are borrowed from a mapping, which keeps its arena.
    let slot: &Slot = unsafe { entry.slot(slot) };
    let file = Some(slot.file.load(Acquire)).filter(|file| *file >= 0)?;
    // SAFETY: the mapping owns the file, and closes it when nobody borrows from it any more.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    let mut offset = offset as u64;
    match sendfile(socket, file, Some(&mut offset), bytes.len()) {
        Ok(0) | Err(Errno::IO) => {
            slot.flags.fetch_or(BAD, SeqCst);
            note_efault();
            Some(Err(io::Error::other(Poisoned)))
        }
        sent => Some(sent.map_err(io::Error::from)),
    }
}

#[cfg(test)]
mod tests;
