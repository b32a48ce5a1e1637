//! RFC 9213.

use super::*;

fn cdn(cdn: &str, cache_control: &str) -> Case {
    response(&[("cdn-cache-control", cdn), ("cache-control", cache_control)])
}

#[test]
fn they_decide_both_ways() {
    assert_eq!(cdn("max-age=100", "max-age=1").ttl(), 100);
    assert_eq!(cdn("max-age=1", "max-age=100").ttl(), 1);
    assert_eq!(cdn("max-age=100", "no-store").ttl(), 100);
    assert_eq!(cdn("no-store", "max-age=100").refused(), NotStored::NoStore);
    assert_eq!(cdn("private", "max-age=100").refused(), NotStored::Private);
    assert_eq!(cdn("no-cache", "max-age=100").refused(), NotStored::NoCache);
    assert_eq!(cdn("max-age=0", "").dated("expires", 100).ttl(), 0);
    assert_eq!(cdn("max-age=100", "").dated("expires", -100).ttl(), 100);
    assert_eq!(cdn("public", "").dated("expires", 100).ttl(), 0, "Expires is not looked at");
    assert_eq!(cdn("max-age=100", "").source(), "cdn-cache-control");
}

#[test]
fn broken_ones_do_not() {
    assert_eq!(cdn("max-age=10000, &&&&&", "no-store").refused(), NotStored::NoStore);
    assert_eq!(cdn("", "max-age=5").ttl(), 5);
    for value in ["max-age=\"10000\"", "max-age=100.5", "max-age=-5"] {
        assert_eq!(cdn(value, "max-age=5").ttl(), 0, "{value}");
    }
}

#[test]
fn age_still_counts() {
    let aged = response(&[("cdn-cache-control", "max-age=100"), ("age", "40")]);
    assert_eq!(aged.ttl(), 60);
}
