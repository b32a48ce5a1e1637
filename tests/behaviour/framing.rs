//! Requests whose end two parsers could see in different places: none of them may carry a second one.

use crate::support::client::{Broken, Client};
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::get;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n";

/// Sends a POST with this framing; the bytes after it must not be taken for a request.
fn refused(node: &Node, framing: &str, body: &str) -> Result<(), String> {
    let mut client = Client::connect(node.http());
    let request = format!("POST /a HTTP/1.1\r\nHost: test.example\r\n{framing}\r\n\r\n{body}{SMUGGLED}");
    client.send(request.as_bytes());
    match client.try_response("POST") {
        Ok(answer) if [400, 501].contains(&answer.status) => {}
        other => return Err(format!("{framing:?}: {other:?}")),
    }
    match client.try_response("GET") {
        Err(Broken::Closed | Broken::Reset) => Ok(()),
        other => Err(format!("{framing:?}: the connection goes on: {other:?}")),
    }
}

/// RFC 9112 §6.3 lets a server take the chunks for the end; the connection must then close.
#[test]
fn a_length_beside_chunks_is_not_forwarded_and_ends_the_connection() {
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    for framing in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
    {
        let mut client = Client::connect(node.http());
        let head = format!("POST /a HTTP/1.1\r\nHost: test.example\r\n{framing}\r\n\r\n");
        client.send(format!("{head}3\r\nabc\r\n0\r\n\r\n{SMUGGLED}").as_bytes());
        client.response("POST").assert_status(200);
        assert!(matches!(client.try_response("GET"), Err(Broken::Closed | Broken::Reset)), "{framing}");
        assert_eq!(origin.last("/a").body, b"abc");
        assert!(origin.last("/a").joined("content-length").is_empty());
    }
    assert_eq!(origin.count("/smuggled"), 0);
}

#[test]
fn two_ways_to_find_the_end_are_refused_and_the_connection_ends() {
    let rows = [
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        ("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"),
        ("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"),
        ("Transfer-Encoding: gzip", "0\r\n\r\n"),
        ("Content-Length: 0\r\nContent-Length: 5", "abcde"),
        ("Content-Length: 5\r\nContent-Length: 0", "abcde"),
        ("Content-Length: 0, 5", "abcde"),
        ("Content-Length: +5", "abcde"),
        ("Content-Length: -5", "abcde"),
        ("Content-Length: 0x5", "abcde"),
        ("Content-Length: 5 5", "abcde"),
        ("Content-Length: 99999999999999999999999", "abcde"),
        ("Content-Length: ", "abcde"),
    ];
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    let wrong: Vec<String> =
        rows.iter().filter_map(|(framing, body)| refused(&node, framing, body).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(origin.count("/smuggled"), 0);
    assert_eq!(origin.count("/a"), 0);
}

#[test]
fn a_body_in_broken_chunks_ends_the_connection_and_no_more() {
    let bodies = [
        "zz\r\nabc",
        "5\r\nabcdefgh\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc",
        "3\nabc\n0\n\n",
    ];
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    for body in bodies {
        let mut client = Client::connect(node.http());
        let head = "POST /a HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{body}{SMUGGLED}").as_bytes());
        client.finish();
        match client.try_response("POST") {
            Ok(answer) => assert!([400, 502].contains(&answer.status), "{body:?}: {}", answer.status),
            Err(broken) => assert!(matches!(broken, Broken::Closed | Broken::Reset), "{body:?}: {broken:?}"),
        }
        assert!(client.try_response("GET").is_err(), "{body:?}");
    }
    assert_eq!((origin.count("/a"), origin.count("/smuggled")), (0, 0));
    node.get("/a").assert_status(200);
}

#[test]
fn an_upload_that_breaks_off_is_never_a_whole_one_for_the_origin() {
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).start();
    for framing in ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let before = origin.begun("/a");
        let mut client = Client::connect(node.http());
        client.send(format!("POST /a HTTP/1.1\r\nHost: test.example\r\n{framing}").as_bytes());
        crate::support::holds_within(std::time::Duration::from_millis(500), || origin.begun("/a") > before);
        drop(client);
    }
    node.get("/b").assert_status(200);
    assert_eq!(origin.count("/a"), 0, "the origin took half a body for a whole one");
}

#[test]
fn an_unread_body_does_not_leak_into_the_next_request() {
    let origin = Origin::with("/*", FRESH, "reached");
    let node = node(&origin).site("methods = [\"GET\", \"HEAD\"]").start();
    let mut client = Client::connect(node.http());
    client.send(
        format!(
            "POST /a HTTP/1.1\r\nHost: test.example\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        )
        .as_bytes(),
    );
    client.response("POST").assert_status(405);
    // It may close or drain the body; it must not answer the body.
    if client.try_send(&get("/b").bytes()).is_ok() {
        match client.try_response("GET") {
            Ok(answer) => drop(answer.assert_status(200).assert_body("reached")),
            Err(broken) => assert!(matches!(broken, Broken::Closed | Broken::Reset), "{broken:?}"),
        }
    }
    assert_eq!(origin.count("/smuggled"), 0);
}
