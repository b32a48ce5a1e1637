//! A 206 that an origin gave to a client's own range: stored, and reused for what it holds.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{Request, get, request};

const BODY: &str = "0123456789abcdefghij";

fn origin(content_range: &'static str, part: &'static str) -> Origin {
    let origin = Origin::start();
    let fields = [("Cache-Control", "max-age=600"), ("ETag", "\"a\""), ("Content-Range", content_range)];
    origin.on("/a", move |_| respond(206, &fields, part));
    origin
}

fn forwarding(origin: &Origin) -> Node {
    node(origin).cache("range_miss = \"forward\"").start()
}

fn range(range: &str) -> Request {
    get("/a").with("Range", format!("bytes={range}"))
}

#[test]
fn a_part_is_stored_and_answers_what_lies_in_it() {
    let origin = origin("bytes 5-14/20", "56789abcde");
    let node = forwarding(&origin);
    let miss = range("5-14").to(&node);
    miss.assert_status(206).assert_body(&BODY[5..15]);
    assert!(miss.is_stored(), "{:?}", miss.fields);
    for (asked, from, to) in [("5-14", 5, 15), ("6-7", 6, 8), ("14-14", 14, 15)] {
        let hit = range(asked).to(&node);
        hit.assert_status(206).assert_hit().assert_body(&BODY[from..to]);
        assert_eq!(hit.field("content-range"), Some(&*format!("bytes {from}-{}/20", to - 1)));
        assert!(hit.age().is_some());
    }
    assert_eq!(origin.count("/a"), 1);
    assert_eq!(origin.last("/a").field("range"), Some("bytes=5-14"), "the client's range as it was");
}

#[test]
fn what_lies_outside_goes_to_the_origin() {
    let origin = origin("bytes 5-14/20", "56789abcde");
    let node = forwarding(&origin);
    range("5-14").to(&node).assert_status(206);
    for asked in ["4-6", "10-15", "10-", "-5", "0-1,6-7"] {
        let before = origin.count("/a");
        range(asked).to(&node).assert_status(206);
        assert_eq!(origin.count("/a"), before + 1, "{asked}");
        range("5-14").to(&node).assert_status(206);
    }
}

#[test]
fn a_whole_get_is_not_answered_from_a_part() {
    let origin = origin("bytes 0-9/20", "0123456789");
    let node = forwarding(&origin);
    range("0-9").to(&node).assert_status(206);
    get("/a").to(&node);
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn less_than_promised_is_never_made_up() {
    let origin = origin("bytes 0-9/20", "01234");
    let node = forwarding(&origin);
    range("0-9").to(&node).assert_status(206).assert_body("01234");
    range("0-9").to(&node).assert_status(206).assert_hit().assert_body("01234");
    range("1-3").to(&node).assert_status(206).assert_hit().assert_body("123");
    range("3-7").to(&node);
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn a_condition_that_does_not_hold_goes_to_the_origin() {
    let origin = origin("bytes 0-9/20", "0123456789");
    let node = forwarding(&origin);
    range("0-9").to(&node);
    range("2-3").with("If-None-Match", "\"a\"").to(&node);
    range("4-5").with("If-Range", "\"b\"").to(&node);
    assert_eq!(origin.count("/a"), 3);
    range("0-1").with("If-Range", "\"a\"").to(&node).assert_hit().assert_body("01");
}

#[test]
fn a_part_survives_a_restart() {
    let origin = origin("bytes 5-14/20", "56789abcde");
    let node = node(&origin).cache("range_miss = \"forward\"").disk("64MiB").start();
    range("5-14").to(&node).assert_status(206);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 1.0);
    let node = node.restarted(Signal::KILL);
    range("7-8").to(&node).assert_status(206).assert_hit().assert_body("78");
}

#[test]
fn a_part_in_a_coding_that_is_no_part_of_the_key_is_not_stored() {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let coding = if seen.joined("accept-encoding").contains("deflate") { "deflate" } else { "identity" };
        let fields = [
            ("Cache-Control", "max-age=600"),
            ("ETag", "\"a\""),
            ("Vary", "Accept-Encoding"),
            ("Content-Encoding", coding),
            ("Content-Range", "bytes 0-7/20"),
        ];
        respond(206, &fields, if coding == "deflate" { "deflated" } else { "as it is" })
    });
    let node = forwarding(&origin);
    range("0-7").with("Accept-Encoding", "deflate").to(&node).assert_body("deflated");
    range("0-7").to(&node).assert_fwd("uri-miss").assert_body("as it is");
    range("0-7").to(&node).assert_hit().assert_body("as it is");
}

