//! PROXY protocol on listeners that ask for it: a trusted proxy names the client before anything else is said.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{get, request};
use crate::support::tls::Ca;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a short header").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn with_listener(origin: &Origin, trusted: &str, more: &str) -> Builder {
    node(origin)
        .node(&format!("trusted_proxies = [{trusted}]"))
        .extra(&format!("[[listen]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n{more}"))
}

fn proxied(node: &Node) -> SocketAddr {
    node.listener(false, 1)
}

fn connect(address: SocketAddr, header: &[u8]) -> Client {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.write_all(header).expect("the header is taken");
    Client::on(socket).expect("a client")
}

#[test]
fn the_client_is_whom_the_proxy_names() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = with_listener(&origin, "\"127.0.0.1\"", "").start();
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0x20, 0x01]);
    v6[15] = 9;
    let v4 = [192, 0, 2, 8, 198, 51, 100, 1, 1, 1, 1, 187];
    let rows: [(&[u8], &str); 6] = [
        (V1, "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n", "2001:db8::7"),
        (&v2(0x21, 0x11, &v4), "192.0.2.8"),
        (&v2(0x21, 0x21, &v6), "2001::9"),
        // The proxy speaks for itself.
        (&v2(0x20, 0, &[]), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ];
    for (header, client) in rows {
        let mut connection = connect(proxied(&node), header);
        for _ in 0..2 {
            connection.exchange(&request("POST", "/a").body("x")).assert_status(200);
            assert_eq!(origin.last("/a").field("x-forwarded-for"), Some(client));
        }
    }
    // In one packet with the request, and in the smallest pieces.
    let ask = get("/a").bytes();
    connect(proxied(&node), &[V1, &ask].concat()).response("GET").assert_status(200);
    let mut slow = connect(proxied(&node), &[]);
    for byte in V1.iter().chain(&ask) {
        slow.send(&[*byte]);
    }
    slow.response("GET").assert_status(200);
    // Other listeners know nothing of it.
    assert_eq!(connect(node.http(), V1).try_response("GET").map_or(400, |answer| answer.status), 400);
    node.get("/a").assert_status(200);
}

#[test]
fn what_the_client_says_of_itself_is_not_believed() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = with_listener(&origin, "\"127.0.0.1\"", "").start();
    let ask = get("/a").with("X-Forwarded-For", "10.0.0.1").with("X-Forwarded-Proto", "https");
    connect(proxied(&node), V1).exchange(&ask).assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(
        (seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")),
        (Some("192.0.2.7"), Some("http"))
    );
}

#[test]
fn a_proxy_that_names_nobody_vouches_for_nobody() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = with_listener(&origin, "\"127.0.0.1\"", "").start();
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, &[])] {
        let ask = get("/a").with("X-Forwarded-For", "192.0.2.99").with("X-Forwarded-Proto", "https");
        connect(proxied(&node), &header)
            .exchange(&request("POST", "/a").with("X-Forwarded-For", "192.0.2.99").body("x"));
        assert_eq!(origin.last("/a").field("x-forwarded-for"), Some("127.0.0.1"));
        connect(proxied(&node), &header).exchange(&ask).assert_status(200);
        assert_eq!(origin.last("/a").field("x-forwarded-proto"), Some("http"));
    }
}

#[test]
fn access_and_limits_are_the_clients() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = with_listener(&origin, "\"127.0.0.1\"", "")
        .limits("connections_per_client = 2")
        .rules("[site.access]\ndeny = [\"192.0.2.66\"]")
        .start();
    let denied = b"PROXY TCP4 192.0.2.66 198.51.100.1 1 443\r\n";
    connect(proxied(&node), denied).exchange(&get("/a")).assert_status(403);
    let mut open: Vec<Client> = (0..2).map(|_| connect(proxied(&node), V1)).collect();
    for client in &mut open {
        client.exchange(&get("/a")).assert_status(200);
    }
    assert!(connect(proxied(&node), &[V1, &get("/a").bytes()].concat()).try_response("GET").is_err());
    let other = b"PROXY TCP4 192.0.2.9 198.51.100.1 1 443\r\n";
    connect(proxied(&node), other).exchange(&get("/a")).assert_status(200);
    drop(open);
    eventually("they are given back", || {
        connect(proxied(&node), &[V1, &get("/a").bytes()].concat()).try_response("GET").is_ok()
    });
}

#[test]
fn without_a_header_or_without_trust_there_is_no_answer() {
    let origin = Origin::with("/*", FRESH, "a");
    let trusting = with_listener(&origin, "\"127.0.0.1\"", "").start();
    let get = get("/a").bytes();
    let too_long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    let datagram = v2(0x21, 0x12, &[0; 12]);
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let bad: [&[u8]; 6] =
        [&get, &too_long, &datagram, &endless, b"PROXY TCP4 x y 1 2\r\n", b"PROXY\r\n\r\n\r\n\r\n"];
    for bytes in bad {
        let mut client = connect(proxied(&trusting), bytes);
        drop(client.try_send(&get));
        assert!(client.try_response("GET").is_err(), "{:?}", String::from_utf8_lossy(bytes));
    }
    trusting.await_metric("larder_connections_ended_total{reason=\"proxy_protocol\"}", 6.0);
    let other = with_listener(&origin, "\"192.0.2.0/24\"", "").start();
    assert!(connect(proxied(&other), &[V1, &get].concat()).try_response("GET").is_err());
    assert_eq!(origin.total(), 0);
    other.await_metric("larder_connections_ended_total{reason=\"proxy_protocol\"}", 1.0);
}

#[test]
fn a_header_that_does_not_come_is_timed_out() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = with_listener(&origin, "\"127.0.0.1\"", "").limits("header_timeout = \"300ms\"").start();
    for part in [&b""[..], &V1[..20], &SIGNATURE[..5]] {
        assert!(connect(proxied(&node), part).expect_close() < Duration::from_secs(10));
    }
    node.await_metric("larder_connections_ended_total{reason=\"header_timeout\"}", 3.0);
}

#[test]
fn tls_comes_after_it() {
    let (ca, origin) = (Ca::new(), Origin::with("/*", FRESH, "a"));
    let node = with_listener(&origin, "\"127.0.0.1\"", "tls = true").tls(&ca, &["test.example"]).start();
    let plain = connect(node.listener(true, 1), V1);
    let mut client = plain.secure("test.example", &ca.client(&["http/1.1"])).expect("a handshake");
    client.exchange(&get("/a")).assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(
        (seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")),
        (Some("192.0.2.7"), Some("https"))
    );
}

#[test]
fn an_unused_connection_does_not_hold_a_drain_up() {
    let origin = Origin::with("/*", FRESH, "a");
    let mut node = with_listener(&origin, "\"127.0.0.1\"", "").start();
    connect(proxied(&node), V1).exchange(&get("/a")).assert_status(200);
    let mut unused = connect(proxied(&node), &V1[..10]);
    node.stop();
    unused.expect_close();
}
