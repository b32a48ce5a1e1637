//! Cache-Control of requests (RFC 9111 §5.2.1), where a site honours it.

use std::time::Duration;

use crate::support::eventually;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::pattern;
use crate::support::request::get;
use crate::support::response::Response;

fn honouring(origin: &Origin) -> Node {
    node(origin).cache("honor_request_cache_control = true").start()
}

fn ask(node: &Node, target: &str, control: &str) -> Response {
    get(target).with("Cache-Control", control).to(node)
}

#[test]
fn a_client_may_ask_for_younger_answers() {
    let origin = Origin::start();
    origin.on("/a", |seen| match seen.field("if-none-match") {
        Some(_) => respond(304, &[FRESH[0], ("ETag", "\"v1\"")], ""),
        None => respond(200, &[FRESH[0], ("ETag", "\"v1\""), ("Age", "100")], "a"),
    });
    let node = honouring(&origin);
    node.get("/a");
    for control in ["max-age=200", "min-fresh=100", "max-stale", "foobar"] {
        ask(&node, "/a", control).assert_hit();
    }
    for control in ["max-age=99", "min-fresh=501", "NO-CACHE", "max-age=0"] {
        let fresh = honouring(&origin);
        fresh.get("/a");
        let validated = ask(&fresh, "/a", control);
        validated.assert_status(200).assert_body("a").assert_fwd("stale");
        assert!(origin.last("/a").has("if-none-match"), "{control}");
    }
}

#[test]
fn a_client_may_accept_older_answers_unless_the_response_forbids_it() {
    let origin = Origin::start();
    origin.fixed("/a", 200, &[("Cache-Control", "max-age=1, stale-while-revalidate=600")], "old");
    origin.fixed("/b", 200, &[("Cache-Control", "max-age=1")], "old");
    origin.fixed("/c", 200, &[("Cache-Control", "max-age=1, must-revalidate")], "old");
    let node = honouring(&origin);
    for path in ["/a", "/b", "/c"] {
        node.get(path);
    }
    std::thread::sleep(Duration::from_millis(1100));
    for path in ["/a", "/b", "/c"] {
        origin.fixed(path, 200, FRESH, "new");
    }
    ask(&node, "/b", "max-stale=600").assert_hit().assert_body("old");
    ask(&node, "/c", "max-stale=600").assert_body("new");
    ask(&node, "/a", "no-cache").assert_body("new");
    ask(&node, "/b", "max-stale=0").assert_body("new");
}

#[test]
fn only_if_cached_never_asks_the_origin() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = honouring(&origin);
    ask(&node, "/a", "only-if-cached").assert_status(504).assert_own_error();
    assert_eq!(origin.total(), 0);
    node.get("/a");
    ask(&node, "/a", "only-if-cached").assert_hit();
    ask(&node, "/a", "only-if-cached, no-cache").assert_status(504);
    assert_eq!(origin.total(), 1);
}

#[test]
fn no_store_of_a_request_keeps_its_answer_out() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = honouring(&origin);
    assert!(!ask(&node, "/a", "no-store").is_stored());
    assert!(!node.get("/a").is_hit());
}

#[test]
fn parts_are_used_as_the_request_allows() {
    let origin = Origin::start();
    let fields = [FRESH[0], ("ETag", "\"a\""), ("Content-Range", "bytes 2-5/20")];
    origin.on("/a", move |_| respond(206, &fields, "2345"));
    let node = node(&origin).cache("honor_request_cache_control = true\nrange_miss = \"forward\"").start();
    let ask =
        |range: &str, control: &str| get("/a").with("Range", range).with("Cache-Control", control).to(&node);
    ask("bytes=2-5", "only-if-cached").assert_status(504).assert_own_error();
    assert_eq!(origin.total(), 0);
    ask("bytes=2-5", "max-age=100").assert_status(206);
    ask("bytes=2-5", "only-if-cached").assert_status(206).assert_hit().assert_body("2345");
    ask("bytes=3-4", "only-if-cached").assert_status(206).assert_hit().assert_body("34");
    ask("bytes=4-6", "only-if-cached").assert_status(504);
    assert_eq!(origin.total(), 1);
    for (control, asked) in [("no-cache", 2), ("min-fresh=700", 3), ("max-age=100", 3)] {
        assert_eq!(
            ask("bytes=2-5", control).assert_status(206).is_hit(),
            asked == 3 && control.contains("max-age")
        );
        assert_eq!(origin.total(), asked, "{control}");
    }
}

#[test]
fn slices_are_used_as_the_request_allows() {
    const SLICE: usize = 64 * 1024;
    let whole = pattern(3 * SLICE, 1);
    let body = whole.clone();
    let origin = Origin::start();
    origin.on("/a", move |seen| {
        let fields = [FRESH[0], ("ETag", "\"a\""), ("Accept-Ranges", "bytes")];
        let Some(range) = seen.field("range") else { return respond(200, &fields, &body) };
        let (first, last) = range.trim_start_matches("bytes=").split_once('-').expect("a range");
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let content_range = format!("bytes {first}-{last}/{}", body.len());
        respond(206, &[&fields[..], &[("Content-Range", &content_range)]].concat(), &body[first..=last])
    });
    let node = node(&origin).cache("honor_request_cache_control = true\nrange_slices = \"64KiB\"").start();
    let ask = |first: usize, last: usize, control: &str| {
        let answer =
            get("/a").with("Range", format!("bytes={first}-{last}")).with("Cache-Control", control).to(&node);
        if answer.status == 206 {
            answer.assert_body(&whole[first..=last]);
        }
        answer
    };
    ask(0, 9, "only-if-cached").assert_status(504);
    assert_eq!(origin.total(), 0);
    // Read to their ends, so that they are stored.
    ask(0, 2 * SLICE - 1, "max-age=100").assert_status(206);
    assert_eq!(origin.total(), 3, "the head and two slices");
    // The last bytes reach the client a moment before the slice is stored.
    eventually("both slices are stored", || ask(SLICE, SLICE, "only-if-cached").status == 206);
    ask(10, SLICE + 10, "only-if-cached").assert_status(206).assert_hit();
    ask(SLICE, 2 * SLICE, "only-if-cached").assert_status(504);
    get("/a").with("Cache-Control", "only-if-cached").to(&node).assert_status(504);
    assert_eq!(origin.total(), 3);
    assert!(!ask(0, SLICE, "no-cache").assert_status(206).is_hit());
    assert_eq!(origin.total(), 4, "the first slice has confirmed the tag");
    ask(0, SLICE, "max-age=100").assert_hit();
    assert!(!ask(SLICE, SLICE, "max-age=0, min-fresh=700").is_hit());
    assert_eq!(origin.total(), 5);
}
