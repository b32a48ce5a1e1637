//! What the node counts of its own life: reloads and upgrades.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::telemetry::{encode_cells, encode_gauge};

/// See the module.
#[derive(Debug)]
pub(super) struct LifeMetrics {
    reloads: [AtomicU64; 2],
    /// The start counts as a reload that went well.
    was_last_good: AtomicBool,
    last_good_secs: AtomicU64,
    failed_upgrades: AtomicU64,
    /// Whether this process took over from another.
    is_successor: AtomicBool,
}

impl LifeMetrics {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            reloads: Default::default(),
            was_last_good: AtomicBool::new(true),
            last_good_secs: AtomicU64::new(now_secs()),
            failed_upgrades: AtomicU64::new(0),
            is_successor: AtomicBool::new(false),
        })
    }

    pub(super) fn reloaded(&self, is_good: bool) {
        self.reloads[usize::from(!is_good)].fetch_add(1, Relaxed);
        self.was_last_good.store(is_good, Relaxed);
        if is_good {
            self.last_good_secs.store(now_secs(), Relaxed);
        }
    }

    pub(super) fn upgrade_failed(&self) {
        self.failed_upgrades.fetch_add(1, Relaxed);
    }

    pub(super) fn is_a_successor(&self) {
        self.is_successor.store(true, Relaxed);
    }
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Collector for LifeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Reloads of the configuration";
        let mut family = encoder.encode_descriptor("config_reloads", help, None, MetricType::Counter)?;
        for (outcome, count) in ["ok", "failed"].iter().zip(&self.reloads) {
            encode_cells(&mut family, &[("outcome", outcome)], count.load(Relaxed))?;
        }
        let gauges = [
            (
                "config_last_reload_success",
                "0: the last reload failed, and the configuration before it is in use",
                u64::from(self.was_last_good.load(Relaxed)),
            ),
            (
                "config_last_reload_timestamp_seconds",
                "When the configuration in use was read",
                self.last_good_secs.load(Relaxed),
            ),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[("", ""); 0], value as f64)?;
        }
        let help =
            "Handovers to a new process: ok counts the one that made this process, failed those it tried";
        let mut family = encoder.encode_descriptor("upgrades", help, None, MetricType::Counter)?;
        encode_cells(&mut family, &[("outcome", "ok")], u64::from(self.is_successor.load(Relaxed)))?;
        encode_cells(&mut family, &[("outcome", "failed")], self.failed_upgrades.load(Relaxed))
    }
}
