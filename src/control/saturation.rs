//! How full the node is: for autoscaling, and for whoever asks why it is slow.
//!
//! A node is as saturated as the scarcest of its resources. What a full value means for each: workers are always on a
//! processor; further connections are closed; further fetches are answered with 503. Memory and disk are no part of it: a
//! cache is meant to fill them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::edge::LiveEdge;
use crate::net::Connections;
use crate::telemetry::{encode_gauge, workers_cpu_time};

/// Between two looks at the workers' processor time.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The load is the mean over so many looks: short bursts are what queues are for.
const SAMPLES: usize = 15;

/// See the module.
#[derive(Debug)]
pub struct Saturation {
    edge: Arc<LiveEdge>,
    connections: Arc<Connections>,
    workers: usize,
    /// When, and the workers' processor time until then. Only the sampler and scrapes take the lock.
    samples: Mutex<VecDeque<(Instant, Duration)>>,
}

impl Saturation {
    /// Nothing is known of the processors before [`Saturation::sample`] runs.
    pub fn new(edge: Arc<LiveEdge>, connections: Arc<Connections>, workers: usize) -> Arc<Self> {
        Arc::new(Self { edge, connections, workers, samples: Mutex::default() })
    }

    /// Looks at the workers' processor time for as long as it is polled.
    pub async fn sample(self: Arc<Self>) {
        loop {
            self.note(Instant::now(), workers_cpu_time());
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }

    fn note(&self, now: Instant, cpu: Duration) {
        let mut samples = self.samples.lock();
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now, cpu));
    }

    /// The share of each resource that is in use, from 0 to 1.
    pub fn resources(&self) -> [(&'static str, f64); 3] {
        let connections = self.connections.open() as f64 / self.connections.max().max(1) as f64;
        [
            ("workers", load(&self.samples.lock(), self.workers)),
            ("connections", connections.min(1.0)),
            ("fetches", self.edge.current().config().fills.used().min(1.0)),
        ]
    }
}

/// Processor time as a share of what the workers could have had since the oldest sample.
fn load(samples: &VecDeque<(Instant, Duration)>, workers: usize) -> f64 {
    let (Some((from, before)), Some((to, after))) = (samples.front(), samples.back()) else { return 0.0 };
    let could = to.duration_since(*from).as_secs_f64() * workers as f64;
    if could <= 0.0 {
        return 0.0;
    }
    (after.saturating_sub(*before).as_secs_f64() / could).min(1.0)
}

impl Collector for Saturation {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let resources = self.resources();
        let help = "The share of its scarcest resource that the node uses";
        let mut family = encoder.encode_descriptor("saturation_ratio", help, None, MetricType::Gauge)?;
        let highest = resources.iter().map(|(_, used)| *used).fold(0.0, f64::max);
        encode_gauge(&mut family, &[("", ""); 0], highest)?;
        let help = "The share of a resource that is in use";
        let mut family = encoder.encode_descriptor("resource_used_ratio", help, None, MetricType::Gauge)?;
        for (resource, used) in resources {
            encode_gauge(&mut family, &[("resource", resource)], used)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_the_workers_share_of_the_time_since_the_oldest_sample() {
        let start = Instant::now();
        let at = |secs, cpu_ms| (start + Duration::from_secs(secs), Duration::from_millis(cpu_ms));
        let percent = |samples: &[_]| (load(&samples.iter().copied().collect(), 2) * 100.0).round() as u32;
        assert_eq!(percent(&[]), 0);
        assert_eq!(percent(&[at(0, 500)]), 0);
        assert_eq!(percent(&[at(0, 500), at(1, 700), at(2, 1500)]), 25);
        assert_eq!(percent(&[at(0, 0), at(1, 9000)]), 100);
    }
}
