//! HTTP/2, over TLS and by prior knowledge on plain ports.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::http2::{Http2, frames};
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, head, request};
use crate::support::tls::Ca;
use crate::support::{Gate, OpenOnDrop, assert_same_bytes, eventually, pattern};

#[test]
fn misses_hits_head_304_and_ranges_work_on_both_kinds_of_port() {
    let (ca, origin) = (Ca::new(), Origin::start());
    origin.fixed(
        "/a",
        200,
        &[FRESH[0], ("ETag", "\"v1\""), ("Connection", "X-Hop"), ("X-Hop", "leak")],
        "twelve bytes",
    );
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let secure = Http2::tls(node.https(), "test.example", &ca.client(&["h2"]));
    for client in [Http2::plain(node.http()), secure] {
        let miss = client.exchange(&get("/a"));
        miss.assert_status(200).assert_fwd("uri-miss").assert_body("twelve bytes");
        let hit = client.exchange(&get("/a"));
        hit.assert_status(200).assert_hit().assert_body("twelve bytes");
        assert!(hit.age().is_some());
        for hop in ["connection", "x-hop", "transfer-encoding", "keep-alive"] {
            assert!(!miss.has(hop) && !hit.has(hop), "{hop}");
        }
        let bodiless = client.exchange(&head("/a"));
        bodiless.assert_status(200).assert_hit().assert_body("");
        assert_eq!(bodiless.field("content-length"), Some("12"));
        client.exchange(&get("/a").with("if-none-match", "\"v1\"")).assert_status(304).assert_body("");
        client.exchange(&get("/a").with("range", "bytes=0-5")).assert_status(206).assert_body("twelve");
        client.exchange(&request("POST", "/b").body("sent")).assert_status(404);
        assert_eq!(origin.last("/b").body, b"sent");
    }
}

#[test]
fn what_one_protocol_stored_the_other_serves() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    Http2::plain(node.http()).exchange(&get("/a")).assert_hit().assert_body("a");
}

#[test]
fn many_streams_of_large_bodies_arrive_byte_for_byte() {
    let bodies: Vec<Vec<u8>> = (0..10).map(|seed| pattern(1_000_000, seed + 1)).collect();
    let (ca, origin) = (Ca::new(), Origin::start());
    for (index, body) in bodies.iter().enumerate() {
        origin.fixed(&format!("/{index}"), 200, FRESH, body);
    }
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let client = Http2::tls(node.https(), "test.example", &ca.client(&["h2"]));
    let requests: Vec<_> = (0..30).map(|n| get(&format!("/{}", n % 10))).collect();
    for (n, answer) in client.exchange_all(&requests).iter().enumerate() {
        answer.assert_status(200);
        assert_same_bytes(&answer.body, &bodies[n % 10]);
    }
    for index in 0..10 {
        assert_eq!(origin.count(&format!("/{index}")), 1);
    }
}

#[test]
fn a_slow_stream_does_not_hold_up_the_others() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/slow", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "slow")].concat());
    let opener = gate.clone();
    origin.on("/opens", move |_| {
        opener.open();
        respond(200, FRESH, "fast")
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate);
    let answers = Http2::plain(node.http()).exchange_all(&[get("/slow"), get("/opens")]);
    assert_eq!((answers[0].text().as_str(), answers[1].text().as_str()), ("slow", "fast"));
}

#[test]
fn a_truncated_body_resets_its_stream_and_no_other() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec()),
            Step::Close,
        ]
    });
    origin.fixed("/b", 200, FRESH, "b");
    let node = node(&origin).start();
    let client = Http2::plain(node.http());
    if let Ok(answer) = client.try_exchange(&get("/a")) {
        answer.assert_status(502);
    }
    client.exchange(&get("/b")).assert_status(200).assert_body("b");
}

#[test]
fn requests_that_a_cache_must_not_take_are_refused() {
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).limits("uri_bytes = \"1KiB\"\nrequest_body = \"64KiB\"").start();
    let client = Http2::plain(node.http());
    for (ask, status) in [
        (get("/a").with("host", "other.example"), 400),
        (get("/a").host("u:p@test.example"), 400),
        (request("TRACE", "/a"), 405),
        (request("PURGE", "/a"), 403),
        (get(&format!("/{}", "x".repeat(1100))), 414),
        (get("/a").body("abc"), 400),
        (request("POST", "/a").body(vec![0; 70_000]), 413),
    ] {
        // Refused by the protocol layer already is fine too; on to the origin is not.
        if let Ok(answer) = client.try_exchange(&ask) {
            answer.assert_status(status);
        }
    }
    assert_eq!(origin.total(), 0);
    client.exchange(&get("/a")).assert_status(200);
}

#[test]
fn a_drain_says_goaway_and_lets_the_streams_finish() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/slow", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "whole")].concat());
    let mut node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());

    let mut idle = frames::open(node.http()).expect("a connection");
    assert_eq!(frames::next(&mut idle).expect("a frame").expect("a frame").kind, frames::SETTINGS);
    let address = node.http();
    let busy = std::thread::spawn(move || Http2::plain(address).exchange(&get("/slow")));
    eventually("the origin is asked", || origin.begun("/slow") == 1);

    node.signal(Signal::TERM);
    let mut said_goaway = false;
    while let Ok(Some(frame)) = frames::next(&mut idle) {
        said_goaway |= frame.kind == frames::GOAWAY && frame.payload[4..8] == [0; 4];
    }
    assert!(said_goaway, "the idle connection ended without GOAWAY (NO_ERROR)");
    gate.open();
    busy.join().expect("a thread").assert_status(200).assert_body("whole");
    assert!(node.wait(Duration::from_secs(20)).is_some_and(|status| status.success()));
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).limits("idle_timeout = \"300ms\"").start();
    let mut client = Http2::plain(node.http());
    client.exchange(&get("/a")).assert_status(200);
    assert!(client.ends_within(Duration::from_secs(8)), "it stays open");
}

#[test]
fn more_streams_than_allowed_wait_their_turn() {
    let origin = Origin::start();
    origin.on("/*", |seen| respond(200, FRESH, &seen.target));
    let node = node(&origin).limits("h2_streams = 5").start();
    let requests: Vec<_> = (0..40).map(|n| get(&format!("/{n}"))).collect();
    let answers = Http2::plain(node.http()).exchange_all(&requests);
    for (n, answer) in answers.iter().enumerate() {
        answer.assert_status(200).assert_body(format!("/{n}"));
    }
}
