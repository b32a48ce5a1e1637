//! A 206 that an origin gave to a client's own range: stored, and reused for what it holds.

use rustix::process::Signal;

use crate::support::node::{Node, node};
use crate::support::origin::{Origin, respond};
use crate::support::request::{Request, get};

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
