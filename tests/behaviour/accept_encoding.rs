//! `Accept-Encoding` of all kinds: what is sent is acceptable to who asks, or it is 406 (RFC 9110 §12.5.3, §15.5.7).

use crate::support::codec::decode;
use crate::support::eventually;
use crate::support::node::{Node, node};
use crate::support::origin::Origin;
use crate::support::request::{Request, get, head};
use crate::support::response::Response;

const FRESH: (&str, &str) = ("Cache-Control", "max-age=600");
const TAG: (&str, &str) = ("ETag", "\"v1\"");
const CSS: [(&str, &str); 3] = [FRESH, TAG, ("Content-Type", "text/css")];
const PNG: [(&str, &str); 3] = [FRESH, TAG, ("Content-Type", "image/png")];

fn text() -> Vec<u8> {
    (0..2000).flat_map(|i| format!("rule-{} {{ top: {}px }}\n", i * 7 % 613, i).into_bytes()).collect()
}

fn asked(path: &str, accept: &str) -> Request {
    get(path).with("Accept-Encoding", accept)
}

fn coding(response: &Response) -> &str {
    response.field("content-encoding").unwrap_or("identity")
}

#[track_caller]
fn assert_not_acceptable(response: &Response) {
    response.assert_status(406);
    assert_eq!(response.joined("vary"), "Accept-Encoding");
    assert_eq!(response.field("cache-control"), Some("no-store"));
    assert!(response.has("proxy-status") && !response.has("etag"));
    assert_eq!(response.cache_parameter("detail").as_deref(), Some("not-acceptable"));
}

/// A node that has a text in all encodings.
fn started(origin: &Origin) -> Node {
    let node = node(origin).start();
    node.get("/text");
    for wanted in ["br", "zstd", "gzip"] {
        eventually(wanted, || {
            let response = asked("/text", wanted).to(&node);
            coding(&response) == wanted && response.has("content-length")
        });
    }
    node
}

#[test]
fn hostile_fields_get_what_they_accept() {
    let body = text();
    let origin = Origin::with("/text", &CSS, &body);
    let node = started(&origin);
    let shortest = ["br", "zstd", "gzip"]
        .into_iter()
        .min_by_key(|accept| asked("/text", accept).to(&node).body.len())
        .unwrap();
    let thousands = |last: &str| (0..3000).fold(String::new(), |list, n| list + &format!("x{n}, ")) + last;
    let long = format!("{};q=1, gzip", "x".repeat(12_000));
    for (accept, expected) in [
        ("GZIP", "gzip"),
        ("X-Gzip", "gzip"),
        ("bR;Q=1", "br"),
        ("br;q=0.0000", "identity"),
        ("gzip;q=1.5", "identity"),
        ("gzip;q=", "identity"),
        ("gzip;q=0.", "identity"),
        ("gzip;q=1.", "gzip"),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=-1, zstd", "zstd"),
        ("gzip;q=1e0", "identity"),
        ("gzip;q=nan", "identity"),
        ("gzip;;q=1", "identity"),
        ("gzip;q=1;q=0", "identity"),
        (";;", "identity"),
        (";q=0", "identity"),
        (",,,,", "identity"),
        ("\"gzip\"", "identity"),
        ("gzip br", "identity"),
        ("\u{1f5dc}, \u{fc}\u{df}", "identity"),
        ("g\u{200b}zip", "identity"),
        ("gzip;q=0, gzip", "identity"),
        ("gzip, gzip;q=0", "gzip"),
        ("*;q=0.5, br;q=0.1", if shortest == "br" { "zstd" } else { shortest }),
        ("*, *;q=0", shortest),
        ("identity;q=0.5, *;q=0", "identity"),
        ("identity;q=0, zstd;q=0.001", "zstd"),
        ("*;q=0, gzip", "gzip"),
        ("identity;q=0", ""),
        ("identity;q=0.000, br;q=0.000", ""),
        ("*;q=0", ""),
        ("identity;q=0, *;q=0", ""),
        ("br;q=0, identity;q=0", ""),
        ("IDENTITY;Q=0, compress", ""),
        ("*;q=0, identity;q=0.5, gzip;q=0.4", "identity"),
        (&thousands("gzip"), "gzip"),
        (&thousands("*;q=0"), ""),
        (&long, "gzip"),
    ] {
        let name = accept.chars().take(60).collect::<String>();
        for ask in [get as fn(&str) -> Request, head] {
            let response = ask("/text").with("Accept-Encoding", accept).to(&node);
            if expected.is_empty() {
                assert_not_acceptable(&response);
                continue;
            }
            response.assert_status(200).assert_hit();
            assert_eq!(coding(&response), expected, "{name}");
            assert_eq!(response.joined("vary"), "Accept-Encoding");
        }
        if !expected.is_empty() {
            assert!(decode(expected, &asked("/text", accept).to(&node).body) == body, "{name}");
        }
    }
    assert_eq!(origin.count("/text"), 1, "the cache is not split");
    node.assert_no_panic();
}

