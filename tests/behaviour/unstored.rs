//! Responses that turn out too large for the store while they stream: shared by those who wait for them,
//! whole for everybody who reads.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::node::{Builder, node};
use crate::support::origin::{Origin, Step, respond};
use crate::support::request::{get, request};
use crate::support::{Gate, assert_same_bytes, eventually, pattern};

const CHUNKED: &[(&str, &str)] = &[("Cache-Control", "max-age=600"), ("Transfer-Encoding", "chunked")];

/// An origin that sends `body` in chunks of this many bytes, once the gate is open.
fn chunked(body: Vec<u8>, chunk: usize, gate: Option<Gate>) -> Origin {
    let origin = Origin::start();
    origin.on("/*", move |_| {
        let mut steps = vec![respond(200, CHUNKED, "").swap_remove(0)];
        steps.extend(gate.clone().map(Step::Wait));
        let mut framed = Vec::new();
        for part in body.chunks(chunk) {
            framed.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            framed.extend_from_slice(part);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(b"0\r\n\r\n");
        steps.push(Step::Body(framed));
        steps
    });
    origin
}

fn small_store(origin: &Origin) -> Builder {
    let mut builder = node(origin);
    builder = builder.memory("16MiB\"\nmax_object = \"1MiB");
    builder
}

#[test]
fn a_single_slow_client_gets_all_of_it() {
    let body = pattern(12_000_000, 3);
    let origin = chunked(body.clone(), 16_000, None);
    let node = small_store(&origin).start();
    let mut client = Client::connect(node.http());
    client.send(&get("/big").bytes());
    // Long enough for the fetch to run as far ahead as it may.
    std::thread::sleep(Duration::from_millis(300));
    let answer = client.response("GET");
    assert_same_bytes(&answer.body, &body);
    assert!(!node.get("/big").is_hit());
}

#[test]
fn several_clients_at_once_get_all_of_it() {
    let body = pattern(6_000_000, 4);
    let gate = Gate::new();
    let origin = chunked(body.clone(), 16_000, Some(gate.clone()));
    let node = small_store(&origin).start();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| node.get("/big").body)).collect();
        eventually("they wait", || node.metric("larder_connections") >= 8.0);
        gate.open();
        for reader in readers {
            assert_same_bytes(&reader.join().expect("a thread"), &body);
        }
    });
}

#[test]
fn a_store_too_small_for_the_first_chunk_costs_no_client_its_answer() {
    let body = pattern(300_000, 5);
    let origin = chunked(body.clone(), 8_000, None);
    let node = node(&origin).memory("16MiB\"\nmax_object = \"4KiB").start();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (node, body) = (&node, &body);
            scope.spawn(move || {
                for n in 0..10 {
                    assert_same_bytes(&node.get(&format!("/{}", (n + thread) % 10)).body, body);
                }
            });
        }
    });
}

#[test]
fn an_upload_may_take_longer_than_the_first_byte() {
    let origin = Origin::with("/a", &[("Cache-Control", "no-store")], "done");
    let node = node(&origin).origin("first_byte_timeout = \"500ms\"").start();
    let mut client = Client::connect(node.http());
    client.send(b"POST /a HTTP/1.1\r\nHost: test.example\r\nContent-Length: 10\r\n\r\n");
    let started = Instant::now();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(100));
        client.send(b"x");
    }
    assert!(started.elapsed() > Duration::from_millis(900));
    client.response("POST").assert_status(200).assert_body("done");
}

#[test]
fn claims_about_the_client_reach_no_origin_and_no_other_client() {
    let origin = Origin::start();
    origin.on("/*", |_| respond(200, &[("Cache-Control", "max-age=600"), ("Vary", "X-Forwarded-For")], "a"));
    let node = node(&origin).start();
    let claims =
        ["X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Original-URL", "X-Real-IP"];
    let ask = claims.iter().fold(get("/a"), |ask, name| ask.with(name, "evil"));
    ask.to(&node).assert_status(200);
    for name in claims {
        assert!(!origin.last("/a").has(name), "{name}");
    }
    assert!(!node.get("/a").is_hit(), "it varies on what names the client");
}

#[test]
fn options_of_the_node_itself_are_answered_by_it() {
    let origin = Origin::with("/*", &[], "reached");
    let node = node(&origin).site("https = \"redirect\"").start();
    let mut client = Client::connect(node.http());
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: test.example\r\n\r\n");
    client.response("OPTIONS").assert_status(204);
    request("GET", "/a").to(&node).assert_status(308);
    assert_eq!(origin.total(), 0);
}

#[test]
fn an_unused_connection_does_not_hold_a_drain_up() {
    let origin = Origin::with("/*", &[], "a");
    let mut node = node(&origin).start();
    let unused = Client::connect(node.http());
    node.await_metric("larder_connections", 1.0);
    let started = Instant::now();
    node.stop();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(unused);
}

/// As of what is stored: tags are between the origin and the node.
#[test]
fn tags_reach_no_client() {
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let lasting = ("Cache-Control", "max-age=600");
        let (control, cookie) = match seen.path() {
            "/private" => (("Cache-Control", "private"), None),
            "/cookie" => (lasting, Some(("Set-Cookie", "a=b"))),
            _ => (lasting, None),
        };
        let tags = [("Surrogate-Key", "a b"), ("Cache-Tag", "c"), ("Cache-Groups", "\"g\""), control];
        let fields: Vec<_> = tags.into_iter().chain(cookie).collect();
        respond(200, &fields, "body")
    });
    let kept = node(&origin).site("purge = { strip_tags = false }").start();
    assert_eq!(request("POST", "/a").body("x").to(&kept).field("surrogate-key"), Some("a b"));
    let passing = "[[site.rule]]\npath = [\"/pass\"]\npass = true\n\
                   [[site.rule]]\npath = [\"/part\"]\ncache = { range_miss = \"forward\" }";
    let node = node(&origin).rules(passing).start();
    let asked = [
        request("POST", "/a").body("x"),
        request("OPTIONS", "/a"),
        request("HEAD", "/a"),
        get("/pass"),
        get("/private"),
        get("/cookie"),
        get("/part").with("Range", "bytes=0-1"),
    ];
    for request in asked {
        let answer = request.to(&node);
        answer.assert_status(200);
        assert!(!answer.has("surrogate-key") && !answer.has("cache-tag"), "{request:?}: {:?}", answer.fields);
        assert_eq!(answer.field("cache-groups"), Some("\"g\""), "{request:?}");
    }
}
