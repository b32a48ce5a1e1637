//! Fields that speak to caches like this one: CDN-Cache-Control (RFC 9213), Larder-CDN-Cache-Control, Surrogate-Control.

use std::time::Duration;

use crate::freshness::{Row, check};
use crate::support::date::http_date;
use crate::support::eventually;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{get, request};

const CC: &str = "Cache-Control";
const CDN: &str = "CDN-Cache-Control";
const OURS: &str = "Larder-CDN-Cache-Control";
const SURROGATE: &str = "Surrogate-Control";

#[test]
fn cdn_cache_control_decides_alone() {
    let (past, later) = (http_date(-9000), http_date(9000));
    let rows: &[Row] = &[
        ("alone", &[(CDN, "max-age=600")], true),
        ("beats a short one", &[(CC, "max-age=0"), (CDN, "max-age=600")], true),
        ("is beaten by none", &[(CC, "max-age=600"), (CDN, "max-age=0")], false),
        ("beats no-store", &[(CC, "no-store"), (CDN, "max-age=600")], true),
        ("beats private", &[(CC, "private"), (CDN, "max-age=600")], true),
        ("beats s-maxage", &[(CC, "s-maxage=600"), (CDN, "max-age=0")], false),
        ("no-store", &[(CC, FRESH[0].1), ("Expires", &later), (CDN, "no-store")], false),
        ("private", &[(CC, FRESH[0].1), ("Expires", &later), (CDN, "private")], false),
        ("no-cache", &[(CC, FRESH[0].1), ("Expires", &later), (CDN, "no-cache")], false),
        ("beats a past Expires", &[("Expires", &past), (CDN, "max-age=600")], true),
        ("beats a broken Expires", &[("Expires", "0"), (CDN, "max-age=600")], true),
        ("beats a future Expires", &[("Expires", &later), (CDN, "max-age=0")], false),
        ("says nothing of time: Expires is not asked", &[("Expires", &later), (CDN, "public")], false),
        ("s-maxage beats max-age", &[(CDN, "max-age=0, s-maxage=600")], true),
        ("an unknown directive", &[(CDN, "foobar, max-age=600")], true),
        ("a parameter", &[(CDN, "max-age=600;foo=bar")], true),
        ("the last of two", &[(CDN, "max-age=0, max-age=600")], true),
        ("the last of two lines", &[(CDN, "max-age=600"), (CDN, "max-age=0")], false),
        ("Age counts", &[(CDN, "max-age=600"), ("Age", "601")], false),
        ("beyond 32 bits", &[(CDN, "max-age=99999999999")], true),
        ("a large Age", &[(CDN, "max-age=99999999999"), ("Age", "2147483648")], false),
        ("a larger Age", &[(CDN, "max-age=99999999999"), ("Age", "99999999999")], false),
    ];
    check(rows, 200, "");
}

#[test]
fn what_is_no_dictionary_is_as_if_it_were_not_there() {
    for broken in
        ["", "max-age=600, &&&&&", "max-age =600", "max-age= 600", "MaX-aGe=600", "max-age=600,", "=1"]
    {
        let rows: &[Row] = &[
            ("with no-store", &[(CC, "no-store"), (CDN, broken)], false),
            ("with a lifetime", &[FRESH[0], (CDN, broken)], true),
            ("alone", &[(CDN, broken)], false),
        ];
        check(rows, 200, "");
    }
}

#[test]
fn a_lifetime_of_the_wrong_type_is_none() {
    for broken in [
        "max-age=\"600\"",
        "max-age=600.0",
        "max-age",
        "max-age=?1",
        "max-age=-1",
        "max-age=(600)",
        "max-age=a",
    ] {
        check(&[(broken, &[FRESH[0], (CDN, broken)], false)], 200, "");
    }
}

#[test]
fn the_field_for_this_product_goes_first() {
    let rows: &[Row] = &[
        ("fresh", &[(OURS, "max-age=600"), (CDN, "no-store"), (CC, "no-store")], true),
        ("never", &[(OURS, "no-store"), (CDN, "max-age=600"), (CC, "max-age=600")], false),
        ("broken: the next one", &[(OURS, "max-age =600"), (CDN, "max-age=600"), (CC, "no-store")], true),
        ("of another product", &[("Other-CDN-Cache-Control", "max-age=600")], false),
        ("Surrogate-Control comes after", &[(CDN, "max-age=600"), (SURROGATE, "no-store")], true),
    ];
    check(rows, 200, "");
}

