//! Parts of bodies that lie in mapped segments of the store's log.
//!
//! A part is handed out only under a *lease*: its pages are in memory and, once a start, its bytes were compared with
//! what was written. While the lease lasts, every reader takes slices without asking again; when it has run out, the next
//! one looks whether that is still so. If it can't be told at once, an I/O thread sees to it, and the reader waits without
//! blocking its thread.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::rules::key::KeyHash;

/// How long pages that were in memory are taken to be there still.
const LEASE_MS: u64 = 2000;
/// A slice is no longer than this, so that a slow client's next one is looked at again; a part is one.
const SLICE_BYTES: u64 = 512 * 1024;
/// Whether the pages of a part up to here are in memory is asked on the way of a hit, which costs less than to have
/// another thread ask.
const AT_ONCE_BYTES: u32 = 256 * 1024;

/// A checksum: the first 128 bits of a BLAKE3 hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub [u8; 16]);

impl Sum {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = [0; 16];
        sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        Self(sum)
    }
}

/// Bytes that can't be had any more: the segment is gone, damaged, or was taken back from its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored bytes can't be read")]
pub struct Lost;

/// A reply to come.
pub type Answer = oneshot::Receiver<Result<(), Lost>>;

/// Bytes in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the segment's start.
    pub offset: u32,
    /// In bytes.
    pub length: u32,
    /// Of these bytes.
    pub sum: Sum,
}

/// A segment, as those who read from it see it.
pub trait Pages: fmt::Debug + Send + Sync {
    /// The segment's number; never used twice.
    fn segment(&self) -> u32;
    /// Brings a place into memory, its sum compared once a start; else the response under `key` is given up.
    fn fetch(self: Arc<Self>, place: Place, key: KeyHash) -> Answer;
    /// Whether a place is in memory and as it was written, as far as that can be told at once.
    fn is_here(&self, place: Place) -> bool;
    /// Whether its bytes are always in memory.
    fn is_resident(&self) -> bool;
    /// Whether its readers are to give it up.
    fn is_revoked(&self) -> bool;
    /// Whether its file was cut short: any byte may be zero by now, leased or not.
    fn is_damaged(&self) -> bool;
    /// Whether it still belongs to the store.
    fn is_live(&self) -> bool;
}

/// A part of a body in a segment.
#[derive(Debug)]
pub struct Part {
    pub(super) pages: Arc<dyn Pages>,
    bytes: Bytes,
    place: Place,
    key: KeyHash,
    /// Offset of its end in the body.
    pub(super) end: u64,
    /// Until when it need not be looked at again, in milliseconds of [`now_ms`].
    leased_until: AtomicU64,
}

impl Part {
    /// A part of the response under `key` that ends at `end` of its body; `bytes` are those of the
    /// mapping at `place`. Who has just written them has them in memory: `is_warm`.
    pub fn new(
        pages: Arc<dyn Pages>,
        bytes: Bytes,
        place: Place,
        (key, end): (KeyHash, u64),
        is_warm: bool,
    ) -> Self {
        let lease = if pages.is_resident() {
            u64::MAX
        } else if is_warm {
            now_ms() + LEASE_MS
        } else {
            0
        };
        Self { pages, bytes, place, key, end, leased_until: AtomicU64::new(lease) }
    }

    /// Where it is.
    pub fn place(&self) -> (u32, Place) {
        (self.pages.segment(), self.place)
    }

    /// The segment.
    pub fn pages(&self) -> &Arc<dyn Pages> {
        &self.pages
    }

    fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Whether it can be read without a wait.
    pub(super) fn is_ready(&self) -> bool {
        if self.pages.is_damaged() {
            return false;
        }
        let is_leased = now_ms() < self.leased_until.load(Relaxed);
        is_leased || (self.place.length <= AT_ONCE_BYTES && self.pages.is_here(self.place) && self.renew())
    }

    fn renew(&self) -> bool {
        self.leased_until.fetch_max(now_ms() + LEASE_MS, Relaxed);
        true
    }
}

/// Milliseconds since the process first asked.
fn now_ms() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Reads parts, waiting for their pages.
#[derive(Debug, Default)]
pub struct PartReader {
    answer: Option<Answer>,
}

impl PartReader {
    /// The longest slice at the start of `wanted` (offsets in the body) that lies in `part`.
    pub fn poll_slice(
        &mut self,
        cx: &mut Context<'_>,
        part: &Part,
        wanted: &Range<u64>,
    ) -> Poll<Result<Bytes, Lost>> {
        if part.pages.is_revoked() {
            return Poll::Ready(Err(Lost));
        }
        if self.answer.is_some() || !part.is_ready() {
            let answer = self.answer.get_or_insert_with(|| part.pages.clone().fetch(part.place, part.key));
            let result = ready!(std::pin::Pin::new(answer).poll(cx));
            self.answer = None;
            result.unwrap_or(Err(Lost))?;
            part.renew();
        }
        let from = (wanted.start - part.start()) as usize;
        let to = (wanted.end.min(wanted.start + SLICE_BYTES) - part.start()) as usize;
        Poll::Ready(Ok(part.bytes.slice(from..to.min(part.bytes.len()))))
    }
}
