//! Asking the origin whether a stored answer still holds (RFC 9111 §4.3).

use std::time::Duration;

use crate::support::date::http_date;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{get, head, request};

#[test]
fn a_304_keeps_the_body_and_updates_the_fields() {
    let origin = Origin::start();
    let first = [("Cache-Control", "no-cache"), ("ETag", "\"v1\""), ("X-Test", "old"), ("X-Kept", "yes")];
    let update =
        [("Cache-Control", "max-age=600"), ("ETag", "\"v1\""), ("X-Test", "new"), ("Content-Length", "3")];
    origin.sequence("/a", vec![respond(200, &first, "the body"), respond(304, &update, "")]);
    let node = node(&origin).start();
    node.get("/a").assert_fwd("uri-miss");

    let validated = node.get("/a");
    validated.assert_status(200).assert_body("the body").assert_fwd("stale");
    assert_eq!(validated.cache_parameter("fwd-status").as_deref(), Some("304"));
    assert_eq!((validated.field("x-test"), validated.field("x-kept")), (Some("new"), Some("yes")));
    assert_eq!(origin.last("/a").field("if-none-match"), Some("\"v1\""));

    // Fresh again, by what the 304 said.
    let hit = node.get("/a");
    hit.assert_hit().assert_body("the body");
    assert_eq!((hit.field("x-test"), hit.field("content-length")), (Some("new"), Some("8")));
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn no_cache_is_validated_every_time() {
    let origin = Origin::start();
    origin.on("/a", |seen| match seen.field("if-none-match") {
        Some("W/\"v1\"") => respond(304, &[("ETag", "W/\"v1\"")], ""),
        _ => respond(200, &[("Cache-Control", "no-cache"), ("ETag", "W/\"v1\"")], "body"),
    });
    let node = node(&origin).start();
    for round in 1..=3 {
        let answer = node.get("/a");
        answer.assert_status(200).assert_body("body");
        assert!(!answer.is_hit());
        assert_eq!(origin.count("/a"), round);
    }
    assert_eq!(origin.last("/a").field("if-none-match"), Some("W/\"v1\""), "byte for byte, weak as it was");
}

#[test]
fn a_date_validates_where_there_is_no_tag() {
    let modified = http_date(-7200);
    let origin = Origin::start();
    let stored = [("Cache-Control", "no-cache"), ("Last-Modified", modified.as_str())];
    origin.sequence("/a", vec![respond(200, &stored, "body"), respond(304, &[], "")]);
    let node = node(&origin).start();
    node.get("/a");
    node.get("/a").assert_status(200).assert_body("body");
    let asked = origin.last("/a");
    assert_eq!(
        (asked.field("if-modified-since"), asked.field("if-none-match")),
        (Some(modified.as_str()), None)
    );
}

#[test]
fn a_changed_answer_replaces_the_stored_one() {
    let origin = Origin::start();
    let old = respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v1\"")], "old");
    let new = respond(200, &[FRESH[0], ("ETag", "\"v2\"")], "new and longer");
    origin.sequence("/a", vec![old, new]);
    let node = node(&origin).start();
    node.get("/a").assert_body("old");
    node.get("/a").assert_body("new and longer");
    node.get("/a").assert_hit().assert_body("new and longer");
    get("/a").with("If-None-Match", "\"v1\"").to(&node).assert_status(200);
}

#[test]
fn what_has_become_stale_by_time_is_validated() {
    let origin = Origin::start();
    let brief = [("Cache-Control", "max-age=1"), ("ETag", "\"v1\"")];
    origin.sequence("/a", vec![respond(200, &brief, "body"), respond(304, FRESH, "")]);
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    std::thread::sleep(Duration::from_millis(1100));
    node.get("/a").assert_status(200).assert_fwd("stale").assert_body("body");
    node.get("/a").assert_hit().assert_body("body");
}

