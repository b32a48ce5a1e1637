//! `/metrics` as `OpenMetrics`, and what the process says of itself.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;

use super::Control;
use super::problem::Problem;
use crate::telemetry::{encode_cells, encode_gauge, worker_major_faults};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(control): State<Arc<Control>>) -> Response {
    let mut text = String::with_capacity(64 * 1024);
    match text::encode(&mut text, &control.parts.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", error.to_string()).into_response()
        }
    }
}

/// The conventional `process_*` metrics.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // proc(5): what follows the name in parentheses begins with field 3.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let cpu = (field(14) + field(15)) as f64 / rustix::param::clock_ticks_per_second() as f64;
        let mut family = encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system time",
            None,
            MetricType::Counter,
        )?;
        family.encode_counter::<prometheus_client::encoding::NoLabelSet, f64, f64>(&cpu, None)?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let fds = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let gauges = [
            ("process_resident_memory_bytes", "RSS", kib("VmRSS:") * 1024),
            (
                "process_anonymous_memory_bytes",
                "RssAnon and RssShmem",
                (kib("RssAnon:") + kib("RssShmem:")) * 1024,
            ),
            ("process_open_fds", "Open descriptors", fds as u64),
            ("process_threads", "Threads", kib_less(&status, "Threads:")),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[], value as f64)?;
        }
        let faults = [("minor", field(10)), ("major", field(12))];
        let mut family =
            encoder.encode_descriptor("process_page_faults", "Page faults", None, MetricType::Counter)?;
        for (kind, count) in faults {
            encode_cells(&mut family, &[("kind", kind)], count)?;
        }
        Ok(())
    }
}

/// What the worker threads have cost.
#[derive(Debug)]
pub struct WorkerMetrics;

impl Collector for WorkerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Page faults for which a worker waited for the disk";
        let mut family = encoder.encode_descriptor("worker_major_faults", help, None, MetricType::Counter)?;
        encode_cells(&mut family, &[("", ""); 0], worker_major_faults())
    }
}

fn kib_less(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}
