//! Conditional requests answered from the store (RFC 9110 §13).

use crate::support::client::Client;
use crate::support::date::http_date;
use crate::support::eventually;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{get, head};

#[test]
fn a_stored_answer_evaluates_the_conditions_of_a_client() {
    let (modified, before, after) = (http_date(-7200), http_date(-10_000), http_date(-3600));
    let fields = [("Cache-Control", "max-age=600"), ("ETag", "\"v1\""), ("Last-Modified", &modified)];
    let origin = Origin::with("/a", &fields, "twelve bytes");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);

    let none = "If-None-Match";
    let since = "If-Modified-Since";
    let rows: Vec<(Vec<(&str, &str)>, u16)> = vec![
        (vec![(none, "\"v1\"")], 304),
        (vec![(none, "W/\"v1\"")], 304),
        (vec![(none, "\"x\", \"v1\"")], 304),
        (vec![(none, "\"x\""), (none, "\"v1\"")], 304),
        (vec![(none, "\"a,b\",\"v1\"")], 304),
        (vec![(none, "*")], 304),
        (vec![(none, "\"v2\"")], 200),
        (vec![(none, "v1")], 200),
        (vec![(none, "\"v\"")], 200),
        (vec![(since, &modified)], 304),
        (vec![(since, &after)], 304),
        (vec![(since, &before)], 200),
        (vec![(since, "nonsense")], 200),
        (vec![(none, "\"v2\""), (since, &after)], 200),
        (vec![(none, "\"v1\""), (since, &before)], 304),
        (vec![("If-Match", "\"v1\"")], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", "\"v2\"")], 412),
        (vec![("If-Match", "W/\"v1\"")], 412),
        (vec![("If-Unmodified-Since", &after)], 200),
        (vec![("If-Unmodified-Since", &before)], 412),
        (vec![("If-Match", "\"v1\""), ("If-Unmodified-Since", &before)], 200),
        (vec![("If-Match", "\"v2\""), (none, "\"v1\"")], 412),
    ];
    let mut client = Client::connect(node.http());
    for (conditions, status) in rows {
        for ask in [get("/a"), head("/a")] {
            let ask = conditions.iter().fold(ask, |ask, (name, value)| ask.with(name, value));
            let answer = client.exchange(&ask);
            assert_eq!(answer.status, status, "{} with {conditions:?}: {:?}", ask.method, answer.fields);
            if status == 200 && ask.method == "GET" {
                answer.assert_body("twelve bytes");
            }
        }
    }
    assert_eq!(origin.count("/a"), 1, "the store alone decides");
}

#[test]
fn a_304_from_the_store_carries_what_a_client_needs_to_update_its_copy() {
    let expires = http_date(600);
    let fields = [
        ("Cache-Control", "max-age=600"),
        ("ETag", "\"v1\""),
        ("Expires", &expires),
        ("Vary", "X-Kind"),
        ("Content-Location", "/a.html"),
    ];
    let origin = Origin::with("/a", &fields, "body");
    let node = node(&origin).start();
    let full = node.get("/a");
    let answer = get("/a").with("If-None-Match", "\"v1\"").to(&node);
    answer.assert_status(304).assert_hit();
    for name in ["etag", "date", "cache-control", "expires", "vary", "content-location"] {
        assert_eq!(answer.field(name), full.field(name), "{name}");
    }
    assert!(answer.age().is_some());
    assert_ne!(answer.field("content-length"), Some("0"), "a 304 must not say that the body is empty");
}

#[test]
fn a_conditional_miss_fills_the_cache_and_is_answered_from_it() {
    let modified = http_date(-7200);
    let fields = [("Cache-Control", "max-age=600"), ("ETag", "\"v1\""), ("Last-Modified", &modified)];
    let origin = Origin::with("/*", &fields, "body");
    let node = node(&origin).start();
    for (path, name, value) in
        [("/none", "If-None-Match", "\"v1\""), ("/since", "If-Modified-Since", modified.as_str())]
    {
        get(path).with(name, value).to(&node).assert_status(304);
        let asked = origin.last(path);
        assert!(!asked.has("if-none-match") && !asked.has("if-modified-since"), "{:?}", asked.fields);
        // The 304 needs no more than the head; the body is stored a moment later.
        eventually("the body is stored", || node.get(path).assert_body("body").is_hit());
        assert_eq!(origin.count(path), 1);
    }
}

#[test]
fn a_sloppy_entity_tag_matches_itself_and_is_never_rewritten() {
    for tag in ["abcdef", "w/\"x\"", "W\"x\""] {
        let fields = [FRESH[0], ("ETag", tag)];
        let origin = Origin::with("/a", &fields, "a");
        let node = node(&origin).start();
        assert_eq!(node.get("/a").field("etag"), Some(tag));
        get("/a").with("If-None-Match", tag).to(&node).assert_status(304);
        get("/a").with("If-None-Match", format!("\"{tag}\"")).to(&node).assert_status(200);
    }
}

#[test]
fn an_error_is_not_made_conditional() {
    let origin = Origin::start();
    origin.fixed("/a", 404, &[FRESH[0], ("ETag", "\"v1\"")], "missing");
    let node = node(&origin).start();
    for _ in 0..2 {
        get("/a").with("If-None-Match", "\"v1\"").to(&node).assert_status(404);
        get("/a").with("If-Match", "\"v2\"").to(&node).assert_status(404);
    }
}

/// RFC 9110 §13.1.3: where there is no modification date, If-Modified-Since is ignored.
#[test]
fn what_is_not_stored_has_no_modification_date_but_its_own() {
    let (origin, asked) = (Origin::start(), std::sync::atomic::AtomicUsize::new(0));
    origin.on("/*", move |seen| {
        let count = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let modified = http_date(-7200);
        let mut fields = vec![("Cache-Control", "private, no-store")];
        if seen.path() == "/dated" {
            fields.push(("Last-Modified", &modified));
        }
        respond(200, &fields, count.to_string())
    });
    let node = node(&origin).start();
    for round in 0..3 {
        let since = http_date(600);
        let ask = |path| get(path).with("If-Modified-Since", &since).to(&node);
        ask("/a").assert_status(200).assert_body((2 * round).to_string());
        ask("/dated").assert_status(304);
    }
}
