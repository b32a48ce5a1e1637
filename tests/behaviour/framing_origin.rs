//! Answers of an origin that end too early, too late or in two places.

use crate::support::client::{Broken, Client};
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, raw, respond};
use crate::support::request::get;

#[test]
fn a_truncated_body_never_ends_cleanly_and_is_not_stored() {
    let rows: [(&str, &str); 4] = [
        ("/length", "Content-Length: 100\r\n\r\nabc"),
        ("/no-last-chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("/half-a-chunk", "Transfer-Encoding: chunked\r\n\r\nff\r\nabc"),
        ("/broken-chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\nmore\r\n0\r\n\r\n"),
    ];
    let origin = Origin::start();
    for (path, rest) in rows {
        let broken = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{rest}").into_bytes();
        origin.sequence(path, vec![vec![Step::Send(broken), Step::Close], respond(200, FRESH, "whole")]);
    }
    let node = node(&origin).start();
    for (path, _) in rows {
        let mut client = Client::connect(node.http());
        client.send(&get(path).bytes());
        match client.try_response("GET") {
            // An answer that had not begun can still become an error.
            Ok(answer) => drop(answer.assert_status(502).assert_own_error()),
            Err(Broken::Truncated(part)) => {
                assert!(b"abc".starts_with(&part.body), "{path}: {:?}", part.body);
            }
            Err(Broken::Closed | Broken::Reset) => {}
            Err(other) => panic!("{path}: {other:?}"),
        }
        let next = node.get(path);
        assert!(!next.is_hit(), "{path}: half a body was stored");
        next.assert_status(200).assert_body("whole");
    }
}

#[test]
fn bytes_after_the_end_never_reach_the_next_answer() {
    let poison = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 6\r\n\r\npoison";
    let origin = Origin::start();
    origin.on("/surplus", move |_| {
        raw(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 10\r\n\r\n0123456789{poison}"
        ))
    });
    origin.on("/none", move |_| raw(format!("HTTP/1.1 204 None\r\n\r\n{poison}")));
    origin.on("/not-modified", move |_| raw(format!("HTTP/1.1 304 Not Modified\r\n\r\n{poison}")));
    origin.on("/chunked", move |_| {
        raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n{poison}"))
    });
    origin.on("/good/*", |seen| respond(200, FRESH, &seen.target));
    let node = node(&origin).start();
    for (round, path) in ["/surplus", "/none", "/not-modified", "/chunked"].iter().enumerate() {
        let mut client = Client::connect(node.http());
        let first = client.exchange(&get(path));
        assert!(!first.text().contains("poison"), "{path}");
        if *path == "/surplus" {
            first.assert_status(200).assert_body("0123456789");
            assert_eq!(first.field("content-length"), Some("10"));
        }
        // On the same client connection and on others; the origin's connection must not be used again.
        for next in 0..4 {
            let target = format!("/good/{round}/{next}");
            client.exchange(&get(&target)).assert_status(200).assert_body(&target);
            node.get(&format!("{target}/x")).assert_status(200).assert_body(format!("{target}/x"));
        }
    }
    let surplus_connection = origin.last("/surplus").connection;
    assert!(origin.seen("/good/0/0").iter().all(|seen| seen.connection != surplus_connection));
    node.get("/surplus").assert_hit().assert_body("0123456789");
}

#[test]
fn an_answer_with_two_ends_is_refused() {
    let rows = [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: unknown\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let origin = Origin::start();
    for (index, bytes) in rows.iter().enumerate() {
        let bytes = bytes.as_bytes();
        origin.on(&format!("/{index}"), move |_| vec![Step::Send(bytes.to_vec()), Step::Close]);
    }
    let node = node(&origin).start();
    for (index, bytes) in rows.iter().enumerate() {
        let answer = node.get(&format!("/{index}"));
        assert_eq!(answer.status, 502, "{bytes:?}: {:?}", answer.fields);
        answer.assert_own_error();
    }
}

#[test]
fn chunks_win_over_a_length_and_the_connection_is_not_used_again() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    });
    origin.fixed("/b", 200, FRESH, "b");
    let node = node(&origin).start();
    let answer = node.get("/a");
    assert!(answer.status == 502 || answer.body == b"abc", "{} {:?}", answer.status, answer.text());
    node.get("/b").assert_status(200).assert_body("b");
    assert_ne!(origin.last("/a").connection, origin.last("/b").connection);
}

#[test]
fn what_is_no_http_is_a_502() {
    let rows = [
        ("/garbage", "HELLO WORLD\r\n\r\n".to_owned()),
        ("/status", "HTTP/1.1 99999 OK\r\n\r\n".to_owned()),
        ("/nul", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("/colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("/half", "HTTP/1.1 200 OK\r\nX-".to_owned()),
        (
            "/upgrade",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
        ),
        ("/huge", format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(2_000_000))),
    ];
    let origin = Origin::start();
    for (path, bytes) in &rows {
        let bytes = bytes.clone();
        origin.on(path, move |_| vec![Step::Send(bytes.clone().into_bytes()), Step::Close]);
    }
    let node = node(&origin).start();
    for (path, _) in &rows {
        let answer = node.get(path);
        assert_eq!(answer.status, 502, "{path}: {:?}", answer.fields);
        answer.assert_own_error();
    }
    node.assert_no_panic();
}
