//! Freshness lifetime and age.

use super::*;

#[test]
fn s_maxage_beats_max_age_beats_expires() {
    for value in ["s-maxage=5, max-age=9", "max-age=0, s-maxage=5", "max-age=9, s-maxage=5"] {
        let case = cache_control(value).dated("expires", -100).dated("date", 0);
        assert_eq!((case.ttl(), case.source()), (5, "s-maxage"), "{value}");
    }
    assert_eq!(cache_control("max-age=5").dated("expires", -100).ttl(), 5);
    assert_eq!(cache_control("max-age=5").dated("expires", 100).ttl(), 5);
    assert_eq!(cache_control("max-age=0").dated("expires", 100).ttl(), 0);
    let invalid = response(&[("cache-control", "max-age=5"), ("expires", "0")]);
    assert_eq!(invalid.ttl(), 5);
}

#[test]
fn the_first_present_one_decides_even_if_it_is_malformed() {
    for value in ["s-maxage=x, max-age=9", "max-age=-3600", "max-age='3600'", "max-age", "max-age= 9"] {
        let case = cache_control(value).dated("expires", 100).dated("last-modified", -1000);
        assert_eq!(case.ttl(), 0, "{value}");
    }
}

#[test]
fn fresh_means_strictly_younger() {
    assert_eq!(cache_control("max-age=0").refused(), NotStored::NoFreshness);
    assert_eq!(response(&[]).dated("expires", 0).dated("date", 0).refused(), NotStored::NoFreshness);
    let validated = response(&[("cache-control", "max-age=0"), ("etag", "\"a\"")]);
    assert_eq!(validated.decide().unwrap().state(NOW), State::MustRevalidate);
}

#[test]
fn expires_is_measured_from_the_date_of_the_response() {
    assert_eq!(response(&[]).dated("expires", 300).dated("date", 400).ttl(), 0);
    assert_eq!(response(&[]).dated("expires", 300).dated("date", 100).ttl(), 200);
    assert_eq!(response(&[]).dated("expires", 300).ttl(), 300);
    assert_eq!(response(&[("date", "foo")]).dated("expires", 300).ttl(), 300);
    assert_eq!(response(&[]).dated("expires", -100).dated("date", -200).ttl(), 100);
}

#[test]
fn several_expires_must_agree() {
    assert_eq!(response(&[]).dated("expires", 300).dated("expires", 300).ttl(), 300);
    assert_eq!(response(&[]).dated("expires", 300).dated("expires", 301).ttl(), 0);
}

#[test]
fn an_invalid_expires_is_present() {
    let case = response(&[("expires", "0")]).dated("last-modified", -10_000);
    assert_eq!(case.source(), "expires");
    assert_eq!(case.decide().unwrap().state(NOW), State::MustRevalidate);
}

#[test]
fn age_and_delay_count_apparent_age_does_not() {
    let aged = |age| response(&[("cache-control", "max-age=3600"), ("age", age)]);
    assert_eq!(aged("3590").ttl(), 10);
    assert_eq!(aged("3600").ttl(), 0);
    assert_eq!(aged("7200").ttl(), 0);
    assert_eq!(cache_control("max-age=3600").dated("date", -10_000).ttl(), 3600);
    let mut slow = cache_control("max-age=10");
    slow.delay_ms = 2500;
    let freshness = slow.decide().unwrap();
    assert_eq!((freshness.ttl_secs(NOW), freshness.age_secs(NOW)), (7, 2));
    slow.delay_ms = -2500;
    assert_eq!(slow.ttl(), 10, "a clock that went back");
    assert_eq!(response(&[("age", "25")]).dated("date", -10).dated("expires", 10).ttl(), 0);
    assert_eq!(response(&[("age", "15")]).dated("date", 10).dated("expires", 20).ttl(), 0);
}

#[test]
fn for_ever_is_fresh_and_as_old_as_that_is_not() {
    assert_eq!(cache_control("max-age=99999999999").site(|site| site.max_ttl_ms = i64::MAX).ttl(), 1 << 31);
    let old = response(&[("cache-control", "max-age=99999999999"), ("age", "2147483647")]);
    assert_eq!(old.site(|site| site.max_ttl_ms = i64::MAX).ttl(), 0);
}

#[test]
fn the_heuristic_is_a_tenth_and_at_most_a_day() {
    let case = response(&[]).dated("last-modified", -1000).dated("date", 0);
    assert_eq!((case.ttl(), case.source()), (100, "heuristic"));
    assert_eq!(response(&[]).dated("last-modified", -100_000_000).ttl(), 86_400);
    assert_eq!(response(&[]).dated("last-modified", 1000).ttl(), 0);
    assert_eq!(response(&[("last-modified", "foo")]).ttl(), 0);
    assert_eq!(response(&[("pragma", "no-cache")]).dated("last-modified", -1000).ttl(), 0);
}

#[test]
fn the_heuristic_depends_on_the_status() {
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert!(response(&[]).dated("last-modified", -100).status(status).ttl() > 0, "{status}");
    }
    for status in [201, 202, 302, 303, 307, 400, 401, 403, 500, 502, 503, 504, 599] {
        let case = response(&[("etag", "\"a\"")]).dated("last-modified", -100).status(status);
        assert_eq!(case.refused(), NotStored::NoFreshness, "{status}");
    }
    assert!(cache_control("public").dated("last-modified", -100).status(599).ttl() > 0);
}

#[test]
fn any_final_status_may_be_explicitly_fresh() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
        assert_eq!(cache_control("max-age=20").status(status).ttl(), 20, "{status}");
        assert_eq!(cache_control("max-age=0").status(status).refused(), NotStored::NoFreshness, "{status}");
    }
    for status in [101, 304, 412, 416, 421, 428, 429, 431, 511] {
        assert_eq!(cache_control("max-age=20").status(status).refused(), NotStored::Status, "{status}");
    }
}

#[test]
fn an_error_does_not_stick() {
    let case = cache_control("max-age=3600, stale-while-revalidate=60, stale-if-error=60").status(503);
    let freshness = case.decide().unwrap();
    assert_eq!(freshness.ttl_secs(NOW), 30);
    assert_eq!(freshness.sie_until, freshness.fresh_until);
    assert_eq!(cache_control("max-age=3600").status(404).ttl(), 3600);
}