#[test]
fn surrogate_control_beats_cache_control() {
    let later = http_date(9000);
    let rows: &[Row] = &[
        ("alone", &[(SURROGATE, "max-age=600")], true),
        ("in any case", &[(SURROGATE, "MaX-aGe=600")], true),
        ("beats a short one", &[(CC, "max-age=0"), (SURROGATE, "max-age=600")], true),
        ("beats a long one", &[FRESH[0], (SURROGATE, "max-age=0")], false),
        ("beats a future Expires", &[("Expires", &later), (SURROGATE, "max-age=0")], false),
        ("no-store", &[FRESH[0], (SURROGATE, "no-store")], false),
        ("for this node", &[(CC, "no-store"), (SURROGATE, "max-age=600;larder")], true),
        ("for another", &[(SURROGATE, "max-age=600;other")], false),
        ("for another, and for this node", &[(SURROGATE, "max-age=0;other, max-age=600;larder")], true),
        ("for all, and for this node", &[(SURROGATE, "max-age=600, max-age=0;larder")], false),
        ("a space before =", &[FRESH[0], (SURROGATE, "max-age =600")], false),
        ("a space after =", &[FRESH[0], (SURROGATE, "max-age= 600")], false),
        ("nothing about storage", &[FRESH[0], (SURROGATE, "content=\"ESI/1.0\"")], true),
        ("private holds all the same", &[(CC, "private"), (SURROGATE, "max-age=600")], false),
        ("Age counts", &[(SURROGATE, "max-age=600"), ("Age", "601")], false),
    ];
    check(rows, 200, "");
}

#[test]
fn the_node_tells_origins_what_it_can_do_and_passes_no_claims_of_clients_on() {
    let origin = Origin::with(
        "/*",
        &[("Surrogate-Control", "max-age=600;edge-1"), ("Cache-Control", "no-store")],
        "a",
    );
    let node = node(&origin).node("name = \"edge-1\"").start();
    get("/a").with("Surrogate-Capability", "x=\"ESI/1.0\"").to(&node);
    assert_eq!(origin.last("/a").joined("surrogate-capability"), "edge-1=\"Surrogate/1.0\"");
    // Cache-Status bears the node's name, so a hit is told by what the origin saw.
    node.get("/a").assert_status(200);
    assert_eq!(origin.count("/a"), 1, "the directive is for this node");
    request("POST", "/b").body("x").to(&node);
    assert_eq!(origin.last("/b").joined("surrogate-capability"), "edge-1=\"Surrogate/1.0\"");
}

#[test]
fn what_clients_get_is_what_the_origin_sent_or_stripped_by_choice() {
    let (date, expires) = (http_date(-5), http_date(1));
    let fields = [
        ("Date", date.as_str()),
        ("Expires", expires.as_str()),
        (CC, "max-age=1"),
        (CDN, "max-age=86400"),
        (OURS, "max-age=86400"),
        (SURROGATE, "max-age=5"),
        ("Age", "30"),
    ];
    let origin = Origin::with("/*", &fields, "a");
    let keeps = node(&origin).start();
    for path in ["/a", "/a"] {
        let answer = keeps.get(path);
        for (name, value) in &fields[..6] {
            assert_eq!(answer.joined(name), *value, "{name}");
        }
        // The origin's, or older by what it took.
        assert!(answer.age().is_some_and(|age| (30..60).contains(&age)), "{:?}", answer.fields);
    }
    assert_eq!(origin.count("/a"), 1);
    let strips = node(&origin).cache("strip_targeted = true").start();
    for answer in [strips.get("/b"), strips.get("/b"), request("POST", "/b").body("x").to(&strips)] {
        assert!(![CDN, OURS, SURROGATE].iter().any(|name| answer.has(name)), "{:?}", answer.fields);
        assert_eq!(answer.field("cache-control"), Some("max-age=1"));
    }
}

#[test]
fn its_stale_windows_count_and_those_of_cache_control_do_not() {
    let origin = Origin::start();
    let reply = |control: &'static str, cdn: &'static str| {
        move |_: &_| respond(200, &[(CC, control), (CDN, cdn)], "old")
    };
    origin.on("/a", reply("max-age=600, must-revalidate", "max-age=1, stale-while-revalidate=600"));
    origin.on("/b", reply("max-age=600, stale-while-revalidate=600", "max-age=1"));
    origin.on("/c", reply("max-age=600, stale-if-error=600", "max-age=1, must-revalidate"));
    let node = node(&origin).start();
    for path in ["/a", "/b", "/c"] {
        node.get(path).assert_body("old");
    }
    std::thread::sleep(Duration::from_millis(1100));
    origin.fixed("/a", 200, FRESH, "new");
    origin.fixed("/b", 200, FRESH, "new");
    origin.fixed("/c", 503, &[], "down");
    node.get("/a").assert_hit().assert_body("old");
    eventually("the new answer is served", || node.get("/a").text() == "new");
    node.get("/b").assert_body("new");
    node.get("/c").assert_status(503);
}
