//! The same caching whatever is spoken: HTTP/1.1 and HTTP/2, plain and over TLS.

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{Request, get, head, request};
use crate::support::response::Response;
use crate::support::tls::Ca;

type Ask = Box<dyn FnMut(&Request) -> Response>;

/// An origin for one client; every path begins with the client's own.
fn origin() -> Origin {
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let fields = [FRESH[0], ("ETag", "\"v1\""), ("Connection", "X-Hop"), ("X-Hop", "leak")];
        match seen.path().rsplit('/').next().unwrap_or_default() {
            "renewed" if seen.has("if-none-match") => respond(304, &[("ETag", "\"v1\""), ("X-New", "yes")], ""),
            "renewed" => respond(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v1\"")], "twelve bytes"),
            "varied" => {
                let body = seen.joined("x-kind");
                respond(200, &[FRESH[0], ("Vary", "X-Kind")], body)
            }
            "private" => respond(200, &[("Cache-Control", "private")], "twelve bytes"),
            "targeted" => respond(200, &[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")], "a"),
            "posted" => {
                let own = [FRESH[0], ("Content-Location", "posted")];
                respond(200, &own, &seen.method)
            }
            "surplus" => vec![Step::Send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec())],
            _ => respond(200, &fields, "twelve bytes"),
        }
    });
    origin
}

fn check(name: &str, ask: &mut Ask) {
    let mut at = |method: &str, path: &str, fields: &[(&str, &str)]| {
        let plain = request(method, &format!("/{name}/{path}"));
        let answer = ask(&fields.iter().fold(plain, |ask, (name, value)| ask.with(name, value)));
        for hop in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
            // HTTP/1.1 may frame its own connection.
            assert!(hop == "transfer-encoding" || !answer.has(hop), "{name} {path}: {:?}", answer.fields);
        }
        answer
    };
    at("GET", "a", &[]).assert_status(200).assert_fwd("uri-miss").assert_body("twelve bytes");
    at("GET", "a", &[]).assert_hit().assert_body("twelve bytes");
    assert_eq!(at("HEAD", "a", &[]).assert_hit().field("content-length"), Some("12"));
    at("GET", "a", &[("if-none-match", "\"v1\"")]).assert_status(304).assert_body("");
    at("GET", "a", &[("range", "bytes=-5")]).assert_status(206).assert_body("bytes");
    at("GET", "a", &[("range", "bytes=99-")]).assert_status(416);
    at("POST", "a", &[]).assert_status(200);
    at("GET", "a", &[]).assert_fwd("stale");

    at("GET", "renewed", &[]).assert_fwd("uri-miss");
    let renewed = at("GET", "renewed", &[]);
    renewed.assert_status(200).assert_fwd("stale").assert_body("twelve bytes");
    assert_eq!(renewed.field("x-new"), Some("yes"));

    at("GET", "varied", &[("x-kind", "1")]).assert_body("1");
    at("GET", "varied", &[("x-kind", "2")]).assert_fwd("vary-miss").assert_body("2");
    at("GET", "varied", &[("x-kind", "1")]).assert_hit().assert_body("1");

    for _ in 0..2 {
        assert!(!at("GET", "private", &[]).is_hit());
        at("HEAD", "private", &[]).assert_status(200);
    }
    at("GET", "targeted", &[]);
    at("GET", "targeted", &[]).assert_hit();
    at("POST", "posted", &[]).assert_body("POST");
    at("GET", "posted", &[]).assert_hit().assert_body("POST");
    for _ in 0..3 {
        at("GET", "surplus", &[]).assert_body("abc");
        at("GET", "a", &[]).assert_body("twelve bytes");
    }
}

#[test]
fn what_is_cached_and_how_it_is_served_does_not_depend_on_the_protocol() {
    let (ca, origin) = (Ca::new(), origin());
    let node = node(&origin).cache("cache_post = true").tls(&ca, &["test.example"]).start();
    let name = "test.example";
    let mut plain = Client::connect(node.http());
    let mut secure = Client::connect_tls(node.https(), name, &ca.client(&["http/1.1"])).expect("a handshake");
    let plain_h2 = Http2::plain(node.http());
    let secure_h2 = Http2::tls(node.https(), name, &ca.client(&["h2"]));
    let clients: [(&str, Ask); 4] = [
        ("http1", Box::new(move |ask| plain.exchange(ask))),
        ("https1", Box::new(move |ask| secure.exchange(ask))),
        ("http2", Box::new(move |ask| plain_h2.exchange(ask))),
        ("https2", Box::new(move |ask| secure_h2.exchange(ask))),
    ];
    for (name, mut ask) in clients {
        check(name, &mut ask);
    }
    // And what one has stored all others are served, by scheme.
    for (path, hits) in [("/http1/a", true), ("/http2/a", true), ("/https1/a", false)] {
        assert_eq!(get(path).to(&node).is_hit(), hits, "{path}");
        assert_eq!(head(path).to(&node).status, 200);
    }
}
