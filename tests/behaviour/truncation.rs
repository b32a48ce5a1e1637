//! A segment's file is cut short below a running node: a client sees a broken transfer or the right bytes.

use std::fs::{self, OpenOptions};

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::get;
use crate::support::response::Response;
use crate::support::tls::Ca;
use crate::support::{eventually, holds_within, pattern};

const BODY: usize = 8_000_000;
const NAME: &str = "a.example";

/// Cuts every segment's file, the one that is written to among them.
fn cut(node: &Node) {
    for entry in fs::read_dir(node.store().join("segments")).expect("the segments").flatten() {
        let file = OpenOptions::new().write(true).open(entry.path()).expect("a segment");
        let length = file.metadata().expect("its length").len();
        file.set_len(length / 2 + 100).expect("a shorter file");
    }
}

fn stored() -> (Origin, Vec<Vec<u8>>) {
    let origin = Origin::start();
    let bodies: Vec<Vec<u8>> = (0..3).map(|n| pattern(BODY, n)).collect();
    for (n, body) in bodies.iter().enumerate() {
        origin.fixed(&format!("/{n}"), 200, FRESH, body);
    }
    (origin, bodies)
}

fn started(origin: &Origin, ca: &Ca) -> Node {
    let store = "segment = \"1MiB\"\nmax_object = \"16MiB\"";
    let node = node(origin).tls(ca, &[NAME]).memory("16MiB").disk("256MiB").store(store).start();
    for n in 0..3 {
        node.get(&format!("/{n}")).assert_fwd("uri-miss");
        node.await_hit(&format!("/{n}"));
    }
    node
}

/// Cuts the files and reads every body by `read`, which gives what arrived whole.
#[track_caller]
fn check(node: &Node, bodies: &[Vec<u8>], origin: &Origin, read: impl Fn(&str) -> Option<Response>) {
    let asked = origin.total();
    cut(node);
    for round in 0..4 {
        for (n, body) in bodies.iter().enumerate() {
            if let Some(response) = read(&format!("/{n}")) {
                assert_eq!((response.status, response.body.len()), (200, BODY), "round {round}");
                assert!(response.body == *body, "wrong bytes of /{n} in round {round}");
            }
        }
    }
    for (n, body) in bodies.iter().enumerate() {
        let is_served = holds_within(crate::support::PATIENCE, || {
            read(&format!("/{n}")).is_some_and(|response| response.body == *body)
        });
        assert!(is_served, "/{n} is not served again");
    }
    assert!(origin.total() > asked, "what was lost is fetched again");
    node.await_metric("larder_store_errors_total{kind=\"truncated\"}", 1.0);
    assert_eq!(node.metric("larder_store_degraded"), 0.0, "one file's fault, not the disk's");
    node.assert_no_panic();
}

#[test]
fn over_plain_http1() {
    let (origin, bodies) = stored();
    let node = started(&origin, &Ca::new());
    check(&node, &bodies, &origin, |path| {
        let mut client = Client::connect(node.http());
        client.send(&get(path).bytes());
        client.try_response("GET").ok()
    });
}

#[test]
fn over_plain_http2() {
    let (origin, bodies) = stored();
    let node = started(&origin, &Ca::new());
    check(&node, &bodies, &origin, |path| Http2::plain(node.http()).try_exchange(&get(path)).ok());
}

#[test]
fn over_tls() {
    let ca = Ca::new();
    let (origin, bodies) = stored();
    let (node, trusting) = (started(&origin, &ca), ca.client(&["http/1.1"]));
    check(&node, &bodies, &origin, |path| {
        let mut client = Client::connect_tls(node.https(), NAME, &trusting).expect("a session");
        client.send(&get(path).bytes());
        client.try_response("GET").ok()
    });
}

#[test]
fn over_http2_and_tls() {
    let ca = Ca::new();
    let (origin, bodies) = stored();
    let (node, trusting) = (started(&origin, &ca), ca.client(&["h2"]));
    check(&node, &bodies, &origin, |path| {
        Http2::tls(node.https(), NAME, &trusting).try_exchange(&get(path)).ok()
    });
}

#[test]
fn in_the_middle_of_a_transfer() {
    let ca = Ca::new();
    let (origin, bodies) = stored();
    let (node, trusting) = (started(&origin, &ca), ca.client(&["http/1.1"]));
    let plain = Client::connect(node.http());
    let tls = Client::connect_tls(node.https(), NAME, &trusting).expect("a session");
    let mut clients = [plain, tls];
    let heads: Vec<Response> = clients
        .each_mut()
        .map(|client| {
            client.send(&get("/1").bytes());
            client.try_head().expect("a head")
        })
        .into();
    cut(&node);
    for (client, head) in clients.iter_mut().zip(heads) {
        if let Ok(response) = client.try_body("GET", head) {
            let wrong = response.body.iter().zip(&bodies[1]).position(|(found, sent)| found != sent);
            assert_eq!((wrong, response.body.len()), (None, BODY), "the first wrong byte, and the length");
        }
    }
    eventually("it is served again", || {
        let mut client = Client::connect(node.http());
        client.send(&get("/1").bytes());
        client.try_response("GET").is_ok_and(|response| response.body == bodies[1])
    });
    node.assert_no_panic();
}

#[test]
fn a_file_that_is_removed_is_still_served_until_the_restart() {
    let (origin, bodies) = stored();
    let node = started(&origin, &Ca::new());
    fs::remove_dir_all(node.store().join("segments")).expect("removed files");
    fs::create_dir(node.store().join("segments")).expect("the folder");
    for (n, body) in bodies.iter().enumerate() {
        node.get(&format!("/{n}")).assert_hit().assert_body(body);
    }
    let node = node.restarted(rustix::process::Signal::TERM);
    for (n, body) in bodies.iter().enumerate() {
        node.get(&format!("/{n}")).assert_fwd("uri-miss").assert_body(body);
    }
}
