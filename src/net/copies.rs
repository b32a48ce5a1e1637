//! Copies of the bodies that a worker sends most, from which the kernel sends without copying.
//!
//! To copy a body of 16 KiB into a plain socket is a quarter of its hit; `sendfile` out of a memory file in huge pages costs
//! less, even with the second system call (`region::SENT_BYTES`). The store can't have small bodies there: what `sendfile` has
//! taken is on its way for as long as a client likes, and nobody tells when that is over, so such memory is written once and
//! let go of a file at a time; and then what leaves the store is no longer what is asked for least (on a trace with
//! Zipf(0.9) 43 % of the requests were hits instead of 62). So the few bodies that matter have a copy.
//!
//! A body is known by where its bytes lie. While there is a copy the original is held, so that no other can come to lie there.
//! The kernel keeps a huge page until the last byte on its way is acknowledged, which no budget sees. So a file is let go of
//! after a minute at the earliest, and what comes and goes faster than that is sent as ever. A client that takes minutes for one
//! body has its worker wait with the next file.
//!
//! Everything is a worker's own, and nothing is here without [`keep`]: other threads copy nothing.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::object::Charge;
use crate::region::{self, Arena, HUGE_PAGE_BYTES, Mapping, Spare};

/// Takes so many bytes of the memory budget; `None`: there is no room.
pub type Room = Arc<dyn Fn(u64) -> Option<Charge> + Send + Sync>;

/// Bodies that are worth it.
const LENGTHS: RangeInclusive<usize> = region::SENT_BYTES..=256 * 1024;
/// A body is copied when it was sent so often while others came and went: a copy costs some sends without one.
const OFTEN: u32 = 16;
/// How many bodies are counted at a time.
const COUNTED: usize = 1024;
/// The length of a file.
const FILE_BYTES: u64 = HUGE_PAGE_BYTES;
/// A worker's files beside those that are sent from by all: one that is ready, and one that was let go of and that a slow client
/// still takes from.
const OTHER_FILES: usize = 2;
/// With fewer in use each new one would push out all that is hot.
const MIN_FILES: usize = 2;
/// Before this a file is not let go of.
const LIFE: Duration = Duration::from_secs(60);
/// Between two tries to have another file, when none was to be had; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Copies begin at multiples of this: a cache line.
const ALIGNMENT: u64 = 64;

thread_local! {
    static COPIES: RefCell<Option<Copies>> = const { RefCell::new(None) };
}

/// What the workers' copies have in common.
pub(super) struct Plan {
    room: Room,
    arena: Arc<Arena>,
    /// Of each worker, in use at a time.
    files: usize,
    life: Duration,
}

impl Plan {
    /// Copies of so many bytes at most in all; `None`: that is too little to be of use.
    pub(super) fn new(room: Room, bytes: u64, workers: usize) -> Option<Self> {
        let files = (bytes / FILE_BYTES) as usize / workers.max(1);
        let files = files.checked_sub(OTHER_FILES).filter(|files| *files >= MIN_FILES)?;
        // Nobody maps the one that is ready.
        let arena = Arena::reserve(workers * (files + OTHER_FILES - 1), FILE_BYTES).ok()?;
        Some(Self { room, arena, files, life: LIFE })
    }
}

/// Has this thread keep copies.
pub(super) fn keep(plan: Arc<Plan>) {
    COPIES.set(Some(Copies {
        plan,
        spare: Spare::new("larder-copies"),
        is_spare_kept: false,
        files: VecDeque::new(),
        left: Vec::new(),
        copied: HashMap::new(),
        sent: HashMap::new(),
        next_try: Instant::now(),
        pause: PAUSE,
    }));
}

/// Puts the copy in the place of a stored body's one chunk, if there is one.
#[inline]
pub(super) fn swap(chunk: &mut Bytes) {
    if LENGTHS.contains(&chunk.len()) {
        COPIES.with_borrow_mut(|copies| {
            if let Some(copy) = copies.as_mut().and_then(|copies| copies.of(chunk)) {
                *chunk = copy;
            }
        });
    }
}

/// Address and length of a body.
type Place = (usize, usize);

struct Copies {
    plan: Arc<Plan>,
    spare: Spare<Charge>,
    is_spare_kept: bool,
    /// The newest is the last.
    files: VecDeque<CopyFile>,
    /// Files that are let go of, as long as somebody is about to send from them.
    left: Vec<Weak<Mapped>>,
    copied: HashMap<Place, Copied>,
    /// How often others were sent.
    sent: HashMap<Place, u32>,
    next_try: Instant,
    pause: Duration,
}

