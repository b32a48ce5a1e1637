//! What a connection costs that does nothing, and how long it may do nothing.
//!
//! Two thousand connections of a kind, which is quick and enough to see a byte too many in each. The bounds
//! are promised for ten thousand: `LARDER_IDLE_CONNECTIONS=10000`, with `--nocapture` to see the figures. The
//! limit on open files must leave room for so many in this process and in the node.

use crate::support::client::Client;
use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::process::open_files_limit;
use crate::support::request::get;
use crate::support::tls::Ca;
use crate::support::{eventually, heavy};

fn count() -> usize {
    std::env::var("LARDER_IDLE_CONNECTIONS").ok().and_then(|value| value.parse().ok()).unwrap_or(2000)
}

fn with_room(builder: Builder, limits: &str) -> Node {
    let (needed, limit) = (count() + 1000, open_files_limit());
    assert!(needed <= limit, "{} idle connections need {needed} open files: the limit is {limit}", count());
    let room = format!("connections = 50000\nconnections_per_client = 50000\n{limits}");
    builder.limits(&room).start()
}

/// Opens idle connections by `open` and returns the anonymous memory of each in KiB.
fn cost(node: &Node, open: impl Fn() -> Client) -> f64 {
    // What the first connections of a kind set up for all belongs to none of them.
    drop((0..50).map(|_| open()).collect::<Vec<_>>());
    let fds = node.open_fds();
    let before = node.rss_anon_kib();
    let held: Vec<Client> = (0..count()).map(|_| open()).collect();
    eventually("all are accepted", || node.open_fds() + 60 >= fds + held.len());
    let after = node.rss_anon_kib();
    let connections = u32::try_from(held.len()).expect("a sane number");
    let grown = u32::try_from(after.saturating_sub(before)).expect("less than 4 TiB");
    let each = f64::from(grown) / f64::from(connections);
    println!("{connections} idle connections: {each:.1} KiB each");
    each
}

#[test]
fn an_idle_plain_connection_costs_24_kib_at_most() {
    let _alone = heavy();
    let origin = Origin::with("/a", FRESH, "a");
    let node = with_room(node(&origin), "idle_timeout = \"10m\"");
    let each = cost(&node, || {
        let mut client = Client::connect(node.http());
        client.exchange(&get("/a")).assert_status(200);
        client
    });
    assert!(each <= 24.0, "{each:.1} KiB a connection");
}

#[test]
fn an_idle_tls_connection_costs_48_kib_at_most() {
    let _alone = heavy();
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = with_room(node(&origin).tls(&ca, &["test.example"]), "idle_timeout = \"10m\"");
    let config = ca.client(&["http/1.1"]);
    let each = cost(&node, || {
        let mut client = Client::connect_tls(node.https(), "test.example", &config).expect("TLS");
        client.exchange(&get("/a")).assert_status(200);
        client
    });
    assert!(each <= 48.0, "{each:.1} KiB a connection");
}

/// HEADERS of stream 1, and its end: GET /a of test.example over https, by HPACK's static table and literals.
const GET_A: [u8; 29] = *b"\0\0\x14\x01\x05\0\0\0\x01\x82\x87\x04\x02/a\x01\x0ctest.example";

/// Takes a frame; whether it is the end of a response.
fn ends_the_stream(client: &mut Client) -> bool {
    const END_STREAM: u8 = 1;
    let (mut head, mut payload) = (Vec::new(), Vec::new());
    assert!(client.take(9, &mut head).expect("a frame"));
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    assert!(client.take(length, &mut payload).expect("its payload"));
    matches!(head[3], 0 | 1) && head[4] & END_STREAM != 0
}

#[test]
fn an_idle_http2_connection_costs_64_kib_at_most() {
    let _alone = heavy();
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = with_room(node(&origin).tls(&ca, &["test.example"]), "idle_timeout = \"10m\"");
    let config = ca.client(&["h2"]);
    let each = cost(&node, || {
        let mut client = Client::connect_tls(node.https(), "test.example", &config).expect("TLS");
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        client.send(&GET_A);
        while !ends_the_stream(&mut client) {}
        client
    });
    assert!(each <= 64.0, "{each:.1} KiB a connection");
}

#[test]
fn half_open_connections_are_gone_after_the_header_timeout() {
    let _alone = heavy();
    let origin = Origin::with("/a", FRESH, "a");
    let node = with_room(node(&origin), "header_timeout = \"2s\"");
    node.get("/a").assert_status(200);
    let fds = node.open_fds();
    let mut held: Vec<Client> = (0..count()).map(|_| Client::connect(node.http())).collect();
    for (index, client) in held.iter_mut().enumerate() {
        if index % 2 == 0 {
            drop(client.try_send(b"GET /a HTTP/1.1\r\nHost: test.ex"));
        }
    }
    eventually("none is left", || node.open_fds() <= fds + 8);
    eventually("every client knows", || held.iter_mut().all(Client::is_closed));
    node.get("/a").assert_status(200);
}
