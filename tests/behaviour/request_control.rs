//! Cache-Control of requests (RFC 9111 §5.2.1), where a site honours it.

use std::time::Duration;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
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
