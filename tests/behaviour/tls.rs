//! TLS at the edge.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

use crate::support::assert_same_bytes;
use crate::support::client::{Broken, Client};
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step};
use crate::support::request::get;
use crate::support::tls::Ca;

fn connect(node: &Node, name: &str, config: &Arc<ClientConfig>) -> Client {
    Client::connect_tls(node.https(), name, config).expect("a TLS handshake")
}

#[test]
fn both_versions_are_spoken() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut client = connect(&node, "test.example", &ca.client_with(&[], &[version]));
        client.exchange(&get("/a")).assert_status(200).assert_body("a");
        assert_eq!(client.session().protocol_version(), Some(number));
    }
    node.await_metric("larder_tls_handshakes_total", 2.0);
}

#[test]
fn alpn_offers_h2_and_http_1_1() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    for (offer, chosen) in [
        (&["h2", "http/1.1"] as &[_], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = connect(&node, "test.example", &ca.client(offer));
        assert_eq!(client.session().alpn_protocol(), chosen.map(str::as_bytes), "{offer:?}");
    }
    let unknown = Client::connect_tls(node.https(), "test.example", &ca.client(&["spdy/3"]));
    assert!(unknown.is_err(), "a protocol that nobody speaks was agreed on");
}

#[test]
fn the_certificate_is_chosen_by_name_and_the_first_is_the_default() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin)
        .tls(&ca, &["first.example"])
        .tls(&ca, &["shop.example", "*.shop.example"])
        .tls(&ca, &["exact.shop.example"])
        .start();
    let config = ca.client(&[]);
    for name in ["first.example", "shop.example", "www.shop.example", "exact.shop.example"] {
        let mut client = connect(&node, name, &config);
        client.exchange(&get("/a").host(name)).assert_status(200);
    }
    let certificate = |name: &str| {
        let client = connect(&node, name, &config);
        client.session().peer_certificates().expect("a certificate")[0].clone()
    };
    assert_ne!(certificate("www.shop.example"), certificate("exact.shop.example"), "the exact name wins");
    // Another name gets the first certificate, which the client then refuses.
    let error = Client::connect_tls(node.https(), "unknown.example", &config).err().expect("no match");
    assert!(error.to_string().contains("first.example"), "{error}");
}

#[test]
fn sessions_are_resumed() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    for version in [&TLS12, &TLS13] {
        let config = ca.client_with(&[], &[version]);
        let kinds: Vec<_> = (0..3)
            .map(|_| {
                let mut client = connect(&node, "test.example", &config);
                client.exchange(&get("/a")).assert_status(200);
                client.session().handshake_kind().expect("a finished handshake")
            })
            .collect();
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{version:?}: {kinds:?}");
    }
}

#[test]
fn large_answers_and_keep_alive_work_over_tls() {
    let body = crate::support::pattern(3_000_000, 8);
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, &body));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let mut client = connect(&node, "test.example", &ca.client(&["http/1.1"]));
    for round in 0..4 {
        let answer = client.exchange(&get("/a"));
        assert_eq!(answer.is_hit(), round > 0);
        assert_same_bytes(&answer.body, &body);
    }
}

#[test]
fn a_truncated_body_is_no_clean_end_over_tls() {
    let (ca, origin) = (Ca::new(), Origin::start());
    origin.on("/a", |_| {
        vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()), Step::Close]
    });
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let mut client = connect(&node, "test.example", &ca.client(&["http/1.1"]));
    client.send(&get("/a").bytes());
    match client.try_response("GET") {
        Ok(answer) => drop(answer.assert_status(502)),
        Err(broken) => {
            assert!(matches!(broken, Broken::Truncated(_) | Broken::Closed | Broken::Reset), "{broken:?}");
        }
    }
}

#[test]
fn plain_http_on_a_tls_port_harms_nobody() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let mut confused = Client::connect(node.https());
    confused.send(&get("/a").bytes());
    assert!(confused.try_response("GET").is_err());
    connect(&node, "test.example", &ca.client(&[])).exchange(&get("/a")).assert_status(200);
    assert_eq!(origin.total(), 1);
}

#[test]
fn a_handshake_that_does_not_come_is_not_awaited() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).limits("header_timeout = \"300ms\"").start();
    for sent in [&b""[..], &[0x16, 0x03, 0x01]] {
        let mut client = Client::connect(node.https());
        client.send(sent);
        client.expect_close();
    }
}
