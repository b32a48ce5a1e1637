//! The site's wishes.

use super::*;

#[test]
fn defaults_apply_where_nothing_is_known() {
    let site = |site: &mut SitePolicy| site.default_ttl_ms = 5000;
    assert_eq!(response(&[]).refused(), NotStored::NoFreshness);
    assert_eq!((response(&[]).site(site).ttl(), response(&[]).site(site).source()), (5, "default-ttl"));
    assert_eq!(response(&[]).status(403).site(site).refused(), NotStored::NoFreshness);
    assert_eq!(response(&[("pragma", "no-cache")]).site(site).refused(), NotStored::NoFreshness);
    assert_eq!(response(&[]).dated("last-modified", -100).site(site).ttl(), 10);
    assert_eq!(response(&[("expires", "0")]).site(site).refused(), NotStored::NoFreshness);
}

#[test]
fn negative_lifetimes_apply_by_status_without_freshness() {
    let site = |site: &mut SitePolicy| {
        site.negative_ttl_ms = vec![(404, 10_000), (403, 5000), (500, 60_000)];
    };
    let case = response(&[]).status(404).dated("last-modified", -1000).site(site);
    assert_eq!((case.ttl(), case.source()), (10, "negative-ttl"));
    assert_eq!(response(&[]).status(403).site(site).ttl(), 5);
    assert_eq!(response(&[]).status(500).site(site).ttl(), 30);
    assert_eq!(cache_control("max-age=3").status(404).site(site).ttl(), 3);
    assert_eq!(cache_control("no-store").status(404).site(site).refused(), NotStored::NoStore);
}

#[test]
fn an_override_replaces_what_the_origin_says() {
    let site = |site: &mut SitePolicy| site.override_ttl_ms = Some(60_000);
    for value in ["max-age=5", "max-age=0", "no-cache", "max-age=x"] {
        let freshness = cache_control(value).site(site).decide().unwrap();
        assert_eq!(
            (freshness.ttl_secs(NOW), freshness.source, freshness.no_cache),
            (60, "override", false),
            "{value}"
        );
    }
    assert_eq!(cache_control("max-age=5").status(404).site(site).ttl(), 5);
    assert_eq!(response(&[]).status(302).site(site).refused(), NotStored::NoFreshness);
}

#[test]
fn no_wish_beats_a_prohibition() {
    let site = |site: &mut SitePolicy| {
        site.override_ttl_ms = Some(60_000);
        site.min_ttl_ms = 60_000;
        site.default_ttl_ms = 60_000;
        site.negative_ttl_ms = vec![(200, 60_000)];
    };
    for (case, reason) in [
        (cache_control("private"), NotStored::Private),
        (cache_control("no-store"), NotStored::NoStore),
        (response(&[("set-cookie", "a=b")]), NotStored::SetCookie),
        (response(&[]).asked("authorization", "x"), NotStored::Authorization),
        (response(&[("vary", "*")]), NotStored::VaryStar),
    ] {
        assert_eq!(case.site(site).refused(), reason);
    }
}

#[test]
fn lifetimes_are_bounded() {
    let site = |site: &mut SitePolicy| (site.min_ttl_ms, site.max_ttl_ms) = (10_000, 20_000);
    for (value, secs) in [("max-age=5", 10), ("max-age=15", 15), ("max-age=25", 20), ("max-age=0", 10)] {
        assert_eq!(cache_control(value).site(site).ttl(), secs, "{value}");
    }
    assert_eq!(cache_control("no-cache, max-age=5").site(site).refused(), NotStored::NoCache);
    assert_eq!(response(&[]).site(site).refused(), NotStored::NoFreshness, "there is none to raise");
    for (given, secs) in [(5_000, 10), (15_000, 15), (25_000, 20)] {
        let by_default = |policy: &mut SitePolicy| {
            site(policy);
            policy.default_ttl_ms = given;
        };
        assert_eq!(response(&[]).site(by_default).ttl(), secs, "default {given}");
        let negative = |policy: &mut SitePolicy| {
            site(policy);
            policy.negative_ttl_ms = vec![(404, given)];
        };
        assert_eq!(response(&[]).status(404).site(negative).ttl(), secs, "negative {given}");
        let apart = |policy: &mut SitePolicy| {
            site(policy);
            policy.override_ttl_ms = Some(given);
        };
        assert_eq!(cache_control("max-age=15").site(apart).ttl(), given / 1000, "override {given}");
    }
    let upside_down = |site: &mut SitePolicy| (site.min_ttl_ms, site.max_ttl_ms) = (20_000, 10_000);
    assert_eq!(cache_control("max-age=5").site(upside_down).ttl(), 10);
    let nonsense = |site: &mut SitePolicy| {
        (site.min_ttl_ms, site.max_ttl_ms, site.max_error_ttl_ms) = (i64::MIN, -1, -1);
    };
    assert_eq!(cache_control("max-age=5").site(nonsense).refused(), NotStored::NoFreshness);
}
