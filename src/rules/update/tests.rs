use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn another_strong_tag_is_another_response() {
    let stored = headers(&[("etag", "\"a\"")]);
    for (tag, same) in [("\"a\"", true), ("\"b\"", false), ("W/\"a\"", true), ("W/\"b\"", false)] {
        assert_eq!(matches_304(&stored, &headers(&[("etag", tag)])), same, "{tag}");
    }
    assert!(!matches_304(&headers(&[("etag", "W/\"a\"")]), &headers(&[("etag", "\"a\"")])));
    assert!(matches_304(&stored, &HeaderMap::new()));
    assert!(matches_304(&headers(&[("etag", "abc")]), &headers(&[("etag", "abc")])));
    assert!(!matches_304(&HeaderMap::new(), &headers(&[("etag", "\"a\"")])));
}

#[test]
fn a_newer_last_modified_contradicts_a_304() {
    let old = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let new = ("last-modified", "Sun, 06 Nov 1994 08:49:38 GMT");
    assert!(matches_304(&headers(&[old]), &headers(&[old])));
    assert!(matches_304(&headers(&[new]), &headers(&[old])));
    assert!(!matches_304(&headers(&[old]), &headers(&[new])));
    assert!(matches_304(&headers(&[old, ("etag", "\"a\"")]), &headers(&[new])));
}

#[test]
fn fields_of_the_304_replace_and_others_stay() {
    let mut stored = headers(&[
        ("test-header", "a"),
        ("test-header", "b"),
        ("x-kept", "1"),
        ("cache-control", "max-age=1"),
    ]);
    let answer =
        headers(&[("test-header", "c"), ("content-foo", "d"), ("cache-control", "max-age=2"), ("date", "x")]);
    merge_304(&mut stored, &answer, SetCookie::Pass);
    let wanted = [
        ("test-header", "c"),
        ("x-kept", "1"),
        ("cache-control", "max-age=2"),
        ("content-foo", "d"),
        ("date", "x"),
    ];
    assert_eq!(stored, headers(&wanted));
}

#[test]
fn what_describes_the_bytes_stays() {
    let mut stored = headers(&[
        ("content-length", "36"),
        ("content-encoding", "gzip"),
        ("content-range", "x"),
        ("content-type", "a/b"),
    ]);
    let answer = headers(&[
        ("content-length", "10"),
        ("content-encoding", "br"),
        ("content-range", "y"),
        ("content-type", "c/d"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "1"),
    ]);
    merge_304(&mut stored, &answer, SetCookie::Pass);
    let wanted = [
        ("content-length", "36"),
        ("content-encoding", "gzip"),
        ("content-range", "x"),
        ("content-type", "c/d"),
    ];
    assert_eq!(stored, headers(&wanted));
}

#[test]
fn age_and_date_restart() {
    let mut stored = headers(&[("age", "100"), ("date", "old")]);
    merge_304(&mut stored, &headers(&[("date", "new")]), SetCookie::Pass);
    assert_eq!(stored, headers(&[("date", "new")]));
}

#[test]
fn cookies_are_updated_only_where_they_are_stored() {
    for (policy, value) in [(SetCookie::Store, "new"), (SetCookie::Pass, "old"), (SetCookie::Strip, "old")] {
        let mut stored = headers(&[("set-cookie", "old")]);
        merge_304(&mut stored, &headers(&[("set-cookie", "new")]), policy);
        assert_eq!(stored, headers(&[("set-cookie", value)]));
    }
}

#[test]
fn head_updates_with_an_equal_validator_only() {
    let stored = headers(&[("etag", "\"a\"")]);
    let head = |lines: &[_]| head_update(&stored, Some(10), StatusCode::OK, &headers(lines));
    assert_eq!(head(&[("etag", "\"a\"")]), HeadUpdate::Merge);
    assert_eq!(head(&[("etag", "\"a\""), ("content-length", "10")]), HeadUpdate::Merge);
    assert_eq!(head(&[("etag", "\"a\""), ("content-length", "11")]), HeadUpdate::Invalidate);
    assert_eq!(head(&[("etag", "\"b\"")]), HeadUpdate::Invalidate);
    assert_eq!(head(&[("content-length", "11")]), HeadUpdate::Ignore);
    assert_eq!(head(&[("etag", "\"a\""), ("vary", "x-l")]), HeadUpdate::Invalidate);
    let varying = headers(&[("etag", "\"a\""), ("vary", "b, A")]);
    for (vary, expected) in
        [("a, B", HeadUpdate::Merge), ("a", HeadUpdate::Invalidate), ("*", HeadUpdate::Invalidate)]
    {
        let head = headers(&[("etag", "\"a\""), ("vary", vary)]);
        assert_eq!(head_update(&varying, None, StatusCode::OK, &head), expected, "{vary}");
    }
    assert_eq!(head_update(&varying, None, StatusCode::OK, &stored), HeadUpdate::Merge);
    assert_eq!(head_update(&stored, None, StatusCode::NOT_FOUND, &stored), HeadUpdate::Ignore);
    let dated = headers(&[("last-modified", "x")]);
    assert_eq!(head_update(&dated, None, StatusCode::OK, &dated), HeadUpdate::Merge);
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(names in proptest::collection::vec("[a-c]|age|date|connection|content-length", 0..6)) {
        let answer: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
        let answer = headers(&answer);
        let mut once = headers(&[("a", "1"), ("content-length", "3")]);
        merge_304(&mut once, &answer, SetCookie::Pass);
        let mut twice = once.clone();
        merge_304(&mut twice, &answer, SetCookie::Pass);
        prop_assert_eq!(once, twice);
    }
}
