//! Bodies at rest: on the heap, or in mapped segments of the store's log ([`Part`]).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::part::{Lost, Pages, Part, PartReader, Place};
use super::{CHUNK_OVERHEAD_BYTES, Charge};
use crate::rules::key::KeyHash;

/// What a mapped part costs in memory.
const PART_OVERHEAD_BYTES: u64 = 192;

/// A complete body, shared by all who serve it.
#[derive(Debug)]
pub enum Body {
    /// Chunks in order, and the offset of the end of each.
    Heap {
        /// The bytes.
        chunks: Box<[Bytes]>,
        /// Where each ends.
        ends: Box<[u64]>,
    },
    /// In the log; never empty.
    Mapped(Box<[Arc<Part>]>),
}

impl Default for Body {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Body {
    /// A body of these chunks.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let mut end = 0;
        let ends = chunks.iter().map(|chunk| {
            end += chunk.len() as u64;
            end
        });
        Self::Heap { ends: ends.collect(), chunks: chunks.into_boxed_slice() }
    }

    /// A body in the log.
    pub fn mapped(parts: Vec<Arc<Part>>) -> Self {
        if parts.is_empty() { Self::default() } else { Self::Mapped(parts.into_boxed_slice()) }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        match self {
            Self::Heap { ends, .. } => ends.last().copied().unwrap_or(0),
            Self::Mapped(parts) => parts.last().map_or(0, |part| part.end),
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its parts in the log; none for a body on the heap.
    pub fn parts(&self) -> &[Arc<Part>] {
        match self {
            Self::Heap { .. } => &[],
            Self::Mapped(parts) => parts,
        }
    }

    /// Its chunks on the heap; none for a body in the log.
    pub fn chunks(&self) -> &[Bytes] {
        match self {
            Self::Heap { chunks, .. } => chunks,
            Self::Mapped(_) => &[],
        }
    }

    /// Whether its first bytes can be read without a wait.
    pub fn is_ready(&self) -> bool {
        self.parts().first().is_none_or(|part| !part.pages.is_revoked() && part.is_ready())
    }

    /// Waits until its first bytes can be read; false: they can't be.
    pub async fn is_readable(self: &Arc<Self>) -> bool {
        let mut reader = Reader::new(self.clone(), 0..self.len().min(1));
        let read = std::future::poll_fn(|cx| reader.poll_next(cx)).await;
        read.is_none_or(|slice| slice.is_ok())
    }

    /// What it takes of the memory budget, in bytes.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Heap { chunks, .. } => self.len() + chunks.len() as u64 * CHUNK_OVERHEAD_BYTES,
            Self::Mapped(parts) => parts.len() as u64 * PART_OVERHEAD_BYTES,
        }
    }

    /// What it takes beside what its chunks are charged for themselves.
    pub(super) fn uncharged_weight(&self) -> u64 {
        match self {
            Self::Heap { .. } => 0,
            Self::Mapped(_) => self.weight(),
        }
    }
}

/// One who reads a range of a body.
#[derive(Debug)]
pub struct Reader {
    body: Arc<Body>,
    left: Range<u64>,
    parts: PartReader,
}

impl Reader {
    /// Reads `range`, which lies in the body.
    pub fn new(body: Arc<Body>, range: Range<u64>) -> Self {
        Self { body, left: range, parts: PartReader::default() }
    }

    /// Bytes not yet read.
    #[inline]
    pub fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    /// Whether the next slice is all of the body, in one chunk on the heap.
    #[inline]
    pub fn is_at_one_chunk(&self) -> bool {
        matches!(&*self.body, Body::Heap { chunks, .. } if chunks.len() == 1 && self.left == (0..chunks[0].len() as u64))
    }

    /// The next slice; `None` after the last.
    #[inline]
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let slice = match &*self.body {
            Body::Heap { chunks, ends } => heap_slice(chunks, ends, &self.left).ok_or(Lost),
            Body::Mapped(parts) => {
                let index = parts.partition_point(|part| part.end <= self.left.start);
                match parts.get(index) {
                    Some(part) => ready!(self.parts.poll_slice(cx, part, &self.left)),
                    None => Err(Lost),
                }
            }
        };
        if let Ok(slice) = &slice {
            self.left.start += slice.len() as u64;
        }
        Poll::Ready(Some(slice))
    }
}

