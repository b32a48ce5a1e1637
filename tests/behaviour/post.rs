//! The answer to a POST that stands for a GET of the same URL (RFC 9110 §9.3.3), where a site allows it.

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, request};
use crate::support::{Gate, OpenOnDrop, assert_same_bytes, pattern};

const KEPT: &[(&str, &str)] = &[("Cache-Control", "max-age=600"), ("Content-Location", "/a")];
type Row<'a> = (&'a str, u16, &'a [(&'a str, &'a str)]);

const ON: &str = "cache_post = true";

#[test]
fn an_answer_that_names_its_own_url_is_stored_for_get() {
    for location in ["/a", "a", "http://test.example/a", "http://TEST.example:80/x/../a"] {
        let origin = Origin::start();
        origin.on("/a", move |seen| {
            let fields = [FRESH[0], ("Content-Location", location)];
            respond(200, &fields, [seen.method.as_bytes(), &seen.body].concat())
        });
        let node = node(&origin).cache(ON).start();
        let answer = request("POST", "/a").body("1").to(&node);
        answer.assert_status(200).assert_body("POST1").assert_fwd("method");
        assert!(answer.is_stored(), "{location}: {:?}", answer.fields);
        node.get("/a").assert_hit().assert_body("POST1");
        // Another POST passes, and its answer takes the place of the first.
        request("POST", "/a").body("2").to(&node).assert_body("POST2");
        node.get("/a").assert_hit().assert_body("POST2");
        assert_eq!(origin.count("/a"), 2, "{location}");
    }
}

#[test]
fn no_other_answer_is_stored() {
    let modified = crate::support::date::http_date(-100 * 86_400);
    let (here, fresh) = (KEPT[1], FRESH[0]);
    let rows: &[Row] = &[
        ("without Content-Location", 200, &[fresh]),
        ("of another URL", 200, &[fresh, ("Content-Location", "/b")]),
        ("of another query", 200, &[fresh, ("Content-Location", "/a?q")]),
        ("of another host", 200, &[fresh, ("Content-Location", "http://other.example/a")]),
        ("of another scheme", 200, &[fresh, ("Content-Location", "https://test.example/a")]),
        ("without freshness", 200, &[here]),
        ("by a heuristic", 200, &[here, ("Last-Modified", &modified)]),
        ("stale at once", 200, &[here, ("Cache-Control", "max-age=0")]),
        ("private", 200, &[here, ("Cache-Control", "private, max-age=600")]),
        ("no-store", 200, &[here, ("Cache-Control", "no-store, max-age=600")]),
        ("that sets a cookie", 200, &[here, fresh, ("Set-Cookie", "a=b")]),
        ("that varies on everything", 200, &[here, fresh, ("Vary", "*")]),
        ("an error", 404, &[here, fresh]),
        ("a redirect", 303, &[here, fresh]),
        ("what was made", 201, &[here, fresh]),
        ("what is to be made", 202, &[here, fresh]),
    ];
    let origin = Origin::start();
    let node = node(&origin).cache(ON).start();
    for (what, status, fields) in rows {
        origin.fixed("/a", *status, fields, "posted");
        let answer = request("POST", "/a").body("x").to(&node);
        answer.assert_status(*status).assert_body("posted");
        assert!(!answer.is_stored(), "{what}: {:?}", answer.fields);
        origin.fixed("/a", 200, &[("Cache-Control", "no-store")], "got");
        node.get("/a").assert_body("got");
    }
}

#[test]
fn it_is_off_by_default_and_by_a_pass_rule_and_for_other_methods() {
    let origin = Origin::with("/a", KEPT, "posted");
    let default = node(&origin).start();
    let passing = node(&origin).cache(ON).rules("[[site.rule]]\npass = true").start();
    let on = node(&origin).cache("profile = \"rfc\"").start();
    for (node, method) in [(&default, "POST"), (&passing, "POST"), (&on, "PUT"), (&on, "PATCH")] {
        assert!(!request(method, "/a").body("x").to(node).is_stored(), "{method}");
        assert!(!node.get("/a").is_hit());
    }
    request("POST", "/a").body("x").to(&on);
    node_hits(&on);
}

fn node_hits(node: &crate::support::node::Node) {
    node.get("/a").assert_hit().assert_body("posted");
}

#[test]
fn an_answer_to_credentials_needs_the_origins_word() {
    let origin = Origin::with("/a", KEPT, "mine");
    origin.fixed("/b", 200, &[("Cache-Control", "public, max-age=600"), ("Content-Location", "/b")], "all");
    let node = node(&origin).cache(ON).start();
    for (path, stored) in [("/a", false), ("/b", true)] {
        let answer = request("POST", path).with("Authorization", "Basic eDp5").body("x").to(&node);
        assert_eq!(answer.is_stored(), stored, "{path}");
    }
}

