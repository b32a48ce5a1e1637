//! What each server of an origin counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::pool::{Count, Server};
use super::{Kind, Origin};
use crate::telemetry::{Histogram, encode_cells, encode_gauge};

const OUTCOMES: [&str; 10] =
    ["2xx", "3xx", "4xx", "5xx", "timeout", "shed", "connect_error", "down", "client_error", "broken"];

/// Counters of one server.
#[derive(Debug)]
pub(super) struct ServerCounters {
    outcomes: [Count; OUTCOMES.len()],
    pub(super) bytes: Count,
    pub(super) ejected: Count,
    duration: Histogram,
}

impl Default for ServerCounters {
    fn default() -> Self {
        let duration = Histogram::new(0, 1);
        Self { outcomes: Default::default(), bytes: Count::default(), ejected: Count::default(), duration }
    }
}

impl ServerCounters {
    pub(super) fn count(&self, outcome: Result<StatusCode, &'static str>, took: Duration) {
        let index = match outcome {
            Ok(status) => (status.as_u16() / 100).clamp(2, 5) as usize - 2,
            Err(word) => OUTCOMES.iter().position(|o| *o == word).unwrap_or(OUTCOMES.len() - 1),
        };
        self.outcomes[index].fetch_add(1, Relaxed);
        self.duration.observe_us(0, took.as_micros() as u64);
    }
}

/// The collector of all origins of a node.
#[derive(Debug)]
pub struct OriginMetrics(pub Vec<Arc<Origin>>);

impl OriginMetrics {
    fn servers(&self) -> impl Iterator<Item = (&str, &Arc<Server>)> {
        self.0.iter().flat_map(|origin| {
            let servers = match &origin.kind {
                Kind::Http(http) => http.servers(),
                Kind::Dir(_) => &[],
            };
            servers.iter().map(|server| (origin.name(), server))
        })
    }
}

impl Collector for OriginMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family =
            encoder.encode_descriptor("origin_requests", "Requests to origins", None, MetricType::Counter)?;
        for (origin, server) in self.servers() {
            let url = server.url();
            for (outcome, count) in OUTCOMES.iter().zip(&server.counters.outcomes) {
                let labels = [("origin", origin), ("server", &*url), ("outcome", *outcome)];
                encode_cells(&mut family, &labels, count.load(Relaxed))?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "origin_bytes",
            "Bytes of bodies from origins",
            None,
            MetricType::Counter,
        )?;
        for (origin, server) in self.servers() {
            let labels = [("origin", origin), ("server", &*server.url())];
            encode_cells(&mut family, &labels, server.counters.bytes.load(Relaxed))?;
        }
        let help = "How often a server was put out for failures in a row";
        let mut family = encoder.encode_descriptor("origin_ejections", help, None, MetricType::Counter)?;
        for (origin, server) in self.servers() {
            let labels = [("origin", origin), ("server", &*server.url())];
            encode_cells(&mut family, &labels, server.counters.ejected.load(Relaxed))?;
        }
        let mut family = encoder.encode_descriptor(
            "origin_duration_seconds",
            "From the request to the head of the origin's answer",
            None,
            MetricType::Histogram,
        )?;
        for (origin, server) in self.servers() {
            let labels: &[(&str, &str)] = &[("origin", origin), ("server", &*server.url())];
            server.counters.duration.encode(0, family.encode_family(&labels)?)?;
        }
        type Reading = fn(&Server) -> f64;
        let gauges: [(&str, &str, Reading); 3] = [
            ("origin_up", "Whether the server is asked, and the last attempt reached it", |s| {
                f64::from(u8::from(s.is_up()))
            }),
            ("origin_requests_in_flight", "Requests being answered", |s| s.in_flight() as f64),
            ("origin_queue", "Requests that wait for a connection", |s| s.waiting() as f64),
        ];
        for (name, help, reading) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (origin, server) in self.servers() {
                let labels = [("origin", origin), ("server", &*server.url())];
                encode_gauge(&mut family, &labels, reading(server))?;
            }
        }
        Ok(())
    }
}
