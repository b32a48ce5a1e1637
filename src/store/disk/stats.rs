//! Figures of the disk tier.

use std::sync::atomic::Ordering::Relaxed;

use super::Tier;
use super::health::{Fault, Mode};
use crate::store::metrics::DiskCounts;

/// How the disk tier is.
#[derive(Clone, Debug)]
pub struct DiskStats {
    /// Whether it is on disk, not in memory.
    pub is_persistent: bool,
    /// What it does.
    pub mode: Mode,
    /// Why it does not do everything.
    pub trouble: Option<String>,
    /// Keys.
    pub objects: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// `store.disk`.
    pub capacity_bytes: u64,
    /// Of all segment files.
    pub file_bytes: u64,
    /// Of those that only readers hold.
    pub given_up_bytes: u64,
    /// Written.
    pub used_bytes: u64,
    /// Referred to.
    pub live_bytes: u64,
    /// Files.
    pub segments: u64,
    /// Changes that the writer was told of, in their order.
    pub noted_changes: u64,
    /// Up to which of them all are written.
    pub written_changes: u64,
    /// Bytes written a second, lately.
    pub write_bytes_per_second: u64,
    /// Age of the oldest segment.
    pub oldest_segment_seconds: Option<u64>,
    /// Counts since the start.
    pub counters: DiskCounts,
    /// Errors by kind.
    pub faults: [(&'static str, u64); Fault::ALL.len()],
}

impl Tier {
    /// Figures.
    pub(crate) fn stats(&self) -> DiskStats {
        let segments = self.table.all();
        let now = self.clock.now();
        let oldest = segments.first().and_then(|segment| segment.made_at());
        // In this order: what is noted in between is not yet written.
        let (written_changes, noted_changes) = (self.written_changes(), self.next_number.load(Relaxed));
        DiskStats {
            is_persistent: self.shared.disk.is_persistent(),
            mode: self.health.mode(),
            trouble: self.health.trouble(),
            objects: self.index.len(),
            index_bytes: self.index.bytes(),
            capacity_bytes: self.limits.configured,
            file_bytes: self.shared.file_bytes(),
            given_up_bytes: self.shared.given_up_bytes(),
            used_bytes: segments.iter().map(|s| s.used_bytes()).sum(),
            live_bytes: segments.iter().map(|s| s.live_bytes()).sum(),
            segments: segments.len() as u64,
            noted_changes,
            written_changes,
            write_bytes_per_second: self.counters.write_rate(),
            oldest_segment_seconds: oldest.map(|made| (now.saturating_sub(made) / 1000).max(0) as u64),
            counters: self.counters.read(),
            faults: Fault::ALL.map(|fault| (fault.as_str(), self.health.count(fault))),
        }
    }
}
