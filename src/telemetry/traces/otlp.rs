//! Spans over OTLP, as HTTP. Everything is set by the environment, in the names of OpenTelemetry's specification:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (without it there are no traces), `…_PROTOCOL`, `…_HEADERS`, `…_TIMEOUT`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`.
//!
//! A span that ends is put into a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`), from which a thread sends it; where that is
//! full, it is dropped.

use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fmt};

use http::header::HeaderName;
use http::{Request, StatusCode, header};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::{TraceError, are_wanted};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// How they are written.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// How long the last spans are waited for at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Set once, when the process starts.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends what is left when it goes.
pub struct Exporter(Option<SdkTracerProvider>);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown_with_timeout(CLOSE_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Begins to send spans, where the environment wants it. To be called outside of any runtime.
pub fn start() -> Result<Exporter, TraceError> {
    if !are_wanted() {
        return Ok(Exporter(None));
    }
    let exporter = SpanExporter::builder().with_http().with_protocol(protocol()?);
    let exporter = exporter.build().map_err(|error| TraceError(error.to_string()))?;
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("larder");
    }
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let _ = TRACER.set(provider.tracer("larder"));
    Ok(Exporter(Some(provider)))
}

/// Protobuf, unless the environment says otherwise.
fn protocol() -> Result<Protocol, TraceError> {
    let said = PROTOCOLS.iter().find_map(|name| env::var(name).ok()).unwrap_or_default();
    match &*said {
        "" | "http/protobuf" => Ok(Protocol::HttpBinary),
        "http/json" => Ok(Protocol::HttpJson),
        other => {
            Err(TraceError(format!("the protocol is {other}; http/protobuf and http/json can be spoken")))
        }
    }
}

/// A request to an origin, until its answer's last byte.
#[derive(Debug, Default)]
pub struct Span(Option<Box<opentelemetry_sdk::trace::Span>>);

impl Span {
    /// Begins in the trace that the request's fields name, or in a new one; the fields then name the span.
    pub fn begin<B>(origin: &str, request: &mut Request<B>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let text = |name: HeaderName| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let is_conditional = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
        let is_conditional = is_conditional.iter().any(|name| request.headers().contains_key(name));
        let attributes = [
            KeyValue::new("http.request.method", request.method().to_string()),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("server.address", text(header::HOST)),
            KeyValue::new("larder.origin", origin.to_owned()),
            KeyValue::new("larder.request_id", text(HeaderName::from_static("x-request-id"))),
            KeyValue::new("larder.revalidates", is_conditional),
        ];
        let propagator = TraceContextPropagator::new();
        let parent = propagator.extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
        let span = tracer
            .span_builder(format!("{} {origin}", request.method()))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(tracer, &parent);
        let headers = request.headers_mut();
        // What can't be read is not passed on (W3C Trace Context §3.3).
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        let told = Context::new().with_remote_span_context(span.span_context().clone());
        propagator.inject_context(&told, &mut HeaderInjector(headers));
        if headers.get(TRACESTATE).is_some_and(header::HeaderValue::is_empty) {
            headers.remove(TRACESTATE);
        }
        Self(Some(Box::new(span)))
    }

    /// The answer's head is there.
    pub fn answered(&mut self, status: StatusCode) {
        if let Some(span) = &mut self.0 {
            span.add_event("response head", Vec::new());
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
            if status.is_client_error() || status.is_server_error() {
                span.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
                span.set_status(Status::error(""));
            }
        }
    }

    /// There is no answer, or it broke off.
    pub fn failed(&mut self, why: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", why));
            span.set_status(Status::error(why));
        }
    }

    /// The last byte is there; what is dropped before ends too.
    pub fn end(&mut self) {
        self.0 = None;
    }
}
