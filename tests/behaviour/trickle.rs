//! An origin that sends the first half of a large body and takes its time with the rest: whoever comes gets at once what is
//! there, and nobody waits for another client.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::get;
use crate::support::{Gate, OpenOnDrop, assert_same_bytes, eventually, pattern};

const LENGTH: usize = 20 * 1024 * 1024;
const HALF: usize = LENGTH / 2;

struct Trickle {
    origin: Origin,
    node: Node,
    body: Vec<u8>,
    /// The second half comes when it opens.
    gate: Gate,
    _open: OpenOnDrop,
}

/// `disk` holds the whole.
fn trickle(disk: &str) -> Trickle {
    let (origin, gate, body) = (Origin::start(), Gate::new(), pattern(LENGTH, 5));
    let (held, sent) = (gate.clone(), body.clone());
    origin.on("/a", move |_| {
        let length = LENGTH.to_string();
        let mut steps = respond(200, &[FRESH[0], ("Content-Length", &length)], "");
        let second = [Step::Wait(held.clone()), Step::Body(sent[HALF..].to_vec())];
        steps.push(Step::Body(sent[..HALF].to_vec()));
        steps.extend(second);
        steps
    });
    let patient = "between_bytes_timeout = \"5m\"";
    let node =
        node(&origin).memory("256MiB").disk(disk).origin(patient).limits("write_timeout = \"5m\"").start();
    let open = OpenOnDrop(gate.clone());
    Trickle { origin, node, body, gate, _open: open }
}

/// Asks, and reads this much of the body.
fn begin(address: SocketAddr, length: usize) -> (Client, Vec<u8>) {
    let mut client = Client::connect(address);
    client.send(&get("/a").bytes());
    client.try_head().expect("a head").assert_status(200);
    let mut read = Vec::new();
    assert!(client.take(length, &mut read).expect("what is there"), "the connection ended");
    (client, read)
}

fn followers_at_half_get_the_first_half_at_once(disk: &str) {
    let Trickle { origin, node, body, gate, _open } = trickle(disk);
    let (mut leader, mut led) = begin(node.http(), HALF);
    let (mut late, mut followed) = begin(node.http(), HALF);
    let http2 = Http2::plain(node.http());
    let mut stream = http2.begin(&get("/a"));
    let mut streamed = http2.read(&mut stream, HALF);
    for read in [&led, &followed, &streamed] {
        assert_same_bytes(read, &body[..HALF]);
    }
    gate.open();
    assert!(leader.take(LENGTH - HALF, &mut led).expect("the rest"));
    assert!(late.take(LENGTH - HALF, &mut followed).expect("the rest"));
    streamed.extend(http2.read(&mut stream, LENGTH - HALF));
    for read in [&led, &followed, &streamed] {
        assert_same_bytes(read, &body);
    }
    assert_same_bytes(&node.await_hit("/a").body, &body);
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn followers_at_half_get_the_first_half_at_once_from_the_disk_tier() {
    followers_at_half_get_the_first_half_at_once("1GiB");
}

#[test]
fn followers_at_half_get_the_first_half_at_once_from_memory() {
    followers_at_half_get_the_first_half_at_once("0\"\nmax_object = \"32MiB");
}

#[test]
fn slow_and_gone_clients_delay_nobody_and_the_fill_goes_on_without_its_first() {
    let Trickle { origin, node, body, gate, _open } = trickle("1GiB");
    let (leader, _) = begin(node.http(), 1000);
    // They read nothing more for now.
    let slow: Vec<_> = (0..4).map(|_| begin(node.http(), 1000)).collect();
    let http2 = Http2::plain(node.http());
    let mut stream = http2.begin(&get("/a"));
    let gone = begin(node.http(), HALF / 2);
    drop((leader, gone));
    let (mut fast, mut read) = begin(node.http(), HALF);
    gate.open();
    assert!(fast.take(LENGTH - HALF, &mut read).expect("the rest"));
    assert_same_bytes(&read, &body);
    assert_same_bytes(&node.await_hit("/a").body, &body);
    for (mut client, mut read) in slow {
        assert!(client.take(LENGTH - 1000, &mut read).expect("the rest"));
        assert_same_bytes(&read, &body);
    }
    assert_same_bytes(&http2.read(&mut stream, LENGTH), &body);
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn what_nobody_waits_for_any_more_is_stored_all_the_same() {
    let Trickle { origin, node, body, gate, _open } = trickle("1GiB");
    drop(begin(node.http(), HALF));
    node.await_metric("larder_requests_total", 1.0);
    gate.open();
    assert_same_bytes(&node.await_hit("/a").body, &body);
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_fill_that_is_not_stored_ends_when_nobody_is_left() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let _open = OpenOnDrop(gate.clone());
    let chunk = |length: usize| {
        let mut framed = format!("{length:x}\r\n").into_bytes();
        framed.extend(pattern(length, 9));
        framed.extend_from_slice(b"\r\n");
        framed
    };
    let (first, rest, held) = (chunk(2 * 1024 * 1024), chunk(8 * 1024 * 1024), gate.clone());
    origin.on("/a", move |_| {
        let mut steps = respond(200, &[FRESH[0], ("Transfer-Encoding", "chunked")], "");
        steps.extend([Step::Body(first.clone()), Step::Wait(held.clone()), Step::Body(rest.clone())]);
        steps.push(Step::Body(b"0\r\n\r\n".to_vec()));
        steps
    });
    let node = node(&origin).store("max_object = \"1MiB\"").start();
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(node.http())).collect();
    for client in &mut clients {
        client.send(&get("/a").bytes());
        client.try_head().expect("a head").assert_status(200);
    }
    drop(clients);
    node.await_metric("larder_requests_total", 2.0);
    gate.open();
    // Read to its end, it would be kept for the next request.
    eventually("the origin is no longer read", || origin.connections_open() == 0);
}
