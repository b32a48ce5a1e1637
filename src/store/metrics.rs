//! The store's counters, in the shape of `api.md`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Store;
use super::memory::Outcome;
use crate::telemetry::{encode_cells, encode_gauge};

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

impl Collector for Store {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.stats();
        let memory = [("tier", "memory")];
        let gauges = [
            ("store_bytes", "Bytes of the objects held", stats.resident_bytes),
            ("store_charged_bytes", "Bytes held, in flight and pinned by responses", stats.charged_bytes),
            ("store_objects", "Keys held", stats.objects),
            ("store_capacity_bytes", "The tier's budget", stats.capacity_bytes),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &memory, value as f64)?;
        }
        let mut family =
            encoder.encode_descriptor("store_evictions", "Keys pushed out", None, MetricType::Counter)?;
        let c = &self.counters;
        for (reason, counter) in [("replacement", &c.evicted_by_replacement), ("room", &c.evicted_for_room)] {
            let labels = [("tier", "memory"), ("reason", reason)];
            encode_cells(&mut family, &labels, counter.load(Relaxed))?;
        }
        let mut family = encoder.encode_descriptor(
            "store_writes",
            "Responses offered to the store",
            None,
            MetricType::Counter,
        )?;
        for (outcome, counter) in
            [("stored", &c.kept), ("not_admitted", &c.rejected), ("no_room", &c.refused)]
        {
            encode_cells(&mut family, &[("outcome", outcome)], counter.load(Relaxed))?;
        }
        Ok(())
    }
}
