//! Nobody holds a connection for nothing.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::{Broken, Client};
use crate::support::eventually;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::process::is_established;
use crate::support::request::{HOST, get};

/// A connection that must go "after 300 ms" is gone within this on any machine.
const SOON: Duration = Duration::from_secs(8);

/// Waits for the end of the connection; a 408 before it is fine.
#[track_caller]
fn assert_cut(client: &mut Client, started: Instant) {
    match client.try_response("GET") {
        Ok(answer) => {
            answer.assert_status(408);
            client.expect_close();
        }
        Err(Broken::Closed | Broken::Reset) => {}
        Err(other) => panic!("the connection was not cut: {other:?}"),
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(250) && took < SOON, "cut after {took:?}");
}

#[test]
fn a_head_that_does_not_come_is_not_awaited() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("header_timeout = \"300ms\"").start();
    for sent in ["", "G", "GET /a HTTP/1.1\r\nHost: test.ex", "GET /a HTTP/1.1\r\nHost: a\r\n"] {
        let started = Instant::now();
        let mut client = Client::connect(node.http());
        client.send(sent.as_bytes());
        assert_cut(&mut client, started);
    }
}

#[test]
fn a_head_that_trickles_is_cut_all_the_same() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("header_timeout = \"500ms\"").start();
    let started = Instant::now();
    let mut client = Client::connect(node.http());
    client.send(b"GET /a HTTP/1.1\r\nHost: test.example\r\nX: ");
    let cut = crate::support::holds_within(SOON, || {
        std::thread::sleep(Duration::from_millis(40));
        client.try_send(b"x").is_err() || client.is_closed()
    });
    assert!(cut, "a byte now and then kept the connection for {:?}", started.elapsed());
    assert_eq!(origin.total(), 0);
}

#[test]
fn the_second_head_of_a_connection_is_bounded_too() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("header_timeout = \"300ms\"").start();
    let mut client = Client::connect(node.http());
    client.exchange(&get("/a")).assert_status(200);
    let started = Instant::now();
    client.send(b"GET /a HTTP/1.1\r\n");
    assert_cut(&mut client, started);
}

#[test]
fn a_body_that_stalls_is_cut() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("body_timeout = \"300ms\"").start();
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let started = Instant::now();
        let mut client = Client::connect(node.http());
        client.send(format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\n{framing}").as_bytes());
        assert_cut(&mut client, started);
    }
    assert_eq!(origin.count("/a"), 0);
}

#[test]
fn a_body_that_moves_is_not_cut() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("body_timeout = \"2s\"").start();
    let mut client = Client::connect(node.http());
    client.send(format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 30\r\n\r\n").as_bytes());
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        client.send(b"x");
    }
    client.response("POST").assert_status(200);
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("idle_timeout = \"300ms\"").start();
    let mut client = Client::connect(node.http());
    client.exchange(&get("/a")).assert_status(200);
    let took = client.expect_close();
    assert!(took >= Duration::from_millis(200) && took < SOON, "closed after {took:?}");
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let body = vec![b'x'; 30_000_000];
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], &body);
    let node = node(&origin).limits("write_timeout = \"500ms\"").start();
    let socket = TcpStream::connect(node.http()).expect("a connection");
    let (server, local) = (node.http(), socket.local_addr().expect("an address"));
    let mut client = Client::on(socket).expect("a client");
    client.send(&get("/a").bytes());
    eventually("the origin is asked", || origin.begun("/a") == 1);
    eventually("the stalled connection is given up", || !is_established(server, local));
    assert!(client.try_response("GET").is_err(), "the answer was complete");
}

#[test]
fn a_client_that_reads_slowly_is_served() {
    let body = crate::support::pattern(12_000_000, 4);
    let origin = Origin::with("/*", FRESH, &body);
    let node = node(&origin).limits("write_timeout = \"2s\"").start();
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    let head = client.try_head().expect("a head");
    assert_eq!(head.status, 200);
    let mut received = Vec::new();
    for _ in 0..30 {
        assert!(client.take(body.len() / 30, &mut received).expect("a part"));
        std::thread::sleep(Duration::from_millis(100));
    }
    crate::support::assert_same_bytes(&received, &body);
}

#[test]
fn an_origin_that_stalls_in_the_middle_cuts_the_answer_off() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 10\r\n\r\nabc";
        vec![Step::Send(head.into()), Step::Sleep(Duration::from_secs(15))]
    });
    let node = node(&origin).origin("between_bytes_timeout = \"300ms\"").start();
    let started = Instant::now();
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    match client.try_response("GET") {
        Ok(answer) => drop(answer.assert_status(504).assert_own_error()),
        Err(broken) => {
            assert!(matches!(broken, Broken::Truncated(_) | Broken::Closed | Broken::Reset), "{broken:?}");
        }
    }
    assert!(started.elapsed() < SOON);
    origin.on("/a", |_| respond(200, FRESH, "whole"));
    node.get("/a").assert_status(200).assert_body("whole");
}
