//! Copies of the bodies that a worker sends most, from which the kernel sends without copying.
//!
//! To copy a body of 16 KiB into a plain socket is a quarter of its hit; `sendfile` out of a memory file in huge pages costs
//! less, even with the second system call (`region::SENT_BYTES`). The store can't have small bodies there: what `sendfile` has
//! taken is on its way for as long as a client likes, and nobody tells when that is over, so such memory is written once and
//! let go of a file at a time; and then what leaves the store is no longer what is asked for least (on a trace with
//! Zipf(0.9) 43 % of the requests were hits instead of 62). So the few bodies that matter have a copy.
//!
//! A body is known by where its bytes lie. While there is a copy the original is held, so that no other can come to lie there.
//! Everything is a worker's own, and nothing is here without [`keep`]: other threads copy nothing.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::object::Charge;
use crate::region::{self, Arena, HUGE_PAGE_BYTES, Mapping, Spare};

/// Takes so many bytes of the memory budget; `None`: there is no room.
pub type Room = Arc<dyn Fn(u64) -> Option<Charge> + Send + Sync>;

/// Pieces of bodies that are worth it. Larger ones are not on the heap.
const LENGTHS: RangeInclusive<usize> = region::SENT_BYTES..=256 * 1024;
/// A body is copied when it was sent so often while others came and went: a copy costs some sends without one.
const OFTEN: u32 = 16;
/// How many bodies are counted at a time.
const COUNTED: usize = 1024;
/// The length of a file.
const FILE_BYTES: u64 = HUGE_PAGE_BYTES;
/// With fewer files in use each new one would push out all that is hot.
const MIN_FILES: u64 = 2;
/// Copies begin at multiples of this: a cache line.
const ALIGNMENT: u64 = 64;

thread_local! {
    static COPIES: RefCell<Option<Copies>> = const { RefCell::new(None) };
}

/// Has this thread keep copies, of `bytes` at most; of none, if that is too little to be of use.
pub(super) fn keep(room: Room, bytes: u64) {
    // One more is ready before it is needed.
    let files = (bytes / FILE_BYTES).saturating_sub(1);
    if files >= MIN_FILES
        && let Ok(copies) = Copies::new(room, files as usize)
    {
        COPIES.set(Some(copies));
    }
}

/// Puts the copy in the place of a piece of a body, if there is one.
#[inline]
pub(super) fn swap(piece: &mut Bytes) {
    if !LENGTHS.contains(&piece.len()) || region::locate(piece).is_some() {
        return;
    }
    COPIES.with_borrow_mut(|copies| {
        if let Some(copy) = copies.as_mut().and_then(|copies| copies.of(piece)) {
            *piece = copy;
        }
    });
}

struct Copies {
    room: Room,
    arena: Arc<Arena>,
    spare: Spare<Charge>,
    is_spare_kept: bool,
    most_files: usize,
    /// The newest is the last.
    files: VecDeque<CopyFile>,
    /// By address and length.
    known: HashMap<(usize, usize), Known>,
    counted: usize,
}

enum Known {
    Sent(u32),
    Copied { copy: Bytes, slot: usize, _original: Bytes },
}

/// A file that is written from begin to end, and let go of as a whole.
struct CopyFile {
    file: File,
    mapped: Arc<Mapped>,
    written: u64,
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
    fn new(room: Room, most_files: usize) -> io::Result<Self> {
        Ok(Self {
            room,
            // As many again may still be sent from.
            arena: Arena::reserve(2 * most_files, FILE_BYTES)?,
            spare: Spare::new("larder-copies"),
            is_spare_kept: false,
            most_files,
            files: VecDeque::new(),
            known: HashMap::new(),
            counted: 0,
        })
    }

    /// The copy of a piece, made when it was sent often.
    fn of(&mut self, piece: &Bytes) -> Option<Bytes> {
        let place = (piece.as_ptr().addr(), piece.len());
        match self.known.get_mut(&place) {
            Some(Known::Copied { copy, .. }) => return Some(copy.clone()),
            Some(Known::Sent(times)) if *times < OFTEN => {
                *times += 1;
                return None;
            }
            Some(Known::Sent(_)) => {}
            None => {
                self.count(place);
                return None;
            }
        }
        self.known.remove(&place);
        self.counted -= 1;
        let (copy, slot) = self.copy(piece)?;
        self.known.insert(place, Known::Copied { copy: copy.clone(), slot, _original: piece.clone() });
        Some(copy)
    }

    fn count(&mut self, place: (usize, usize)) {
        if self.counted == COUNTED {
            self.known.retain(|_, known| matches!(known, Known::Copied { .. }));
            self.counted = 0;
        }
        self.known.insert(place, Known::Sent(1));
        self.counted += 1;
    }

