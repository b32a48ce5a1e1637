//! What is counted of jobs.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{LiveTurn, Pool};
use crate::rules::encoding::Coding;
use crate::telemetry::{encode_cells, encode_gauge};

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The encoding is kept.
    Kept,
    /// It would save next to nothing.
    NotWorth,
    /// What it was made of is gone, or is another one by now.
    Outdated,
    /// There was no room for it.
    NoRoom,
    /// The body can't be read, decoded or encoded.
    Failed,
    /// Too many jobs waited; it is tried again when somebody asks.
    Dropped,
}

impl Outcome {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Kept, "kept"),
        (Self::NotWorth, "not_worth"),
        (Self::Outdated, "outdated"),
        (Self::NoRoom, "no_room"),
        (Self::Failed, "failed"),
        (Self::Dropped, "dropped"),
    ];
}

/// The pool's counters.
#[derive(Debug, Default)]
pub struct EncodeMetrics {
    jobs: [[AtomicU64; Outcome::ALL.len()]; Coding::ALL.len()],
    cpu_us: AtomicU64,
}

impl EncodeMetrics {
    /// Counts a job's end.
    pub fn ended(&self, coding: Coding, outcome: Outcome) {
        self.jobs[coding as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn worked(&self, time: Duration) {
        self.cpu_us.fetch_add(time.as_micros() as u64, Relaxed);
    }
}

impl Collector for Pool {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = self.metrics();
        let help = "Encodings made at rest, and those that were not";
        let mut family = encoder.encode_descriptor("compress_jobs", help, None, MetricType::Counter)?;
        for coding in Coding::ALL {
            for (outcome, name) in Outcome::ALL {
                let count = metrics.jobs[coding as usize][outcome as usize].load(Relaxed);
                encode_cells(&mut family, &[("encoding", coding.as_str()), ("outcome", name)], count)?;
            }
        }
        let help = "CPU time of the compression pool";
        let mut family = encoder.encode_descriptor("compress_seconds", help, None, MetricType::Counter)?;
        let seconds = metrics.cpu_us.load(Relaxed) as f64 / 1e6;
        family.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        let help = "Objects whose encodings wait to be made";
        let mut family = encoder.encode_descriptor("compress_queue", help, None, MetricType::Gauge)?;
        encode_gauge(&mut family, &[("", ""); 0], self.waiting() as f64)?;
        let help = "Turns to encode a large body on its way; refused: enough others did, or had done, and it was sent as it is";
        let mut family = encoder.encode_descriptor("compress_live", help, None, MetricType::Counter)?;
        for (outcome, count) in LiveTurn::counts() {
            encode_cells(&mut family, &[("outcome", outcome)], count)?;
        }
        Ok(())
    }
}
