//! The client and the origin, against each other: what the other tests rely on.

use std::time::Duration;

use crate::support::client::{Broken, Client};
use crate::support::origin::{Origin, Step, raw, respond};
use crate::support::request::{get, head, request};
use crate::support::{Gate, eventually, pattern};

#[test]
fn a_whole_answer_is_read_and_the_request_is_kept() {
    let origin = Origin::with("/a", &[("X-Test", "1")], "hello");
    let mut client = Client::connect(origin.address());
    let response = client.exchange(&request("POST", "/a?q=1").with("X-Mine", "2").body("sent"));
    assert_eq!(
        (response.status, response.text().as_str(), response.field("x-test")),
        (200, "hello", Some("1"))
    );
    let seen = origin.last("/a");
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.body.as_slice()),
        ("POST", "/a?q=1", &b"sent"[..])
    );
    assert_eq!(seen.field("x-mine"), Some("2"));
    assert!(seen.head.ends_with(b"\r\n\r\n"));

    // The connection stays, and HEAD has no body on it.
    assert_eq!(client.exchange(&head("/a")).field("content-length"), Some("5"));
    assert_eq!(client.exchange(&get("/a")).text(), "hello");
    assert_eq!((origin.connections_accepted(), origin.connections_open(), origin.count("/a")), (1, 1, 3));
}

#[test]
fn chunks_are_read_with_their_trailers_and_pipelined_answers_stay_apart() {
    let origin = Origin::start();
    origin.on("/chunked", |_| {
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n")
    });
    let mut client = Client::connect(origin.address());
    let twice = [get("/chunked").bytes(), get("/chunked").bytes()].concat();
    client.send(&twice);
    for _ in 0..2 {
        let response = client.response("GET");
        assert_eq!(response.text(), "abcde");
        assert_eq!(response.trailers, [("T".to_owned(), "1".to_owned())]);
    }
    assert!(client.surplus().is_empty());
}

#[test]
fn a_truncated_body_is_no_whole_one() {
    let cases: [(&str, &[u8]); 3] = [
        ("/length", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        ("/chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"),
        ("/last-chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    ];
    let origin = Origin::start();
    for (path, bytes) in cases {
        origin.on(path, move |_| vec![Step::Send(bytes.to_vec()), Step::Close]);
        let mut client = Client::connect(origin.address());
        client.send(&get(path).bytes());
        let broken = client.try_response("GET").expect_err(path);
        assert!(matches!(&broken, Broken::Truncated(part) if part.body == b"abc"), "{path}: {broken:?}");
    }
}

#[test]
fn closed_reset_silent_and_nonsense_are_told_apart() {
    let origin = Origin::start();
    origin.on("/close", |_| vec![Step::Close]);
    origin.on("/reset", |_| vec![Step::Reset]);
    origin.on("/silent", |_| vec![Step::Sleep(Duration::from_millis(500))]);
    origin.on("/nonsense", |_| raw("HELLO\r\n\r\n"));
    let ask = |path: &str| {
        let mut client = Client::connect(origin.address());
        client.read_timeout(Duration::from_millis(if path == "/silent" { 50 } else { 5000 }));
        client.send(&get(path).bytes());
        client.try_response("GET").expect_err(path)
    };
    assert!(matches!(ask("/close"), Broken::Closed));
    assert!(matches!(ask("/reset"), Broken::Reset));
    assert!(matches!(ask("/silent"), Broken::TimedOut));
    assert!(matches!(ask("/nonsense"), Broken::Malformed(_)));
}

#[test]
fn surplus_bytes_are_noticed() {
    let origin = Origin::start();
    origin.on("/a", |_| raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc"));
    let mut client = Client::connect(origin.address());
    client.exchange(&get("/a")).assert_body("a");
    assert_eq!(client.surplus(), b"bc");
}

#[test]
fn a_gate_holds_an_answer_back_until_it_opens() {
    let origin = Origin::start();
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, &[], "late")].concat());
    let mut client = Client::connect(origin.address());
    client.send(&get("/a").bytes());
    eventually("the request has arrived", || origin.count("/a") == 1);
    gate.open();
    client.response("GET").assert_body("late");
}

#[test]
fn a_sequence_repeats_its_last_answer_and_a_stopped_origin_refuses() {
    let origin = Origin::start();
    origin.sequence("/a", vec![respond(200, &[], "1"), respond(503, &[], "2")]);
    let statuses: Vec<u16> =
        (0..3).map(|_| Client::connect(origin.address()).exchange(&get("/a")).status).collect();
    assert_eq!(statuses, [200, 503, 503]);
    origin.stop();
    assert!(Client::try_connect(origin.address()).is_err());
    assert_ne!(pattern(64, 1), pattern(64, 2));
}
