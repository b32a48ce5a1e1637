//! What an origin has encoded and is of no type that is compressed: kept as it came, and decoded on its way to who does not
//! accept its coding.

use std::io::Write as _;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::codec::{decode, encode};
use crate::support::node::node;
use crate::support::origin::{Origin, respond};
use crate::support::request::{Request, get, head, request};
use crate::support::response::Response;
use crate::support::{eventually, pattern};

const CODINGS: [&str; 3] = ["br", "zstd", "gzip"];
const FRESH: (&str, &str) = ("Cache-Control", "max-age=600");
const TAG: (&str, &str) = ("ETag", "\"v1\"");
const KIND: (&str, &str) = ("Content-Type", "image/bmp");
const DATE: (&str, &str) = ("Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT");

fn content(seed: u64) -> Vec<u8> {
    pattern(300, seed).repeat(100)
}

fn asked(path: &str, accept: &str) -> Request {
    get(path).with("Accept-Encoding", accept)
}

fn coding(response: &Response) -> &str {
    response.field("content-encoding").unwrap_or("identity")
}

#[track_caller]
fn assert_decoded(response: &Response, body: &[u8]) {
    response.assert_status(200).assert_body(body);
    assert_eq!((coding(response), response.field("etag")), ("identity", Some("W/\"v1\"")));
    assert!(!response.has("content-length") && !response.has("accept-ranges"));
    assert_eq!(response.joined("vary"), "Accept-Encoding");
}

#[track_caller]
fn assert_as_sent(response: &Response, sent: &str, body: &[u8]) {
    response.assert_status(200).assert_body(encode(sent, body));
    assert_eq!((coding(response), response.field("etag")), (sent, Some("\"v1\"")));
    assert_eq!(response.field("content-length").unwrap(), response.body.len().to_string());
    assert_eq!(response.joined("vary"), "Accept-Encoding");
}

#[test]
fn it_is_decoded_for_who_does_not_accept_its_coding_and_nothing_is_made_of_it() {
    let body = content(1);
    let origin = Origin::start();
    for sent in CODINGS {
        let fields = [FRESH, TAG, KIND, DATE, ("Content-Encoding", sent)];
        origin.fixed(&format!("/{sent}"), 200, &fields, encode(sent, &body));
        origin.fixed(&format!("/untyped/{sent}"), 200, &[fields[0], TAG, fields[4]], encode(sent, &body));
    }
    let mut node = node(&origin).disk("64MiB").start();
    for round in 0..3 {
        for sent in CODINGS {
            for path in [format!("/{sent}"), format!("/untyped/{sent}")] {
                let others: Vec<&str> = CODINGS.into_iter().filter(|other| *other != sent).collect();
                let refused = format!("{sent};q=0");
                // The first of all is a miss.
                let refusing = [
                    "identity",
                    "",
                    "deflate",
                    &refused,
                    &others.join(", "),
                    "br;q=0, zstd;q=0, gzip;q=0, *",
                ];
                for accept in refusing {
                    let response = asked(&path, accept).to(&node);
                    assert_decoded(&response, &body);
                    let told = |response: &Response| {
                        [
                            "content-encoding",
                            "content-length",
                            "etag",
                            "vary",
                            "accept-ranges",
                            "content-type",
                        ]
                        .map(|name| response.joined(name))
                    };
                    let head = head(&path).with("Accept-Encoding", accept).to(&node);
                    assert_eq!(told(&head), told(&response), "{accept}");
                }
                assert_decoded(&node.get(&path), &body);
                for accept in
                    [sent.to_owned(), "*".into(), "gzip, deflate, br, zstd".into(), format!("{sent};q=0.001")]
                {
                    assert_as_sent(asked(&path, &accept).to(&node).assert_hit(), sent, &body);
                }
                // Who takes neither gets what it takes.
                let other = asked(&path, &format!("{}, identity;q=0", others[0])).to(&node);
                assert_eq!(coding(&other), others[0]);
                assert!(decode(others[0], &other.body) == body);
                let nothing = asked(&path, "*;q=0").to(&node);
                nothing.assert_status(406);
            }
        }
        assert_eq!(origin.total(), 6, "the cache is not split");
        assert_eq!(node.metric("larder_compress_jobs_total"), 0.0, "nothing is made");
        if round < 2 {
            node = node.restarted([Signal::TERM, Signal::KILL][round]);
        }
    }
    node.assert_no_panic();
}

