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
//! from a mapping that [is bad](Mapping::is_bad), and who took bytes before and has not yet read them
//! compares [`losses`] with what it was then.
//!
//! What no mapping can tell: a file's last page reads as zeroes behind the end of the file, a hole
//! reads as zeroes too, and overwritten bytes read as what they are now. Checksums find those.
//!
//! This is the one module with unsafe code, for Linux only.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr;
use std::slice;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release, Ordering::SeqCst, compiler_fence, fence,
};
use std::sync::{Arc, OnceLock};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect};

/// Arenas that may exist at a time.
const MAX_ARENAS: usize = 256;
/// Pages that one `mincore` is asked about.
const PAGES_AT_ONCE: usize = 256;

/// A slot's flags: its mapping is not to be used.
const BAD: u8 = 1;
/// A slot's flags: pages of its mapping were replaced by zeroes.
const LOST: u8 = 2;

/// One reserved range of addresses, cut into slots of equal size.
#[derive(Debug)]
pub struct Arena {
    range: MmapRaw,
    slot_bytes: usize,
    flags: Box<[AtomicU8]>,
    free: Mutex<Vec<usize>>,
    /// Its entry in [`ARENAS`].
    entry: usize,
}

impl Arena {
    /// Reserves addresses for `slots` slots of `slot_bytes`, rounded up to whole pages; no memory.
    pub fn reserve(slots: usize, slot_bytes: u64) -> io::Result<Arc<Self>> {
        install();
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no such range of addresses");
        let slot_bytes =
            usize::try_from(slot_bytes).ok().and_then(|n| n.checked_next_multiple_of(page_bytes()));
        let slot_bytes = slot_bytes.ok_or_else(invalid)?;
        let bytes = slot_bytes.checked_mul(slots).filter(|bytes| *bytes > 0).ok_or_else(invalid)?;
        let range = MmapRaw::from(MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?);
        // SAFETY: the range was mapped above and nothing refers into it yet.
        unsafe { mprotect(range.as_mut_ptr().cast(), bytes, MprotectFlags::empty()) }?;
        let flags: Box<[AtomicU8]> = (0..slots).map(|_| AtomicU8::new(0)).collect();
        let start = range.as_ptr().addr();
        let entry = register(start..start + bytes, slot_bytes, &flags)?;
        let free = Mutex::new((0..slots).rev().collect());
        Ok(Arc::new(Self { range, slot_bytes, flags, free, entry }))
    }