struct Copied {
    copy: Bytes,
    mapped: Arc<Mapped>,
    _original: Bytes,
}

/// A file that is written from begin to end, and let go of as a whole.
struct CopyFile {
    file: Arc<File>,
    mapped: Arc<Mapped>,
    written: u64,
    begun: Instant,
    /// Of which bodies there are copies in it.
    places: Vec<Place>,
}

struct Mapped {
    mapping: Mapping,
    _charge: Charge,
}

/// A copy; it keeps its file.
struct Copy {
    mapped: Arc<Mapped>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Copy {
    fn as_ref(&self) -> &[u8] {
        &self.mapped.mapping.as_ref()[self.range.clone()]
    }
}

impl Copies {
    /// The copy of a body, made when that was sent often.
    fn of(&mut self, body: &Bytes) -> Option<Bytes> {
        let place = (body.as_ptr().addr(), body.len());
        if let Some(copied) = self.copied.get(&place) {
            let is_bad = copied.mapped.mapping.is_bad();
            return (!is_bad).then(|| copied.copy.clone());
        }
        if self.sent.len() >= COUNTED && !self.sent.contains_key(&place) {
            self.sent.clear();
        }
        let times = self.sent.entry(place).or_default();
        *times += 1;
        if *times <= OFTEN {
            return None;
        }
        self.sent.remove(&place);
        let (copy, mapped) = self.copy(body, place)?;
        self.copied.insert(place, Copied { copy: copy.clone(), mapped, _original: body.clone() });
        Some(copy)
    }

    fn copy(&mut self, body: &Bytes, place: Place) -> Option<(Bytes, Arc<Mapped>)> {
        let length = body.len() as u64;
        if self.files.back().is_none_or(|last| last.written + length > FILE_BYTES) {
            self.begin_file()?;
        }
        let file = self.files.back_mut()?;
        let begin = file.written;
        // Also what failed is not written again.
        file.written = (begin + length).next_multiple_of(ALIGNMENT);
        file.file.write_all_at(body, begin).ok()?;
        file.places.push(place);
        let (mapped, range) = (file.mapped.clone(), begin as usize..(begin + length) as usize);
        Some((Bytes::from_owner(Copy { mapped: mapped.clone(), range }), mapped))
    }

    /// Takes the file that is ready, if one is and it is time, in the place of the oldest.
    fn begin_file(&mut self) -> Option<()> {
        let now = Instant::now();
        if now < self.next_try {
            return None;
        }
        self.next_try = now + self.pause;
        self.left.retain(|file| file.strong_count() > 0);
        let is_full = self.files.len() >= self.plan.files;
        let is_fresh = |oldest: &CopyFile| now.duration_since(oldest.begun) < self.plan.life;
        let is_oldest_fresh = self.files.front().is_some_and(is_fresh);
        if self.left.len() > 1 || is_full && (is_oldest_fresh || !self.left.is_empty()) {
            return None;
        }
        self.pause = (2 * self.pause).min(MAX_PAUSE);
        if !self.is_spare_kept {
            self.spare.keep(FILE_BYTES, (self.plan.room)(FILE_BYTES)?);
            self.is_spare_kept = true;
        }
        // Room is made by eviction, which should not be for nothing.
        if !self.spare.is_ready(FILE_BYTES) {
            return None;
        }
        let Some(charge) = (self.plan.room)(FILE_BYTES) else {
            // Others need it more, and will for a while.
            self.next_try = now + self.plan.life;
            if !is_oldest_fresh {
                self.let_go();
            }
            return None;
        };
        let file = Arc::new(self.spare.take(FILE_BYTES)?);
        let mapping = self.plan.arena.map(file.clone(), FILE_BYTES).ok()?;
        if is_full {
            self.let_go();
        }
        let mapped = Arc::new(Mapped { mapping, _charge: charge });
        self.files.push_back(CopyFile { file, mapped, written: 0, begun: now, places: Vec::new() });
        (self.next_try, self.pause) = (now, PAUSE);
        Some(())
    }

