//! W3C trace context on its way to the origin; with the feature `otlp` also spans, sent to a collector.

use crate::support::node::node;
use crate::support::origin::{FRESH, Origin};
use crate::support::request::get;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn context() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

#[test]
fn without_somewhere_to_send_spans_to_the_context_passes_as_it_is() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    get("/a").with("traceparent", context()).with("tracestate", "shop=1").to(&node).assert_status(200);
    assert_eq!(origin.last("/a").field("traceparent"), Some(&*context()));
    assert_eq!(origin.last("/a").field("tracestate"), Some("shop=1"));
}

#[cfg(feature = "otlp")]
mod spans {
    use std::net::TcpListener;

    use serde_json::Value;

    use super::{PARENT, TRACE, context};
    use crate::support::client::Client;
    use crate::support::eventually;
    use crate::support::node::{Builder, Node, node};
    use crate::support::origin::{FRESH, Origin, Step, respond};
    use crate::support::process::{binary, install_script};
    use crate::support::request::{get, request};

    /// A node that sends its spans there.
    fn tracing(builder: Builder, collector: &str, more: &str) -> Node {
        let program = builder.path().join("traced");
        let script = format!(
            "#!/bin/sh\nexport OTEL_EXPORTER_OTLP_ENDPOINT={collector} OTEL_BSP_SCHEDULE_DELAY=50 {more}\n\
             exec {} \"$@\"\n",
            binary().display()
        );
        install_script(&script, &program);
        builder.start_as(&program)
    }

    const JSON: &str = "OTEL_EXPORTER_OTLP_PROTOCOL=http/json";

    fn collector() -> Origin {
        Origin::with("/v1/traces", &[("Content-Type", "application/json")], "{}")
    }

    /// All spans so far, with the resource that each is of.
    fn spans(collector: &Origin) -> Vec<(Value, Value)> {
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let mut found = Vec::new();
        for seen in collector.seen("/v1/traces") {
            let sent: Value = serde_json::from_slice(&seen.body).expect("JSON");
            for of in list(&sent, "resourceSpans") {
                for scope in list(&of, "scopeSpans") {
                    found.extend(list(&scope, "spans").into_iter().map(|s| (s, of["resource"].clone())));
                }
            }
        }
        found
    }

