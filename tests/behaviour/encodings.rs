//! Encodings at rest: who gets which, with what head, and what becomes of them (RFC 9110 §8.4, §12.5.3).

use std::io::Write as _;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::codec::{decode, encode};
use crate::support::node::{Node, node};
use crate::support::origin::{Origin, respond};
use crate::support::request::{Request, get, head};
use crate::support::response::Response;
use crate::support::{eventually, pattern};

const CODINGS: [&str; 3] = ["br", "zstd", "gzip"];
const CSS: &[(&str, &str)] =
    &[("Cache-Control", "max-age=600"), ("Content-Type", "text/css"), ("ETag", "\"v1\""), LAST_MODIFIED];
const LAST_MODIFIED: (&str, &str) = ("Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT");

/// Text that compresses well, and differs by seed.
fn text(length: usize, seed: u64) -> Vec<u8> {
    let words = pattern(4096, seed);
    let line = |i: usize| format!("rule-{} {{ top: {}px }}\n", words[i % 4096], words[i * 7 % 4096]);
    (0..).flat_map(|i| line(i).into_bytes()).take(length).collect()
}

fn asked(path: &str, accept: &str) -> Request {
    get(path).with("Accept-Encoding", accept)
}

fn coding(response: &Response) -> &str {
    response.field("content-encoding").unwrap_or("identity")
}

/// Waits until a path is served in a coding at rest: what is encoded on its way has no length.
#[track_caller]
fn await_coding(node: &Node, path: &str, wanted: &str) -> Response {
    eventually(wanted, || {
        let response = asked(path, wanted).to(node);
        coding(&response) == wanted && response.has("content-length")
    });
    asked(path, wanted).to(node)
}

#[track_caller]
fn assert_content(response: &Response, content: &[u8]) {
    assert!(decode(coding(response), &response.body) == content, "{}: another content", coding(response));
    if response.has("content-length") {
        assert_eq!(response.field("content-length").unwrap(), response.body.len().to_string());
    }
}

#[test]
fn each_client_gets_what_it_prefers_and_nothing_else() {
    let body = text(20_000, 1);
    let origin = Origin::with("/a", CSS, &body);
    let node = node(&origin).start();
    let first = asked("/a", "br").to(&node);
    assert_eq!(first.joined("vary"), "Accept-Encoding");
    assert_content(&first, &body);
    for coding in CODINGS {
        await_coding(&node, "/a", coding);
    }
    let length = |accept: &str| asked("/a", accept).to(&node).body.len();
    let shortest = CODINGS.into_iter().min_by_key(|coding| length(coding)).unwrap();
    for (accept, expected) in [
        ("gzip, deflate, br, zstd", shortest),
        ("*", shortest),
        ("gzip, deflate", "gzip"),
        ("x-gzip", "gzip"),
        ("GZip;q=1.0, br;q=0.5", "gzip"),
        ("br;q=0.5, zstd;q=0.51", "zstd"),
        ("br;q=0, zstd;q=0, *;q=0.1", "gzip"),
        ("identity;q=0, br", "br"),
        ("", "identity"),
        ("identity", "identity"),
        ("identity, br;q=0.9", "identity"),
        ("deflate, compress", "identity"),
        ("br;q=0", "identity"),
        ("br;q=2, gzip;q=x", "identity"),
        ("br;level=1", "identity"),
        (",,;;=,\"br\", br ;q=0.000", "identity"),
    ] {
        let response = asked("/a", accept).to(&node);
        assert_eq!(coding(&response), expected, "{accept}");
        response.assert_status(200).assert_hit();
        assert_eq!(response.joined("vary"), "Accept-Encoding");
        assert_eq!(response.field("last-modified"), Some(LAST_MODIFIED.1));
        assert_content(&response, &body);
        let head = head("/a").with("Accept-Encoding", accept).to(&node);
        let told = |response: &Response| {
            ["content-encoding", "content-length", "etag", "vary", "accept-ranges", "content-type"]
                .map(|name| response.joined(name))
        };
        assert_eq!(told(&head), told(&response), "{accept}");
    }
    assert_eq!(coding(&node.get("/a")), "identity", "without the field");
    assert_eq!(origin.count("/a"), 1, "the cache is not split");
    let saved = "larder_compress_saved_bytes_total{encoding=\"gzip\"}";
    let (before, of_one) = (node.metric(saved), body.len() - length("gzip"));
    asked("/a", "gzip").to(&node);
    node.get("/a");
    assert_eq!(node.metric(saved) - before, 2.0 * of_one as f64, "each hit counts once");
}