#[test]
fn the_condition_of_the_client_is_decided_after_the_one_of_the_cache() {
    let origin = Origin::start();
    let stored = respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v1\"")], "body");
    origin.sequence("/a", vec![stored, respond(304, &[("ETag", "\"v1\"")], "")]);
    let node = node(&origin).start();
    node.get("/a");
    get("/a").with("If-None-Match", "\"v1\"").to(&node).assert_status(304);
    // A client that holds something older gets the validated body.
    get("/a").with("If-None-Match", "\"v0\"").to(&node).assert_status(200).assert_body("body");
    assert_eq!(origin.last("/a").field("if-none-match"), Some("\"v1\""));
}

#[test]
fn a_304_for_something_else_is_not_believed() {
    let origin = Origin::start();
    let stored = respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v1\"")], "old");
    let other = respond(304, &[("ETag", "\"v2\"")], "");
    origin.sequence("/a", vec![stored, other, respond(200, &[FRESH[0], ("ETag", "\"v2\"")], "new")]);
    let node = node(&origin).start();
    node.get("/a");
    node.get("/a").assert_status(200).assert_body("new");
    let asked = origin.seen("/a");
    assert_eq!(asked.len(), 3);
    assert!(asked[1].has("if-none-match") && !asked[2].has("if-none-match"));
    node.get("/a").assert_hit().assert_body("new");
}

#[test]
fn without_a_validator_it_is_fetched_anew() {
    let origin = Origin::start();
    origin.sequence(
        "/a",
        vec![respond(200, &[("Cache-Control", "max-age=0")], "old"), respond(200, FRESH, "new")],
    );
    let node = node(&origin).start();
    node.get("/a").assert_body("old");
    node.get("/a").assert_body("new");
    let asked = origin.last("/a");
    assert!(!asked.has("if-none-match") && !asked.has("if-modified-since"));
}

#[test]
fn each_variant_is_validated_with_its_own_tag() {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let kind = seen.field("x-kind").unwrap_or("none").to_owned();
        let tag = format!("\"{kind}\"");
        let fields = [("Cache-Control", "no-cache"), ("ETag", tag.as_str()), ("Vary", "X-Kind")];
        match seen.field("if-none-match") {
            Some(sent) if sent == tag => respond(304, &fields, ""),
            _ => respond(200, &fields, &kind),
        }
    });
    let node = node(&origin).start();
    for _ in 0..2 {
        for kind in ["1", "2"] {
            get("/a").with("X-Kind", kind).to(&node).assert_status(200).assert_body(kind);
        }
    }
    let tags: Vec<_> = origin.seen("/a").iter().skip(2).map(|seen| seen.joined("if-none-match")).collect();
    assert_eq!(tags, ["\"1\"", "\"2\""]);
    assert_eq!(origin.last("/a").field("x-kind"), Some("2"), "with the fields that select the variant");
}

#[test]
fn a_304_that_varies_on_everything_ends_the_stored_answer_and_not_the_request() {
    let origin = Origin::start();
    origin.on("/a", |seen| match seen.field("if-none-match") {
        Some(_) => respond(304, &[("ETag", "\"v1\""), ("Vary", "*")], ""),
        None => respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v1\"")], "body"),
    });
    let node = node(&origin).start();
    node.get("/a").assert_body("body");
    // The 304 can't be shared any more, so the answer is fetched once more, without a condition.
    node.get("/a").assert_status(200).assert_body("body");
    let asked: Vec<bool> = origin.seen("/a").iter().map(|seen| seen.has("if-none-match")).collect();
    assert_eq!(asked, [false, true, false]);
}

#[test]
fn a_client_that_may_ask_for_revalidation_gets_it_though_the_stored_answer_is_fresh() {
    let origin = Origin::start();
    let tagged = |tag: &'static str| [FRESH[0], ("ETag", tag)];
    let confirmed = respond(304, &tagged("\"v1\""), "");
    let renewed = respond(200, &tagged("\"v2\""), "new");
    origin.sequence("/a", vec![respond(200, &tagged("\"v1\""), "old"), confirmed, renewed]);
    let node = node(&origin).cache("honor_request_cache_control = true").start();
    node.get("/a").assert_fwd("uri-miss");
    let asks = || get("/a").with("Cache-Control", "no-cache").to(&node);
    asks().assert_body("old").assert_status(200);
    assert_eq!(origin.last("/a").field("if-none-match"), Some("\"v1\""));
    asks().assert_body("new");
    node.get("/a").assert_hit().assert_body("new");
    assert_eq!(origin.count("/a"), 3);
}