#[test]
fn a_head_before_any_get_says_what_a_get_would() {
    let body = content(2);
    let fields = [FRESH, TAG, KIND, ("Content-Encoding", "gzip")];
    let origin = Origin::with("/a", &fields, encode("gzip", &body));
    origin.fixed(
        "/private",
        200,
        &[("Cache-Control", "private"), fields[2], fields[3]],
        encode("gzip", &body),
    );
    let node = node(&origin).start();
    let refusing = head("/a").to(&node);
    assert_eq!((coding(&refusing), refusing.field("etag")), ("identity", Some("W/\"v1\"")));
    assert!(!refusing.has("content-length"));
    let accepting = head("/a").with("Accept-Encoding", "gzip").to(&node);
    assert_eq!((coding(&accepting), accepting.field("etag")), ("gzip", Some("\"v1\"")));
    assert_eq!(accepting.field("content-length").unwrap(), encode("gzip", &body).len().to_string());
    for response in [&refusing, &accepting] {
        assert_eq!(response.joined("vary"), "Accept-Encoding");
    }
    head("/a").with("Accept-Encoding", "*;q=0").to(&node).assert_status(406);
    // What is one client's own is between it and the origin.
    for response in [head("/private").to(&node), node.get("/private")] {
        assert_eq!((coding(&response), response.joined("vary").as_str()), ("gzip", ""));
    }
}

