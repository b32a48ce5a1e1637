//! How much the log may take.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::DiskConfig;
use crate::region::HUGE_PAGE_BYTES;

/// Segments that the budget is cut into at least; a smaller budget has smaller segments. One to two of
/// them are always on their way in or out and hold little.
const MIN_SEGMENTS: u64 = 64;
const MIN_SEGMENT_BYTES: u64 = 1024 * 1024;
/// With `disk = 0`, the share of the memory budget that the log may take: three quarters.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// What there is room for.
#[derive(Debug)]
pub(super) struct Limits {
    /// What the configuration says.
    pub(super) configured: u64,
    capacity: AtomicU64,
    /// A segment's length.
    pub(super) segment: u64,
    /// Bodies up to here lie in their response's frame, and on the heap when they are in memory.
    pub(super) inline: u64,
}

impl Limits {
    pub(super) fn new(config: &DiskConfig, budget: u64) -> Self {
        let (share, of) = MEMORY_SHARE;
        let bytes = if config.path.is_some() { config.bytes } else { budget / of * share };
        let most = (bytes / MIN_SEGMENTS).max(MIN_SEGMENT_BYTES);
        let segment = config.segment_bytes.min(most);
        let is_in_huge_pages = config.path.is_none() && segment >= HUGE_PAGE_BYTES;
        let unit = if is_in_huge_pages { HUGE_PAGE_BYTES } else { MIN_SEGMENT_BYTES };
        let segment = segment / unit * unit;
        // More segments than the index can tell apart are never made.
        let segment =
            segment.max(bytes.div_ceil(u64::from(u16::MAX) - 1).next_multiple_of(MIN_SEGMENT_BYTES));
        let inline = config.memory_object_bytes.min(segment / 4);
        Self { configured: bytes, capacity: AtomicU64::new(bytes), segment, inline }
    }

    /// What all segment files may take.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Relaxed)
    }

    /// Someone else has filled the disk: no more than this then, as long as the process runs.
    pub(super) fn shrink_to(&self, bytes: u64) {
        self.capacity.fetch_min(bytes.max(2 * self.segment).min(self.configured), Relaxed);
    }
}
