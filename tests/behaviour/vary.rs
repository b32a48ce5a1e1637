//! Variants by request fields (RFC 9111 §4.1).

use crate::support::node::node;
use crate::support::origin::{Origin, respond};
use crate::support::request::get;

/// An origin that varies on `vary` and answers with the value of `X-Kind`, or `none`.
fn varying(vary: &'static [&'static str]) -> Origin {
    let origin = Origin::start();
    origin.on("/a", move |seen| {
        let mut fields = vec![("Cache-Control", "max-age=600")];
        fields.extend(vary.iter().map(|value| ("Vary", *value)));
        respond(200, &fields, seen.field("x-kind").unwrap_or("none"))
    });
    origin
}

#[test]
fn each_value_is_a_variant_and_absent_is_one_too() {
    let origin = varying(&["X-Kind"]);
    let node = node(&origin).start();
    let ask = |kind: Option<&str>| match kind {
        Some(kind) => get("/a").with("X-Kind", kind).to(&node),
        None => node.get("/a"),
    };
    let kinds = [Some("1"), Some("2"), None, Some("three")];
    for kind in kinds {
        let answer = ask(kind);
        assert!(!answer.is_hit(), "{kind:?}");
        answer.assert_body(kind.unwrap_or("none"));
    }
    for kind in kinds {
        ask(kind).assert_hit().assert_body(kind.unwrap_or("none"));
    }
    assert_eq!(origin.count("/a"), kinds.len());
}

#[test]
fn a_missing_variant_says_so() {
    let origin = varying(&["x-kind"]);
    let node = node(&origin).start();
    get("/a").with("X-Kind", "1").to(&node).assert_fwd("uri-miss");
    get("/a").with("X-Kind", "2").to(&node).assert_fwd("vary-miss");
}

#[test]
fn a_star_never_matches() {
    for vary in [&["*"] as &[_], &["*, X-Kind"], &["X-Kind, *"], &["X-Kind", "*"], &[", *"]] {
        let origin = varying(vary);
        let node = node(&origin).start();
        for _ in 0..3 {
            assert!(!node.get("/a").is_hit(), "{vary:?}");
        }
        assert_eq!(origin.count("/a"), 3, "{vary:?}");
    }
}

#[test]
fn every_line_and_member_of_vary_counts() {
    for vary in [&["X-Kind, X-Other"] as &[_], &["X-Kind", "X-Other"], &["x-OTHER,x-KIND"]] {
        let origin = varying(vary);
        let node = node(&origin).start();
        let ask = |kind: &str, other: &str| {
            get("/a").with("X-Kind", kind).with("X-Other", other).to(&node).is_hit()
        };
        assert!(!ask("1", "1"));
        assert!(ask("1", "1"), "{vary:?}");
        assert!(!ask("2", "1"), "{vary:?}");
        assert!(!ask("1", "2"), "{vary:?}");
    }
}

#[test]
fn fields_that_are_not_listed_make_no_variant() {
    let origin = varying(&["X-Kind"]);
    let node = node(&origin).start();
    node.get("/a");
    get("/a").with("X-Else", "1").with("User-Agent", "x").with("Cookie", "a=b").to(&node).assert_hit();
}

#[test]
fn spaces_round_commas_and_split_lines_are_one_value() {
    let origin = varying(&["X-Kind"]);
    let node = node(&origin).start();
    get("/a").with("X-Kind", "1, 2").to(&node);
    get("/a").with("X-Kind", "1,2").to(&node).assert_hit();
    get("/a").with("X-Kind", "1").with("X-Kind", "2").to(&node).assert_hit();
    assert!(!get("/a").with("X-Kind", "2,1").to(&node).is_hit());
    assert!(!get("/a").with("X-Kind", "\"1, 2\"").to(&node).is_hit());
}

#[test]
fn an_answer_for_each_cookie_or_browser_is_not_stored() {
    for vary in [&["Cookie"] as &[_], &["User-Agent"], &["X-Kind, cookie"]] {
        let origin = varying(vary);
        let node = node(&origin).start();
        for _ in 0..2 {
            assert!(!node.get("/a").is_hit(), "{vary:?}");
        }
    }
    let origin = varying(&["Cookie"]);
    let node = node(&origin).cache("vary_pass = []").start();
    get("/a").with("Cookie", "a=1").to(&node);
    get("/a").with("Cookie", "a=1").to(&node).assert_hit();
    assert!(!get("/a").with("Cookie", "a=2").to(&node).is_hit());
}