/// The longest slice at the start of `wanted` that lies in one chunk.
#[inline]
fn heap_slice(chunks: &[Bytes], ends: &[u64], wanted: &Range<u64>) -> Option<Bytes> {
    let index = ends.partition_point(|end| *end <= wanted.start);
    let chunk = chunks.get(index)?;
    let chunk_start = ends[index] - chunk.len() as u64;
    let from = (wanted.start - chunk_start) as usize;
    let to = ((wanted.end - chunk_start) as usize).min(chunk.len());
    Some(chunk.slice(from..to))
}

/// A body that is being written to the log. The writer adds parts; the fill waits for them;
/// followers read what is there.
#[derive(Debug)]
pub struct Growing {
    parts: Mutex<Vec<Arc<Part>>>,
    written: AtomicU64,
    failed: std::sync::atomic::AtomicBool,
    progress: Notify,
    charge: Mutex<Charge>,
    key: KeyHash,
}

impl Growing {
    /// Nothing yet; its parts are charged to `charge`.
    pub fn new(key: KeyHash, charge: Charge) -> Self {
        Self {
            key,
            parts: Mutex::default(),
            written: AtomicU64::new(0),
            failed: std::sync::atomic::AtomicBool::new(false),
            progress: Notify::new(),
            charge: Mutex::new(charge),
        }
    }

    /// The offset behind the last byte that is written.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Whether a write failed; what is written can still be read.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// The key of the response.
    pub fn key(&self) -> KeyHash {
        self.key
    }

    /// Adds what was just written behind the last part.
    pub fn add(&self, pages: Arc<dyn Pages>, bytes: Bytes, place: Place) {
        let mut parts = self.parts.lock();
        let end = self.written() + bytes.len() as u64;
        parts.push(Arc::new(Part::new(pages, bytes, place, (self.key, end), true)));
        self.charge.lock().resize(parts.len() as u64 * PART_OVERHEAD_BYTES);
        self.written.store(end, Relaxed);
        drop(parts);
        self.progress.notify_waiters();
    }

    /// Notes that a write failed.
    pub fn fail(&self) {
        self.failed.store(true, Relaxed);
        self.progress.notify_waiters();
    }