    fn copy(&mut self, piece: &Bytes) -> Option<(Bytes, usize)> {
        let length = piece.len() as u64;
        if self.files.back().is_none_or(|last| last.written + length > FILE_BYTES) {
            self.begin_file()?;
        }
        let CopyFile { file, mapped, written } = self.files.back_mut()?;
        let begin = *written;
        // Also what failed is not written again.
        *written = (begin + length).next_multiple_of(ALIGNMENT);
        file.write_all_at(piece, begin).ok()?;
        let range = begin as usize..(begin + length) as usize;
        Some((Bytes::from_owner(Copy { mapped: mapped.clone(), range }), mapped.mapping.slot()))
    }

    /// Takes the file that is ready, if one is, in the place of the oldest.
    fn begin_file(&mut self) -> Option<()> {
        if !self.is_spare_kept {
            self.spare.keep(FILE_BYTES, (self.room)(FILE_BYTES)?);
            self.is_spare_kept = true;
        }
        let file = self.spare.take(FILE_BYTES)?;
        while self.files.len() >= self.most_files
            && let Some(oldest) = self.files.pop_front()
        {
            let gone = oldest.mapped.mapping.slot();
            self.known.retain(|_, known| !matches!(known, Known::Copied { slot, .. } if *slot == gone));
        }
        let charge = (self.room)(FILE_BYTES)?;
        let mapping = self.arena.map(file.try_clone().ok()?, FILE_BYTES).ok()?;
        let mapped = Arc::new(Mapped { mapping, _charge: charge });
        self.files.push_back(CopyFile { file, mapped, written: 0 });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use super::*;

    const LENGTH: usize = 100 * 1024;
    const FILES: u64 = 3;

    /// Has this test's thread keep copies in `FILES` files, one of them spare; the gauge of what they take.
    fn keep_copies() -> Arc<AtomicU64> {
        let gauge = Arc::new(AtomicU64::new(0));
        let of_room = gauge.clone();
        keep(Arc::new(move |bytes| Some(Charge::new(&of_room, bytes))), FILES * FILE_BYTES);
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
        keep_copies();
        let (often, seldom) = (body(b'o', LENGTH), body(b's', LENGTH));
        let Some(copy) = copied(&often) else { return };
        assert!(!is_copy(&send(&seldom, 1)) && is_copy(&send(&often, 1)));
        assert_eq!(send(&often, 1).as_ptr(), copy.as_ptr(), "one copy for all");
        assert!(!is_copy(&send(&often.slice(..LENGTH - 1), 1)), "a part is another piece");
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
        keep(none.clone(), MIN_FILES * FILE_BYTES);
        assert!(COPIES.with_borrow(Option::is_none), "too few files to be of use");
        keep(none, FILES * FILE_BYTES);
        assert_eq!(send(&body, 3 * OFTEN).as_ptr(), body.as_ptr(), "without room");
    }

    #[test]
    fn copies_take_no_more_than_they_may_and_what_is_still_sent_stays() {
        let gauge = keep_copies();
        let first = body(b'f', LENGTH);
        let Some(in_flight) = copied(&first) else { return };
        let files = FILES + 1;
        for n in 0..4 * FILES * FILE_BYTES / LENGTH as u64 {
            let Some(_) = copied(&body(n as u8, LENGTH)) else { return };
            assert!(gauge.load(Relaxed) <= files * FILE_BYTES, "the file in flight is beside the others");
        }
        assert!(in_flight.iter().all(|byte| *byte == b'f'), "its file is gone, and its bytes are not");
        drop(in_flight);
        assert!(gauge.load(Relaxed) <= FILES * FILE_BYTES);
        assert!(!is_copy(&send(&first, 1)), "its file was let go of");
        COPIES.set(None);
        let until = Instant::now() + Duration::from_secs(30);
        while gauge.load(Relaxed) > 0 {
            assert!(Instant::now() < until, "something is kept");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn bodies_come_and_go_and_never_are_each_others() {
        keep_copies();
        let mut bodies: Vec<Bytes> = (0..8).map(|n| body(n, LENGTH)).collect();
        for n in 0..5000_u32 {
            // What is replaced frees its memory, unless there is a copy of it.
            if n % 40 == 0 {
                bodies[n as usize / 40 % 8] = body((n / 40) as u8, LENGTH);
            }
            send(&bodies[n as usize % 8], 1);
        }
    }

    #[test]
    fn counting_is_bounded() {
        keep_copies();
        let all: Vec<Bytes> = (0..2 * COUNTED + 5).map(|_| body(b'c', *LENGTHS.start())).collect();
        for body in &all {
            send(body, 1);
        }
        COPIES.with_borrow(|copies| {
            let copies = copies.as_ref().unwrap();
            assert!(copies.known.len() <= COUNTED && copies.counted == copies.known.len());
        });
    }
}
