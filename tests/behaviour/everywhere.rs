//! One set of cases, wherever the answer lies and however it is asked for: from memory, from disk and after a
//! restart, over HTTP/1.1 and HTTP/2, plain and over TLS.

use std::cell::Cell;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::{Node, node};
use crate::support::origin::{Origin, Seen, Step, respond};
use crate::support::request::{HOST, get, request};
use crate::support::response::Response;
use crate::support::tls::Ca;
use crate::support::{assert_same_bytes, pattern};

/// Larger than what memory holds as a copy.
const LARGE: usize = 300_000;
/// Behind these, memory has forgotten what was there before.
const PUSHING_OUT: u64 = 300;
const PUSHING_OUT_BYTES: usize = 20_000;

const SMALL: &str = "twelve bytes";
const DAY: (&str, &str) = ("Cache-Control", "max-age=86400");

fn answer(seen: &Seen) -> Vec<Step> {
    let path = seen.path();
    let (_, case) = path[1..].split_once('/').unwrap_or_default();
    let tagged = [DAY, ("ETag", "\"v1\""), ("Last-Modified", "Wed, 01 Jul 2026 10:00:00 GMT")];
    match case {
        "tagged" => respond(200, &tagged, SMALL),
        "large" => respond(200, &tagged, pattern(LARGE, 7)),
        "empty" => respond(200, &[DAY], ""),
        "moved" => respond(301, &[DAY, ("Location", "/elsewhere")], "moved"),
        "missing" => respond(404, &[DAY], "no such thing"),
        "kind" => respond(200, &[DAY, ("Vary", "X-Kind")], format!("kind {}", seen.joined("x-kind"))),
        "targeted" => {
            respond(200, &[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=86400")], SMALL)
        }
        "grouped" => respond(200, &[DAY, ("Cache-Groups", "\"g\""), ("Surrogate-Key", "hidden")], SMALL),
        "aged" => respond(200, &[DAY, ("Age", "1000")], SMALL),
        "renewed" if seen.has("if-none-match") => respond(304, &[("ETag", "\"v1\""), ("X-New", "yes")], ""),
        "renewed" => respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v1\"")], SMALL),
        "stale" | "strict" if seen.has("if-none-match") => respond(503, &[], "down"),
        "stale" => {
            let lifetime = ("Cache-Control", "max-age=0, stale-if-error=86400");
            respond(200, &[lifetime, ("ETag", "\"v1\"")], SMALL)
        }
        "strict" => {
            let lifetime = ("Cache-Control", "max-age=0, must-revalidate, stale-if-error=86400");
            respond(200, &[lifetime, ("ETag", "\"v1\"")], SMALL)
        }
        "private" => respond(200, &[("Cache-Control", "private, max-age=86400")], "private"),
        "cookie" => respond(200, &[DAY, ("Set-Cookie", "a=b")], "with a cookie"),
        _ => respond(200, &[DAY], pattern(PUSHING_OUT_BYTES, 3)),
    }
}

/// A way to ask, and where its answers are stored under: each has URLs of its own.
struct Way {
    name: &'static str,
    ask: Box<dyn FnMut(&crate::support::request::Request) -> Response>,
}

impl Way {
    fn all(node: &Node, ca: &Ca) -> Vec<Self> {
        let mut plain = Client::connect(node.http());
        let mut secure =
            Client::connect_tls(node.https(), HOST, &ca.client(&["http/1.1"])).expect("a handshake");
        let plain_h2 = Http2::plain(node.http());
        let secure_h2 = Http2::tls(node.https(), HOST, &ca.client(&["h2"]));
        vec![
            Self { name: "http1", ask: Box::new(move |ask| plain.exchange(ask)) },
            Self { name: "https1", ask: Box::new(move |ask| secure.exchange(ask)) },
            Self { name: "http2", ask: Box::new(move |ask| plain_h2.exchange(ask)) },
            Self { name: "https2", ask: Box::new(move |ask| secure_h2.exchange(ask)) },
        ]
    }

    #[track_caller]
    fn at(&mut self, method: &str, case: &str, fields: &[(&str, &str)]) -> Response {
        let plain = request(method, &format!("/{}/{case}", self.name));
        (self.ask)(&fields.iter().fold(plain, |ask, (name, value)| ask.with(name, value)))
    }

    /// Everything is asked for once.
    fn store(&mut self) {
        let cases =
            ["tagged", "large", "empty", "moved", "missing", "targeted", "grouped", "aged", "renewed"];
        for case in cases.iter().chain(&["stale", "strict", "private", "cookie"]) {
            self.at("GET", case, &[]).assert_fwd("uri-miss");
        }
        self.at("GET", "kind", &[("X-Kind", "1")]).assert_fwd("uri-miss").assert_body("kind 1");
        self.at("GET", "kind", &[("X-Kind", "2")]).assert_fwd("vary-miss").assert_body("kind 2");
    }