#[test]
fn the_conditions_of_a_post_are_the_origins_to_judge() {
    let fields = [FRESH[0], ("Content-Location", "/a"), ("ETag", "\"new\"")];
    let origin = Origin::with("/a", &fields, "changed");
    let node = node(&origin).cache(ON).start();
    for (name, value) in [("If-Match", "\"old\""), ("If-None-Match", "\"new\""), ("Range", "bytes=0-1")] {
        let answer = request("POST", "/a").with(name, value).body("x").to(&node);
        answer.assert_status(200).assert_body("changed");
        assert_eq!(origin.last("/a").field(name), Some(value));
    }
    get("/a").with("If-None-Match", "\"new\"").to(&node).assert_status(304);
}

#[test]
fn the_variant_is_that_of_the_post() {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let fields = [FRESH[0], ("Content-Location", "/a"), ("Vary", "X-Kind")];
        respond(200, &fields, format!("{} {}", seen.method, seen.joined("x-kind")))
    });
    let node = node(&origin).cache(ON).start();
    request("POST", "/a").with("X-Kind", "1").body("x").to(&node);
    get("/a").with("X-Kind", "1").to(&node).assert_hit().assert_body("POST 1");
    get("/a").with("X-Kind", "2").to(&node).assert_fwd("vary-miss").assert_body("GET 2");
}

#[test]
fn the_answer_streams_and_is_stored_whole_even_when_its_client_leaves() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let (held, body) = (gate.clone(), pattern(3_000_000, 3));
    let sent = body.clone();
    origin.on("/a", move |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Location: /a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (first, rest) = sent.split_at(1000);
        let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        let first = Step::Send([head.as_bytes(), &chunk(first)].concat());
        vec![first, Step::Wait(held.clone()), Step::Send([chunk(rest), b"0\r\n\r\n".to_vec()].concat())]
    });
    let node = node(&origin).cache(ON).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&request("POST", "/a").body("x").bytes());
    client.try_head().expect("a head while the origin still holds the rest").assert_status(200);
    drop(client);
    gate.open();
    assert_same_bytes(&node.await_hit("/a").body, &body);
}

#[test]
fn what_has_no_room_is_passed_on_whole() {
    let body = pattern(3_000_000, 4);
    let origin = Origin::with("/a", KEPT, &body);
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    origin.on("/b", move |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Location: /b\r\nTransfer-Encoding: chunked\r\n\r\n";
        vec![Step::Send(head.into()), Step::Send(chunked.clone())]
    });
    let node = node(&origin).memory("2MiB").cache(ON).start();
    for path in ["/a", "/b"] {
        let answer = request("POST", path).body("x").to(&node);
        assert_same_bytes(&answer.body, &body);
        assert_eq!(node.metric("larder_store_objects"), 0.0, "{path}");
    }
}

#[test]
fn a_body_that_breaks_off_is_not_stored() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Location: /a\r\nContent-Length: 10\r\n\r\nabc";
        vec![Step::Send(head.into()), Step::Close]
    });
    let node = node(&origin).cache(ON).start();
    let mut client = Client::connect(node.http());
    client.send(&request("POST", "/a").body("x").bytes());
    assert!(client.try_response("POST").is_err());
    origin.fixed("/a", 200, FRESH, "whole");
    node.get("/a").assert_fwd("uri-miss").assert_body("whole");
}

#[test]
fn an_answer_in_a_coding_that_is_no_part_of_the_key_is_for_who_asked_alone() {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let coding = if seen.joined("accept-encoding").contains("deflate") { "deflate" } else { "identity" };
        let fields = [KEPT[0], KEPT[1], ("Vary", "Accept-Encoding"), ("Content-Encoding", coding)];
        respond(200, &fields, coding)
    });
    let node = node(&origin).cache(ON).start();
    let coded = request("POST", "/a").with("Accept-Encoding", "deflate").to(&node);
    coded.assert_status(200).assert_body("deflate");
    assert!(!coded.is_stored(), "{:?}", coded.fields);
    node.get("/a").assert_fwd("uri-miss").assert_body("identity");
    request("POST", "/a").to(&node).assert_body("identity");
    node.get("/a").assert_hit().assert_body("identity");
}

#[test]
fn an_answer_without_content_stands_for_no_page() {
    for status in [204, 205] {
        let origin = Origin::start();
        origin.on("/a", move |seen| {
            if seen.method == "POST" { respond(status, KEPT, "") } else { respond(200, FRESH, "page") }
        });
        let node = node(&origin).cache(ON).start();
        let answer = request("POST", "/a").body("x").to(&node);
        answer.assert_status(status);
        assert!(!answer.is_stored(), "{status}: {:?}", answer.fields);
        node.get("/a").assert_status(200).assert_fwd("uri-miss").assert_body("page");
    }
}
