//! The state of the data path, as it is when somebody looks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Edge, LiveEdge};
use crate::telemetry::{encode_cells, encode_gauge};

impl Edge {
    /// Fetches under way that others may follow.
    pub fn flights(&self) -> usize {
        self.collapse.in_flight()
    }
}

/// For the registry.
#[derive(Debug)]
pub struct EdgeGauges(pub Arc<LiveEdge>);

impl Collector for EdgeGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let edge = self.0.current();
        let gauges = [
            ("fetches_in_flight", "Fetches for the cache under way", edge.flights()),
            (
                "collapse_followers",
                "Requests that follow the fetch of another one",
                edge.collapse.followers(),
            ),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[("", ""); 0], value as f64)?;
        }
        let help = "Lines of the access log, by what became of them";
        let mut family = encoder.encode_descriptor("access_log_lines", help, None, MetricType::Counter)?;
        for (outcome, count) in edge.access_log.lines() {
            encode_cells(&mut family, &[("outcome", outcome)], count)?;
        }
        Ok(())
    }
}
