//! Whether what a connection sends is what was stored: a mapped file may be cut short below us.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;

use crate::region::{self, Taken};

/// What a connection knows of the mapped files that its responses come from.
#[derive(Debug, Default)]
pub(super) struct Integrity {
    /// A read for this connection hit a page that is not there.
    is_hit: AtomicBool,
    /// What its responses were made of: it may wait in buffers for long.
    taken: Taken,
}

impl Integrity {
    /// Takes the thread's poison: what was just done was done for this connection.
    #[inline]
    pub(super) fn take_poison(&self) {
        if region::take_poison() {
            self.is_hit.store(true, Relaxed);
        }
    }

    /// A chunk of a response; `losses` is [`region::losses`] before it was made.
    #[inline]
    pub(super) fn on_chunk(&self, chunk: &Bytes, losses: u64) {
        // The streams of an HTTP/2 connection are tasks of one thread: one at a time.
        self.taken.add(chunk, losses);
    }

    /// Whether bytes may be wrong that this connection sends or is about to send: nothing may be sent.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        region::is_poisoned() || self.is_hit.load(Relaxed) || self.taken.is_lost()
    }
}
