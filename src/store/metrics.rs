//! The store's counters, in the shape of `api.md`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::shard::Outcome;
use super::{DiskStats, Mode, Store};
use crate::telemetry::{encode_cells, encode_gauge};

/// The rate of writing is that since a look at most so long ago, or since the one before it.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Written on the way of a miss only.
#[derive(Debug, Default)]
pub(super) struct Counters {
    kept: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
    evicted_by_replacement: AtomicU64,
    evicted_for_room: AtomicU64,
}

impl Counters {
    pub(super) fn stored(&self, outcome: &Outcome) {
        let counter = if outcome.kept { &self.kept } else { &self.rejected };
        counter.fetch_add(1, Relaxed);
        self.evicted_by_replacement.fetch_add(outcome.evicted, Relaxed);
    }

    pub(super) fn evicted_for_room(&self, entries: u64) {
        self.evicted_for_room.fetch_add(entries, Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
}

/// What the log's writer counts.
#[derive(Debug, Default)]
pub(super) struct DiskCounters {
    written: AtomicU64,
    failed: AtomicU64,
    writer_behind: AtomicU64,
    frame_bytes: AtomicU64,
    payload_bytes: AtomicU64,
    reinserted_keys: AtomicU64,
    reinserted_bytes: AtomicU64,
    evicted_keys: AtomicU64,
    evicted_segments: AtomicU64,
    /// Since when the rate of writing is measured, and what was written before.
    rate_since: Mutex<Option<(Instant, u64)>>,
}

/// The same, read.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskCounts {
    /// Entries written, and those that could not be.
    pub written: u64,
    /// See above.
    pub failed: u64,
    /// Fills turned away because the writer was behind.
    pub writer_behind: u64,
    /// Bytes of frames: heads, bodies and padding.
    pub frame_bytes: u64,
    /// Bytes of metas and bodies.
    pub payload_bytes: u64,
    /// Keys written again at eviction.
    pub reinserted_keys: u64,
    /// Their bytes.
    pub reinserted_bytes: u64,
    /// Keys that went with their segment.
    pub evicted_keys: u64,
    /// Segments that went.
    pub evicted_segments: u64,
}

impl DiskCounters {
    pub(super) fn wrote(&self, is_written: bool) {
        let counter = if is_written { &self.written } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn wrote_bytes(&self, frame: u64, payload: u64) {
        self.frame_bytes.fetch_add(frame, Relaxed);
        self.payload_bytes.fetch_add(payload, Relaxed);
    }

    /// Bytes written a second over the last ten seconds or so, up to twice that between two looks.
    pub(super) fn write_rate(&self) -> u64 {
        let now = Instant::now();
        let written = self.frame_bytes.load(Relaxed);
        let mut since = self.rate_since.lock();
        let (at, before) = *since.get_or_insert((now, written));
        let elapsed = now.duration_since(at);
        if elapsed > RATE_WINDOW {
            *since = Some((now, written));
        }
        (written.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1.0)) as u64
    }

    pub(super) fn writer_behind(&self) {
        self.writer_behind.fetch_add(1, Relaxed);
    }

    pub(super) fn reinserted(&self, bytes: u64) {
        self.reinserted_keys.fetch_add(1, Relaxed);
        self.reinserted_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn evicted_key(&self) {
        self.evicted_keys.fetch_add(1, Relaxed);
    }

    pub(super) fn evicted_segment(&self) {
        self.evicted_segments.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> DiskCounts {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        DiskCounts {
            written: of(&self.written),
            failed: of(&self.failed),
            writer_behind: of(&self.writer_behind),
            frame_bytes: of(&self.frame_bytes),
            payload_bytes: of(&self.payload_bytes),
            reinserted_keys: of(&self.reinserted_keys),
            reinserted_bytes: of(&self.reinserted_bytes),
            evicted_keys: of(&self.evicted_keys),
            evicted_segments: of(&self.evicted_segments),
        }
    }
}

impl Collector for Store {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.stats();
        let disk = &stats.disk;
        // What is in memory segments is the memory tier's larger bodies.
        let tier = if disk.is_persistent { "disk" } else { "memory_log" };
        let gauges = [
            ("store_bytes", "Bytes of the objects held", stats.resident_bytes, disk.live_bytes),
            ("store_objects", "Keys held", stats.objects, disk.objects),
            ("store_capacity_bytes", "The tier's budget", stats.capacity_bytes, disk.capacity_bytes),
        ];
        for (name, help, memory, log) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[("tier", "memory")], memory as f64)?;
            encode_gauge(&mut family, &[("tier", tier)], log as f64)?;
        }
        let gauges = [
            ("store_charged_bytes", "Memory held, in flight and pinned by responses", stats.charged_bytes),
            ("store_file_bytes", "Bytes of all segment files", disk.file_bytes),
            ("store_used_bytes", "Bytes written to the segments there are", disk.used_bytes),
            ("store_given_up_bytes", "Bytes of evicted segments that readers hold", disk.given_up_bytes),
            ("store_segments", "Segments", disk.segments),
            ("store_degraded", "1: the disk tier does not do everything", u64::from(disk.mode != Mode::Ok)),
            ("index_bytes", "Memory of the disk tier's index", disk.index_bytes),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[("", ""); 0], value as f64)?;
        }
        self.encode_counts(&mut encoder, tier, disk)?;
        let help = "What went wrong with the disk tier";
        let mut family = encoder.encode_descriptor("store_errors", help, None, MetricType::Counter)?;
        for (kind, count) in disk.faults {
            encode_cells(&mut family, &[("kind", kind)], count)?;
        }
        let help = "Reads of a mapped file that met its end";
        let mut family = encoder.encode_descriptor("mapping_faults", help, None, MetricType::Counter)?;
        encode_cells(&mut family, &[("", ""); 0], crate::region::faults())
    }
}

impl Store {
    fn encode_counts(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        tier: &str,
        disk: &DiskStats,
    ) -> fmt::Result {
        let counts = &disk.counters;
        let c = &self.budget.counters;
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let mut family =
            encoder.encode_descriptor("store_evictions", "Keys pushed out", None, MetricType::Counter)?;
        for (tier, reason, count) in [
            ("memory", "replacement", of(&c.evicted_by_replacement)),
            ("memory", "room", of(&c.evicted_for_room)),
            (tier, "oldest", counts.evicted_keys),
        ] {
            encode_cells(&mut family, &[("tier", tier), ("reason", reason)], count)?;
        }
        let help = "Responses offered to the store";
        let mut family = encoder.encode_descriptor("store_writes", help, None, MetricType::Counter)?;
        for (outcome, count) in [
            ("stored", of(&c.kept)),
            ("not_admitted", of(&c.rejected)),
            ("no_room", of(&c.refused)),
            ("written", counts.written),
            ("failed", counts.failed),
            ("writer_behind", counts.writer_behind),
            ("reinserted", counts.reinserted_keys),
        ] {
            encode_cells(&mut family, &[("outcome", outcome)], count)?;
        }
        let help = "Bytes written to the log";
        let mut family = encoder.encode_descriptor("store_written_bytes", help, None, MetricType::Counter)?;
        for (kind, count) in [
            ("frames", counts.frame_bytes),
            ("payload", counts.payload_bytes),
            ("reinserted", counts.reinserted_bytes),
        ] {
            encode_cells(&mut family, &[("kind", kind)], count)?;
        }
        Ok(())
    }
}