#[test]
fn what_is_not_to_be_compressed_is_left_alone() {
    let body = text(5000, 2);
    let origin = Origin::start();
    let fields = |kind: &'static str, control: &'static str| {
        vec![("Cache-Control", control), ("Content-Type", kind), ("ETag", "\"x\"")]
    };
    let with = |targeted: &'static str| {
        let mut fields = fields("text/css", "max-age=60");
        fields.push((targeted, "max-age=60, no-transform"));
        fields
    };
    let rows = [
        ("/image", fields("image/png", "max-age=60")),
        ("/no-transform", fields("text/css", "max-age=60, no-transform")),
        ("/cdn", with("CDN-Cache-Control")),
        ("/larder", with("Larder-CDN-Cache-Control")),
        ("/none", vec![("Cache-Control", "max-age=60")]),
    ];
    for (path, fields) in &rows {
        origin.fixed(path, 200, fields, &body);
    }
    origin.fixed("/small", 200, CSS, &body[..511]);
    origin.fixed("/error", 404, CSS, &body);
    let node = node(&origin).start();
    for path in ["/image", "/no-transform", "/cdn", "/larder", "/none", "/small", "/error"] {
        for _ in 0..3 {
            let response = asked(path, "br, gzip, zstd").to(&node);
            assert!(!response.has("content-encoding") && !response.has("vary"), "{path}");
        }
    }
    origin.fixed("/large", 200, CSS, &body[..512]);
    node.get("/large");
    await_coding(&node, "/large", "gzip");
}

#[test]
fn what_saves_next_to_nothing_is_remembered() {
    let origin = Origin::with("/noise", CSS, pattern(20_000, 3));
    let mut node = node(&origin).disk("64MiB").start();
    node.get("/noise");
    let jobs = "larder_compress_jobs_total{encoding=\"br\",outcome=\"not_worth\"}";
    node.await_metric(jobs, 1.0);
    eventually("an idle pool", || node.metric("larder_compress_queue") == 0.0);
    for _ in 0..5 {
        assert_eq!(coding(&asked("/noise", "br, gzip, zstd").to(&node)), "identity");
    }
    // Once for the object, and once for each coding.
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 4.0);
    node = node.restarted(Signal::TERM);
    for _ in 0..5 {
        asked("/noise", "br, gzip, zstd").to(&node).assert_hit();
    }
    assert_eq!(node.metric(jobs), 0.0, "nothing is tried again");
}

#[test]
fn conditions_in_every_combination_of_encodings() {
    let body = text(20_000, 4);
    let origin = Origin::with("/a", CSS, &body);
    origin.fixed("/weak", 200, &[CSS[0], CSS[1], ("ETag", "W/\"v1\""), LAST_MODIFIED], &body);
    origin.fixed("/dated", 200, &[CSS[0], CSS[1], LAST_MODIFIED], &body);
    let node = node(&origin).start();
    let all = ["identity", "br", "zstd", "gzip"];
    let whole = |path: &str, coding: &str| {
        node.get(path);
        if coding == "identity" { node.get(path) } else { await_coding(&node, path, coding) }
    };
    let tag = |coding: &str| whole("/a", coding).field("etag").unwrap().to_owned();
    let tags = all.map(tag);
    assert_eq!(tags[0], "\"v1\"");
    for (coding, tag) in all.iter().zip(&tags).skip(1) {
        let digits = tag.strip_prefix(&format!("\"v1-{coding}-")).and_then(|rest| rest.strip_suffix('"'));
        assert!(digits.is_some_and(|digits| digits.len() == 8), "{tag}");
        let sum = blake3::hash(&whole("/a", coding).body).to_hex();
        assert_eq!(digits, Some(&sum.as_str()[..8]), "the tag names the bytes");
    }
    for (asked_for, own) in all.iter().zip(&tags) {
        let ask = |path: &str| asked(path, asked_for);
        let full = whole("/a", asked_for).body;
        for (of, tag) in all.iter().zip(&tags) {
            let is_own = of == asked_for;
            for listed in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
                let response = ask("/a").with("If-None-Match", &listed).to(&node);
                response.assert_status(304);
                assert_eq!(response.field("etag"), Some(own.as_str()), "{listed}");
                assert_eq!(response.joined("vary"), "Accept-Encoding");
            }
            let status = ask("/a").with("If-Match", tag).to(&node).status;
            assert_eq!(status, if is_own { 200 } else { 412 }, "If-Match of {of} for {asked_for}");
            let part = ask("/a").with("If-Range", tag).with("Range", "bytes=10-99").to(&node);
            assert_eq!(part.status, if is_own { 206 } else { 200 }, "If-Range of {of} for {asked_for}");
            assert_eq!(coding(&part), *asked_for);
            assert!(part.body == if is_own { &full[10..100] } else { &full[..] });
        }
        let other = ask("/a").with("If-None-Match", "\"v2\", \"v2-br-00000000\"").to(&node);
        other.assert_status(200);
        // Ranges are of the encoded bytes.
        let part = ask("/a").with("Range", "bytes=-7").to(&node);
        part.assert_status(206).assert_body(&full[full.len() - 7..]);
        let end = format!("bytes {}-{}/{}", full.len() - 7, full.len() - 1, full.len());
        assert_eq!(part.field("content-range"), Some(end.as_str()));
        let beyond = ask("/a").with("Range", "bytes=9999999-").to(&node);
        beyond.assert_status(416);
        assert_eq!(beyond.field("content-range").unwrap(), format!("bytes */{}", full.len()));
        // A date is that of all of them.
        for path in ["/a", "/weak", "/dated"] {
            let full = whole(path, asked_for);
            let dated = ask(path).with("If-Range", LAST_MODIFIED.1).with("Range", "bytes=0-9").to(&node);
            dated.assert_status(200).assert_body(&full.body);
            ask(path).with("If-Modified-Since", LAST_MODIFIED.1).to(&node).assert_status(304);
            let unmodified = ask(path).with("If-Unmodified-Since", LAST_MODIFIED.1).to(&node);
            unmodified.assert_status(200);
        }
        assert_eq!(whole("/weak", asked_for).field("etag"), Some("W/\"v1\""));
        ask("/weak").with("If-None-Match", "\"v1\"").to(&node).assert_status(304);
        let is_made = *asked_for != "identity";
        for path in ["/weak", "/dated"] {
            // Nothing tells its encodings apart.
            let part = ask(path).with("Range", "bytes=0-9").to(&node);
            part.assert_status(if is_made { 200 } else { 206 });
            let guarded =
                ask(path).with("If-Unmodified-Since", LAST_MODIFIED.1).with("Range", "bytes=0-9").to(&node);
            guarded.assert_status(200);
        }
        assert!(!whole("/dated", asked_for).has("etag"));
    }
}

