//! What is too large or too much is refused with its own status.

use std::time::Duration;

use crate::support::client::{Broken, Client};
use crate::support::eventually;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{HOST, Request, get, request};

/// The answer to a request that may be refused while it is still being sent.
fn refusal(node: &Node, ask: &Request) -> u16 {
    let mut client = Client::connect(node.http());
    drop(client.try_send(&ask.bytes()));
    client.response(&ask.method).status
}

#[test]
fn heads_are_limited_in_bytes_and_fields() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("header_bytes = \"8KiB\"\nheader_count = 20").start();
    assert_eq!(refusal(&node, &get("/a").with("X", "x".repeat(4000))), 200);
    assert_eq!(refusal(&node, &get("/a").with("X", "x".repeat(10_000))), 431);
    let with_fields = |count: usize| (0..count).fold(get("/a"), |ask, n| ask.with(&format!("X-{n}"), "1"));
    assert_eq!(refusal(&node, &with_fields(15)), 200);
    assert_eq!(refusal(&node, &with_fields(30)), 431);
}

#[test]
fn the_default_head_limits_hold() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).start();
    assert_eq!(refusal(&node, &get("/a").with("X", "x".repeat(25_000))), 200);
    assert_eq!(refusal(&node, &get("/a").with("X", "x".repeat(40_000))), 431);
    let many = (0..150).fold(get("/a"), |ask, n| ask.with(&format!("X-{n}"), "1"));
    assert_eq!(refusal(&node, &many), 431);
}

#[test]
fn targets_are_limited() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("uri_bytes = \"1KiB\"").start();
    assert_eq!(refusal(&node, &get(&format!("/{}", "x".repeat(1000)))), 200);
    for long in [format!("/{}", "x".repeat(1100)), format!("/a?{}", "x".repeat(1100))] {
        assert_eq!(refusal(&node, &get(&long)), 414);
    }
    assert_eq!(origin.total(), 1);
}

#[test]
fn request_bodies_are_limited_by_length_and_while_they_stream() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("request_body = \"64KiB\"").start();
    request("POST", "/a").body(vec![b'x'; 60_000]).to(&node).assert_status(200);

    // By its length alone: the body need not be sent.
    let mut client = Client::connect(node.http());
    client.send(format!("POST /b HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 70000\r\n\r\n").as_bytes());
    client.response("POST").assert_status(413).assert_own_error();
    assert_eq!(origin.begun("/b"), 0);

    let mut client = Client::connect(node.http());
    client.send(format!("POST /c HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
    for _ in 0..20 {
        drop(client.try_send(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()));
    }
    drop(client.try_send(b"0\r\n\r\n"));
    client.response("POST").assert_status(413);
    assert_eq!(origin.count("/c"), 0, "the origin took a part of it for the whole");
    node.get("/d").assert_status(200);
}

#[test]
fn expect_100_continue_of_a_body_too_large_is_refused_at_once() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits("request_body = \"64KiB\"").start();
    let mut client = Client::connect(node.http());
    client.send(
        format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n")
            .as_bytes(),
    );
    let answer = client.response("POST");
    answer.assert_status(413);
    assert!(answer.interim.is_empty(), "it was asked to send what will be refused");
}

/// With `limit` connections in use one more is not served; when one leaves, another is.
fn check_connections(setting: &str, limit: usize) {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).limits(setting).start();
    let mut held: Vec<Client> = (0..limit).map(|_| Client::connect(node.http())).collect();
    for client in &mut held {
        client.exchange(&get("/a")).assert_status(200);
    }
    if let Ok(mut surplus) = Client::try_connect(node.http()) {
        surplus.read_timeout(Duration::from_millis(700));
        drop(surplus.try_send(&get("/a").bytes()));
        match surplus.try_response("GET") {
            Ok(answer) => assert!([429, 503].contains(&answer.status), "{}", answer.status),
            Err(broken) => {
                assert!(matches!(broken, Broken::Closed | Broken::Reset | Broken::TimedOut), "{broken:?}");
            }
        }
    }
    for client in &mut held {
        client.exchange(&get("/a")).assert_status(200);
    }
    held.clear();
    eventually("connections are taken again", || {
        let Ok(mut client) = Client::try_connect(node.http()) else { return false };
        client.try_send(&get("/a").bytes()).is_ok()
            && client.try_response("GET").is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn open_connections_are_counted_by_listener() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).listen("127.0.0.1:0").start();
    let series =
        |index| format!("larder_connections{{listener=\"{}\",state=\"open\"}}", node.listener(false, index));
    let mut held: Vec<Client> =
        (0..6).map(|n| Client::connect(node.listener(false, usize::from(n < 2)))).collect();
    for client in &mut held {
        client.exchange(&get("/a")).assert_status(200);
    }
    assert_eq!((node.metric(&series(0)), node.metric(&series(1))), (4.0, 2.0));
    held.truncate(1);
    eventually("they are counted down", || (node.metric(&series(0)), node.metric(&series(1))) == (0.0, 1.0));
}

#[test]
fn connections_are_limited() {
    check_connections("connections = 8", 8);
}

#[test]
fn connections_of_one_client_are_limited() {
    check_connections("connections_per_client = 6", 6);
}
