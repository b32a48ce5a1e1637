//! Traces: a span for each request to an origin, sent over OTLP by builds with the feature `otlp`.
//!
//! A hit makes none. A request that brings a W3C trace context goes on in that trace, and the origin is told of the span;
//! without the feature, or without somewhere to send spans to, the client's context passes through as it is.

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use off::{Exporter, Span, start};
#[cfg(feature = "otlp")]
pub use otlp::{Exporter, Span, start};

use std::env;

/// Where spans are sent to, as the specification of OpenTelemetry names it.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Traces can't be sent as the environment says.
#[derive(Debug, thiserror::Error)]
#[error("traces can't be sent as the environment says: {0}")]
pub struct TraceError(String);

/// Whether the environment wants traces.
fn are_wanted() -> bool {
    let says = |name: &str, value: &str| env::var(name).is_ok_and(|is| is.eq_ignore_ascii_case(value));
    let has_endpoint = ENDPOINTS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    has_endpoint && !says("OTEL_SDK_DISABLED", "true") && !says("OTEL_TRACES_EXPORTER", "none")
}
