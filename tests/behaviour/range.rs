//! Ranges of stored and of missing answers (RFC 9110 §14).

use crate::support::assert_same_bytes;
use crate::support::client::find;
use crate::support::date::http_date;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{get, head};

const BODY: &str = "0123456789abcdefghijklmnopqrstuvwxyz";

fn stored(origin: &Origin) -> Node {
    let node = node(origin).start();
    node.get("/a").assert_status(200);
    node
}

#[test]
fn a_single_range_of_a_stored_answer_is_a_206() {
    let origin = Origin::with(
        "/a",
        &[FRESH[0], ("ETag", "\"v1\""), ("X-Kept", "1"), ("Content-Type", "text/x")],
        BODY,
    );
    let node = stored(&origin);
    for (range, first, last) in [
        ("bytes=0-1", 0, 1),
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=30-", 30, 35),
        ("bytes=-5", 31, 35),
        ("bytes=-99", 0, 35),
        ("bytes=30-99", 30, 35),
        ("bytes=35-35", 35, 35),
        ("BYTES=1-2", 1, 2),
    ] {
        let answer = get("/a").with("Range", range).to(&node);
        answer.assert_status(206).assert_hit().assert_body(&BODY[first..=last]);
        assert_eq!(
            answer.field("content-range"),
            Some(format!("bytes {first}-{last}/36").as_str()),
            "{range}"
        );
        assert_eq!(answer.field("content-length"), Some((last - first + 1).to_string().as_str()));
        assert_eq!((answer.field("etag"), answer.field("x-kept")), (Some("\"v1\""), Some("1")));
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_range_beyond_the_end_is_a_416() {
    let origin = Origin::with("/a", FRESH, BODY);
    let node = stored(&origin);
    for range in ["bytes=36-", "bytes=99-100", "bytes=-0"] {
        let answer = get("/a").with("Range", range).to(&node);
        answer.assert_status(416);
        assert_eq!(answer.field("content-range"), Some("bytes */36"), "{range}");
    }
}

#[test]
fn what_the_store_refuses_says_why() {
    let fields = [FRESH[0], ("ETag", "\"v1\""), ("CDN-Cache-Control", "max-age=99"), ("X-Kept", "yes")];
    let origin = Origin::with("/a", &fields, BODY);
    let node = stored(&origin);
    for (name, value, status, problem) in [
        ("Range", "bytes=36-", 416, "range-not-satisfiable"),
        ("If-Match", "\"x\"", 412, "precondition-failed"),
    ] {
        let ask = get("/a").with(name, value);
        let text = ask.to(&node);
        text.assert_status(status).assert_own_error().assert_hit();
        assert!(text.text().starts_with(&status.to_string()), "{}", text.text());
        let json = ask.clone().with("Accept", "application/json").to(&node);
        assert_eq!(json.field("content-type"), Some("application/problem+json"));
        assert_eq!(json.json()["type"], format!("urn:larder:problem:{problem}"));
        for answer in [&text, &json] {
            assert_eq!(answer.field("content-range").is_some(), status == 416);
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert!(!answer.has("cdn-cache-control"), "no cache is to keep it");
            assert_eq!((answer.field("etag"), answer.field("x-kept")), (Some("\"v1\""), Some("yes")));
        }
        node.await_metric(&format!("larder_requests_refused_total{{reason=\"{problem}\"}}"), 2.0);
    }
    let answer = head("/a").with("If-Match", "\"x\"").to(&node);
    answer.assert_status(412).assert_own_error().assert_body("");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn what_is_no_range_is_ignored() {
    let origin = Origin::with("/a", FRESH, BODY);
    let node = stored(&origin);
    for range in ["bytes=5-2", "bytes=a-b", "bytes=", "bytes", "lines=0-1", "bytes=--1", "bytes=1"] {
        get("/a").with("Range", range).to(&node).assert_status(200).assert_body(BODY);
    }
    let answer = head("/a").with("Range", "bytes=0-1").to(&node);
    answer.assert_status(200);
    assert_eq!(answer.field("content-length"), Some("36"));
}

#[test]
fn several_ranges_come_as_multipart() {
    let origin = Origin::with("/a", &[FRESH[0], ("Content-Type", "text/x")], BODY);
    let node = stored(&origin);
    let answer = get("/a").with("Range", "bytes=0-1, 10-12,-3").to(&node);
    answer.assert_status(206);
    assert!(!answer.has("content-range"));
    let kind = answer.joined("content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let boundary = boundary.trim_matches('"');

    let text = answer.text();
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 5, "{text}");
    assert!(parts[4].starts_with("--"), "{text}");
    for (part, (range, bytes)) in parts[1..4].iter().zip([("0-1", "01"), ("10-12", "abc"), ("33-35", "xyz")])
    {
        let (head, body) = part.split_once("\r\n\r\n").expect("a part with a head");
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("content-range: bytes {range}/36")), "{head}");
        assert!(head.contains("content-type: text/x"), "{head}");
        assert_eq!(body.trim_end_matches("\r\n"), bytes);
    }
}

#[test]
fn many_ranges_are_no_lever() {
    let body = vec![b'x'; 100_000];
    let origin = Origin::with("/a", FRESH, &body);
    let node = stored(&origin);
    let many = |range: &str| format!("bytes={}", vec![range; 500].join(","));
    for range in [many("0-"), many("0-0"), many("-99999"), many("5-99")] {
        let answer = get("/a").with("Range", &range).to(&node);
        assert!([200, 206, 416].contains(&answer.status), "{}", answer.status);
        assert!(answer.body.len() <= 2 * body.len(), "{} bytes", answer.body.len());
    }
}

#[test]
fn if_range_counts_only_for_the_exact_bytes() {
    let modified = http_date(-7200);
    let origin = Origin::with("/a", &[FRESH[0], ("ETag", "\"v1\""), ("Last-Modified", &modified)], BODY);
    let node = stored(&origin);
    for (validator, status) in [
        ("\"v1\"", 206),
        ("\"v2\"", 200),
        ("W/\"v1\"", 200),
        (modified.as_str(), 206),
        (http_date(-3600).as_str(), 200),
        ("nonsense", 200),
    ] {
        let answer = get("/a").with("Range", "bytes=0-1").with("If-Range", validator).to(&node);
        answer.assert_status(status);
        assert_eq!(answer.body.len(), if status == 206 { 2 } else { 36 }, "{validator}");
    }
    let weak = Origin::with("/a", &[FRESH[0], ("ETag", "W/\"v1\"")], BODY);
    let node = stored(&weak);
    get("/a").with("Range", "bytes=0-1").with("If-Range", "W/\"v1\"").to(&node).assert_status(200);
}

#[test]
fn a_condition_is_decided_before_the_range() {
    let origin = Origin::with("/a", &[FRESH[0], ("ETag", "\"v1\"")], BODY);
    let node = stored(&origin);
    let ranged = || get("/a").with("Range", "bytes=0-1");
    ranged().with("If-None-Match", "\"v1\"").to(&node).assert_status(304);
    ranged().with("If-None-Match", "\"v2\"").to(&node).assert_status(206);
    ranged().with("If-Match", "\"v2\"").to(&node).assert_status(412);
}

#[test]
fn a_range_that_misses_fetches_the_whole_and_the_rest_are_hits() {
    let origin = Origin::with("/a", FRESH, BODY);
    let node = node(&origin).start();
    let answer = get("/a").with("Range", "bytes=10-12").to(&node);
    answer.assert_status(206).assert_body("abc");
    assert!(!origin.last("/a").has("range"), "the origin is asked for the whole");
    node.await_hit("/a").assert_body(BODY);
    get("/a").with("Range", "bytes=-3").to(&node).assert_status(206).assert_hit().assert_body("xyz");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn ranges_pass_through_where_the_cache_does_not_serve() {
    let origin = Origin::start();
    let fields = [("Content-Range", "bytes 0-1/36"), ("Cache-Control", "no-store")];
    origin.fixed("/api/a", 206, &fields, "01");
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/api/*\"]\npass = true").start();
    let answer = get("/api/a").with("Range", "bytes=0-1").to(&node);
    answer.assert_status(206).assert_body("01");
    assert_eq!(origin.last("/api/a").field("range"), Some("bytes=0-1"));
}

#[test]
fn an_error_has_no_ranges_and_a_stored_answer_says_that_it_has() {
    let origin = Origin::with("/a", FRESH, BODY);
    origin.fixed("/missing", 404, FRESH, "not here");
    let node = stored(&origin);
    assert_eq!(node.get("/a").field("accept-ranges"), Some("bytes"));
    for _ in 0..2 {
        get("/missing").with("Range", "bytes=0-1").to(&node).assert_status(404).assert_body("not here");
    }
}

#[test]
fn a_large_range_is_the_right_slice() {
    let body = crate::support::pattern(3_000_000, 7);
    let origin = Origin::with("/a", FRESH, &body);
    let node = stored(&origin);
    let answer = get("/a").with("Range", "bytes=1000001-2500000").to(&node);
    answer.assert_status(206);
    assert_same_bytes(&answer.body, &body[1_000_001..=2_500_000]);
    assert!(find(&answer.body[..64], &body[1_000_001..1_000_033]) == Some(0));
}