    /// Maps the first `len` bytes of a file, shared and read-only, into a free slot.
    pub fn map(self: &Arc<Self>, file: impl AsFd, len: u64) -> io::Result<Mapping> {
        if len > self.slot_bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "larger than a slot"));
        }
        let Some(slot) = self.free.lock().pop() else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "no free slot for a mapping"));
        };
        self.flags[slot].store(0, SeqCst);
        let (at, flags) = (self.start_of(slot).cast(), MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: `len` bytes from the slot's start lie in the reserved range, and a slot that was free
        // is used by nobody else.
        match unsafe { mmap(at, len as usize, ProtFlags::READ, flags, file, 0) } {
            Ok(_) => Ok(Mapping { arena: self.clone(), slot, len }),
            Err(error) => {
                self.release(slot);
                Err(error.into())
            }
        }
    }

    /// How many files can be mapped at a time.
    pub fn slots(&self) -> usize {
        self.flags.len()
    }

    fn start_of(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < self.slots());
        // SAFETY: every slot lies in the range.
        unsafe { self.range.as_mut_ptr().add(slot * self.slot_bytes) }
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
#[derive(Debug)]
pub struct Mapping {
    arena: Arc<Arena>,
    slot: usize,
    len: u64,
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
        self.arena.flags[self.slot].load(SeqCst) != 0
    }

    /// It is not to be used any more.
    pub fn mark_bad(&self) {
        self.arena.flags[self.slot].fetch_or(BAD, SeqCst);
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

/// A read hit a page that is not there: what it returned is not what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mapped file is shorter than it was, or can't be read")]
pub struct Poisoned;

thread_local! {
    /// Plain thread-local storage: no initializer, no destructor. Atomic, because a handler writes it.
    static POISONED: AtomicBool = const { AtomicBool::new(false) };
}

/// Whether a read on this thread hit a page that is not there since the flag was last taken.
#[inline]
pub fn is_poisoned() -> bool {
    // The compiler sees no way from a read of mapped bytes to the flag, and must not look early.
    compiler_fence(SeqCst);
    POISONED.with(|poisoned| poisoned.load(Relaxed))
}

/// The same; clears it.
#[inline]
pub fn take_poison() -> bool {
    let was_poisoned = is_poisoned();
    if was_poisoned {
        set_poison(false);
    }
    was_poisoned
}

fn set_poison(is_poisoned: bool) {
    POISONED.with(|poisoned| poisoned.store(is_poisoned, Relaxed));
    compiler_fence(SeqCst);
}

/// Runs `read` and tells whether every byte that it read was really there.
///
/// For threads that are not connections. A page that an earlier fault replaced reads as zeroes without
/// another fault: ask [`Mapping::is_bad`] afterwards.
pub fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, Poisoned> {
    let before = take_poison();
    let value = read();
    let was_poisoned = take_poison();
    if before {
        set_poison(true);
    }
    if was_poisoned { Err(Poisoned) } else { Ok(value) }
}

/// Reads a byte of each page of `bytes`: a mapping whose file is shorter is marked bad.
pub fn probe(bytes: &[u8]) -> Result<(), Poisoned> {
    guarded(|| {
        for byte in bytes.iter().step_by(page_bytes()).chain(bytes.last()) {
            // SAFETY: it is a reference; volatile, so that the read is not left out.
            let _ = unsafe { ptr::from_ref(byte).read_volatile() };
        }
    })
}

static FAULTS: AtomicU64 = AtomicU64::new(0);
static LOSSES: AtomicU64 = AtomicU64::new(0);

/// How many SIGBUS were caught and EFAULT noted.
pub fn faults() -> u64 {
    FAULTS.load(Relaxed)
}

/// Grows, before anybody can read the zeroes, when a mapping first has a page replaced.
#[inline]
pub fn losses() -> u64 {
    // What was read before this is asked must have been read before it is answered.
    fence(Acquire);
    LOSSES.load(SeqCst)
}

/// A write to a socket said EFAULT: some mapping's file is shorter than it should be. Poisons the thread.
pub fn note_efault() {
    FAULTS.fetch_add(1, Relaxed);
    set_poison(true);
}

// What the handler sees.

/// An arena's place in the table. Its `version` is odd while it is changed; the arena in which a fault
/// happens is in use and does not change, so that a reader never has to wait or try again.
struct Entry {
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0: the entry is free.
    end: AtomicUsize,
    slot_bytes: AtomicUsize,
    flags: AtomicPtr<AtomicU8>,
}

static ARENAS: [Entry; MAX_ARENAS] = [const { Entry::free() }; MAX_ARENAS];
/// How many entries were ever in use at a time: the rest need not be looked at.
static ARENAS_USED: AtomicUsize = AtomicUsize::new(0);
/// Held by who changes an entry.
static ARENAS_LOCK: Mutex<()> = Mutex::new(());
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

impl Entry {
    const fn free() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            slot_bytes: AtomicUsize::new(0),
            flags: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn set(&self, range: Range<usize>, slot_bytes: usize, flags: *mut AtomicU8) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.start.store(range.start, Relaxed);
        self.end.store(range.end, Relaxed);
        self.slot_bytes.store(slot_bytes, Relaxed);
        self.flags.store(flags, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
    }

    fn contains(&self, address: usize) -> bool {
        let version = self.version.load(Acquire);
        let is_inside = (self.start.load(Relaxed)..self.end.load(Relaxed)).contains(&address);
        fence(Acquire);
        is_inside && version.is_multiple_of(2) && version == self.version.load(Relaxed)
    }

    fn slot_and_offset(&self, address: usize) -> (usize, usize) {
        let (offset, slot_bytes) = (address - self.start.load(Relaxed), self.slot_bytes.load(Relaxed).max(1));
        (offset / slot_bytes, offset % slot_bytes)
    }
}

fn register(range: Range<usize>, slot_bytes: usize, flags: &[AtomicU8]) -> io::Result<usize> {
    let _lock = ARENAS_LOCK.lock();
    let Some(free) = ARENAS.iter().position(|entry| entry.end.load(Relaxed) == 0) else {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many arenas"));
    };
    ARENAS[free].set(range, slot_bytes, flags.as_ptr().cast_mut());
    ARENAS_USED.fetch_max(free + 1, Release);
    Ok(free)
}

fn unregister(entry: usize) {
    let _lock = ARENAS_LOCK.lock();
    ARENAS[entry].set(0..0, 0, ptr::null_mut());
}

/// The entry of the arena that the address of a live mapping belongs to.
fn find(address: usize) -> Option<(usize, &'static Entry)> {
    let used = ARENAS_USED.load(Acquire);
    ARENAS[..used].iter().enumerate().find(|(_, entry)| entry.contains(address))
}

fn page_bytes() -> usize {
    PAGE_BYTES.load(Relaxed).max(1)
}

/// Installs the handler of SIGBUS, once a process.
///
/// A fault outside of every arena gets what was installed before, which then stays in place; a SIGBUS that
/// somebody sent gets the default action: it ends the process.
pub fn install() {
    PREVIOUS.get_or_init(|| {
        PAGE_BYTES.store(rustix::param::page_size(), Relaxed);
        let mut action = default_action();
        let mut previous = default_action();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both point to valid structures, and the handler has the signature of SA_SIGINFO and
        // does only what a handler may.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut previous) };
        previous
    });
}

fn default_action() -> libc::sigaction {
    // SAFETY: plain data, for which zeroes mean SIG_DFL, no flags and an empty mask.
    unsafe { mem::zeroed() }
}

/// Async-signal-safe: atomics, thread-local storage without initializer, and system calls.
extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the thread's own `errno`, which lives as long as the thread.
    let errno = unsafe { &mut *libc::__errno_location() };
    let saved = *errno;
    // SAFETY: the kernel passes a valid structure, and `si_addr` is read only when it is a fault's.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr()) };
    let is_missing_page = matches!(code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
    if !(is_missing_page && replace_page(address)) {
        pass_on(signal, code <= 0);
    }
    *errno = saved;
}

/// Puts zeroes in place of a missing page of an arena and tells everybody.
fn replace_page(address: *mut c_void) -> bool {
    let Some((_, entry)) = find(address.addr()) else { return false };
    let (slot, _) = entry.slot_and_offset(address.addr());
    // SAFETY: the arena is in use by the read that failed, so that its flags are there, one for each slot.
    let flags = unsafe { &*entry.flags.load(Relaxed).add(slot) };
    if flags.load(SeqCst) & LOST == 0 {
        // Counted before it is marked, so that whoever finds the mark need not count. Two that come at
        // once may both count.
        LOSSES.fetch_add(1, SeqCst);
        flags.fetch_or(BAD | LOST, SeqCst);
    }
    let page = address.map_addr(|address| address & !(page_bytes() - 1));
    let map_flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the page lies in a slot that is mapped. What it held can't be read; when another thread was
    // faster, zeroes are replaced by zeroes.
    if unsafe { mmap_anonymous(page, page_bytes(), ProtFlags::READ, map_flags) }.is_err() {
        return false;
    }
    FAULTS.fetch_add(1, Relaxed);
    set_poison(true);
    true
}

/// Leaves a SIGBUS that is not ours to what was installed before. A fault is raised again on return.
fn pass_on(signal: c_int, is_sent: bool) {
    let previous = PREVIOUS.get().filter(|_| !is_sent).copied().unwrap_or_else(default_action);
    // SAFETY: a valid structure: the default, or what `sigaction` itself gave us.
    unsafe { libc::sigaction(signal, &raw const previous, ptr::null_mut()) };
    if is_sent {
        // SAFETY: no memory is touched. It is delivered when the handler has returned.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests;