#[test]
fn encodings_follow_their_object() {
    let body = text(100_000, 5);
    let other = text(100_000, 6);
    let origin = Origin::start();
    let tagged = |tag: &str, lifetime: &str, body: &[u8]| {
        respond(200, &[("Cache-Control", lifetime), ("Content-Type", "text/css"), ("ETag", tag)], body)
    };
    let (one, two) = (body.clone(), other.clone());
    origin.on("/a", move |seen| match seen.field("if-none-match") {
        Some("\"one\"") if seen.field("x-two").is_none() => {
            respond(304, &[("ETag", "\"one\""), ("X-New", "1"), ("Cache-Control", "max-age=600")], "")
        }
        _ if seen.field("x-two").is_some() => tagged("\"two\"", "max-age=600", &two),
        _ => tagged("\"one\"", "max-age=1", &one),
    });
    let node = node(&origin).start();
    node.get("/a");
    let before = await_coding(&node, "/a", "br");
    // Confirmed by a 304, with the origin's own validator: the same encoding under a renewed head.
    eventually("a 304", || asked("/a", "br").to(&node).has("x-new"));
    let asked_for = origin.last("/a");
    assert_eq!(asked_for.field("if-none-match"), Some("\"one\""));
    let renewed = asked("/a", "br").to(&node);
    assert_eq!((renewed.field("etag"), coding(&renewed)), (before.field("etag"), "br"));
    assert!(renewed.body == before.body);
    // Replaced: from the first answer on, nobody sees the old one in any coding.
    let purge = crate::support::request::request("POST", "/v1/purges")
        .with("Authorization", format!("Bearer {}", node.token()))
        .body(r#"{"site":"test","all":true}"#);
    node.ask_admin(&purge).assert_status(201);
    get("/a").with("X-Two", "1").to(&node).assert_body(&other);
    for coding in CODINGS {
        assert_content(&asked("/a", coding).to(&node), &other);
        assert_content(&await_coding(&node, "/a", coding), &other);
    }
    assert_eq!(origin.count("/a"), 3);
    node.assert_no_panic();
}

#[test]
fn encodings_survive_a_restart_and_a_kill() {
    let (small, large) = (text(10_000, 7), text(600_000, 8));
    let origin = Origin::with("/small", CSS, &small);
    origin.fixed("/large", 200, CSS, &large);
    let mut node = node(&origin).disk("64MiB").start();
    for path in ["/small", "/large"] {
        node.get(path);
        for coding in CODINGS {
            await_coding(&node, path, coding);
        }
    }
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 8.0);
    for signal in [Signal::TERM, Signal::KILL] {
        node = node.restarted(signal);
        for (path, body) in [("/small", &small), ("/large", &large)] {
            for wanted in CODINGS {
                let response = asked(path, wanted).to(&node);
                response.assert_hit();
                assert_eq!(coding(&response), wanted, "{path}, from disk");
                assert_content(&response, body);
            }
            node.get(path).assert_hit().assert_body(body);
        }
    }
    assert_eq!(node.metric("larder_compress_jobs_total"), 0.0, "nothing is made again");
    assert_eq!(origin.total(), 2);
    node.assert_no_panic();
}

