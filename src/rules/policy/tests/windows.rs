//! stale-while-revalidate and stale-if-error.

use super::*;

/// Seconds of (stale-while-revalidate, stale-if-error) after the lifetime.
fn windows(value: &str) -> (i64, i64) {
    let case = response(&[("cache-control", value), ("etag", "\"a\"")]);
    let freshness = case.site(|site| site.stale_while_revalidate_ms = 7000).decide().unwrap();
    let secs = |until: Millis| until.saturating_sub(freshness.fresh_until) / 1000;
    (secs(freshness.swr_until), secs(freshness.sie_until))
}

#[test]
fn the_response_decides_then_the_site() {
    assert_eq!(windows("max-age=1"), (7, 86_400));
    assert_eq!(windows("max-age=1, stale-while-revalidate=4"), (4, 86_400));
    assert_eq!(windows("max-age=1, stale-if-error=4"), (7, 4));
    assert_eq!(windows("max-age=1, stale-while-revalidate=x, stale-if-error"), (0, 0));
}

#[test]
fn prohibitions_beat_both() {
    for value in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1, must-revalidate"] {
        assert_eq!(
            windows(&format!("max-age=1, {value}, stale-while-revalidate=4, stale-if-error=4")),
            (0, 0),
            "{value}"
        );
    }
}

#[test]
fn s_maxage_forbids_the_sites_defaults_only() {
    assert_eq!(windows("s-maxage=1"), (0, 0));
    assert_eq!(windows("s-maxage=1, stale-while-revalidate=4"), (4, 0));
    assert_eq!(windows("s-maxage=1, stale-if-error=4"), (0, 4));
}

#[test]
fn without_a_lifetime_the_sites_defaults_do_not_apply() {
    assert_eq!(windows(""), (0, 0));
    assert_eq!(windows("max-age=x"), (0, 0));
    assert_eq!(windows("max-age=0"), (7, 86_400));
}

#[test]
fn a_window_ends() {
    let freshness = cache_control("max-age=1, stale-while-revalidate=4").decide().unwrap();
    let at = |secs: i64| freshness.state(NOW.saturating_add(secs * 1000));
    assert_eq!(
        (at(0), at(3), at(5), at(6)),
        (State::Fresh, State::StaleWhileRevalidate, State::StaleWhileRevalidate, State::MustRevalidate)
    );
}
