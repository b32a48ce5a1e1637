//! What is refused before it reaches a cache key or an origin.

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{get, request};
use crate::support::response::Response;

/// Sends raw bytes on a connection of their own and reads one response to a GET.
fn ask(node: &crate::support::node::Node, bytes: &str) -> Response {
    let mut client = Client::connect(node.http());
    client.send(bytes.as_bytes());
    client.response("GET")
}

/// The program itself refuses each of these, with a status and a reason.
#[test]
fn requests_that_a_cache_must_not_take_are_refused_with_a_reason() {
    let rows = [
        ("no Host", "GET /a HTTP/1.1\r\n\r\n", 400),
        ("two Hosts", "GET /a HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400),
        ("the same Host twice", "GET /a HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", 400),
        ("a list of Hosts", "GET /a HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", 400),
        ("an empty Host", "GET /a HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("a Host with a path", "GET /a HTTP/1.1\r\nHost: a.example/x\r\n\r\n", 400),
        ("a Host with a space", "GET /a HTTP/1.1\r\nHost: a.example x\r\n\r\n", 400),
        ("a Host with userinfo", "GET /a HTTP/1.1\r\nHost: user@a.example\r\n\r\n", 400),
        ("a port of letters", "GET /a HTTP/1.1\r\nHost: a.example:http\r\n\r\n", 400),
        ("a port too large", "GET /a HTTP/1.1\r\nHost: a.example:99999\r\n\r\n", 400),
        ("half an IPv6 address", "GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("a target of another host", "GET http://b.example/a HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        ("a target of another port", "GET http://a.example:81/a HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        ("userinfo in the target", "GET http://u:p@a.example/a HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        ("* on GET", "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        ("an authority on GET", "GET a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n", 400),
        ("CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 405),
        ("TRACE", "TRACE /a HTTP/1.1\r\nHost: a.example\r\n\r\n", 405),
        ("PURGE without the right", "PURGE /a HTTP/1.1\r\nHost: a.example\r\n\r\n", 403),
        ("BAN without the right", "BAN /a HTTP/1.1\r\nHost: a.example\r\n\r\n", 403),
        ("a body on GET", "GET /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc", 400),
    ];
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    for (what, bytes, status) in rows {
        let answer = ask(&node, bytes);
        assert_eq!(answer.status, status, "{what}: {:?} {}", answer.fields, answer.text());
        answer.assert_own_error();
        assert!(!answer.body.is_empty(), "{what}: no reason");
    }
    assert_eq!(origin.total(), 0, "one of them reached the origin");
    let admission = rows.iter().filter(|(_, _, status)| *status != 403).count();
    let admission = f64::from(u32::try_from(admission).expect("a few rows"));
    node.await_metric("larder_requests_total{result=\"refused\"}", admission);
}

/// The parser may refuse these before the program has a request to speak of.
#[test]
fn bytes_that_are_no_request_never_reach_the_origin() {
    let rows = [
        ("a control character in the target", "GET /a\x01b HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("DEL in the target", "GET /a\x7fb HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("NUL in a field", "GET /a HTTP/1.1\r\nHost: a.example\r\nX: a\0b\r\n\r\n"),
        ("a bare CR in a field", "GET /a HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n"),
        ("a space before the colon", "GET /a HTTP/1.1\r\nHost : a.example\r\n\r\n"),
        ("a folded line", "GET /a HTTP/1.1\r\nHost: a.example\r\nX: a\r\n b\r\n\r\n"),
        ("a line without a colon", "GET /a HTTP/1.1\r\nHost: a.example\r\nnonsense\r\n\r\n"),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("a method of punctuation", "G(T /a HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("no version", "GET /a\r\nHost: a.example\r\n\r\n"),
    ];
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    for (what, bytes) in rows {
        let mut client = Client::connect(node.http());
        client.send(bytes.as_bytes());
        assert_eq!(client.response("GET").status, 400, "{what}");
        client.expect_close();
    }
    assert_eq!(origin.total(), 0, "one of them reached the origin");
    node.get("/a").assert_status(200);
}

#[test]
fn an_absolute_target_that_agrees_with_host_is_the_same_url() {
    let origin = Origin::start();
    origin.on("/a", |seen| respond(200, FRESH, &seen.target));
    let node = node(&origin).start();
    ask(&node, "GET http://test.example/a HTTP/1.1\r\nHost: test.example\r\n\r\n")
        .assert_status(200)
        .assert_body("/a");
    node.get("/a").assert_hit();
    ask(&node, "GET http://TEST.example:80/a HTTP/1.1\r\nHost: test.example\r\n\r\n").assert_hit();
}

#[test]
fn a_refused_body_on_get_closes_the_connection() {
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    for framing in ["Content-Length: 31\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1f\r\n"] {
        let mut client = Client::connect(node.http());
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n";
        client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{framing}{smuggled}").as_bytes());
        client.response("GET").assert_status(400);
        client.expect_close();
    }
    assert_eq!(origin.total(), 0);
}

#[test]
fn an_error_is_problem_json_or_text_by_accept() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let json = request("TRACE", "/a").with("Accept", "application/json").to(&node);
    json.assert_status(405);
    assert!(json.joined("content-type").starts_with("application/problem+json"), "{:?}", json.fields);
    assert_eq!(json.json()["status"], 405);
    for accept in ["text/html, text/plain", "application/json;q=0", "application/json;q=0.1, */*"] {
        let text = request("TRACE", "/a").with("Accept", accept).to(&node);
        assert!(text.joined("content-type").starts_with("text/plain"), "{accept}: {:?}", text.fields);
    }
}

#[test]
fn a_request_that_was_here_before_is_a_loop() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    let id = origin.last("/a").joined("cdn-loop");
    assert!(!id.is_empty(), "the origin gets CDN-Loop");
    get("/b").with("CDN-Loop", &id).to(&node).assert_status(508).assert_own_error();
    get("/b").with("CDN-Loop", format!("other.example, {id}")).to(&node).assert_status(508);
    assert_eq!(origin.count("/b"), 0);

    // Another CDN in front is no loop, and stays in the list.
    get("/c").with("CDN-Loop", "other.example; v=1").to(&node).assert_status(200);
    let list = origin.last("/c").joined("cdn-loop");
    assert!(list.contains("other.example") && list.contains(&id), "{list}");
}

#[test]
fn an_http_1_0_client_is_served_and_gets_no_chunks() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        crate::support::origin::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
    });
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    client.send(b"GET /a HTTP/1.0\r\nHost: test.example\r\n\r\n");
    let answer = client.response("GET");
    answer.assert_status(200).assert_body("abc");
    assert!(!answer.has("transfer-encoding"));
    client.expect_close();
}

/// A worker remembers what a URL comes to; what else a request says counts each time all the same.
#[test]
fn what_is_asked_for_again_and_again_is_still_looked_at() {
    let fields = [("Cache-Control", "max-age=60"), ("ETag", "\"v\"")];
    let origin = Origin::with("/*", &fields, "body");
    let node = node(&origin).workers(1).start();
    node.await_hit("/a");
    let host = "Host: a.example\r\n";
    let whole = |line: &str| {
        let answer = ask(&node, &format!("{line}\r\n{host}\r\n"));
        answer.assert_status(200).assert_body("body");
        assert!(answer.is_hit(), "{line}: {:?}", answer.fields);
        let names: Vec<_> = answer.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        for name in ["age", "cache-status", "date", "etag", "via"] {
            assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{line}: {name}");
        }
    };
    ask(&node, &format!("GET /a HTTP/1.1\r\n{host}\r\n")).assert_status(200);
    for _ in 0..5 {
        whole("GET /a HTTP/1.1");
        whole("GET /./a HTTP/1.1");
        whole("GET http://a.example/a HTTP/1.1");
    }
    for (what, extra, status) in [
        ("a condition", "If-None-Match: \"v\"\r\n", 304),
        ("a range", "Range: bytes=0-1\r\n", 206),
        ("a second Host", host, 400),
        ("a body", "Content-Length: 1\r\n", 400),
        ("an odd transfer coding", "Transfer-Encoding: gzip, chunked\r\n", 400),
    ] {
        let answer = ask(&node, &format!("GET /a HTTP/1.1\r\n{host}{extra}\r\n"));
        assert_eq!(answer.status, status, "{what}: {:?}", answer.fields);
        whole("GET /a HTTP/1.1");
    }
    ask(&node, &format!("GET http://b.example/a HTTP/1.1\r\n{host}\r\n")).assert_status(400);
    assert_eq!(origin.total(), 2);
}
