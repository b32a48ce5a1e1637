use http::{HeaderName, HeaderValue};

use super::*;

fn decide(headers: &HeaderMap) -> Deciding {
    super::decide(headers, "larder")
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn cdn(value: &str) -> Deciding {
    decide(&headers(&[("cdn-cache-control", value), ("cache-control", "max-age=7")]))
}

#[test]
fn the_first_usable_field_decides_alone() {
    let all = [
        ("larder-cdn-cache-control", "max-age=1"),
        ("cdn-cache-control", "max-age=2"),
        ("surrogate-control", "max-age=3"),
        ("cache-control", "max-age=4, no-store"),
    ];
    for (skip, secs) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        let decided = decide(&headers(&all[skip..]));
        assert_eq!(decided.field.as_str(), all[skip].0);
        assert_eq!(decided.directives.max_age, Some(Delta::Secs(secs)));
        assert_eq!(decided.directives.no_store, skip == 3);
    }
}

#[test]
fn what_does_not_parse_is_absent() {
    for value in
        ["", "max-age=10000, &&&&&", "max-age =100", "max-age= 100", "MaX-aGe=3600", "max-age=1,", "\"x\""]
    {
        let decided = cdn(value);
        assert_eq!(decided.field, Field::CacheControl, "{value}");
        assert_eq!(decided.directives.max_age, Some(Delta::Secs(7)));
    }
}

#[test]
fn the_last_duplicate_wins_and_parameters_are_ignored() {
    assert_eq!(cdn("max-age=1, max-age=2").directives.max_age, Some(Delta::Secs(2)));
    assert_eq!(cdn("max-age=3;max-age=9").directives.max_age, Some(Delta::Secs(3)));
    let two_lines = headers(&[("cdn-cache-control", "max-age=1"), ("cdn-cache-control", "max-age=2")]);
    assert_eq!(decide(&two_lines).directives.max_age, Some(Delta::Secs(2)));
}

#[test]
fn wrong_types_spoil_a_lifetime() {
    for value in [
        "max-age=\"10000\"",
        "max-age=10.0",
        "max-age=-1",
        "max-age",
        "max-age=(1 2)",
        "max-age=?1",
        "max-age=a",
    ] {
        let decided = cdn(value);
        assert_eq!(
            (decided.field, decided.directives.max_age),
            (Field::CdnCacheControl, Some(Delta::Invalid)),
            "{value}"
        );
    }
    assert_eq!(cdn("max-age=999999999999999").directives.max_age, Some(Delta::Secs(1 << 31)));
}

#[test]
fn wrong_types_do_not_lift_a_restriction() {
    assert!(cdn("no-store=1").directives.no_store);
    assert!(cdn("private=\"set-cookie\"").directives.private);
    assert!(!cdn("no-store=?0").directives.no_store);
    assert!(!cdn("public=1").directives.public);
    assert_eq!(cdn("no-cache=\"a, b\"").directives.no_cache_fields, ["a", "b"]);
    assert!(cdn("no-cache").directives.no_cache);
}

#[test]
fn surrogate_control_gives_a_lifetime_and_an_extension() {
    let decided = decide(&headers(&[("surrogate-control", "content=\"ESI/1.0\", max-age=30+60")]));
    assert_eq!(decided.directives.max_age, Some(Delta::Secs(30)));
    assert_eq!(decided.directives.stale_while_revalidate, Some(Delta::Secs(60)));
}

#[test]
fn a_surrogate_control_that_forbids_what_is_stale_permits_no_more_than_that() {
    for word in ["must-revalidate", "proxy-revalidate", "Must-Revalidate"] {
        let field = format!("{word}, content=\"ESI/1.0\", max-age=5+5");
        let decided = decide(&headers(&[("surrogate-control", &field)])).directives;
        assert!(decided.proxy_revalidate && !decided.must_revalidate, "{word}");
        assert_eq!(decide(&headers(&[("surrogate-control", word)])).field, Field::CacheControl, "{word}");
    }
}

#[test]
fn surrogate_control_that_says_nothing_of_storage_decides_nothing() {
    for value in ["content=\"ESI/1.0\"", "max-age=5;other", "max-age=5;larder2", ""] {
        assert_eq!(decide(&headers(&[("surrogate-control", value)])).field, Field::CacheControl, "{value}");
    }
    assert!(decide(&headers(&[("surrogate-control", "no-store;other")])).directives.no_store);
}

#[test]
fn what_is_meant_for_this_surrogate_beats_what_is_meant_for_all() {
    for value in
        ["max-age=5;larder", "max-age=5; Larder", "max-age=9, max-age=5;larder", "max-age=9;a, max-age=5"]
    {
        let decided = decide(&headers(&[("surrogate-control", value), ("cache-control", "no-store")]));
        assert_eq!(decided.directives.max_age, Some(Delta::Secs(5)), "{value}");
        assert!(!decided.directives.no_store);
    }
}

#[test]
fn surrogate_control_takes_no_space_beside_the_equals_sign() {
    for value in ["max-age =100", "max-age= 100", "max-age = 100", "max-age=", "max-age=1a", "max-age=1 + 1"]
    {
        let decided = decide(&headers(&[("surrogate-control", value), ("cache-control", "max-age=9")]));
        assert_eq!(decided.directives.max_age, Some(Delta::Invalid), "{value}");
    }
}

#[test]
fn private_holds_beside_surrogate_control_but_not_beside_the_standard_fields() {
    let lines = [("surrogate-control", "max-age=5"), ("cache-control", "private, no-store")];
    let decided = decide(&headers(&lines));
    assert!(decided.directives.private && !decided.directives.no_store);
    let lines = [("cdn-cache-control", "max-age=5"), ("cache-control", "private, no-store")];
    assert!(!decide(&headers(&lines)).directives.private);
}

#[test]
fn any_field_forbids_transforming() {
    let forbids = |lines: &[(&str, &str)]| forbids_transforming(&headers(lines));
    for name in ["cache-control", "cdn-cache-control", "larder-cdn-cache-control"] {
        assert!(forbids(&[(name, "max-age=5, no-transform")]), "{name}");
        assert!(forbids(&[(name, "no-transform"), ("larder-cdn-cache-control", "max-age=5")]), "{name}");
    }
    assert!(!forbids(&[("cache-control", "max-age=5"), ("cdn-cache-control", "no-transform=?0")]));
    assert!(!forbids(&[("cdn-cache-control", "no-transform, &&&")]), "it is no dictionary");
}
