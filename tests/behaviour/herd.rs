//! A herd: thousands of clients on one cold URL cost its origin one request.
//!
//! A thousand clients, which is quick. `LARDER_HERD_CLIENTS=10000`, with `--nocapture`, shows how much longer they take on a
//! cold URL than on one that is stored, in `LARDER_HERD_ROUNDS` pairs; `benches/README.md` has the figures of an optimised
//! program. The limit on open files must leave room for so many in this process and in the node.

use std::sync::Arc;
use std::time::Duration;

use crate::support::herd::{Protocol, rounds};
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::process::open_files_limit;
use crate::support::{heavy, pattern};

/// The origin takes this long to answer.
const ORIGIN_TAKES: Duration = Duration::from_millis(500);
const BODY_BYTES: usize = 1024 * 1024;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn clients() -> usize {
    let clients = setting("LARDER_HERD_CLIENTS", 1000);
    let limit = open_files_limit();
    assert!(clients + 1000 <= limit, "{clients} clients need as many open files: the limit is {limit}");
    clients
}

fn slow_origin(fields: &'static [(&str, &str)]) -> (Origin, Arc<Vec<u8>>) {
    let (origin, body) = (Origin::start(), Arc::new(pattern(BODY_BYTES, 7)));
    let sent = body.clone();
    origin.on("/*", move |_| [vec![Step::Sleep(ORIGIN_TAKES)], respond(200, fields, &*sent)].concat());
    (origin, body)
}

fn start(origin: &Origin) -> Node {
    let room = "connections = 50000\nconnections_per_client = 50000\nwrite_timeout = \"5m\"";
    node(origin).limits(room).origin("first_byte_timeout = \"1m\"").start()
}

fn herd_on_a_cold_url(protocol: Protocol) {
    let _alone = heavy();
    let (clients, (origin, body)) = (clients(), slow_origin(FRESH));
    let node = start(&origin);
    let urls: Vec<String> = (0..setting("LARDER_HERD_ROUNDS", 1)).map(|n| format!("/{n}")).collect();
    let targets: Vec<&str> = urls.iter().flat_map(|url| [url.as_str(); 2]).collect();
    let rounds = rounds(protocol, clients, &node, &targets, &body);
    for (url, pair) in urls.iter().zip(rounds.chunks(2)) {
        println!("{clients} clients, {protocol:?}: cold {}, stored {}", pair[0], pair[1]);
        assert_eq!(origin.count(url), 1);
    }
    node.assert_no_panic();
}

#[test]
fn a_herd_of_connections_costs_the_origin_one_request() {
    herd_on_a_cold_url(Protocol::Http1);
}

#[test]
fn a_herd_of_streams_costs_the_origin_one_request() {
    herd_on_a_cold_url(Protocol::Http2);
}