/// What takes its place may be older than the error, or than the redirect, was.
#[test]
fn what_is_no_success_is_fetched_anew_without_a_condition() {
    let modified = http_date(-7200);
    for status in [404, 302, 410, 204] {
        let origin = Origin::start();
        let stale = [
            ("Cache-Control", "max-age=0, stale-if-error=600"),
            ("Last-Modified", modified.as_str()),
            ("ETag", "\"v1\""),
            ("Location", "/b"),
        ];
        let first = respond(status, &stale, "");
        let asked = std::sync::atomic::AtomicBool::new(false);
        origin.on("/a", move |seen| {
            if !asked.swap(true, std::sync::atomic::Ordering::SeqCst) {
                return first.clone();
            }
            let is_conditional = seen.has("if-modified-since") || seen.has("if-none-match");
            if is_conditional { respond(304, FRESH, "") } else { respond(200, FRESH, "the file") }
        });
        let node = node(&origin).start();
        node.get("/a").assert_status(status);
        node.get("/a").assert_status(200).assert_body("the file").assert_fwd("stale");
        node.get("/a").assert_hit().assert_body("the file");
        assert_eq!(origin.count("/a"), 2, "{status}");
    }
}

/// RFC 9111 §4.3.5: the fields of a HEAD are those of the GET.
#[test]
fn a_head_renews_the_answer_that_it_speaks_of() {
    let origin = Origin::start();
    let stored =
        [("Cache-Control", "no-cache"), ("ETag", "\"v1\""), ("Surrogate-Key", "old"), ("Via", "1.1 a")];
    origin.on("/a", move |seen| match seen.method.as_str() {
        "HEAD" => {
            let renewed =
                [FRESH[0], ("ETag", "\"v1\""), ("X-Test", "new"), ("Surrogate-Key", "new"), stored[3]];
            respond(200, &renewed, "body")
        }
        _ => respond(200, &stored, "body"),
    });
    let node = node(&origin).start();
    node.get("/a").assert_fwd("uri-miss");
    head("/a").to(&node).assert_status(200).assert_fwd("stale");
    let hit = node.get("/a");
    hit.assert_hit().assert_body("body");
    assert_eq!((hit.field("x-test"), hit.joined("via").as_str()), (Some("new"), "1.1 a, 1.1 larder"));
    assert!(!hit.has("surrogate-key"), "{:?}", hit.fields);
    let purge = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
    node.ask_admin(&purge.body("{\"tags\": [\"new\"]}")).assert_status(201);
    assert!(!node.get("/a").is_hit(), "the tags are those of the HEAD");
}

#[test]
fn a_head_that_varies_otherwise_renews_nothing() {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let value = seen.joined("x-l");
        let varying = [("Cache-Control", "max-age=600"), ("ETag", "\"a\""), ("Vary", "X-L")];
        match (seen.method.as_str(), seen.has("if-none-match")) {
            ("HEAD", _) => respond(200, &varying, "1"),
            (_, true) if value == "1" => respond(304, &varying, ""),
            (_, false) if value.is_empty() => {
                respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")], "1")
            }
            _ => respond(200, &[varying[0], ("ETag", "\"b\""), varying[2]], value),
        }
    });
    let node = node(&origin).start();
    let ask = |value: &str| get("/a").with("X-L", value).to(&node);
    node.get("/a").assert_body("1");
    head("/a").with("X-L", "1").to(&node).assert_status(200);
    ask("2").assert_fwd("stale").assert_body("2");
    ask("2").assert_hit().assert_body("2");
    assert!(!ask("1").assert_body("1").is_hit(), "it is known of none that it is the same");
}
