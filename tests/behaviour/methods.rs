//! Everything that is not GET or HEAD passes through, bodies both ways.

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{HOST, head, request};
use crate::support::{Gate, OpenOnDrop, assert_same_bytes, eventually, pattern};

/// Answers with the method, the target and the body of the request.
fn echo() -> Origin {
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let prefix = format!("{} {} ", seen.method, seen.target).into_bytes();
        respond(200, FRESH, [prefix, seen.body.clone()].concat())
    });
    origin
}

#[test]
fn methods_and_their_bodies_pass_and_are_never_stored() {
    let origin = echo();
    let node = node(&origin).start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH", "FROB"] {
        for round in ["one", "two"] {
            let answer = request(method, "/a?q=1").body(round).to(&node);
            answer.assert_status(200).assert_body(format!("{method} /a?q=1 {round}"));
            assert!(!answer.is_hit() && !answer.is_stored(), "{method}: {:?}", answer.fields);
        }
    }
    assert_eq!(origin.count("/a"), 16);
}

#[test]
fn a_method_without_a_body_passes_too() {
    let origin = echo();
    let node = node(&origin).start();
    request("DELETE", "/a").to(&node).assert_status(200).assert_body("DELETE /a ");
    request("POST", "/a").body("").to(&node).assert_status(200).assert_body("POST /a ");
    assert_eq!(origin.last("/a").field("content-length"), Some("0"), "an empty POST says so");
}

#[test]
fn options_of_the_server_itself_never_becomes_a_path() {
    let origin = echo();
    let node = node(&origin).start();
    let answer = request("OPTIONS", "*").to(&node);
    assert!([200, 204, 400].contains(&answer.status), "{}", answer.status);
    assert!(origin.seen("/").is_empty() && origin.seen("/*").is_empty());
}

#[test]
fn large_bodies_pass_byte_for_byte_by_length_and_in_chunks() {
    let body = pattern(5_000_000, 5);
    let origin = echo();
    let node = node(&origin).start();
    let answer = request("POST", "/a").body(&body).to(&node);
    assert_same_bytes(&answer.body[8..], &body);

    let mut client = Client::connect(node.http());
    client.send(format!("PUT /b HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
    for part in body.chunks(70_000) {
        client.send(format!("{:x}\r\n", part.len()).as_bytes());
        client.send(part);
        client.send(b"\r\n");
    }
    client.send(b"0\r\n\r\n");
    let answer = client.response("PUT");
    answer.assert_status(200);
    assert_same_bytes(&answer.body[7..], &body);
    assert_same_bytes(&origin.last("/b").body, &body);
}

#[test]
fn an_upload_streams_to_the_origin_before_it_is_complete() {
    let origin = echo();
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    client.send(format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\n\r\nabc").as_bytes());
    eventually("the origin has the head", || origin.begun("/a") == 1);
    client.send(b"def");
    client.response("POST").assert_status(200).assert_body("POST /a abcdef");
}

#[test]
fn a_download_streams_to_the_client_before_it_is_complete() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc";
        vec![Step::Send(head.into()), Step::Wait(held.clone()), Step::Send(b"def".to_vec())]
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&request("POST", "/a").body("x").bytes());
    let answer = client.try_head().expect("a head while the origin still holds the rest");
    let mut first = Vec::new();
    assert!(client.take(3, &mut first).expect("the first half"));
    assert_eq!((answer.status, first.as_slice()), (200, &b"abc"[..]));
    gate.open();
    assert!(client.take(3, &mut first).expect("the second half"));
    assert_eq!(first, b"abcdef");
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let origin = echo();
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    client.send(
        format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(client.try_head().expect("an interim response").status, 100);
    client.send(b"abc");
    client.response("POST").assert_status(200).assert_body("POST /a abc");
}

#[test]
fn an_answer_to_post_never_answers_a_get() {
    let origin = Origin::start();
    origin.on("/a", |seen| respond(200, FRESH, &seen.method));
    let node = node(&origin).start();
    request("POST", "/a").body("x").to(&node).assert_body("POST");
    node.get("/a").assert_body("GET").assert_fwd("uri-miss");
    request("POST", "/a").body("x").to(&node).assert_body("POST");
}

#[test]
fn purging_methods_are_never_forwarded() {
    let origin = echo();
    let node = node(&origin).start();
    for method in ["PURGE", "BAN", "PURGEKEYS", "PURGETAGS"] {
        request(method, "/a").to(&node).assert_status(403);
    }
    assert_eq!(origin.total(), 0);
}

#[test]
fn head_of_what_is_never_stored_passes_without_a_body() {
    let origin = Origin::with("/a", &[("Cache-Control", "no-store")], "twelve bytes");
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    for _ in 0..2 {
        let answer = client.exchange(&head("/a"));
        assert_eq!(answer.field("content-length"), Some("12"));
    }
    assert!(client.surplus().is_empty());
}

#[test]
fn requests_in_a_pipeline_are_answered_in_their_order() {
    let origin = echo();
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    let asked =
        [request("GET", "/1"), request("POST", "/2").body("x"), request("GET", "/1"), request("GET", "/3")];
    client.send(&asked.iter().flat_map(super::support::request::Request::bytes).collect::<Vec<u8>>());
    for (request, expected) in asked.iter().zip(["GET /1 ", "POST /2 x", "GET /1 ", "GET /3 "]) {
        client.response(&request.method).assert_status(200).assert_body(expected);
    }
}