#[test]
fn several_lines_are_one_list() {
    let origin = Origin::with("/text", &CSS, text());
    let node = started(&origin);
    let lines = |lines: &[&str]| {
        lines.iter().fold(get("/text"), |request, line| request.with("Accept-Encoding", line)).to(&node)
    };
    assert_eq!(coding(&lines(&["gzip;q=0.5", "zstd"])), "zstd");
    assert_eq!(coding(&lines(&["", "gzip"])), "gzip");
    assert_eq!(coding(&lines(&["gzip", "*;q=0"])), "gzip");
    assert_not_acceptable(&lines(&["gzip;q=0", "*;q=0"]));
    let many: Vec<&str> = std::iter::repeat_n("deflate", 40).chain(["br"]).collect();
    assert_eq!(coding(&lines(&many)), "br");
}

#[test]
fn a_refusal_changes_nothing_of_what_is_stored() {
    let body = text();
    let origin = Origin::with("/text", &CSS, &body);
    origin.fixed("/cold", 200, &CSS, &body);
    let node = started(&origin);
    let is_refused = || node.metric("larder_requests_refused_total{reason=\"not-acceptable\"}");
    // Of what has to be fetched first, too; and that is then there for others.
    assert_not_acceptable(&asked("/cold", "*;q=0").to(&node));
    node.await_hit("/cold").assert_body(&body);
    assert_eq!((origin.count("/cold"), is_refused()), (1, 1.0));
    // Before conditions and ranges (RFC 9110 §13.2.1).
    for (name, value) in [
        ("If-None-Match", "\"v1\""),
        ("If-None-Match", "*"),
        ("If-Match", "\"x\""),
        ("Range", "bytes=0-9"),
        ("Range", "bytes=9999999-"),
    ] {
        assert_not_acceptable(&asked("/text", "*;q=0").with(name, value).to(&node));
    }
    let json = asked("/text", "*;q=0").with("Accept", "application/json").to(&node);
    assert_eq!(json.field("content-type"), Some("application/problem+json"));
    assert_eq!(json.json()["type"], "urn:larder:problem:not-acceptable");
    for wanted in ["br", "zstd", "gzip", "identity"] {
        assert_eq!(coding(asked("/text", wanted).to(&node).assert_hit()), wanted);
    }
    assert_eq!(origin.count("/text"), 1);
    node.await_metric("larder_requests_refused_total{reason=\"not-acceptable\"}", 7.0);
}

#[test]
fn what_is_never_encoded_is_sent_to_everybody() {
    let body = text();
    let origin = Origin::with("/image", &PNG, &body);
    origin.fixed("/small", 200, &CSS, &body[..100]);
    origin.fixed("/untouched", 200, &[CSS[1], CSS[2], ("Cache-Control", "max-age=60, no-transform")], &body);
    let node = node(&origin).start();
    for path in ["/image", "/small", "/untouched"] {
        for accept in ["identity;q=0", "*;q=0", "identity;q=0, *;q=0", "br, identity;q=0"] {
            let response = asked(path, accept).to(&node);
            response.assert_status(200);
            assert_eq!((coding(&response), response.has("vary")), ("identity", false), "{path} {accept}");
        }
        assert_eq!(origin.count(path), 1);
    }
}

