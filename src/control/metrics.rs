//! `/metrics` as `OpenMetrics`, and what belongs to no part of the node alone.

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
use crate::telemetry::{encode_cells, worker_major_faults};

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
