//! Fields that concern one connection go no further, in either direction (RFC 9110 §7.6.1).

use std::io::{Read as _, Write as _};

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::{Node, bare, node};
use crate::support::origin::{Origin, Step, raw, respond};
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

/// RFC 9110 §7.6.3: by which protocol each message was received.
#[test]
fn via_names_the_protocol_that_a_request_came_by() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).start();
    node.get("/one");
    Http2::plain(node.http()).exchange(&get("/two"));
    let mut old = Client::connect(node.http());
    old.send(b"GET /old HTTP/1.0\r\nHost: test.example\r\n\r\n");
    old.response("GET").assert_status(200);
    for (path, via) in [("/one", "1.1 larder"), ("/two", "2 larder"), ("/old", "1.0 larder")] {
        assert_eq!(origin.last(path).joined("via"), via);
    }
}

#[test]
fn via_names_the_protocol_that_an_answer_came_by() {
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let control = if seen.path() == "/stored" { "no-cache\r\nETag: \"a\"" } else { "no-store" };
        let status = if seen.has("if-none-match") { "304 Same" } else { "200 OK" };
        vec![
            Step::Send(format!("HTTP/1.0 {status}\r\nCache-Control: {control}\r\n").into_bytes()),
            Step::Send(b"Via: 1.1 upstream\r\nContent-Length: 1\r\n\r\n".to_vec()),
            Step::Body(if status == "200 OK" { b"a".to_vec() } else { Vec::new() }),
            Step::Close,
        ]
    });
    let inner = node(&origin).start();
    let asked =
        [get("/stored"), get("/stored"), get("/no"), request("POST", "/a").body("x"), request("HEAD", "/h")];
    for request in asked {
        let answer = request.to(&inner);
        answer.assert_status(200);
        assert_eq!(answer.joined("via"), "1.1 upstream, 1.0 larder", "{request:?}");
    }
    let outer = bare().sites(&format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{{ url = \"http://{}\" }}]\nhttp2 = true\n",
        inner.http()
    ));
    assert_eq!(outer.start().get("/no").joined("via"), "1.1 upstream, 1.0 larder, 2 larder");
}

/// How the origin speaks is no affair of the client's.
#[test]
fn an_answer_has_the_version_of_this_node() {
    let origin = Origin::start();
    origin.on("/*", |_| raw("HTTP/1.0 200 OK\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\na"));
    let node = node(&origin).start();
    let mut client = std::net::TcpStream::connect(node.http()).expect("a connection");
    for _ in 0..2 {
        client.write_all(b"GET /a HTTP/1.1\r\nHost: test.example\r\n\r\n").expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\na") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}