#[test]
fn killed_in_the_middle_of_compressing_no_half_encoding_is_served() {
    let bodies: Vec<Vec<u8>> = (0..12).map(|seed| text(400_000 + 1000 * seed as usize, seed)).collect();
    let origin = Origin::start();
    for (n, body) in bodies.iter().enumerate() {
        origin.fixed(&format!("/{n}"), 200, CSS, body);
    }
    let mut node = node(&origin).disk("64MiB").start();
    for n in 0..bodies.len() {
        node.get(&format!("/{n}"));
    }
    let kept = "larder_compress_jobs_total{encoding=\"br\",outcome=\"kept\"}";
    eventually("some are made", || node.metric(kept) >= 2.0);
    for _ in 0..2 {
        node = node.restarted(Signal::KILL);
        for (n, body) in bodies.iter().enumerate() {
            for accept in ["br", "zstd", "gzip", "br, zstd, gzip"] {
                assert_content(&asked(&format!("/{n}"), accept).to(&node), body);
            }
        }
    }
    for (n, body) in bodies.iter().enumerate() {
        assert_content(&await_coding(&node, &format!("/{n}"), "gzip"), body);
    }
    node.assert_no_panic();
}

#[test]
fn what_the_origin_has_encoded_is_kept_decoded_and_encoded_again() {
    let body = text(30_000, 9);
    let origin = Origin::start();
    for (sent, path) in CODINGS.into_iter().zip(["/br", "/zstd", "/gzip"]) {
        let fields = [CSS[0], CSS[1], CSS[2], ("Content-Encoding", sent), ("Vary", "Accept-Encoding")];
        origin.fixed(path, 200, &fields, encode(sent, &body));
    }
    let node = node(&origin).start();
    for (sent, path) in CODINGS.into_iter().zip(["/br", "/zstd", "/gzip"]) {
        // Before anything is made: decoded on the way, as another representation.
        let first = node.get(path);
        assert_content(&first, &body);
        assert_eq!((coding(&first), first.field("etag")), ("identity", Some("W/\"v1\"")));
        assert!(!first.has("content-length") && !first.has("accept-ranges"));
        let as_sent = asked(path, sent).to(&node);
        as_sent.assert_hit().assert_body(encode(sent, &body));
        assert_eq!((coding(&as_sent), as_sent.field("etag")), (sent, Some("\"v1\"")));
        eventually("decoded at rest", || node.get(path).has("content-length"));
        let decoded = node.get(path);
        decoded.assert_hit().assert_body(&body);
        assert!(decoded.field("etag").unwrap().starts_with("\"v1-identity-"), "{:?}", decoded.field("etag"));
        for other in CODINGS.into_iter().filter(|other| *other != sent) {
            assert_content(&await_coding(&node, path, other), &body);
        }
        for response in [asked(path, sent).to(&node), node.get(path)] {
            assert_eq!(response.joined("vary"), "Accept-Encoding");
        }
        assert_eq!(origin.count(path), 1);
    }
    node.assert_no_panic();
}

#[test]
fn a_bomb_is_broken_off_and_then_only_for_who_takes_it_as_it_is() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 100 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let origin = Origin::start();
    origin.fixed("/bomb", 200, &[CSS[0], CSS[1], ("Content-Encoding", "gzip")], &bomb);
    origin.fixed("/junk", 200, &[CSS[0], CSS[1], ("Content-Encoding", "gzip")], text(5000, 1));
    let node = node(&origin).start();
    for path in ["/bomb", "/junk"] {
        asked(path, "gzip").to(&node).assert_status(200);
        eventually("word that it can't be decoded", || {
            let mut client = Client::connect(node.http());
            client.send(&get(path).bytes());
            // Broken off, until it is known.
            client.try_response("GET").is_ok_and(|response| coding(&response) == "gzip")
        });
    }
    asked("/bomb", "gzip").to(&node).assert_body(&bomb);
    asked("/bomb", "identity;q=0, br").to(&node).assert_status(406).assert_own_error();
    node.assert_no_panic();
}

