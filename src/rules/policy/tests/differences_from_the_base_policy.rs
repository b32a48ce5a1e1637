//! Each difference between `http-cache-semantics` and us, by the name it has in `base`.

use super::*;

#[test]
fn upper_case_private_is_private() {
    assert_eq!(cache_control("PRIVATE, max-age=9").refused(), NotStored::Private);
}

#[test]
fn a_huge_age_does_not_panic() {
    let case = response(&[("cache-control", "max-age=9"), ("age", "18446744073709551615")]);
    assert_eq!(case.refused(), NotStored::NoFreshness);
}

#[test]
fn every_vary_line_counts() {
    let case = response(&[("cache-control", "max-age=9"), ("vary", "*"), ("vary", "accept")]);
    assert_eq!(case.refused(), NotStored::VaryStar);
}

#[test]
fn expires_in_the_obsolete_formats_counts() {
    let case =
        response(&[("expires", "Thursday, 18-Aug-50 02:01:18 GMT"), ("date", "Thu Aug 18 02:00:18 2050")]);
    assert_eq!(case.ttl(), 60);
}

#[test]
fn unknown_statuses_are_stored_with_explicit_freshness() {
    assert_eq!(cache_control("max-age=9").status(299).ttl(), 9);
}

#[test]
fn proxy_revalidate_does_not_end_freshness() {
    assert_eq!(cache_control("max-age=9, proxy-revalidate").ttl(), 9);
}

#[test]
fn immutable_gives_no_lifetime() {
    assert_eq!(response(&[("cache-control", "immutable"), ("etag", "\"a\"")]).ttl(), 0);
}

#[test]
fn set_cookie_that_is_stored_is_fresh() {
    let case = response(&[("cache-control", "max-age=9"), ("set-cookie", "a=b")]);
    assert_eq!(case.site(|site| site.set_cookie = SetCookie::Store).ttl(), 9);
}

#[test]
fn duplicates_do_not_end_freshness() {
    assert_eq!(cache_control("max-age=9, max-age=5").ttl(), 9);
}

#[test]
fn commas_in_strings_do_not_separate() {
    assert_eq!(cache_control("ext=\"a, no-store\", max-age=9").ttl(), 9);
}

#[test]
fn the_heuristic_is_limited() {
    assert_eq!(response(&[]).dated("last-modified", -100_000_000).ttl(), 86_400);
}

#[test]
fn pragma_in_a_response_does_not_beat_expires() {
    assert_eq!(response(&[("pragma", "no-cache")]).dated("expires", 9).ttl(), 9);
}

#[test]
fn must_understand_is_understood() {
    assert_eq!(cache_control("must-understand, no-store, max-age=9").ttl(), 9);
}
