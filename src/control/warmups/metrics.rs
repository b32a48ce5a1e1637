//! What is counted of warming.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Warmups;
use super::record::Outcome;
use crate::telemetry::{encode_cells, encode_gauge};

/// URLs by outcome.
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; 4]);

impl Counters {
    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }
}

/// For the registry.
#[derive(Debug)]
pub struct WarmMetrics(pub Arc<Warmups>);

impl Collector for WarmMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "URLs that were warmed";
        let mut family = encoder.encode_descriptor("warm_urls", help, None, MetricType::Counter)?;
        for outcome in Outcome::ALL {
            let count = self.0.counters.0[outcome as usize].load(Relaxed);
            encode_cells(&mut family, &[("outcome", outcome.as_str())], count)?;
        }
        let (queued, running) = self.0.unfinished();
        let mut family = encoder.encode_descriptor("warm_jobs", "Warm jobs", None, MetricType::Gauge)?;
        encode_gauge(&mut family, &[("state", "queued")], queued as f64)?;
        encode_gauge(&mut family, &[("state", "running")], running as f64)
    }
}