    /// Lets go of the oldest file.
    fn let_go(&mut self) {
        if let Some(oldest) = self.files.pop_front() {
            for place in &oldest.places {
                self.copied.remove(place);
            }
            self.left.push(Arc::downgrade(&oldest.mapped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    const LENGTH: usize = 100 * 1024;
    /// All that a worker may have.
    const FILES: u64 = (MIN_FILES + OTHER_FILES) as u64;

    /// Has this test's thread keep copies in `FILES` files at most; the gauge of what they take.
    fn keep_copies(life: Duration) -> Arc<AtomicU64> {
        let gauge = Arc::new(AtomicU64::new(0));
        let of_room = gauge.clone();
        let room: Room = Arc::new(move |bytes| Some(Charge::new(&of_room, bytes)));
        keep(Arc::new(Plan { life, ..Plan::new(room, FILES * FILE_BYTES, 1).unwrap() }));
        gauge
    }

    fn body(fill: u8, length: usize) -> Bytes {
        Bytes::from(vec![fill; length])
    }

    /// What is sent in the body's place after `times` sends, each checked.
    fn send(body: &Bytes, times: u32) -> Bytes {
        let mut sent = body.clone();
        for _ in 0..times {
            sent = body.clone();
            swap(&mut sent);
            assert_eq!(sent, body);
        }
        sent
    }

    fn is_copy(sent: &Bytes) -> bool {
        region::locate(sent).is_some()
    }

    /// Sends a body until there is a copy; `None` where the kernel has no huge pages.
    fn copied(body: &Bytes) -> Option<Bytes> {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let sent = send(body, OFTEN + 1);
            if is_copy(&sent) {
                return Some(sent);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let file = region::memory_file("test", FILE_BYTES).unwrap();
        file.write_all_at(&[0], 0).unwrap();
        let mapping = Arena::reserve(1, FILE_BYTES).unwrap().map(file, FILE_BYTES).unwrap();
        assert!(mapping.collapse().is_err(), "there are huge pages, and no copy in them");
        None
    }

    #[test]
    fn what_is_sent_often_is_sent_from_a_copy() {
        keep_copies(LIFE);
        let (often, seldom) = (body(b'o', LENGTH), body(b's', LENGTH));
        let Some(copy) = copied(&often) else { return };
        assert!(!is_copy(&send(&seldom, 1)) && is_copy(&send(&often, 1)));
        assert_eq!(send(&often, 1).as_ptr(), copy.as_ptr(), "one copy for all");
        assert!(!is_copy(&send(&often.slice(..LENGTH - 1), 1)), "a part is another body");
        let (least, most) = (*LENGTHS.start(), *LENGTHS.end());
        for (length, is_worth_it) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            let body = body(b'l', length);
            assert_eq!(is_copy(&send(&body, OFTEN + 1)), is_worth_it, "{length}");
        }
    }

    #[test]
    fn who_keeps_none_sends_what_there_is() {
        let body = body(b'x', LENGTH);
        assert_eq!(send(&body, 3 * OFTEN).as_ptr(), body.as_ptr());
        let none: Room = Arc::new(|_| None);
        assert!(Plan::new(none.clone(), (FILES - 1) * FILE_BYTES, 1).is_none(), "too few files to be of use");
        assert!(Plan::new(none.clone(), 7 * FILES * FILE_BYTES, 8).is_none(), "of each worker");
        keep(Arc::new(Plan::new(none, FILES * FILE_BYTES, 1).unwrap()));
        assert_eq!(send(&body, 3 * OFTEN).as_ptr(), body.as_ptr(), "without room");
    }

    /// Does something again and again until it is so.
    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_spare_ready() -> bool {
        COPIES.with_borrow(|copies| copies.as_ref().unwrap().spare.is_ready(FILE_BYTES))
    }

    #[test]
    fn copies_take_no_more_than_they_may_and_what_is_still_sent_stays() {
        let gauge = keep_copies(Duration::ZERO);
        let first = body(b'f', LENGTH);
        let Some(in_flight) = copied(&first) else { return };
        until("its file is let go of", || {
            send(&body(b'o', LENGTH), 2 * OFTEN);
            assert!(gauge.load(Relaxed) <= FILES * FILE_BYTES);
            !is_copy(&send(&first, 1))
        });
        until("another one is ready", is_spare_ready);
        for n in 0..100 {
            send(&body(n, LENGTH), 2 * OFTEN);
            assert!(gauge.load(Relaxed) <= FILES * FILE_BYTES);
        }
        assert!(in_flight.iter().all(|byte| *byte == b'f'), "its file is gone, and its bytes are not");
        drop(in_flight);
        copied(&body(b'l', LENGTH)).expect("there is room again");
        COPIES.set(None);
        until("nothing is kept", || gauge.load(Relaxed) == 0);
    }

    #[test]
    fn a_file_is_not_replaced_before_its_time() {
        keep_copies(LIFE);
        let first = body(b'f', LENGTH);
        let Some(copy) = copied(&first) else { return };
        until("all files are full", || {
            send(&body(b'o', LENGTH), OFTEN + 1);
            COPIES.with_borrow(|copies| {
                let files = &copies.as_ref().unwrap().files;
                files.len() == MIN_FILES && files.back().unwrap().written + LENGTH as u64 > FILE_BYTES
            })
        });
        until("another one is ready", is_spare_ready);
        for n in 0..50 {
            assert!(!is_copy(&send(&body(n, LENGTH), 2 * OFTEN)));
            std::thread::sleep(PAUSE / 10);
        }
        assert_eq!(send(&first, 1).as_ptr(), copy.as_ptr());
    }

    #[test]
    fn where_memory_is_needed_the_oldest_is_let_go_of_and_none_is_begun_for_a_while() {
        for life in [Duration::ZERO, LIFE] {
            let gauge = Arc::new(AtomicU64::new(0));
            let of_room = gauge.clone();
            let room: Room = Arc::new(move |bytes| {
                // For the one that is ready, and one in use.
                (of_room.load(Relaxed) < 2 * FILE_BYTES).then(|| Charge::new(&of_room, bytes))
            });
            keep(Arc::new(Plan { life, ..Plan::new(room, FILES * FILE_BYTES, 1).unwrap() }));
            let first = body(b'f', LENGTH);
            if copied(&first).is_none() {
                return;
            }
            let begun =
                || COPIES.with_borrow(|copies| copies.as_ref().unwrap().files.front().map(|file| file.begun));
            let of_first = begun();
            until("another one is ready", is_spare_ready);
            for _ in 0..100 {
                send(&body(b'o', LENGTH), OFTEN + 1);
                std::thread::sleep(PAUSE / 10);
            }
            let is_kept = is_copy(&send(&first, 1));
            assert_eq!(is_kept, !life.is_zero());
            if is_kept {
                assert_eq!(begun(), of_first, "no other came in its place");
            }
        }
    }

    #[test]
    fn bodies_come_and_go_and_never_are_each_others() {
        keep_copies(Duration::ZERO);
        if copied(&body(b'x', LENGTH)).is_none() {
            return;
        }
        let mut bodies: Vec<Bytes> = (0..8).map(|n| body(n, LENGTH)).collect();
        let mut copies = 0;
        for n in 0..5000_u32 {
            // What is replaced frees its memory, unless there is a copy of it.
            if n % 160 == 0 {
                bodies[n as usize / 160 % 8] = body((n / 160) as u8, LENGTH);
                std::thread::sleep(Duration::from_millis(1));
            }
            copies += u32::from(is_copy(&send(&bodies[n as usize % 8], 1)));
        }
        assert!(copies > 0);
    }

    #[test]
    fn tries_that_fail_come_ever_less_often() {
        let tries = Arc::new(AtomicU64::new(0));
        let of_room = tries.clone();
        let room: Room = Arc::new(move |_| {
            of_room.fetch_add(1, Relaxed);
            None
        });
        keep(Arc::new(Plan::new(room, FILES * FILE_BYTES, 1).unwrap()));
        let begun = Instant::now();
        while begun.elapsed() < 20 * PAUSE {
            send(&body(b'x', LENGTH), OFTEN + 1);
        }
        let pauses = begun.elapsed().as_millis() / PAUSE.as_millis();
        let tries = tries.load(Relaxed);
        assert!(
            tries > 0 && tries <= u64::from(2 + (pauses + 1).ilog2()),
            "{tries} tries in {pauses} pauses"
        );
    }

    #[test]
    fn counting_is_bounded() {
        keep_copies(LIFE);
        let all: Vec<Bytes> = (0..2 * COUNTED + 5).map(|_| body(b'c', *LENGTHS.start())).collect();
        for body in &all {
            send(body, 1);
        }
        COPIES.with_borrow(|copies| {
            let copies = copies.as_ref().unwrap();
            assert!(copies.copied.is_empty() && copies.sent.len() <= COUNTED);
        });
    }
}
