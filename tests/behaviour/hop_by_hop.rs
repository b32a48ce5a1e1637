//! Fields that concern one connection go no further, in either direction (RFC 9110 §7.6.1).

use crate::support::node::{Node, node};
use crate::support::origin::{Origin, respond};
use crate::support::request::{get, request};
use crate::support::response::Response;

const REQUEST_FIELDS: [(&str, &str); 9] = [
    ("Connection", "X-Nominated, keep-alive"),
    ("Connection", "x-second"),
    ("X-Nominated", "leak"),
    ("X-Second", "leak"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic leak"),
    ("TE", "trailers"),
    ("Trailer", "X-Trailer"),
];

#[test]
fn none_of_a_clients_connection_fields_reach_the_origin() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/pass/*\"]\npass = true").start();
    for (method, path) in [("GET", "/a"), ("POST", "/b"), ("GET", "/pass/c")] {
        let ask = request(method, path).with("X-Kept", "yes");
        REQUEST_FIELDS
            .iter()
            .fold(ask, |ask, (name, value)| ask.with(name, value))
            .to(&node)
            .assert_status(200);
        let seen = origin.last(path);
        for (name, _) in REQUEST_FIELDS.iter().filter(|(name, _)| *name != "Connection") {
            assert!(!seen.has(name), "{method} {path}: {name} leaked: {:?}", seen.fields);
        }
        let connection = seen.joined("connection").to_ascii_lowercase();
        assert!(!connection.contains("x-nominated") && !connection.contains("x-second"), "{connection}");
        assert_eq!(seen.field("x-kept"), Some("yes"));
        assert!(!String::from_utf8_lossy(&seen.head).contains("leak"));
    }
}

#[test]
fn an_upgrade_is_not_forwarded() {
    let origin = Origin::with("/a", &[], "plain");
    let node = node(&origin).start();
    let answer = get("/a").with("Connection", "Upgrade").with("Upgrade", "websocket").to(&node);
    answer.assert_status(200).assert_body("plain");
    let seen = origin.last("/a");
    assert!(!seen.has("upgrade") && !seen.joined("connection").to_ascii_lowercase().contains("upgrade"));
}

#[test]
fn nominating_a_field_that_the_cache_needs_does_not_take_it_away() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).start();
    get("/a").with("Connection", "Host, X-Forwarded-For, Via, CDN-Loop").to(&node).assert_status(200);
    let seen = origin.last("/a");
    for name in ["host", "x-forwarded-for", "via", "cdn-loop"] {
        assert!(seen.has(name), "{name}: {:?}", seen.fields);
    }
    let body = request("POST", "/b").with("Connection", "Content-Length").body("abc").to(&node);
    body.assert_status(200);
    assert_eq!(origin.last("/b").body, b"abc");
}

#[track_caller]
fn assert_clean(answer: &Response) {
    answer.assert_status(200).assert_body("a");
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authentication-info",
        "te",
        "trailer",
        "upgrade",
        "x-nominated",
        "x-second",
        "transfer-encoding",
    ] {
        assert!(!answer.has(name), "{name} leaked: {:?}", answer.fields);
    }
    assert!(!answer.joined("connection").to_ascii_lowercase().contains("x-"), "{:?}", answer.fields);
    assert_eq!(answer.field("x-kept"), Some("yes"));
    assert_eq!(answer.field("x-third"), Some("kept"));
}

fn leaky(control: &'static str) -> Origin {
    let origin = Origin::start();
    origin.on("/*", move |_| {
        let fields = [
            ("Cache-Control", control),
            ("Connection", "X-Nominated, keep-alive"),
            ("Connection", "x-second"),
            ("X-Nominated", "leak"),
            ("X-Second", "leak"),
            ("X-Third", "kept"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authenticate", "Basic realm=leak"),
            ("Proxy-Authentication-Info", "leak"),
            ("TE", "trailers"),
            ("Trailer", "X-Trailer"),
            ("Upgrade", "h2c"),
            ("X-Kept", "yes"),
        ];
        respond(200, &fields, "a")
    });
    origin
}

#[test]
fn none_of_an_origins_connection_fields_reach_a_client_on_a_miss_or_a_hit() {
    let origin = leaky("max-age=600");
    let node = node(&origin).start();
    assert_clean(&node.get("/a"));
    let hit = node.get("/a");
    hit.assert_hit();
    assert_clean(&hit);
}

#[test]
fn nor_when_the_answer_passes_through() {
    let origin = leaky("no-store");
    let node: Node = node(&origin).rules("[[site.rule]]\npath = [\"/pass/*\"]\npass = true").start();
    for ask in [get("/a"), get("/pass/a"), request("POST", "/a").body("x")] {
        assert_clean(&ask.to(&node));
    }
}

#[test]
fn nor_by_a_304_that_updates_the_stored_answer() {
    let origin = Origin::start();
    let stored = [("Cache-Control", "no-cache"), ("ETag", "\"v1\""), ("X-Kept", "yes"), ("X-Third", "kept")];
    let update = [
        ("ETag", "\"v1\""),
        ("Connection", "x-nominated"),
        ("X-Nominated", "leak"),
        ("Keep-Alive", "timeout=1"),
    ];
    origin.sequence("/a", vec![respond(200, &stored, "a"), respond(304, &update, "")]);
    let node = node(&origin).start();
    for _ in 0..3 {
        assert_clean(&node.get("/a"));
    }
}

#[test]
fn an_origin_that_closes_each_connection_does_not_close_the_clients() {
    let origin = Origin::start();
    origin.on("/*", |_| respond(200, &[("Connection", "close"), ("Cache-Control", "no-store")], "a"));
    let node = node(&origin).start();
    let mut client = crate::support::client::Client::connect(node.http());
    for _ in 0..3 {
        client.exchange(&get("/a")).assert_status(200).assert_body("a");
    }
}

#[test]
fn via_names_each_hop_both_ways() {
    let origin = Origin::with("/a", &[("Via", "1.1 upstream"), ("Cache-Control", "max-age=600")], "a");
    let node = node(&origin).node("name = \"edge-7\"").start();
    let miss = get("/a").with("Via", "1.0 client-side").to(&node);
    assert_eq!(miss.joined("via"), "1.1 upstream, 1.1 edge-7");
    assert_eq!(origin.last("/a").joined("via"), "1.0 client-side, 1.1 edge-7");
    assert_eq!(node.get("/a").joined("via"), "1.1 upstream, 1.1 edge-7");
}
