//! Which keys were changed at their origin, and when: what was asked for before that is not fresh once it comes.
//!
//! A table of fixed size, in which keys share places. A fetch that was under way when another key with its place was
//! changed counts as older than a change, too: it is revalidated before its first use, and nothing worse.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::rules::key::KeyHash;

/// Places: 128 KiB. With a thousand changes a second, one fetch of a second in seventeen shares its place with one of them.
const PLACES: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Changes {
    /// The version of the last change under each place.
    last: Box<[AtomicU64]>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { last: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that a key was changed at this version.
    pub(super) fn note(&self, key: KeyHash, version: u64) {
        self.place(key).fetch_max(version, Relaxed);
    }

    /// Whether a key was changed after this version.
    pub(super) fn has_since(&self, key: KeyHash, version: u64) -> bool {
        version < self.place(key).load(Relaxed)
    }

    fn place(&self, key: KeyHash) -> &AtomicU64 {
        &self.last[key.0 as usize % PLACES]
    }
}
