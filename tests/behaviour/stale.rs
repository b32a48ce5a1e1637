//! Serving what is stale: while it is fetched anew, and when the origin is down (RFC 5861).

use std::time::Duration;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::response::Response;
use crate::support::{Gate, OpenOnDrop, eventually};

/// Stores an answer with a lifetime of a second and lets it become stale.
fn with_stale(origin: &Origin, control: &str, settings: &str) -> Node {
    origin.fixed("/a", 200, &[("Cache-Control", control)], "old");
    let node = node(origin).cache(settings).start();
    node.get("/a").assert_status(200).assert_body("old");
    std::thread::sleep(Duration::from_millis(1100));
    node
}

#[track_caller]
fn assert_stale(answer: &Response) {
    answer.assert_status(200).assert_body("old");
    let detail = answer.cache_parameter("detail").unwrap_or_default();
    assert!(
        detail.contains("stale") || answer.cache_parameter("fwd").as_deref() == Some("stale"),
        "{:?}",
        answer.fields
    );
    assert!(answer.age().is_some_and(|age| age >= 1), "{:?}", answer.fields);
    assert!(!answer.has("warning"));
}

#[test]
fn a_dead_origin_is_covered_by_what_is_stored() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1", "");
    origin.stop();
    for _ in 0..3 {
        assert_stale(&node.get("/a"));
    }
    // What was never stored can't be served.
    node.get("/b").assert_status(502).assert_own_error();
}

#[test]
fn errors_of_the_origin_are_covered_too() {
    for status in [500, 502, 503, 504] {
        let origin = Origin::start();
        let node = with_stale(&origin, "max-age=1", "");
        origin.fixed("/a", status, &[], "broken");
        assert_stale(&node.get("/a"));
        assert_eq!(origin.count("/a"), 2, "{status}: asked once more, not again and again");
    }
}

#[test]
fn head_is_covered_as_get_is() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1", "");
    let ask = || crate::support::request::head("/a").to(&node);
    origin.fixed("/a", 503, &[], "broken");
    let covered = ask();
    covered.assert_status(200).assert_fwd("stale");
    assert_eq!(
        (covered.field("content-length"), covered.cache_parameter("fwd-status")),
        (Some("3"), Some("503".into()))
    );
    // It is left alone for a moment.
    let covered = ask();
    covered.assert_status(200).assert_hit();
    assert_eq!(covered.cache_parameter("detail").as_deref(), Some("stale-if-error"));
    assert_eq!(origin.count("/a"), 2);
    std::thread::sleep(Duration::from_millis(1100));
    origin.stop();
    ask().assert_status(200).assert_fwd("stale");
}

#[test]
fn a_client_error_is_news_and_no_failure() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1", "");
    origin.fixed("/a", 404, &[], "gone");
    node.get("/a").assert_status(404).assert_body("gone");
}

#[test]
fn some_answers_forbid_to_be_served_stale() {
    for control in ["max-age=1, must-revalidate", "max-age=1, proxy-revalidate", "s-maxage=1", "no-cache"] {
        let origin = Origin::start();
        let node = with_stale(&origin, control, "");
        origin.stop();
        let answer = node.get("/a");
        assert!([502, 504].contains(&answer.status), "{control}: {}", answer.status);
        answer.assert_own_error();
        assert!(!answer.text().contains("old"), "{control}");
    }
}

#[test]
fn the_response_may_allow_what_s_maxage_forbids() {
    let origin = Origin::start();
    let node = with_stale(&origin, "s-maxage=1, stale-if-error=600", "");
    origin.stop();
    assert_stale(&node.get("/a"));
}

#[test]
fn the_time_for_stale_answers_is_bounded() {
    let cases = [("max-age=1", "stale_if_error = \"0s\""), ("max-age=1, stale-if-error=0", "")];
    for (control, settings) in cases {
        let origin = Origin::start();
        let node = with_stale(&origin, control, settings);
        origin.stop();
        node.get("/a").assert_status(502).assert_own_error();
    }
}

#[test]
fn stale_while_revalidate_serves_at_once_and_asks_once() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1, stale-while-revalidate=600", "");
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "new")].concat());

    for _ in 0..10 {
        let answer = node.get("/a");
        assert_stale(&answer);
        answer.assert_hit();
        let ttl: i64 = answer.cache_parameter("ttl").expect("a ttl").parse().expect("a number");
        assert!(ttl <= 0, "{ttl}");
    }
    eventually("one fetch in the background", || origin.count("/a") == 2);
    gate.open();
    eventually("the new answer is served", || node.get("/a").text() == "new");
    assert_eq!(origin.count("/a"), 2, "ten stale answers cost one fetch");
}

#[test]
fn the_site_may_allow_stale_while_revalidate_for_all() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1", "stale_while_revalidate = \"60s\"");
    origin.fixed("/a", 200, FRESH, "new");
    assert_stale(&node.get("/a"));
    eventually("the new answer is served", || node.get("/a").text() == "new");
}

#[test]
fn after_the_window_the_client_waits_for_the_new_answer() {
    let origin = Origin::start();
    let control = "max-age=1, stale-while-revalidate=1";
    origin.fixed("/a", 200, &[("Cache-Control", control)], "old");
    let node = node(&origin).start();
    node.get("/a").assert_body("old");
    std::thread::sleep(Duration::from_millis(2100));
    origin.fixed("/a", 200, FRESH, "new");
    node.get("/a").assert_body("new");
}

#[test]
fn a_failed_fetch_in_the_background_leaves_the_stale_answer() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1, stale-while-revalidate=600", "");
    origin.on("/a", |_| vec![Step::Reset]);
    for _ in 0..3 {
        assert_stale(&node.get("/a"));
    }
}

#[test]
fn an_answer_that_may_not_be_stored_ends_the_stale_one() {
    let control = "max-age=1, stale-while-revalidate=600, stale-if-error=600";
    for (status, fields) in [
        (200, &[("Cache-Control", "no-store")][..]),
        (200, &[("Cache-Control", "no-cache")]),
        (200, &[("Cache-Control", "private")]),
        (404, &[]),
    ] {
        let origin = Origin::start();
        let node = with_stale(&origin, control, "");
        origin.fixed("/a", status, fields, "new");
        assert_stale(&node.get("/a"));
        eventually("the new answer is served", || node.get("/a").text() == "new");
        origin.stop();
        node.get("/a").assert_status(502);
    }
}

#[test]
fn one_clients_own_answer_does_not_end_it_for_all() {
    let origin = Origin::start();
    let node = with_stale(&origin, "max-age=1, stale-if-error=600", "");
    origin.fixed("/a", 200, &[("Cache-Control", "private")], "yours");
    for field in ["Authorization", "Cookie"] {
        crate::support::request::get("/a").with(field, "x").to(&node).assert_body("yours");
    }
    origin.stop();
    assert_stale(&node.get("/a"));
}