#[test]
fn who_comes_first_has_it_encoded_on_its_way() {
    let (large, small) = (text(500_000, 12), text(10_000, 13));
    let origin = Origin::start();
    for (path, body) in [("/ranges", &large), ("/small", &small), ("/first", &large)] {
        origin.fixed(path, 200, CSS, body);
    }
    let node = node(&origin).start();
    let part = asked("/ranges", "zstd").with("Range", "bytes=5-9").to(&node);
    part.assert_status(206);
    assert_eq!(coding(&part), "identity", "of bytes that are there");
    part.assert_body(&large[5..10]);
    asked("/small", "gzip, br, zstd").to(&node).assert_body(&small);
    let first = asked("/first", "gzip, br, zstd").to(&node);
    assert_eq!((coding(&first), first.field("etag")), ("zstd", Some("W/\"v1\"")), "what is quickest");
    assert!(!first.has("content-length") && !first.has("accept-ranges"));
    assert!(first.body.len() < large.len() / 2);
    assert_content(&first, &large);
    // As good as any for a condition, and for no range.
    let known = asked("/first", "br").with("If-None-Match", "W/\"v1\"").to(&node);
    known.assert_status(304);
    let part = asked("/first", "br").with("If-Range", "W/\"v1\"").with("Range", "bytes=1-2").to(&node);
    part.assert_status(200);
    assert_content(&part, &large);
}

#[test]
fn who_takes_no_identity_is_not_sent_any() {
    let body = text(50_000, 10);
    let origin = Origin::with("/a", CSS, &body);
    let node = node(&origin).start();
    for (accept, expected) in
        [("zstd, identity;q=0", "zstd"), ("br, *;q=0", "br"), ("gzip;q=0.1, identity;q=0", "gzip")]
    {
        let response = asked("/a", accept).to(&node);
        assert_eq!(coding(&response), expected, "{accept}");
        assert_content(&response, &body);
    }
}

#[test]
fn tags_go_to_the_origin_without_their_suffix() {
    let origin = Origin::with("/a", CSS, text(5000, 11));
    let node = node(&origin).start();
    let put = crate::support::request::request("PUT", "/a")
        .with("If-Match", "\"v1-br-0123abcd\", W/\"v2\"")
        .with("If-None-Match", "\"v0\"");
    put.to(&node);
    let seen = origin.last("/a");
    assert_eq!((seen.method.as_str(), seen.field("if-match")), ("PUT", Some("\"v1\", W/\"v2\"")));
    assert_eq!(seen.field("if-none-match"), Some("\"v0\""));
}

#[test]
fn what_is_compressed_changes_with_the_configuration_and_nothing_is_fetched_again() {
    const OFF: &str = "compress = { encodings = [] }";
    const GZIP: &str = "compress = { encodings = [\"gzip\"] }";
    const BOTH: &str = "compress = { encodings = [\"br\", \"gzip\"] }";
    let body = text(20_000, 12);
    let origin = Origin::with("/a", CSS, &body);
    let node = node(&origin).disk("64MiB").site(OFF).start();
    let change = |from: &str, to: &str| {
        node.edit(from, to);
        node.reload().assert_status(200);
    };
    let as_it_is = |vary: &str| {
        let response = asked("/a", "br, gzip").to(&node);
        assert_eq!((coding(&response), response.joined("vary").as_str()), ("identity", vary));
        response.assert_body(&body);
    };
    node.get("/a");
    as_it_is("");
    change(OFF, GZIP);
    assert_content(&await_coding(&node, "/a", "gzip"), &body);
    assert_eq!(coding(&asked("/a", "br").to(&node)), "identity");
    // What nothing was missing of has something missing now.
    change(GZIP, BOTH);
    assert_content(&await_coding(&node, "/a", "br"), &body);
    change(BOTH, OFF);
    as_it_is("");
    change(OFF, BOTH);
    let again = await_coding(&node, "/a", "br");
    assert_content(&again, &body);
    assert_eq!(again.joined("vary"), "Accept-Encoding");
    change(BOTH, "compress = { types = [\"text/html\"] }");
    as_it_is("");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn an_invalidated_object_stays_so_when_the_configuration_changes() {
    let origin = Origin::with("/a", CSS, text(20_000, 13));
    let node = node(&origin).site("compress = { encodings = [] }").start();
    node.get("/a");
    node.edit("encodings = []", "encodings = [\"br\"]");
    node.reload().assert_status(200);
    crate::support::request::request("POST", "/a").to(&node);
    node.get("/a");
    assert_eq!(origin.count("/a"), 3, "it was asked for again");
}