    /// What each of them is from then on.
    fn check(&mut self) {
        let hit = self.at("GET", "tagged", &[]);
        hit.assert_status(200).assert_hit().assert_body(SMALL);
        assert_eq!(hit.field("content-length"), Some("12"));
        assert_eq!(hit.field("etag"), Some("\"v1\""));
        assert!(hit.age().is_some() && hit.has("date") && hit.has("via"));
        let head = self.at("HEAD", "tagged", &[]);
        assert_eq!(head.assert_hit().assert_body("").field("content-length"), Some("12"));
        for (name, value, status) in [
            ("If-None-Match", "\"v1\"", 304),
            ("If-None-Match", "W/\"v1\", \"x\"", 304),
            ("If-None-Match", "\"v2\"", 200),
            ("If-Modified-Since", "Wed, 01 Jul 2026 10:00:00 GMT", 304),
            ("If-Modified-Since", "Wed, 01 Jul 2026 09:59:59 GMT", 200),
            ("If-Match", "\"v1\"", 200),
            ("If-Match", "\"v2\"", 412),
            ("If-Unmodified-Since", "Wed, 01 Jul 2026 09:59:59 GMT", 412),
            ("Range", "bytes=0-5", 206),
            ("Range", "bytes=12-", 416),
            ("Range", "chapters=1", 200),
        ] {
            self.at("GET", "tagged", &[(name, value)]).assert_status(status).assert_hit();
        }
        let range = ("Range", "bytes=7-11");
        self.at("GET", "tagged", &[range, ("If-Range", "\"v1\"")]).assert_status(206).assert_body("bytes");
        self.at("GET", "tagged", &[range, ("If-Range", "\"v2\"")]).assert_status(200).assert_body(SMALL);

        let whole = pattern(LARGE, 7);
        let large = self.at("GET", "large", &[]);
        assert_same_bytes(&large.assert_status(200).assert_hit().body, &whole);
        let middle = self.at("GET", "large", &[("Range", "bytes=100000-199999")]);
        assert_same_bytes(&middle.assert_status(206).assert_hit().body, &whole[100_000..200_000]);
        assert_eq!(middle.field("content-range"), Some("bytes 100000-199999/300000"));
        let several = self.at("GET", "large", &[("Range", "bytes=0-0,-1")]);
        assert!(
            several
                .assert_status(206)
                .field("content-type")
                .is_some_and(|kind| kind.starts_with("multipart/"))
        );
        self.at("GET", "large", &[("If-None-Match", "\"v1\"")]).assert_status(304).assert_body("");

        self.at("GET", "empty", &[]).assert_status(200).assert_hit().assert_body("");
        let moved = self.at("GET", "moved", &[]);
        assert_eq!(moved.assert_status(301).assert_hit().field("location"), Some("/elsewhere"));
        self.at("GET", "missing", &[]).assert_status(404).assert_hit().assert_body("no such thing");
        for kind in ["1", "2"] {
            self.at("GET", "kind", &[("X-Kind", kind)]).assert_hit().assert_body(format!("kind {kind}"));
        }
        self.at("GET", "targeted", &[]).assert_hit().assert_body(SMALL);
        let grouped = self.at("GET", "grouped", &[]);
        assert_eq!(grouped.assert_hit().field("cache-groups"), Some("\"g\""));
        assert!(!grouped.has("surrogate-key"));
        assert!(self.at("GET", "aged", &[]).assert_hit().age().is_some_and(|age| age >= 1000));

        let only = [("Cache-Control", "only-if-cached")];
        self.at("GET", "tagged", &only).assert_status(200).assert_hit();
        let renewed = self.at("GET", "renewed", &[]);
        renewed.assert_status(200).assert_fwd("stale").assert_body(SMALL);
        assert_eq!(renewed.field("x-new"), Some("yes"));
        let stale = self.at("GET", "stale", &[]);
        stale.assert_status(200).assert_body(SMALL);
        assert!(stale.joined("cache-status").contains("ttl=-"), "{:?}", stale.fields);
        self.at("GET", "strict", &[]).assert_status(503);
        for (case, body) in [("private", "private"), ("cookie", "with a cookie")] {
            assert!(!self.at("GET", case, &[]).assert_body(body).is_hit(), "{case}");
        }
    }
}

fn check_all(node: &Node, ca: &Ca, before_each: impl Fn(&Node)) {
    for mut way in Way::all(node, ca) {
        before_each(node);
        way.check();
    }
    node.assert_no_panic();
}

#[test]
fn one_set_of_cases_from_memory_from_disk_and_after_a_restart_over_every_protocol() {
    let (ca, origin) = (Ca::new(), Origin::start());
    origin.on("/*", answer);
    let node = node(&origin).memory("2MiB").disk("64MiB").tls(&ca, &[HOST]).start();
    for mut way in Way::all(&node, &ca) {
        way.store();
        way.check();
    }
    // From disk: memory is full of something else each time. Something new, for what is read from disk would leave its body there.
    let round = Cell::new(0);
    let push_out = |node: &Node| {
        round.set(round.get() + 1);
        for n in 0..PUSHING_OUT {
            node.get(&format!("/other/{}/{n}", round.get())).assert_status(200);
        }
        let held = node.metric("larder_store_objects{tier=\"memory\"}");
        assert!(held < 150.0, "memory holds a third of it: {held}");
    };
    push_out(&node);
    check_all(&node, &ca, push_out);
    // Also with nothing in memory at all, after a gentle end and after none.
    let mut node = node;
    for signal in [Signal::TERM, Signal::KILL] {
        node = node.restarted(signal);
        check_all(&node, &ca, |_| ());
    }
    let fetched = origin.count("/http1/tagged") + origin.count("/https2/large") + origin.count("/http2/kind");
    assert_eq!(fetched, 4, "each was fetched once, and one of them in two kinds");
    get("/http1/tagged").with("Cache-Control", "only-if-cached").to(&node).assert_status(200);
}

/// The same without a disk: the log is in memory then.
#[test]
fn the_same_set_of_cases_without_a_disk() {
    let (ca, origin) = (Ca::new(), Origin::start());
    origin.on("/*", answer);
    let node = node(&origin).memory("32MiB").tls(&ca, &[HOST]).start();
    for mut way in Way::all(&node, &ca) {
        way.store();
    }
    check_all(&node, &ca, |_| ());
}
