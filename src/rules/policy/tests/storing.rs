//! What may be stored at all.

use super::*;

#[test]
fn prohibitions_hold_in_any_case_and_beside_freshness() {
    for (value, reason) in [
        ("no-store", NotStored::NoStore),
        ("No-StOrE, max-age=9", NotStored::NoStore),
        ("private, max-age=9", NotStored::Private),
        ("PRIVATE=\"set-cookie\", s-maxage=9", NotStored::Private),
    ] {
        assert_eq!(cache_control(value).dated("expires", 100).refused(), reason, "{value}");
    }
}

#[test]
fn no_cache_needs_a_validator() {
    assert_eq!(cache_control("no-cache, max-age=9").dated("expires", 9).refused(), NotStored::NoCache);
    let kept = response(&[
        ("cache-control", "No-CaChE, max-age=9, stale-while-revalidate=9, stale-if-error=9"),
        ("etag", "\"a\""),
    ]);
    let freshness = kept.decide().unwrap();
    assert_eq!(freshness.state(NOW), State::MustRevalidate);
    assert!(!freshness.may_serve_on_error(NOW));
}

#[test]
fn qualified_no_cache_strips_fields_from_hits() {
    let freshness = cache_control("max-age=9, no-cache=\"x-a, x-b\"").decide().unwrap();
    assert_eq!(freshness.state(NOW), State::Fresh);
    assert_eq!(*freshness.strip_fields, ["x-a", "x-b"]);
}

#[test]
fn must_understand_lifts_no_store_for_known_statuses() {
    assert_eq!(cache_control("no-store, must-understand, max-age=9").ttl(), 9);
    assert_eq!(cache_control("no-store, must-understand, max-age=9").status(302).ttl(), 9);
    assert_eq!(
        cache_control("no-store, must-understand, max-age=9").status(599).refused(),
        NotStored::Status
    );
    assert_eq!(cache_control("must-understand, max-age=9").status(599).refused(), NotStored::Status);
    assert_eq!(cache_control("no-store, must-understand, private, max-age=9").refused(), NotStored::Private);
}

#[test]
fn authorized_responses_need_permission() {
    for (value, allowed) in [
        ("max-age=9", false),
        ("public, max-age=9", true),
        ("must-revalidate, max-age=9", true),
        ("s-maxage=9", true),
        ("s-maxage=x, max-age=9", false),
        ("proxy-revalidate, max-age=9", false),
        ("no-cache, max-age=9", false),
    ] {
        let case = cache_control(value).asked("authorization", "Basic x");
        assert_eq!(case.decide().is_ok(), allowed, "{value}");
        assert!(allowed || case.refused() == NotStored::Authorization);
    }
}

#[test]
fn set_cookie_is_the_sites_decision() {
    let case = response(&[("cache-control", "max-age=9"), ("set-cookie", "a=b")]);
    assert_eq!(case.refused(), NotStored::SetCookie);
    for policy in [SetCookie::Strip, SetCookie::Store] {
        assert_eq!(case.clone().site(|site| site.set_cookie = policy).ttl(), 9);
    }
    assert_eq!(cache_control("max-age=9").asked("cookie", "a=b").ttl(), 9);
}

#[test]
fn vary_may_forbid() {
    let vary = |value| response(&[("cache-control", "max-age=9"), ("vary", value)]);
    assert_eq!(vary("foo, *").refused(), NotStored::VaryStar);
    assert_eq!(vary("Accept, COOKIE").refused(), NotStored::Vary);
    assert_eq!(vary("Accept-Encoding").ttl(), 9);
    assert_eq!(vary("cookie").site(|site| site.vary_pass.clear()).ttl(), 9);
}

#[test]
fn partial_content_must_say_which_part() {
    let range = [("cache-control", "max-age=9"), ("content-range", "bytes 0-1/10")];
    assert_eq!(response(&range).status(206).ttl(), 9);
    assert_eq!(cache_control("max-age=9").status(206).refused(), NotStored::Partial);
    assert_eq!(response(&range).ttl(), 9, "meaningless on a 200, and kept as it is");
}

#[test]
fn only_get() {
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
        let case = Case { method, ..cache_control("max-age=9") };
        assert_eq!(case.refused(), NotStored::Method);
    }
}

#[test]
fn requests_forbid_only_where_they_are_honoured() {
    let case = cache_control("max-age=9").asked("cache-control", "no-store");
    assert_eq!(case.ttl(), 9);
    assert_eq!(
        case.site(|site| site.honor_request_cache_control = true).refused(),
        NotStored::RequestNoStore
    );
}

#[test]
fn post_is_stored_only_as_what_get_would_return() {
    use crate::rules::key::Scheme;
    let target = Target { scheme: Scheme::Https, host: "a.example", path: "/x", query: None };
    let case =
        |lines: &[_]| Case { method: Method::POST, ..response(lines) }.site(|site| site.cache_post = true);
    let decide = |case: &Case| decide_post(&case.exchange(), &case.site, &target);
    let good = case(&[("cache-control", "max-age=9"), ("content-location", "/x")]);
    assert_eq!(decide(&good).unwrap().ttl_secs(NOW), 9);
    assert_eq!(decide(&good.clone().site(|site| site.cache_post = false)), Err(NotStored::Method));
    assert_eq!(decide(&good.clone().status(404)), Err(NotStored::Status));
    let elsewhere = case(&[("cache-control", "max-age=9"), ("content-location", "/y")]);
    assert_eq!(decide(&elsewhere), Err(NotStored::ContentLocation));
    let heuristic = case(&[("content-location", "/x")]).dated("last-modified", -1000);
    assert_eq!(decide(&heuristic), Err(NotStored::NoFreshness));
}

#[test]
fn what_is_stale_at_once_is_kept_only_to_be_renewed() {
    let stale = |lines: &[_]| response(lines).decide();
    assert_eq!(stale(&[("etag", "\"a\"")]).unwrap().source, "none");
    assert!(response(&[]).dated("last-modified", 0).decide().is_ok());
    assert_eq!(stale(&[]), Err(NotStored::NoFreshness));
    assert_eq!(stale(&[("last-modified", "foo")]), Err(NotStored::NoFreshness));
    assert!(stale(&[("cache-control", "max-age=0, stale-while-revalidate=5")]).is_ok());
    assert!(stale(&[("cache-control", "max-age=0, stale-if-error=5")]).is_ok());
    assert_eq!(
        stale(&[("cache-control", "max-age=0, must-revalidate, stale-if-error=5")]),
        Err(NotStored::NoFreshness)
    );
    let missing = response(&[("cache-control", "max-age=0"), ("etag", "\"a\"")]).status(404);
    assert_eq!(missing.refused(), NotStored::NoFreshness, "no condition makes a 404 a 304");
}

#[test]
fn what_a_slow_origin_has_let_become_stale_is_kept_to_stand_in() {
    let slow = |value, delay_ms| Case { delay_ms, ..cache_control(value) };
    assert_eq!(slow("max-age=1", 1400).decide().unwrap().state(NOW), State::MustRevalidate);
    assert!(slow("max-age=1", 1400).decide().unwrap().may_serve_on_error(NOW));
    // It was stale before it was asked for, or nothing may stand in, or the wait was longer than that.
    assert_eq!(slow("max-age=0", 1400).decide(), Err(NotStored::NoFreshness));
    assert_eq!(slow("max-age=1, must-revalidate", 1400).decide(), Err(NotStored::NoFreshness));
    let aged = Case { delay_ms: 1400, ..response(&[("cache-control", "max-age=9"), ("age", "9")]) };
    assert_eq!(aged.decide(), Err(NotStored::NoFreshness));
}