#[test]
fn conditions_and_ranges_are_of_what_is_sent() {
    let body = content(3);
    let origin =
        Origin::with("/a", &[FRESH, TAG, KIND, DATE, ("Content-Encoding", "gzip")], encode("gzip", &body));
    let sent = encode("gzip", &body);
    let node = node(&origin).start();
    node.get("/a");
    for accept in ["gzip", "identity"] {
        let is_sent = accept == "gzip";
        let ask = || asked("/a", accept);
        for tag in ["\"v1\"", "W/\"v1\"", "\"x\", W/\"v1\"", "*"] {
            let known = ask().with("If-None-Match", tag).to(&node);
            known.assert_status(304).assert_hit();
            assert_eq!(known.field("etag"), Some(if is_sent { "\"v1\"" } else { "W/\"v1\"" }));
            assert_eq!(known.joined("vary"), "Accept-Encoding");
        }
        for tag in ["\"v2\"", "\"v1-gzip-01234567\"", "W/\"v1-identity-01234567\""] {
            ask().with("If-None-Match", tag).to(&node).assert_status(200);
        }
        ask().with("If-Modified-Since", DATE.1).to(&node).assert_status(304);
        let matched = ask().with("If-Match", "\"v1\"").to(&node);
        matched.assert_status(if is_sent { 200 } else { 412 });
        ask().with("If-Match", "W/\"v1\"").to(&node).assert_status(412);
        ask().with("If-Match", "*").to(&node).assert_status(200);
        let part = ask().with("Range", "bytes=5-9").to(&node);
        let guarded = ask().with("If-Range", "\"v1\"").with("Range", "bytes=5-9").to(&node);
        for part in [part, guarded] {
            part.assert_body(if is_sent { &sent[5..10] } else { &body[..] });
            assert_eq!((part.status, coding(&part)), if is_sent { (206, "gzip") } else { (200, "identity") });
        }
        // A weak tag names no bytes, nor does a date that both have.
        for guard in ["W/\"v1\"", DATE.1] {
            let whole = ask().with("If-Range", guard).with("Range", "bytes=5-9").to(&node);
            whole.assert_status(200).assert_body(if is_sent { &sent } else { &body });
        }
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn the_origins_own_variants_stay_apart() {
    let body = content(4);
    let origin = Origin::start();
    let plain = body.clone();
    origin.on("/a", move |seen| {
        let fields = [FRESH, KIND, ("Vary", "Accept-Encoding"), TAG];
        match seen.field("accept-encoding").unwrap_or_default() {
            accept if accept.contains("zstd") => {
                respond(200, &[&fields[..], &[("Content-Encoding", "zstd")]].concat(), encode("zstd", &plain))
            }
            accept if accept.contains("gzip") => {
                respond(200, &[&fields[..], &[("Content-Encoding", "gzip")]].concat(), encode("gzip", &plain))
            }
            _ => respond(200, &[fields[0], fields[1], fields[2], ("ETag", "\"plain\"")], &plain),
        }
    });
    let node = node(&origin).start();
    for _ in 0..2 {
        assert_as_sent(&asked("/a", "zstd, br").to(&node), "zstd", &body);
        assert_as_sent(&asked("/a", "gzip").to(&node), "gzip", &body);
        let own = node.get("/a");
        own.assert_body(&body);
        assert_eq!((own.field("etag"), own.joined("vary").as_str()), (Some("\"plain\""), "Accept-Encoding"));
        assert!(own.has("content-length"));
    }
    assert_eq!(origin.count("/a"), 3);
}

#[test]
fn what_can_not_be_decoded_goes_as_it_is() {
    let body = content(5);
    let origin = Origin::start();
    let rows: [(&str, &[(&str, &str)]); 5] = [
        ("/several", &[("Content-Encoding", "gzip, br")]),
        ("/lines", &[("Content-Encoding", "gzip"), ("Content-Encoding", "br")]),
        ("/unknown", &[("Content-Encoding", "compress")]),
        ("/untouched", &[("Content-Encoding", "gzip"), ("Cache-Control", "no-transform")]),
        ("/delta", &[("Content-Encoding", "dcb")]),
    ];
    for (path, fields) in rows {
        origin.fixed(path, 200, &[&[FRESH, TAG, KIND], fields].concat(), &body);
    }
    let node = node(&origin).start();
    for (path, _) in rows {
        for accept in ["identity", "*;q=0", "br, gzip", "identity;q=0"] {
            let response = asked(path, accept).to(&node);
            response.assert_status(200).assert_body(&body);
            assert_eq!((response.field("etag"), response.has("vary")), (Some("\"v1\""), false), "{path}");
        }
        assert_eq!(origin.count(path), 1);
    }
}

#[test]
fn errors_are_decoded_too_and_what_has_no_body_is_not() {
    let body = content(6);
    let origin = Origin::start();
    let fields = [FRESH, KIND, ("Content-Encoding", "gzip")];
    origin.fixed("/missing", 404, &fields, encode("gzip", &body));
    origin.fixed("/empty", 200, &fields, "");
    let node = node(&origin).start();
    for _ in 0..2 {
        let response = node.get("/missing");
        response.assert_status(404).assert_body(&body);
        assert_eq!((coding(&response), response.joined("vary").as_str()), ("identity", "Accept-Encoding"));
        let sent = asked("/missing", "gzip").to(&node);
        sent.assert_status(404).assert_body(encode("gzip", &body));
        node.get("/empty").assert_status(200).assert_body("");
    }
    assert_eq!(origin.total(), 2);
}

#[test]
fn a_bomb_of_any_type_is_broken_off_and_then_only_for_who_takes_it_as_it_is() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 100 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let origin = Origin::with("/bomb", &[FRESH, KIND, ("Content-Encoding", "gzip")], &bomb);
    origin.fixed("/junk", 200, &[FRESH, KIND, ("Content-Encoding", "zstd")], pattern(5000, 7));
    let cut = encode("br", &content(7));
    origin.fixed("/cut", 200, &[FRESH, KIND, ("Content-Encoding", "br")], &cut[..cut.len() - 9]);
    let node = node(&origin).start();
    for path in ["/bomb", "/junk", "/cut"] {
        let mut broken = 0;
        eventually("word that it can't be decoded", || {
            let mut client = Client::connect(node.http());
            client.send(&get(path).bytes());
            let response = client.try_response("GET");
            broken += u32::from(response.is_err());
            response.is_ok_and(|response| coding(&response) != "identity")
        });
        assert!((1..=2).contains(&broken), "{path}: {broken}");
        assert_eq!(origin.count(path), 1);
    }
    asked("/bomb", "gzip").to(&node).assert_hit().assert_body(&bomb);
    for refusing in ["identity", "br", "identity;q=0, br", "gzip;q=0"] {
        asked("/bomb", refusing).to(&node).assert_status(406).assert_own_error();
    }
    node.assert_no_panic();
}

#[test]
fn what_unfolds_a_thousandfold_is_decoded_as_long_as_it_is_not_too_large() {
    let body = vec![0; 5_000_000];
    let origin = Origin::with("/a", &[FRESH, KIND, ("Content-Encoding", "gzip")], encode("gzip", &body));
    let node = node(&origin).start();
    for _ in 0..2 {
        for accept in ["identity", "br", ""] {
            let response = asked("/a", accept).to(&node);
            response.assert_status(200).assert_body(&body);
            assert_eq!(coding(&response), "identity");
        }
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn it_stays_so_when_the_origin_confirms_it_and_when_the_configuration_changes() {
    const OFF: &str = "compress = { encodings = [] }";
    const ON: &str = "compress = { types = [] }";
    const KINDS: &str = "compress = { types = [\"image/bmp\"] }";
    let body = content(8);
    let origin = Origin::start();
    let sent = encode("gzip", &body);
    origin.on("/a", move |seen| {
        let fields = [
            ("Cache-Control", "max-age=1, stale-while-revalidate=0"),
            TAG,
            KIND,
            ("Content-Encoding", "gzip"),
        ];
        match seen.field("if-none-match") {
            Some("\"v1\"") => respond(304, &[TAG, ("Cache-Control", "max-age=600"), ("X-New", "1")], ""),
            _ => respond(200, &fields, &sent),
        }
    });
    let node = node(&origin).disk("64MiB").site(OFF).start();
    assert_eq!(coding(&node.get("/a")), "gzip", "it is off");
    node.edit(OFF, ON);
    node.reload().assert_status(200);
    assert_decoded(&node.get("/a"), &body);
    eventually("a 304", || asked("/a", "identity").to(&node).has("x-new"));
    assert_decoded(&node.get("/a"), &body);
    assert_as_sent(&asked("/a", "gzip").to(&node), "gzip", &body);
    node.edit(ON, OFF);
    node.reload().assert_status(200);
    let off = node.get("/a");
    assert_eq!((coding(&off), off.has("vary")), ("gzip", false));
    node.edit(OFF, KINDS);
    node.reload().assert_status(200);
    // Now of a type that is compressed: decoded at rest.
    eventually("it is made", || node.get("/a").has("content-length"));
    node.get("/a").assert_body(&body);
    assert_eq!(origin.seen("/a").iter().filter(|seen| !seen.has("if-none-match")).count(), 1);
}

#[test]
fn purged_it_is_gone_in_both_forms() {
    let body = content(9);
    let origin = Origin::with("/a", &[FRESH, TAG, KIND, ("Content-Encoding", "br")], encode("br", &body));
    let node = node(&origin).start();
    node.get("/a");
    let purge = request("POST", "/v1/purges")
        .with("Authorization", format!("Bearer {}", node.token()))
        .body(r#"{"site":"test","all":true}"#);
    node.ask_admin(&purge).assert_status(201);
    assert!(!node.get("/a").is_hit());
    assert_as_sent(asked("/a", "br").to(&node).assert_hit(), "br", &body);
    assert_eq!(origin.count("/a"), 2);
}