#[test]
fn what_is_not_worth_encoding_is_encoded_for_who_insists() {
    let noise = crate::support::pattern(30_000, 3);
    let origin = Origin::with("/noise", &CSS, &noise);
    let node = node(&origin).start();
    node.get("/noise");
    node.await_metric("larder_compress_jobs_total{encoding=\"gzip\",outcome=\"not_worth\"}", 1.0);
    for (accept, expected) in [("gzip, identity;q=0", "gzip"), ("br, *;q=0", "br"), ("br, gzip", "identity")]
    {
        let response = asked("/noise", accept).to(&node);
        assert_eq!(coding(&response), expected, "{accept}");
        assert!(decode(expected, &response.body) == noise);
    }
    assert_not_acceptable(&asked("/noise", "*;q=0").to(&node));
}

/// What a client said, read by RFC 9110 §12.5.3 and §12.4.2 and nothing else; for fields that are well-formed.
fn accepts(field: &str, coding: &str) -> bool {
    let weight = |name: &str| {
        let members = field.split(',').map(str::trim).filter(|member| !member.is_empty());
        members.map(|member| member.split_once(';').unwrap_or((member, "q=1"))).find_map(|(token, q)| {
            let token = token.trim().to_lowercase();
            let q: f32 = q.trim().to_lowercase().strip_prefix("q=").unwrap().parse().unwrap();
            (token == name || token == "x-gzip" && name == "gzip").then_some(q)
        })
    };
    match (weight(coding), weight("*")) {
        (Some(own), _) => own > 0.0,
        (None, Some(any)) => any > 0.0,
        (None, None) => coding == "identity",
    }
}

#[test]
fn whatever_the_field_says_what_is_sent_is_acceptable() {
    const CODINGS: [&str; 4] = ["identity", "br", "zstd", "gzip"];
    let body = text();
    let origin = Origin::with("/text", &CSS, &body);
    for sent in &CODINGS[1..] {
        let encoded = crate::support::codec::encode(sent, &body);
        origin.fixed(&format!("/bmp/{sent}"), 200, &[PNG[0], ("Content-Encoding", sent)], &encoded);
    }
    let node = started(&origin);
    let mut random = crate::support::random::Random::new(11);
    for round in 0..400 {
        let mut field = String::new();
        for _ in 0..round % 6 {
            let token =
                random.pick(&["br", "zstd", "gzip", "x-gzip", "identity", "*", "deflate", "BR", "Identity"]);
            let q =
                random.pick(&["", ";q=0", ";q=1", "; q=0.000", ";Q=0.5", " ;q=0.001", ";q=1.000", ";q=0.75"]);
            let comma = *random.pick(&[", ", ",", " ,, "]);
            field.extend([*token, *q, comma]);
        }
        // Of one that nobody has asked for, too: what comes first may be encoded on its way.
        let path = match round % 5 {
            0 => format!("/cold/{round}"),
            1 => "/text".to_owned(),
            n => format!("/bmp/{}", CODINGS[n - 1]),
        };
        if round % 5 == 0 {
            origin.fixed(&path, 200, &CSS, &body);
        }
        let response = asked(&path, &field).to(&node);
        if response.status == 406 {
            assert!(CODINGS.iter().all(|coding| !accepts(&field, coding)), "{path} {field:?}: refused");
            continue;
        }
        response.assert_status(200);
        assert!(accepts(&field, coding(&response)), "{path} {field:?}: {}", coding(&response));
        assert!(decode(coding(&response), &response.body) == body, "{path} {field:?}");
    }
    node.assert_no_panic();
}
