//! Bytes that are no request are answered by the node itself: with a reason, counted and logged.

use crate::support::client::Client;
use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin, Step};
use crate::support::request::get;
use crate::support::response::Response;
use crate::support::tls::Ca;
use crate::support::{Gate, OpenOnDrop, eventually};

/// What is wrong with a head, the status and the reason.
fn heads() -> Vec<(String, u16, &'static str)> {
    let line = "GET /a HTTP/1.1\r\nHost: test.example\r\n";
    let fields = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect::<Vec<_>>().concat();
    vec![
        (format!("{line}{fields}\r\n"), 431, "head-too-large"),
        (format!("{line}X: {}\r\n\r\n", "x".repeat(40_000)), 431, "head-too-large"),
        (format!("{line}X: a\x01b\r\n\r\n"), 400, "malformed-head"),
        (format!("{line}X y: 1\r\n\r\n"), 400, "malformed-head"),
        (format!("{line}X : 1\r\n\r\n"), 400, "malformed-head"),
        (format!("{line}: 1\r\n\r\n"), 400, "malformed-head"),
        (format!("{line}X: 1\r\n folded\r\n\r\n"), 400, "malformed-head"),
        (format!("{line}Content-Length: 1, 2\r\n\r\nab"), 400, "malformed-head"),
        (format!("{line}Transfer-Encoding: gzip\r\n\r\nab"), 400, "malformed-head"),
        ("GE(T /a HTTP/1.1\r\nHost: test.example\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("GET /a b HTTP/1.1\r\nHost: test.example\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("GET /a HTTP/3.7\r\nHost: test.example\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("GET /a\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400, "malformed-head"),
    ]
}

/// The answer is the node's own and the last of its connection.
fn own_answer(client: &mut Client, status: u16, reason: &str) -> Response {
    let answer = client.response("GET");
    answer.assert_status(status).assert_own_error();
    assert_eq!(answer.cache_parameter("detail").as_deref(), Some(reason), "{:?}", answer.fields);
    assert_eq!(answer.joined("connection"), "close");
    assert_eq!(answer.joined("content-type"), "text/plain; charset=utf-8");
    assert!(answer.has("date"));
    assert!(answer.text().starts_with(&status.to_string()), "{}", answer.text());
    client.expect_close();
    answer
}

fn try_all(connect: impl Fn() -> Client) {
    for (head, status, reason) in heads() {
        let mut client = connect();
        drop(client.try_send(head.as_bytes()));
        own_answer(&mut client, status, reason);
    }
    // Behind a request that was fine, on a connection that is kept, and in one go.
    let (bad, status, reason) = &heads()[2];
    let mut kept = connect();
    kept.exchange(&get("/a")).assert_status(200);
    kept.send(bad.as_bytes());
    own_answer(&mut kept, *status, reason);
    let mut pipelined = connect();
    pipelined.send(&[&get("/a").bytes(), &get("/a").bytes(), bad.as_bytes()].concat());
    pipelined.response("GET").assert_status(200).assert_body("a");
    pipelined.response("GET").assert_hit().assert_body("a");
    own_answer(&mut pipelined, *status, reason);
}

fn counted(node: &Node) {
    let of = |reason: &str| heads().iter().filter(|(_, _, r)| *r == reason).count() as f64;
    node.await_metric("larder_requests_total{result=\"refused\"}", heads().len() as f64 + 2.0);
    node.await_metric("larder_requests_refused_total{reason=\"head-too-large\"}", of("head-too-large"));
    node.await_metric("larder_requests_refused_total{reason=\"malformed-head\"}", of("malformed-head") + 2.0);
    node.assert_no_panic();
}

#[test]
fn what_is_no_request_is_answered_counted_and_logged() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = node(&origin);
    let file = builder.path().join("access.log");
    let node = builder.extra(&format!("[access_log]\noutput = \"{}\"", file.display())).start();
    try_all(|| Client::connect(node.http()));
    counted(&node);
    let refused = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = whole.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.filter(|line| line["result"] == "refused").collect::<Vec<_>>()
    };
    eventually("a line for each", || refused().len() == heads().len() + 2);
    for line in refused() {
        assert!(line["status"] == 400 || line["status"] == 431, "{line}");
        assert_eq!(line["client"], "127.0.0.1");
        assert_eq!(line["method"], "-");
        assert_eq!((&line["host"], &line["path"]), (&"-".into(), &"".into()), "{line}");
        assert_eq!(line["complete"], true);
    }
}

#[test]
fn and_over_tls() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let config = ca.client(&["http/1.1"]);
    try_all(|| Client::connect_tls(node.https(), "test.example", &config).expect("TLS"));
    counted(&node);
}

#[test]
fn a_target_that_is_longer_than_any_parser_takes_it_is_told_apart() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).limits("header_bytes = \"256KiB\"").start();
    let mut client = Client::connect(node.http());
    let head = format!("GET /{} HTTP/1.1\r\nHost: test.example\r\n\r\n", "x".repeat(70_000));
    drop(client.try_send(head.as_bytes()));
    own_answer(&mut client, 414, "target-too-long");
}

fn broken_chunks(builder: Builder, origin: &Origin, connect: impl Fn(&Node) -> Client) {
    let node = builder.start();
    for chunks in ["zz\r\nabc", "3\r\nabc\r\n-1\r\n", "3\r\nabcd\r\n"] {
        let mut client = connect(&node);
        let head = "POST /a HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{chunks}").as_bytes());
        own_answer(&mut client, 400, "broken-body");
    }
    assert_eq!(origin.count("/a"), 0, "the origin took a part of a body for a whole one");
    node.await_metric("larder_requests_refused_total{reason=\"broken-body\"}", 3.0);
    node.await_metric("larder_requests_total{result=\"refused\",method=\"POST\"}", 3.0);
}

#[test]
fn a_broken_chunk_on_its_way_to_the_origin_is_the_clients_fault() {
    let origin = Origin::with("/a", FRESH, "a");
    broken_chunks(node(&origin), &origin, |node| Client::connect(node.http()));
    let ca = Ca::new();
    let config = ca.client(&["http/1.1"]);
    broken_chunks(node(&origin).tls(&ca, &["test.example"]), &origin, |node| {
        Client::connect_tls(node.https(), "test.example", &config).expect("TLS")
    });
}

/// What tells an answer of the parser's from a response is when it is written, never what stands in it.
#[test]
fn a_body_that_looks_like_a_refusal_is_a_body() {
    const LOOKS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LOOKS.len() + 5);
        vec![Step::Send(head.into_bytes()), Step::Body(b"first".to_vec()), Step::Wait(held.clone()), {
            Step::Body(LOOKS.to_vec())
        }]
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    let head = client.try_head().expect("a head");
    let mut first = Vec::new();
    assert!(client.take(5, &mut first).expect("the first bytes"));
    gate.open();
    let mut rest = Vec::new();
    assert!(client.take(LOOKS.len(), &mut rest).expect("the rest"));
    head.assert_status(200);
    assert_eq!((first.as_slice(), rest.as_slice()), (&b"first"[..], LOOKS));
}
