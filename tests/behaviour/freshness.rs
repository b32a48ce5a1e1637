//! Which answers are reused, by what the origin says of them (RFC 9111 §3, §4.2).

use crate::support::date::http_date;
use crate::support::node::node;
use crate::support::origin::{Origin, respond};

pub type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

/// Each row is asked for twice; the second answer is a hit or it is not.
#[track_caller]
pub fn check(rows: &[Row], status: u16, settings: &str) {
    let origin = Origin::start();
    for (index, (_, fields, _)) in rows.iter().enumerate() {
        origin.fixed(&format!("/{index}"), status, fields, "body");
    }
    let node = node(&origin).cache(settings).start();
    let mut wrong = Vec::new();
    for (index, (name, _, reused)) in rows.iter().enumerate() {
        let path = format!("/{index}");
        node.get(&path).assert_status(status);
        let second = node.get(&path);
        second.assert_status(status);
        if second.is_hit() != *reused {
            wrong.push(format!("{name}: hit {}, {:?}", second.is_hit(), second.joined("cache-status")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cache_control_decides() {
    let rows: &[Row] = &[
        ("max-age", &[("Cache-Control", "max-age=600")], true),
        ("leading zeros", &[("Cache-Control", "max-age=00600")], true),
        ("more than 64 bits", &[("Cache-Control", "max-age=99999999999999999999999")], true),
        ("in quotes", &[("Cache-Control", "max-age=\"600\"")], true),
        ("in capitals", &[("CACHE-CONTROL", "MAX-AGE=600")], true),
        ("zero", &[("Cache-Control", "max-age=0")], false),
        ("negative", &[("Cache-Control", "max-age=-600")], false),
        ("a decimal", &[("Cache-Control", "max-age=600.5")], false),
        ("letters", &[("Cache-Control", "max-age=600a")], false),
        ("a space before =", &[("Cache-Control", "max-age =600")], false),
        ("empty", &[("Cache-Control", "max-age=")], false),
        ("the first of two", &[("Cache-Control", "max-age=600, max-age=0")], true),
        (
            "the first of two lines",
            &[("Cache-Control", "max-age=0"), ("Cache-Control", "max-age=600")],
            false,
        ),
        ("an unknown one beside it", &[("Cache-Control", "foobar, x=\"max-age=0\", max-age=600")], true),
        ("one inside quotes", &[("Cache-Control", "x=\"no-store\", max-age=600")], true),
        ("s-maxage beats max-age", &[("Cache-Control", "max-age=0, s-maxage=600")], true),
        ("in both ways", &[("Cache-Control", "s-maxage=0, max-age=600")], false),
        ("must-revalidate while fresh", &[("Cache-Control", "max-age=600, must-revalidate")], true),
        ("no-store", &[("Cache-Control", "no-store, max-age=600")], false),
        ("no-store in any case", &[("Cache-Control", "max-age=600, No-StOrE")], false),
        (
            "no-store on another line",
            &[("Cache-Control", "max-age=600"), ("Cache-Control", "no-store")],
            false,
        ),
        ("private", &[("Cache-Control", "private, max-age=600")], false),
        ("PRIVATE", &[("Cache-Control", "PRIVATE, max-age=600")], false),
        ("private with fields", &[("Cache-Control", "private=\"x-a\", max-age=600")], false),
        ("no-cache", &[("Cache-Control", "no-cache, max-age=600")], false),
        ("Set-Cookie", &[("Cache-Control", "max-age=600"), ("Set-Cookie", "a=b")], false),
        ("nothing at all", &[], false),
        ("immutable is no lifetime", &[("Cache-Control", "immutable")], false),
        ("immutable beside one", &[("Cache-Control", "max-age=600, immutable")], true),
        ("a space after =", &[("Cache-Control", "max-age= 600")], false),
        ("single quotes", &[("Cache-Control", "max-age='600'")], false),
        ("proxy-revalidate while fresh", &[("Cache-Control", "max-age=600, proxy-revalidate")], true),
        ("a Pragma has no effect", &[("Cache-Control", "max-age=600"), ("Pragma", "no-cache")], true),
    ];
    check(rows, 200, "");
}

#[test]
fn must_understand_lifts_no_store_where_the_status_is_understood() {
    let control = |value| [("Cache-Control", value)];
    for (status, understood) in
        [(200, true), (301, true), (307, true), (404, true), (299, false), (599, false)]
    {
        let rows: &[Row] = &[
            ("both", &control("no-store, must-understand, max-age=600"), understood),
            ("in any order and case", &control("max-age=600, Must-Understand, No-Store"), understood),
            ("alone", &control("must-understand, max-age=600"), understood),
            ("no-store alone", &control("no-store, max-age=600"), false),
            ("with an argument it is nothing", &control("no-store, must-understand=1, max-age=600"), false),
            ("private all the same", &control("private, no-store, must-understand, max-age=600"), false),
        ];
        check(rows, status, "");
    }
}

#[test]
fn expires_counts_from_the_date_of_the_response() {
    let (now, later, much_later, past) = (http_date(0), http_date(300), http_date(400), http_date(-300));
    let rows: &[Row] = &[
        ("in the future", &[("Expires", &later)], true),
        ("past", &[("Expires", &past)], false),
        ("now", &[("Date", &now), ("Expires", &now)], false),
        ("before its Date", &[("Date", &much_later), ("Expires", &later)], false),
        ("zero", &[("Expires", "0")], false),
        ("another zone", &[("Expires", "Thu, 18 Aug 2050 02:01:18 UTC")], false),
        ("two different lines", &[("Expires", &later), ("Expires", &much_later)], false),
        ("RFC 850", &[("Expires", "Thursday, 18-Aug-50 02:01:18 GMT")], true),
        ("asctime", &[("Expires", "Thu Aug  8 02:01:18 2050")], true),
        ("any weekday", &[("Expires", "Mon, 18 Aug 2050 02:01:18 GMT")], true),
        ("any case", &[("Expires", "THU, 18 aug 2050 02:01:18 gmt")], true),
        ("without a usable Date", &[("Date", "foo"), ("Expires", &later)], true),
        ("max-age wins", &[("Cache-Control", "max-age=600"), ("Expires", &past)], true),
        ("max-age=0 wins", &[("Cache-Control", "max-age=0"), ("Expires", &later)], false),
    ];
    check(rows, 200, "");
}

#[test]
fn the_age_field_counts_from_the_start() {
    let age = |value| [("Cache-Control", "max-age=3600"), ("Age", value)];
    let rows: &[Row] = &[
        ("young", &age("100"), true),
        ("too old", &age("7200"), false),
        ("the first member", &age("0, 7200"), true),
        ("the first member is old", &age("7200, 0"), false),
        ("negative is ignored", &age("-7200"), true),
        ("letters are ignored", &age("abc"), true),
        ("huge", &age("99999999999999999999"), false),
        ("a decimal is ignored", &age("7200.0"), true),
        ("a parameter: ignored", &age("7200;foo=bar"), true),
        ("empty is ignored", &age(""), true),
        ("2^31 - 1", &[("Cache-Control", "max-age=99999999999"), ("Age", "2147483647")], false),
        ("2^31", &[("Cache-Control", "max-age=99999999999"), ("Age", "2147483648")], false),
        ("2^31 + 1", &[("Cache-Control", "max-age=99999999999"), ("Age", "2147483649")], false),
        ("the first of two lines", &[("Cache-Control", "max-age=3600"), ("Age", "0"), ("Age", "7200")], true),
        (
            "the first of two lines is old",
            &[("Cache-Control", "max-age=3600"), ("Age", "7200"), ("Age", "0")],
            false,
        ),
    ];
    check(rows, 200, "");
}

#[test]
fn heuristics_need_last_modified_and_a_status_that_allows_them() {
    // A tenth of the time since then: nothing yet, also when the machine takes its time.
    let (old, now) = (http_date(-100 * 86_400), http_date(30));
    let rows: &[Row] = &[
        ("old", &[("Last-Modified", &old)], true),
        ("just now", &[("Last-Modified", &now)], false),
        ("with Pragma: no-cache", &[("Last-Modified", &old), ("Pragma", "no-cache")], false),
        ("with a broken Expires", &[("Last-Modified", &old), ("Expires", "0")], false),
        ("no-store", &[("Last-Modified", &old), ("Cache-Control", "no-store")], false),
    ];
    check(rows, 200, "");
    for (status, reused) in [
        (203, true),
        (301, true),
        (404, true),
        (410, true),
        (201, false),
        (302, false),
        (403, false),
        (503, false),
    ] {
        check(&[("old", &[("Last-Modified", &old)], reused)], status, "");
    }
}

#[test]
fn any_final_status_is_reused_when_its_freshness_is_explicit() {
    for status in [200, 203, 301, 302, 307, 308, 400, 404, 410, 500, 503] {
        check(
            &[("explicit", &[("Cache-Control", "max-age=600")], true), ("nothing", &[], false)],
            status,
            "",
        );
    }
}

#[test]
fn a_server_error_sticks_for_half_a_minute_at_most() {
    let origin = Origin::start();
    origin.on("/a", |_| respond(500, &[("Cache-Control", "max-age=600")], "broken"));
    let node = node(&origin).start();
    node.get("/a").assert_status(500);
    let hit = node.get("/a");
    hit.assert_status(500).assert_hit();
    let ttl: i64 = hit.cache_parameter("ttl").expect("a ttl").parse().expect("a number");
    assert!((1..=30).contains(&ttl), "{ttl}");
}

#[test]
fn the_site_has_its_own_lifetimes() {
    let (age, nothing): (&[_], &[_]) = (&[("Cache-Control", "max-age=0")], &[]);
    let never: &[_] = &[("Cache-Control", "no-store, max-age=0")];
    let private: &[_] = &[("Cache-Control", "private")];
    let cookie: &[_] = &[("Set-Cookie", "a=b")];
    check(&[("default", nothing, true), ("explicit zero", age, false)], 200, "default_ttl = \"60s\"");
    check(
        &[("min", age, true), ("no-store", never, false), ("private", private, false)],
        200,
        "min_ttl = \"60s\"",
    );
    check(
        &[
            ("override", age, true),
            ("nothing", nothing, true),
            ("no-store", never, false),
            ("private", private, false),
            ("cookie", cookie, false),
        ],
        200,
        "override_ttl = \"60s\"",
    );
    check(&[("max", &[("Cache-Control", "max-age=600")], false)], 200, "max_ttl = \"0s\"");
    let negative = "negative_ttl = { \"404\" = \"60s\" }";
    check(&[("missing", nothing, true), ("says zero", age, false)], 404, negative);
    check(&[("other status", nothing, false)], 403, negative);
}