#[test]
fn the_least_recently_used_variant_leaves_when_there_are_too_many() {
    let origin = varying(&["X-Kind"]);
    let node = node(&origin).cache("max_variants = 4").start();
    for kind in 0..6 {
        get("/a").with("X-Kind", kind.to_string()).to(&node);
    }
    get("/a").with("X-Kind", "5").to(&node).assert_hit();
    assert!(!get("/a").with("X-Kind", "0").to(&node).is_hit());
}

/// An origin with German and English, which tells what it chose.
fn languages() -> Origin {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let german = seen.joined("accept-language").contains("de");
        let fields = [
            ("Cache-Control", "max-age=600"),
            ("Vary", "Accept-Language, X-Kind"),
            ("Content-Language", if german { "de" } else { "en" }),
        ];
        respond(200, &fields, if german { "hallo" } else { "hello" })
    });
    origin
}

#[test]
fn the_language_that_a_client_wants_most_selects_where_the_site_says_so() {
    let (origin, wants) = (languages(), |language| get("/a").with("Accept-Language", language));
    let node = node(&origin).cache("accept_language_select = true").start();
    wants("en, de").to(&node).assert_body("hallo");
    wants("fr;q=0.5, DE").to(&node).assert_hit().assert_body("hallo");
    wants("de").to(&node).assert_hit().assert_body("hallo");
    assert_eq!(origin.count("/a"), 1);
    // Not the first choice alone, not the first choice, none, or another field that varies.
    wants("de, en;q=1.0").to(&node).assert_fwd("vary-miss");
    wants("en, de;q=0.9").to(&node).assert_fwd("vary-miss");
    wants("de-AT").to(&node).assert_fwd("vary-miss");
    node.get("/a").assert_fwd("vary-miss");
    wants("de").with("X-Kind", "1").to(&node).assert_fwd("vary-miss");
    // What was changed is not chosen.
    crate::support::request::request("POST", "/a").to(&node);
    assert!(!wants("de;q=0.3").to(&node).is_hit());
}

#[test]
fn languages_are_only_compared_by_default() {
    let origin = languages();
    let node = node(&origin).start();
    get("/a").with("Accept-Language", "en, de").to(&node);
    get("/a").with("Accept-Language", "EN,DE").to(&node).assert_hit();
    get("/a").with("Accept-Language", "de").to(&node).assert_fwd("vary-miss");
    get("/a").with("Accept-Language", "de, en").to(&node).assert_fwd("vary-miss");
}

#[test]
fn a_field_that_a_client_keeps_from_the_origin_selects_nothing() {
    for nominating in ["X-Kind", "close, x-kind", "keep-alive,X-KIND"] {
        let origin = varying(&["X-Kind"]);
        let node = node(&origin).start();
        let hidden = || get("/a").with("Connection", nominating).with("X-Kind", "1").to(&node);
        hidden().assert_body("none");
        assert_eq!(origin.last("/a").field("x-kind"), None);
        get("/a").with("X-Kind", "1").to(&node).assert_fwd("vary-miss").assert_body("1");
        node.get("/a").assert_hit().assert_body("none");
        hidden().assert_hit().assert_body("none");
        assert_eq!(origin.count("/a"), 2, "{nominating}");
    }
}

#[test]
fn what_only_a_trusted_proxy_may_say_selects_nothing_of_others() {
    for name in ["X-Forwarded-Host", "X-Real-IP", "X-Original-URL"] {
        let origin = Origin::start();
        let fields = [("Cache-Control", "max-age=600"), ("Vary", name)];
        origin.on("/a", move |seen| {
            let seen = seen.field(&name.to_ascii_lowercase()).unwrap_or("none").to_owned();
            respond(200, &fields, seen)
        });
        let node = node(&origin).start();
        get("/a").with(name, "evil").to(&node).assert_body("none");
        node.get("/a").assert_hit().assert_body("none");
        get("/a").with(name, "other").to(&node).assert_hit().assert_body("none");
    }
}