    /// Waits until `length` bytes are written; false when a write failed before.
    pub async fn wait_for(&self, length: u64) -> bool {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            // Registered before the look, so that nothing said in between is missed.
            progress.as_mut().enable();
            if self.has_failed() {
                return false;
            }
            if self.written() >= length {
                return true;
            }
            progress.await;
        }
    }

    /// The part in which an offset lies.
    pub fn part_at(&self, offset: u64) -> Option<Arc<Part>> {
        let parts = self.parts.lock();
        let index = parts.partition_point(|part| part.end <= offset);
        parts.get(index).cloned()
    }

    /// The complete body; `None` when one of its segments has left the store meanwhile.
    pub fn body(&self) -> Option<Body> {
        let parts = self.parts.lock();
        parts.iter().all(|part| part.pages.is_live()).then(|| Body::mapped(parts.clone()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::part::{Answer, Sum};
    use super::*;

    fn read(body: &Arc<Body>, range: Range<u64>) -> Vec<Bytes> {
        let mut reader = Reader::new(body.clone(), range);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut slices = Vec::new();
        while let Poll::Ready(Some(slice)) = reader.poll_next(&mut cx) {
            slices.push(slice.unwrap());
        }
        assert_eq!(reader.left(), 0);
        slices
    }

    #[test]
    fn slices_never_cross_a_chunk_nor_the_range() {
        let chunks = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defgh")];
        let body = Arc::new(Body::new(chunks));
        assert_eq!(body.len(), 8);
        assert_eq!(read(&body, 1..8), ["bc", "defgh"]);
        assert_eq!(read(&body, 3..5), ["de"]);
        assert_eq!(read(&body, 7..8), ["h"]);
        assert!(read(&body, 8..8).is_empty());
        assert!(Body::default().is_empty());
    }

    #[derive(Debug, Default)]
    struct Fake {
        asked: Mutex<Vec<oneshot::Sender<Result<(), Lost>>>>,
        revoked: std::sync::atomic::AtomicBool,
        is_here: std::sync::atomic::AtomicBool,
    }

    impl Pages for Fake {
        fn segment(&self) -> u32 {
            1
        }
        fn fetch(self: Arc<Self>, _: Place, _: KeyHash) -> Answer {
            let (sender, receiver) = oneshot::channel();
            self.asked.lock().push(sender);
            receiver
        }
        fn is_here(&self, _: Place) -> bool {
            self.is_here.load(Relaxed)
        }
        fn is_resident(&self) -> bool {
            false
        }
        fn is_revoked(&self) -> bool {
            self.revoked.load(Relaxed)
        }
        fn is_damaged(&self) -> bool {
            false
        }
        fn is_live(&self) -> bool {
            true
        }
    }

    fn part(pages: &Arc<Fake>, bytes: &'static [u8], end: u64) -> Arc<Part> {
        let place = Place { offset: 0, length: bytes.len() as u32, sum: Sum::of(bytes) };
        Arc::new(Part::new(pages.clone(), Bytes::from_static(bytes), place, (KeyHash(1), end), false))
    }

    #[test]
    fn a_cold_part_is_asked_for_once_and_then_leased() {
        let pages = Arc::new(Fake::default());
        let body = Arc::new(Body::mapped(vec![part(&pages, b"abc", 3), part(&pages, b"de", 5)]));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut reader = Reader::new(body.clone(), 1..5);
        assert!(reader.poll_next(&mut cx).is_pending());
        assert!(reader.poll_next(&mut cx).is_pending(), "asked for once");
        assert_eq!(pages.asked.lock().len(), 1);
        pages.asked.lock().pop().unwrap().send(Ok(())).unwrap();
        assert!(matches!(reader.poll_next(&mut cx), Poll::Ready(Some(Ok(slice))) if slice == "bc"));
        assert!(reader.poll_next(&mut cx).is_pending(), "the next part is cold");
        let mut other = Reader::new(body.clone(), 0..2);
        assert!(matches!(other.poll_next(&mut cx), Poll::Ready(Some(Ok(slice))) if slice == "ab"));
        pages.asked.lock().pop().unwrap().send(Err(Lost)).unwrap();
        assert!(matches!(reader.poll_next(&mut cx), Poll::Ready(Some(Err(Lost)))));
        pages.revoked.store(true, Relaxed);
        assert!(matches!(Reader::new(body, 0..2).poll_next(&mut cx), Poll::Ready(Some(Err(Lost)))));
    }

    #[test]
    fn what_is_in_memory_is_read_at_once() {
        let pages = Arc::new(Fake::default());
        let body = Arc::new(Body::mapped(vec![part(&pages, b"abc", 3)]));
        assert!(!body.is_ready());
        pages.is_here.store(true, Relaxed);
        assert!(body.is_ready());
        pages.is_here.store(false, Relaxed);
        assert_eq!(read(&body, 0..3), ["abc"], "by the lease");
        assert!(pages.asked.lock().is_empty());
        pages.revoked.store(true, Relaxed);
        assert!(!body.is_ready());
    }

    #[tokio::test]
    async fn a_growing_body_tells_its_progress_and_its_failure() {
        let pages: Arc<dyn Pages> = Arc::new(Fake::default());
        let gauge = Arc::new(AtomicU64::new(0));
        let growing = Arc::new(Growing::new(KeyHash(1), Charge::new(&gauge, 0)));
        let waiting = tokio::spawn({
            let growing = growing.clone();
            async move { (growing.wait_for(3).await, growing.wait_for(4).await) }
        });
        tokio::task::yield_now().await;
        let place = Place { offset: 0, length: 3, sum: Sum::of(b"abc") };
        growing.add(pages, Bytes::from_static(b"abc"), place);
        tokio::task::yield_now().await;
        growing.fail();
        assert_eq!(waiting.await.unwrap(), (true, false));
        assert_eq!(growing.part_at(2).unwrap().place(), (1, place));
        assert!(growing.part_at(3).is_none());
        assert!(gauge.load(Relaxed) > 0);
        drop(growing);
        assert_eq!(gauge.load(Relaxed), 0);
    }
}