    /// An attribute as text.
    fn attribute(of: &Value, name: &str) -> Option<String> {
        let found = of["attributes"].as_array()?.iter().find(|pair| pair["key"] == name)?;
        let value = found["value"].as_object()?.values().next()?;
        Some(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
    }

    #[test]
    fn a_miss_is_a_span_in_the_clients_trace_and_a_hit_is_none() {
        let (origin, collector) = (Origin::with("/a", FRESH, "a"), collector());
        let mut node = tracing(node(&origin), &collector.url(), JSON);
        let ask = get("/a").with("traceparent", context()).with("tracestate", "shop=1");
        ask.to(&node).assert_status(200);
        ask.to(&node).assert_hit();
        eventually("the span is there", || !spans(&collector).is_empty());
        node.stop();
        let all = spans(&collector);
        assert_eq!(all.len(), 1, "{all:#?}");
        let (span, resource) = &all[0];
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &PARENT.into()));
        let told = origin.last("/a");
        let id = span["spanId"].as_str().expect("an id");
        assert_eq!(told.joined("traceparent"), format!("00-{TRACE}-{id}-01"));
        assert_eq!(told.field("tracestate"), Some("shop=1"));
        let is = |name: &str| attribute(span, name).unwrap_or_default();
        assert_eq!((is("http.request.method"), is("url.path")), ("GET".into(), "/a".into()));
        assert_eq!(is("http.response.status_code"), "200");
        assert_eq!(Some(&*is("larder.request_id")), told.field("x-request-id"));
        assert_eq!(attribute(resource, "service.name").as_deref(), Some("larder"));
        let time = |name: &str| span[name].as_str().and_then(|time| time.parse::<u64>().ok());
        assert!(time("startTimeUnixNano") < time("endTimeUnixNano"), "{span:#}");
    }

    #[test]
    fn without_a_context_a_trace_begins_here_and_one_that_cannot_be_read_is_not_passed_on() {
        let (origin, collector) = (Origin::with("/*", FRESH, "a"), collector());
        let mut node = tracing(node(&origin), &collector.url(), JSON);
        node.get("/new").assert_status(200);
        let bad = get("/bad").with("traceparent", "00-zz-zz-01").with("tracestate", "shop=1");
        bad.to(&node).assert_status(200);
        let post = request("POST", "/post").with("traceparent", format!("00-{TRACE}-{PARENT}-00")).body("x");
        post.to(&node).assert_status(200);
        node.stop();
        for path in ["/new", "/bad"] {
            let told = origin.last(path);
            let found = spans(&collector);
            let (span, _) = found
                .iter()
                .find(|(span, _)| attribute(span, "url.path").as_deref() == Some(path))
                .unwrap_or_else(|| panic!("no span of {path}: {found:#?}"));
            let (trace, id) = (span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap());
            assert_eq!(told.joined("traceparent"), format!("00-{trace}-{id}-01"));
            assert!(!told.has("tracestate"));
            assert!(span["parentSpanId"].as_str().is_none_or(str::is_empty), "{span:#}");
        }
        // Whoever began this trace does not sample it: no span, and the origin is told so.
        let told = origin.last("/post").joined("traceparent");
        assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00"), "{told}");
        assert_eq!(spans(&collector).len(), 2);
    }

    #[test]
    fn what_fails_is_marked_and_passed_requests_have_spans_too() {
        let (origin, collector) = (Origin::start(), collector());
        origin.on("/cut", |_| [respond(200, &[("Content-Length", "9")], "abc"), vec![Step::Close]].concat());
        origin.on("/error", |_| respond(503, &[], ""));
        let mut node = tracing(node(&origin), &collector.url(), JSON);
        let mut client = Client::connect(node.http());
        client.send(&get("/cut").bytes());
        assert!(client.try_response("GET").is_err(), "it is cut off");
        request("POST", "/error").body("x").to(&node).assert_status(503);
        drop(origin);
        node.get("/gone").assert_status(502);
        node.stop();
        let of = |path: &str| {
            let all = spans(&collector);
            let found =
                all.into_iter().find(|(span, _)| attribute(span, "url.path").as_deref() == Some(path));
            found.unwrap_or_else(|| panic!("no span of {path}")).0
        };
        for (path, why) in [("/cut", "broken"), ("/error", "503"), ("/gone", "connect_error")] {
            let span = of(path);
            assert_eq!(attribute(&span, "error.type").as_deref(), Some(why), "{span:#}");
            assert_eq!(span["status"]["code"], 2, "{span:#}");
        }
    }

    #[test]
    fn spans_are_protobuf_unless_the_environment_says_otherwise() {
        let origin = Origin::with("/a", FRESH, "a");
        let collector = Origin::with("/v1/traces", &[("Content-Type", "application/x-protobuf")], "");
        let mut node = tracing(node(&origin), &collector.url(), "OTEL_EXPORTER_OTLP_HEADERS=x-key=secret");
        get("/a").with("traceparent", context()).to(&node).assert_status(200);
        node.stop();
        let sent = collector.last("/v1/traces");
        assert_eq!(sent.field("content-type"), Some("application/x-protobuf"));
        assert_eq!(sent.field("x-key"), Some("secret"));
        let trace: Vec<u8> =
            (0..16).map(|at| u8::from_str_radix(&TRACE[at * 2..at * 2 + 2], 16).unwrap()).collect();
        assert!(sent.body.windows(16).any(|bytes| bytes == trace));
    }

    #[test]
    fn what_cannot_be_spoken_is_an_error_at_the_start() {
        let mut command = std::process::Command::new(binary());
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let store = crate::support::temp::TempDir::new();
        let store = store.path().to_str().expect("UTF-8");
        let address = "127.0.0.1:0";
        command.args(["serve", "--origin", "http://127.0.0.1:1", "--listen", address, "--admin", address]);
        let said = command.args(["--store", store]).output().expect("the program starts");
        assert_eq!(said.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&said.stderr).contains("the protocol is grpc"), "{said:?}");
    }

    #[test]
    fn a_collector_that_does_not_answer_is_waited_for_by_no_request() {
        let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
        // Connections are taken by the kernel, and nobody reads them.
        let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", deaf.local_addr().expect("its address"));
        let mut node =
            tracing(node(&origin), &url, "OTEL_BSP_MAX_QUEUE_SIZE=16 OTEL_BSP_MAX_EXPORT_BATCH_SIZE=8");
        for _ in 0..200 {
            node.get("/a").assert_status(200);
        }
        node.stop();
    }
}
