//! `Larder-Debug`: who has a token sees how a response was found.

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{get, request};
use crate::support::response::Response;

fn with_token(node: &Node, target: &str, token: &str) -> Response {
    get(target).with("Larder-Debug", token).to(node)
}

fn assert_explained(answer: &Response, key: &str, rule: &str) {
    let quoted = |text: &str| Some(format!("\"{text}\""));
    assert_eq!(answer.cache_parameter("key"), quoted(key), "{:?}", answer.fields);
    assert_eq!(answer.cache_parameter("rule"), quoted(rule));
}

fn assert_not_explained(answer: &Response) {
    let parameters = answer.cache_status();
    assert!(!parameters.iter().any(|p| p.starts_with("key=") || p.starts_with("rule=")), "{parameters:?}");
}

#[test]
fn a_token_shows_the_key_and_the_rule_of_every_kind_of_answer() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/pass/*\"]\npass = true").start();
    let token = node.token();
    let key = "http://test.example/a?b=1";
    let miss = with_token(&node, "/x/../a?b=1", &token);
    miss.assert_status(200).assert_fwd("uri-miss");
    assert_explained(&miss, key, "default");
    let hit = with_token(&node, "/a?b=1", &token);
    hit.assert_hit();
    assert_explained(&hit, key, "default");
    assert_not_explained(node.get("/a?b=1").assert_hit());
    let passed = with_token(&node, "/pass/a", &token);
    assert_explained(&passed, "http://test.example/pass/a", "rule 1");
    let posted = request("POST", "/b").body("x").with("Larder-Debug", &token).to(&node);
    assert_explained(&posted, "http://test.example/b", "default");
    for path in ["/a", "/pass/a", "/b"] {
        assert!(!origin.last(path).has("larder-debug"), "the token went to the origin");
    }
}

#[test]
fn what_an_origin_said_of_itself_stays_before_it() {
    let fields = [FRESH, &[("Cache-Status", "inner; hit")]].concat();
    let origin = Origin::with("/a", &fields, "a");
    let node = node(&origin).start();
    let token = node.token();
    for _ in 0..2 {
        let answer = with_token(&node, "/a", &token);
        assert!(answer.joined("cache-status").starts_with("inner; hit, larder; "), "{:?}", answer.fields);
        assert_explained(&answer, "http://test.example/a", "default");
    }
}

#[test]
fn without_the_right_it_means_nothing() {
    let hash = |token: &str| format!("hash = \"blake3:{}\"", blake3::hash(token.as_bytes()).to_hex());
    let tokens = format!(
        "[[admin.token]]\nname = \"reads\"\n{}\nscopes = [\"read\"]\n\
         [[admin.token]]\nname = \"purges\"\n{}\nscopes = [\"purge\"]\n\
         [[admin.token]]\nname = \"old\"\n{}\nscopes = [\"read\"]\nexpires = 2001-01-01T00:00:00Z",
        hash("reads"),
        hash("purges"),
        hash("old")
    );
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).extra(&tokens).start();
    for wrong in ["", "wrong", "purges", "old", "Bearer reads"] {
        assert_not_explained(with_token(&node, "/a", wrong).assert_status(200));
    }
    assert_explained(with_token(&node, "/a", "reads").assert_hit(), "http://test.example/a", "default");
    assert!(origin.seen("/a").iter().all(|seen| !seen.has("larder-debug")));
}