#[test]
fn more_than_promised_is_neither_served_nor_stored() {
    let origin = Origin::start();
    let fields = [FRESH[0], ("ETag", "\"a\""), ("Content-Range", "bytes 0-4/20")];
    let in_chunks = [&fields[..], &[("Transfer-Encoding", "chunked")]].concat();
    origin.on("/a", move |_| respond(206, &in_chunks, "4\r\n0123\r\n4\r\n4zzz\r\n0\r\n\r\n"));
    let node = forwarding(&origin);
    for is_hit in [false, true] {
        let answer = range("0-4").to(&node);
        answer.assert_status(206).assert_body("01234");
        assert_eq!(answer.is_hit(), is_hit);
    }
    range("1-2").to(&node).assert_hit().assert_body("12");

    // Where the origin says both lengths, neither is believed.
    let fields = [FRESH[0], ("Content-Range", "bytes 0-4/20")];
    origin.on("/b", move |_| respond(206, &fields, "01234zzz"));
    let twice = || get("/b").with("Range", "bytes=0-4").to(&node);
    twice();
    assert!(!twice().is_hit());
}

#[test]
fn a_change_makes_parts_invalid() {
    let origin = Origin::start();
    let fields = [FRESH[0], ("ETag", "\"a\""), ("Content-Range", "bytes 2-5/20")];
    origin.on("/a", move |seen| match seen.method.as_str() {
        "GET" => respond(206, &fields, "2345"),
        _ => respond(303, &[("Location", "/a")], ""),
    });
    origin.on("/form", |_| respond(303, &[("Location", "/a")], ""));
    let node = node(&origin).cache("range_miss = \"forward\"").disk("64MiB").start();
    for path in ["/a", "/form"] {
        range("2-5").to(&node);
        range("2-5").to(&node).assert_hit();
        request("POST", path).body("x").to(&node).assert_status(303);
        assert!(!range("2-5").to(&node).is_hit(), "{path}");
        range("2-5").to(&node).assert_hit();
    }
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 3.0);
    request("POST", "/a").body("x").to(&node).assert_status(303);
    origin.on("/a", |_| vec![Step::Close]);
    range("2-5").to(&node).assert_status(502);
    // What is written down of it, a process that ends in order has synced.
    let node = node.restarted(Signal::TERM);
    range("2-5").to(&node).assert_status(502);
}

/// A part of the first version, and a whole of the second that was stored after it; by now only the part is fresh.
#[test]
fn an_older_part_does_not_stand_for_a_newer_whole() {
    let origin = Origin::start();
    let part = [("Cache-Control", "max-age=600"), ("ETag", "\"1\""), ("Content-Range", "bytes 2-5/20")];
    let whole = [("Cache-Control", "max-age=1"), ("ETag", "\"2\"")];
    origin.on("/a", move |seen| match (seen.field("range"), seen.field("if-none-match")) {
        (Some(_), _) => respond(206, &part, "2345"),
        (None, Some(_)) => respond(304, &whole, ""),
        (None, None) => respond(200, &whole, "klmnopqrst"),
    });
    let node = forwarding(&origin);
    range("2-5").to(&node).assert_body("2345");
    get("/a").to(&node).assert_body("klmnopqrst");
    std::thread::sleep(Duration::from_millis(1100));
    range("2-5").to(&node).assert_status(206).assert_body("mnop").assert_fwd("stale");
    // And the newest of all is the one that was just confirmed.
    range("2-5").to(&node).assert_status(206).assert_body("mnop");
}

/// A node with a stale part.
fn stale_part(origin: &Origin, control: &'static str) -> Node {
    let fields = [("Cache-Control", control), ("ETag", "\"a\""), ("Content-Range", "bytes 2-5/20")];
    origin.on("/a", move |_| respond(206, &fields, "2345"));
    let settings = "range_miss = \"forward\"\nstale_if_error = \"1h\"";
    let node = node(origin).cache(settings).start();
    range("2-5").to(&node).assert_status(206);
    std::thread::sleep(Duration::from_millis(1100));
    node
}

#[test]
fn a_stale_part_stands_in_for_an_origin_that_fails() {
    let origin = Origin::start();
    let node = stale_part(&origin, "max-age=1");
    origin.fixed("/a", 503, &[], "broken");
    let covered = range("3-4").to(&node);
    covered.assert_status(206).assert_fwd("stale").assert_body("34");
    assert_eq!(covered.field("content-range"), Some("bytes 3-4/20"));
    assert_eq!(covered.cache_parameter("detail").as_deref(), Some("stale-if-error"));
    assert_eq!(covered.cache_parameter("fwd-status").as_deref(), Some("503"));
    assert!(covered.age() >= Some(1));
    // It is left alone for a moment.
    range("2-5").to(&node).assert_status(206).assert_hit().assert_body("2345");
    assert_eq!(origin.count("/a"), 2);
    range("0-3").to(&node).assert_status(503);
    origin.stop();
    range("2-5").to(&node).assert_status(206).assert_body("2345");
}

#[test]
fn a_stale_part_does_not_stand_in_where_that_is_forbidden() {
    let origin = Origin::start();
    let node = stale_part(&origin, "max-age=1, must-revalidate");
    origin.stop();
    range("2-5").to(&node).assert_status(502).assert_own_error();
}
