//! What is counted, in the shape of `api.md`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::selector::{Request, Source};
use super::{Purges, Stats};
use crate::telemetry::{Cells, Histogram, encode_cells, encode_gauge};

const KINDS: [&str; 6] = ["url", "prefix", "tag", "host", "site", "all"];

/// Of the log.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) entries: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) failed_syncs: AtomicU64,
    pub(super) last_sync_us: AtomicU64,
    pub(super) failed_allocations: AtomicU64,
}

impl Counters {
    pub(super) fn synced(&self, took: Duration, is_ok: bool) {
        self.syncs.fetch_add(1, Relaxed);
        self.failed_syncs.fetch_add(u64::from(!is_ok), Relaxed);
        self.last_sync_us.store(took.as_micros() as u64, Relaxed);
    }
}

/// Of purges. Only the thread that applies them counts.
#[derive(Debug)]
pub(super) struct Metrics {
    purges: Cells,
    durations: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self { purges: Cells::new(0, KINDS.len() * Source::ALL.len() * 2), durations: Histogram::new(0, 1) }
    }

    /// Each selector counts, the duration once.
    pub(super) fn applied(&self, request: &Request, us: u64) {
        let source = Source::ALL.iter().position(|source| *source == request.source).unwrap_or(0);
        for selector in &request.selectors {
            let kind = selector.kind(request.site.is_some());
            let kind = KINDS.iter().position(|known| *known == kind).unwrap_or(0);
            self.purges.add(cell(kind, source, request.soft), 1);
        }
        self.durations.observe_us(0, us);
    }
}

fn cell(kind: usize, source: usize, soft: bool) -> usize {
    (kind * Source::ALL.len() + source) * 2 + usize::from(soft)
}

/// For the registry.
#[derive(Debug)]
pub struct PurgeMetrics(pub Arc<Purges>);

impl Collector for PurgeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Stats { entries, bytes, syncs, failed_syncs, pending_bytes, selectors, .. } = self.0.stats();
        let metrics = self.0.metrics();
        let help = "Entries of purges that were applied";
        let mut family = encoder.encode_descriptor("purges", help, None, MetricType::Counter)?;
        for (kind, kind_label) in KINDS.iter().enumerate() {
            for (source, source_label) in Source::ALL.iter().enumerate() {
                for soft in [false, true] {
                    let count = metrics.purges.sum(cell(kind, source, soft));
                    let labels = [
                        ("kind", *kind_label),
                        ("soft", if soft { "true" } else { "false" }),
                        ("source", source_label.as_str()),
                    ];
                    if count > 0 {
                        encode_cells(&mut family, &labels, count)?;
                    }
                }
            }
        }
        let help = "From the request to a purge's being in effect";
        let durations =
            encoder.encode_descriptor("purge_duration_seconds", help, None, MetricType::Histogram)?;
        metrics.durations.encode(0, durations)?;
        let gauges = [
            ("purge_log_entries", "Purges in the log", entries),
            ("purge_log_bytes", "Bytes of the log", bytes),
            ("purge_log_pending_bytes", "Bytes that could not be made durable yet", pending_bytes),
            ("purge_selectors", "Distinct selectors that are compared with", selectors),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[("", ""); 0], value as f64)?;
        }
        let help = "Syncs of the log";
        let mut family = encoder.encode_descriptor("purge_log_syncs", help, None, MetricType::Counter)?;
        encode_cells(&mut family, &[("outcome", "ok")], syncs - failed_syncs)?;
        encode_cells(&mut family, &[("outcome", "failed")], failed_syncs)
    }
}
