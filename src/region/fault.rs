//! SIGBUS: the handler, what it looks up, and whom it tells.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release, Ordering::SeqCst, compiler_fence, fence,
};

use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Arenas that may exist at a time.
const MAX_ARENAS: usize = 256;
/// As many as an integer has bits.
const GROUPS: usize = 64;

/// A slot's flags: its mapping is not to be used.
pub(super) const BAD: u8 = 1;
/// A slot's flags: pages of its mapping were replaced by zeroes.
const LOST: u8 = 2;

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
/// For what is not a connection's response; on a connection's thread, what that was poisoned by before stays. A page that an earlier fault replaced reads as zeroes without
/// another fault: ask [`super::Mapping::is_bad`] afterwards.
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
/// How many mappings have had a page replaced.
static LOSSES: AtomicU64 = AtomicU64::new(0);
/// For each group of slots, the number of its last loss.
static LOST_AT: [AtomicU64; GROUPS] = [const { AtomicU64::new(0) }; GROUPS];

/// How many SIGBUS were caught and EFAULT noted.
pub fn faults() -> u64 {
    FAULTS.load(Relaxed)
}

/// How many mappings have lost a page by now.
#[inline]
pub fn losses() -> u64 {
    // What was read before this is asked must have been read before it is answered.
    fence(Acquire);
    LOSSES.load(SeqCst)
}

/// What somebody took from mappings and may not have read yet: a page that is replaced meanwhile, because
/// another thread read it first, is a loss of theirs too.
///
/// It keeps no list: slots fall into groups, and a loss in the group of one counts for the others.
#[derive(Debug, Default)]
pub struct Taken {
    groups: AtomicU64,
    /// [`losses`] before the first was taken.
    since: AtomicU64,
}

impl Taken {
    /// `bytes` were taken, perhaps from a mapping that was not bad; `losses` were counted before that.
    /// For one thread at a time.
    #[inline]
    pub fn add(&self, bytes: &[u8], losses: u64) {
        let Some((arena, entry)) = find(bytes.as_ptr().addr()) else { return };
        let (slot, _) = entry.slot_and_offset(bytes.as_ptr().addr());
        let groups = self.groups.load(Relaxed);
        if groups == 0 {
            self.since.store(losses, Relaxed);
        }
        self.groups.store(groups | 1 << group(arena, slot), Relaxed);
    }

    /// Whether pages may have been replaced of what was taken.
    #[inline]
    pub fn is_lost(&self) -> bool {
        let groups = self.groups.load(Relaxed);
        if groups == 0 || self.since.load(Relaxed) == losses() {
            return false;
        }
        let since = self.since.load(Relaxed);
        (0..GROUPS).any(|group| groups & 1 << group != 0 && LOST_AT[group].load(SeqCst) > since)
    }
}

fn group(arena: usize, slot: usize) -> usize {
    // The factor keeps the first slots of several arenas apart.
    (arena * 7 + slot) % GROUPS
}

/// A write to a socket said EFAULT: some mapping's file is shorter than it should be. Poisons the thread.
pub fn note_efault() {
    FAULTS.fetch_add(1, Relaxed);
    set_poison(true);
}

// What the handler sees.

/// An arena's place in the table. Its `version` is odd while it is changed; the arena in which a fault
/// happens is in use and does not change, so that a reader never has to wait or try again.
pub(super) struct Entry {
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0: the entry is free.
    end: AtomicUsize,
    slot_bytes: AtomicUsize,
    slots: AtomicPtr<Slot>,
}

/// What is known of one mapping.
#[derive(Debug)]
pub(super) struct Slot {
    /// [`BAD`], [`LOST`].
    pub(super) flags: AtomicU8,
    /// The descriptor of its file; negative: nothing is mapped.
    pub(super) file: AtomicI32,
}

impl Slot {
    pub(super) const fn free() -> Self {
        Self { flags: AtomicU8::new(0), file: AtomicI32::new(-1) }
    }
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
            slots: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn set(&self, range: Range<usize>, slot_bytes: usize, slots: *mut Slot) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.start.store(range.start, Relaxed);
        self.end.store(range.end, Relaxed);
        self.slot_bytes.store(slot_bytes, Relaxed);
        self.slots.store(slots, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
    }

    fn contains(&self, address: usize) -> bool {
        let version = self.version.load(Acquire);
        let is_inside = (self.start.load(Relaxed)..self.end.load(Relaxed)).contains(&address);
        fence(Acquire);
        is_inside && version.is_multiple_of(2) && version == self.version.load(Relaxed)
    }

    pub(super) fn slot_and_offset(&self, address: usize) -> (usize, usize) {
        let (offset, slot_bytes) = (address - self.start.load(Relaxed), self.slot_bytes.load(Relaxed).max(1));
        (offset / slot_bytes, offset % slot_bytes)
    }

    /// # Safety
    /// The arena must be in use for as long as the result is, and have that slot.
    // SAFETY: as the caller promises.
    pub(super) unsafe fn slot<'a>(&self, slot: usize) -> &'a Slot {
        // SAFETY: an arena in use keeps its entry, which points to one for each slot.
        unsafe { &*self.slots.load(Relaxed).add(slot) }
    }
}

pub(super) fn register(range: Range<usize>, slot_bytes: usize, slots: &[Slot]) -> io::Result<usize> {
    let _lock = ARENAS_LOCK.lock();
    let Some(free) = ARENAS.iter().position(|entry| entry.end.load(Relaxed) == 0) else {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many arenas"));
    };
    ARENAS[free].set(range, slot_bytes, slots.as_ptr().cast_mut());
    ARENAS_USED.fetch_max(free + 1, Release);
    Ok(free)
}

pub(super) fn unregister(entry: usize) {
    let _lock = ARENAS_LOCK.lock();
    ARENAS[entry].set(0..0, 0, ptr::null_mut());
}

/// The entry of the arena that the address of a live mapping belongs to.
pub(super) fn find(address: usize) -> Option<(usize, &'static Entry)> {
    let used = ARENAS_USED.load(Acquire);
    ARENAS[..used].iter().enumerate().find(|(_, entry)| entry.contains(address))
}

pub(super) fn page_bytes() -> usize {
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
    let Some((arena, entry)) = find(address.addr()) else { return false };
    let (slot, _) = entry.slot_and_offset(address.addr());
    // SAFETY: the arena is in use by the read that failed.
    let Slot { flags, .. } = unsafe { entry.slot(slot) };
    if flags.load(SeqCst) & LOST == 0 {
        // Counted before it is marked, so that whoever finds the mark need not count. Two that come at
        // once may both count.
        let loss = LOSSES.fetch_add(1, SeqCst) + 1;
        LOST_AT[group(arena, slot)].fetch_max(loss, SeqCst);
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
