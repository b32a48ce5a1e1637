//! Warming: what is stored afterwards, what came of each URL and why, whom it leaves room, and what a restart keeps.
//!
//! `LARDER_WARM_URLS` is for the long one: as many URLs, in three encodings.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::node::{Builder, Node, bare, node};
use crate::support::origin::{FRESH, Origin, Seen, Step, respond};
use crate::support::request::{get, request};
use crate::support::response::Response;
use crate::support::{Gate, OpenOnDrop, eventually, holds_within};

pub(super) const HOST: &str = "http://test.example";
pub(super) const ENCODED: &[(&str, &str)] = &[FRESH[0], ("Vary", "Accept-Encoding")];

fn ask_as(node: &Node, token: &str, method: &str, target: &str, body: &str) -> Response {
    node.ask_admin(&request(method, target).with("Authorization", format!("Bearer {token}")).body(body))
}

pub(super) fn ask(node: &Node, method: &str, target: &str, body: &str) -> Response {
    ask_as(node, &node.token(), method, target, body)
}

#[track_caller]
pub(super) fn start(node: &Node, order: &Value) -> String {
    let answer = ask(node, "POST", "/v1/warmups", &order.to_string());
    answer.assert_status(202);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.field("location"), Some(&*format!("/v1/warmups/{id}")));
    id
}

#[track_caller]
pub(super) fn job(node: &Node, id: &str) -> Value {
    let answer = node.admin_get(&format!("/v1/warmups/{id}"));
    answer.assert_status(200);
    answer.json()
}

#[track_caller]
pub(super) fn finished(node: &Node, id: &str) -> Value {
    let mut last = Value::Null;
    let limit = Duration::from_secs(120);
    assert!(
        holds_within(limit, || {
            last = job(node, id);
            last["state"] == "done"
        }),
        "{last}"
    );
    last
}

#[track_caller]
pub(super) fn warm(node: &Node, order: &Value) -> Value {
    finished(node, &start(node, order))
}

#[track_caller]
pub(super) fn rows(node: &Node, id: &str, filter: &str) -> Vec<Value> {
    let answer = node.admin_get(&format!("/v1/warmups/{id}/urls?{filter}"));
    answer.assert_status(200);
    answer.json()["items"].as_array().expect("items").clone()
}

/// Every path answers with these fields and the encoding that it was asked in.
pub(super) fn encoding_origin(fields: &'static [(&'static str, &'static str)]) -> Origin {
    let origin = Origin::start();
    origin.on("/*", move |seen| {
        let encoding = seen.joined("accept-encoding");
        let mut fields = fields.to_vec();
        if ["br", "gzip"].contains(&&*encoding) {
            fields.push(("Content-Encoding", if encoding == "br" { "br" } else { "gzip" }));
        }
        respond(200, &fields, format!("{} in {encoding}", seen.target))
    });
    origin
}

pub(super) fn urls(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{HOST}/p/{n}")).collect()
}

#[track_caller]
pub(super) fn assert_all_hit(node: &Node, count: usize, encodings: &[&str]) {
    for n in 0..count {
        for encoding in encodings {
            let target = format!("/p/{n}");
            let answer = get(&target).with("Accept-Encoding", encoding).to(node);
            answer.assert_hit();
        }
    }
}

#[test]
fn each_url_is_a_hit_in_each_encoding_afterwards() {
    let origin = encoding_origin(ENCODED);
    let node = node(&origin).start();
    let encodings = ["br", "gzip", "identity"];
    let done = warm(&node, &json!({ "urls": urls(20), "encodings": encodings }));
    assert_eq!(done["outcomes"], json!({ "stored": 20, "fresh": 0, "uncacheable": 0, "failed": 0 }));
    assert_eq!((&done["total"], &done["done"], &done["failed"]), (&20.into(), &20.into(), &0.into()));
    assert_eq!(done["requests"], json!({ "total": 60, "done": 60, "failed": 0 }));
    assert_eq!(
        (&done["seconds_left"], &done["who"], &done["source"]),
        (&0.into(), &"local".into(), &"api".into())
    );
    assert_eq!(done["from"], "127.0.0.1");
    assert_eq!(origin.total(), 60);
    assert_all_hit(&node, 20, &encodings);
    assert_eq!(origin.total(), 60, "and the origin was asked for nothing more");
    assert_eq!(node.metric("larder_warm_urls_total{outcome=\"stored\"}"), 20.0);
    // Neither a site's request nor a client's.
    assert_eq!(node.metric("larder_requests_total{result=\"miss\"}"), 0.0);
    let again = warm(&node, &json!({ "urls": urls(20), "encodings": encodings }));
    assert_eq!((&again["outcomes"]["fresh"], &again["bytes"]), (&20.into(), &0.into()));
    assert_eq!(origin.total(), 60);
}

#[test]
fn without_encodings_a_url_is_warm_for_browsers() {
    let origin = encoding_origin(ENCODED);
    let node = node(&origin).start();
    warm(&node, &json!({ "urls": urls(1) }));
    get("/p/0").with("Accept-Encoding", "gzip, deflate, br, zstd").to(&node).assert_hit();
    assert!(!get("/p/0").with("Accept-Encoding", "br").to(&node).is_hit());
}

#[test]
fn each_set_of_fields_is_asked_for() {
    let origin = Origin::start();
    origin.on("/*", |seen| respond(200, &[FRESH[0], ("Vary", "X-Kind")], seen.joined("x-kind")));
    let node = node(&origin).start();
    let kinds = [json!({}), json!({ "X-Kind": "a" }), json!({ "x-kind": "b" })];
    let done = warm(&node, &json!({ "urls": urls(2), "encodings": ["identity"], "headers": kinds }));
    assert_eq!(done["requests"]["done"], 6);
    for kind in ["a", "b"] {
        get("/p/1").with("X-Kind", kind).to(&node).assert_hit().assert_body(kind);
    }
    get("/p/1").to(&node).assert_hit().assert_body("");
    let seen = origin.last("/p/0");
    assert!(seen.joined("user-agent").starts_with("larder-warm/"), "{:?}", seen.fields);
    assert!(seen.has("cdn-loop") && seen.has("via"));
}

#[test]
fn what_can_not_be_warmed_says_why() {
    let origin = Origin::start();
    origin.fixed("/good", 200, FRESH, "x");
    origin.fixed("/gone", 404, FRESH, "x");
    origin.fixed("/secret", 200, &[("Cache-Control", "no-store")], "x");
    origin.fixed("/cookie", 200, &[FRESH[0], ("Set-Cookie", "a=b")], "x");
    origin.fixed("/stale", 200, &[("Cache-Control", "max-age=0"), ("ETag", "\"1\"")], "x");
    origin.fixed("/broken", 500, &[], "x");
    origin.sequence("/shaky", vec![respond(503, &[], "x"), respond(200, FRESH, "x")]);
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/api/*\"]\npass = true").start();
    let paths = ["good", "gone", "secret", "cookie", "stale", "broken", "shaky", "api/x"]
        .map(|path| format!("{HOST}/{path}"));
    let id = start(&node, &json!({ "urls": paths, "encodings": ["br"] }));
    let done = finished(&node, &id);
    assert_eq!(done["outcomes"], json!({ "stored": 2, "fresh": 0, "uncacheable": 4, "failed": 2 }));
    let all = rows(&node, &id, "");
    let found = |path: &str| {
        let row = all.iter().find(|row| row["url"] == format!("{HOST}/{path}")).expect("a row");
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (text("outcome"), text("reason"), row["requests"][0]["attempts"].as_u64().expect("attempts"))
    };
    for (path, outcome, why, attempts) in [
        ("good", "stored", "", 1),
        ("gone", "failed", "404", 1),
        ("secret", "uncacheable", "no-store", 1),
        ("cookie", "uncacheable", "set-cookie", 1),
        ("stale", "uncacheable", "stale at once", 1),
        ("broken", "failed", "500", 4),
        ("shaky", "stored", "", 2),
        ("api/x", "uncacheable", "pass", 1),
    ] {
        let (found_outcome, reason, tried) = found(path);
        assert_eq!((found_outcome.as_str(), tried), (outcome, attempts), "{path}: {reason}");
        assert!(reason.contains(why) && reason.is_empty() == why.is_empty(), "{path}: {reason}");
    }
    assert_eq!(origin.count("/api/x"), 0, "what is never stored is not asked for");
    // By outcome, in pages.
    assert_eq!(rows(&node, &id, "outcome=failed").len(), 2);
    assert_eq!(rows(&node, &id, "outcome=fresh").len(), 0);
    let page = node.admin_get(&format!("/v1/warmups/{id}/urls?outcome=uncacheable&limit=3")).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(3));
    let next = page["next"].as_str().expect("there is more");
    let page =
        node.admin_get(&format!("/v1/warmups/{id}/urls?outcome=uncacheable&limit=3&after={next}")).json();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next"]), (Some(1), &Value::Null));
    node.admin_get(&format!("/v1/warmups/{id}/urls?outcome=odd")).assert_status(400);
    node.admin_get("/v1/warmups/1-none/urls").assert_status(404);
}

#[test]
fn a_bad_order_names_each_wrong_entry_and_warms_nothing() {
    let origin = Origin::with("/*", FRESH, "x");
    let node = one_site(&origin).start();
    let url = "http://test.example/a";
    let rows = [
        (json!({}), 400, "#"),
        (json!({ "urls": [url], "speed": 3 }), 400, "#"),
        (json!(["test", [url]]), 400, "#"),
        (json!({ "urls": [url, 7] }), 400, "#/urls/1"),
        (json!({ "urls": [url, "/a"] }), 400, "#/urls/1"),
        (json!({ "urls": [url, "ftp://test.example/a"] }), 400, "#/urls/1"),
        (json!({ "urls": [url, "http://other.example/a"] }), 400, "#/urls/1"),
        (json!({ "urls": [format!("{url}{}", "a".repeat(9000))] }), 400, "#/urls/0"),
        (json!({ "sitemap": "http://169.254.169.254/latest/meta-data" }), 400, "#/sitemap"),
        (json!({ "urls": [url], "encodings": ["brotli"] }), 400, "#/encodings/0"),
        (json!({ "urls": [url], "encodings": [] }), 400, "#/encodings"),
        (json!({ "urls": [url], "headers": [{}, { "Range": "bytes=0-1" }] }), 400, "#/headers/1"),
        (json!({ "urls": [url], "headers": [{ "a b": "c" }] }), 400, "#/headers/0"),
        (json!({ "urls": [url], "headers": [{ "a": "b\r\nc: d" }] }), 400, "#/headers/0"),
        (json!({ "urls": [url], "rate": 0 }), 400, "#/rate"),
        (json!({ "urls": [url], "rate": -1 }), 400, "#/rate"),
        (json!({ "urls": [url], "concurrency": 1000 }), 400, "#/concurrency"),
        (json!({ "urls": [url], "hold": "forever" }), 400, "#/hold"),
        (json!({ "urls": [url], "hold": "31d" }), 400, "#/hold"),
        (json!({ "urls": [url], "site": "other" }), 403, "#/site"),
        (json!({ "urls": vec![url; 10_001] }), 413, ""),
        (
            json!({ "urls": vec![url; 10_000], "encodings": ["br", "gzip", "zstd"], "headers": vec![json!({}); 10] }),
            413,
            "",
        ),
    ];
    for (order, status, pointer) in rows {
        let answer = ask(&node, "POST", "/v1/warmups", &order.to_string());
        let shown: String = order.to_string().chars().take(200).collect();
        assert_eq!(answer.status, status, "{shown}: {}", answer.text());
        assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{shown}");
        if !pointer.is_empty() {
            assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{shown}: {}", answer.text());
        }
    }
    let large = format!("{{\"urls\":[\"{}\"]}}", "a".repeat(10 << 20));
    ask(&node, "POST", "/v1/warmups", &large).assert_status(413);
    ask(&node, "POST", "/v1/warmups", "{").assert_status(400);
    assert_eq!(node.admin_get("/v1/warmups").json()["items"], json!([]));
    assert_eq!(origin.total(), 0);
}

fn one_site(origin: &Origin) -> Builder {
    bare().sites(&format!(
        "[[site]]\nname = \"test\"\nhosts = [\"test.example\"]\norigin = \"o\"\n\
         [[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n",
        origin.url()
    ))
}

fn two_sites(origin: &Origin) -> Builder {
    bare().sites(&format!(
        "[[site]]\nname = \"shop\"\nhosts = [\"shop.example\"]\norigin = \"o\"\n\
         [[site]]\nname = \"blog\"\nhosts = [\"blog.example\"]\norigin = \"o\"\n\
         [[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n",
        origin.url()
    ))
}

#[test]
fn a_token_warms_and_sees_what_its_scopes_and_sites_say() {
    let origin = Origin::with("/*", FRESH, "x");
    let tokens = [("reader", "read", "[]"), ("shop", "warm", "[\"shop\"]"), ("both", "warm", "[]")];
    let tables = tokens.map(|(token, scope, sites)| {
        let hash = blake3::hash(token.as_bytes()).to_hex();
        format!("[[admin.token]]\nname = \"{token}\"\nhash = \"blake3:{hash}\"\nscopes = [\"{scope}\"]\nsites = {sites}\n")
    });
    let node = two_sites(&origin).admin(&tables.concat()).start();
    let shop = json!({ "urls": ["http://shop.example/a"] }).to_string();
    let blog = json!({ "urls": ["http://blog.example/a"] }).to_string();
    let mixed = json!({ "site": "shop", "urls": ["http://blog.example/a"] }).to_string();
    for (token, body, status) in [
        ("nobody", &shop, 401),
        ("reader", &shop, 403),
        ("shop", &shop, 202),
        ("shop", &blog, 400),
        ("both", &mixed, 400),
        ("both", &blog, 202),
    ] {
        let answer = ask_as(&node, token, "POST", "/v1/warmups", body);
        assert_eq!(answer.status, status, "{token} {body}: {}", answer.text());
    }
    let seen = |token: &str| {
        let items = ask_as(&node, token, "GET", "/v1/warmups", "").json()["items"].clone();
        let who = |job: &Value| job["who"].as_str().expect("who").to_owned();
        items.as_array().expect("items").iter().map(who).collect::<Vec<_>>()
    };
    assert_eq!(seen("both"), ["both", "shop"]);
    assert_eq!(seen("reader"), ["both", "shop"]);
    assert_eq!(seen("shop"), ["shop"]);
    let id = ask_as(&node, "both", "GET", "/v1/warmups?limit=1", "").json()["items"][0]["id"].clone();
    let target = format!("/v1/warmups/{}", id.as_str().expect("an id"));
    for (token, method, status) in [("shop", "GET", 404), ("shop", "DELETE", 404), ("reader", "DELETE", 403)]
    {
        ask_as(&node, token, method, &target, "").assert_status(status);
    }
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("compressed");
    encoder.finish().expect("compressed")
}

fn url_set(urls: &[String]) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("<url><loc>{url}</loc></url>")).collect();
    let urls = urls.concat();
    format!(
        "<?xml version=\"1.0\"?><urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">{urls}</urlset>"
    )
}

#[test]
fn a_sitemap_and_those_it_names_are_warmed() {
    let origin = encoding_origin(FRESH);
    let all = urls(30);
    origin.fixed("/1.xml", 200, FRESH, url_set(&all[..10]));
    origin.fixed("/2.xml.gz", 200, FRESH, gzipped(&url_set(&all[10..])));
    let index = format!(
        "<sitemapindex><sitemap><loc>{HOST}/1.xml</loc></sitemap><sitemap><loc>{HOST}/2.xml.gz</loc></sitemap>\
         <sitemap><loc>{HOST}/index.xml</loc></sitemap></sitemapindex>"
    );
    origin.fixed("/index.xml", 200, FRESH, index);
    let node = node(&origin).start();
    let done = warm(&node, &json!({ "sitemap": format!("{HOST}/index.xml"), "encodings": ["br"] }));
    assert_eq!((&done["total"], &done["outcomes"]["stored"]), (&30.into(), &30.into()));
    assert_eq!(done["sitemap"], format!("{HOST}/index.xml"));
    assert_all_hit(&node, 30, &["br"]);
    assert_eq!(origin.count("/index.xml"), 1, "an index that names itself is read once");
}

#[test]
fn a_sitemap_that_is_none_or_names_others_hosts_is_refused() {
    let origin = Origin::start();
    let foreign = ["http://test.example/a".to_owned(), "http://169.254.169.254/a".to_owned()];
    origin.fixed("/foreign.xml", 200, FRESH, url_set(&foreign));
    origin.fixed(
        "/child.xml",
        200,
        FRESH,
        "<sitemapindex><sitemap><loc>http://evil.example/s.xml</loc></sitemap></sitemapindex>",
    );
    origin.fixed("/none.xml", 404, FRESH, "no");
    origin.fixed("/html.xml", 200, FRESH, "<html></html>");
    origin.fixed("/bomb.xml.gz", 200, FRESH, gzipped(&format!("<urlset>{}</urlset>", " ".repeat(30 << 20))));
    origin.fixed("/empty.xml", 200, FRESH, url_set(&[]));
    let node = one_site(&origin).start();
    for (path, why) in [
        ("foreign.xml", "169.254.169.254"),
        ("child.xml", "evil.example"),
        ("none.xml", "404"),
        ("html.xml", "no sitemap"),
        ("bomb.xml.gz", "unpacks"),
        ("empty.xml", "names no URL"),
    ] {
        let answer =
            ask(&node, "POST", "/v1/warmups", &json!({ "sitemap": format!("{HOST}/{path}") }).to_string());
        answer.assert_status(400);
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], "#/sitemap");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{path}: {error}");
    }
    assert_eq!(node.admin_get("/v1/warmups").json()["items"], json!([]));
    assert_eq!(origin.count("/a"), 0);
}

#[test]
fn refresh_asks_about_what_is_fresh() {
    let origin = Origin::start();
    origin.on("/*", |seen: &Seen| match seen.field("if-none-match") {
        Some("\"1\"") => respond(304, &[("ETag", "\"1\""), FRESH[0]], ""),
        _ => respond(200, &[("ETag", "\"1\""), FRESH[0]], "body"),
    });
    let node = node(&origin).start();
    let order = |refresh: bool| json!({ "urls": urls(5), "encodings": ["br"], "refresh": refresh });
    warm(&node, &order(false));
    assert_eq!(warm(&node, &order(false))["outcomes"]["fresh"], 5);
    assert_eq!(origin.total(), 5);
    let done = warm(&node, &order(true));
    assert_eq!((&done["outcomes"]["stored"], &done["bytes"]), (&5.into(), &0.into()));
    assert_eq!(origin.total(), 10);
    assert!(origin.last("/p/3").has("if-none-match"));
    assert_all_hit(&node, 5, &["br"]);
}

#[test]
fn what_is_warmed_is_on_disk_whatever_the_admission() {
    let origin = encoding_origin(FRESH);
    let node = node(&origin).disk("64MiB").store("admission = \"second-hit\"").start();
    // In memory only: a client asked once.
    node.get("/p/0").assert_status(200);
    node.get("/once").assert_status(200);
    let done = warm(&node, &json!({ "urls": urls(10), "encodings": ["identity"] }));
    assert_eq!((&done["outcomes"]["fresh"], &done["outcomes"]["stored"]), (&1.into(), &9.into()));
    let node = node.restarted(Signal::TERM);
    assert_all_hit(&node, 10, &["identity"]);
    assert!(!node.get("/once").is_hit());
}

#[test]
fn a_miss_is_shared_with_clients() {
    let origin = Origin::start();
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    origin.on("/*", {
        let gate = gate.clone();
        move |_| {
            let mut reply = vec![Step::Wait(gate.clone())];
            reply.extend(respond(200, FRESH, "x"));
            reply
        }
    });
    let node = node(&origin).start();
    let id = start(&node, &json!({ "urls": urls(1), "encodings": ["br", "gzip", "identity"] }));
    eventually("the origin is asked", || origin.begun("/p/0") == 1);
    let mut client = Client::connect(node.http());
    client.send(&get("/p/0").bytes());
    // Time to follow. Where it is not enough, the client finds what was stored.
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    let answer = client.response("GET");
    assert!(answer.is_hit() || answer.cache_parameter("collapsed").is_some(), "{:?}", answer.fields);
    finished(&node, &id);
    assert_eq!(origin.total(), 1);
}

#[test]
fn live_traffic_keeps_connections_of_its_own() {
    let origin = Origin::start();
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    origin.on("/p/*", {
        let gate = gate.clone();
        move |_| {
            let mut reply = vec![Step::Wait(gate.clone())];
            reply.extend(respond(200, FRESH, "x"));
            reply
        }
    });
    origin.fixed("/live/*", 200, &[("Cache-Control", "no-store")], "live");
    let node = node(&origin).origin("max_connections = 8\nqueue = 4").start();
    let order = json!({ "urls": urls(40), "encodings": ["br"], "rate": 1000, "concurrency": 64 });
    let id = start(&node, &order);
    eventually("it has begun", || (0..40).map(|n| origin.begun(&format!("/p/{n}"))).sum::<usize>() > 0);
    // As many at once as it leaves, a quarter; the warming has none of them, however long it waits.
    for round in 0..20 {
        std::thread::scope(|scope| {
            for client in 0..2 {
                let node = &node;
                scope.spawn(move || {
                    node.get(&format!("/live/{round}-{client}")).assert_status(200).assert_body("live");
                });
            }
        });
    }
    let waiting: usize = (0..40).map(|n| origin.begun(&format!("/p/{n}"))).sum();
    assert!(waiting <= 6, "{waiting} of 8 connections");
    gate.open();
    assert_eq!(finished(&node, &id)["outcomes"]["stored"], 40);
}

#[test]
fn a_job_is_cancelled_and_says_by_whom() {
    let origin = encoding_origin(FRESH);
    let node = node(&origin).start();
    let id = start(&node, &json!({ "urls": urls(1000), "encodings": ["br"], "rate": 20 }));
    eventually("it runs", || job(&node, &id)["done"].as_u64() > Some(3));
    let status = node.admin_get("/v1/status").json();
    assert_eq!(
        (&status["warmups"]["running"], &status["warmups"]["jobs"][0]["id"]),
        (&1.into(), &(*id).into())
    );
    let target = format!("/v1/warmups/{id}");
    let answer = ask(&node, "DELETE", &target, "").json();
    assert_eq!((&answer["state"], &answer["cancelled_by"]["who"]), (&"cancelled".into(), &"local".into()));
    let asked = origin.total();
    assert_eq!(ask(&node, "DELETE", &target, "").json()["state"], "cancelled", "twice is no error");
    std::thread::sleep(Duration::from_millis(300));
    // What was under way may have come to its end.
    assert!(origin.total() <= asked + 16);
    assert_eq!(job(&node, &id)["done"], answer["done"], "nothing is counted afterwards");
    let id = start(&node, &json!({ "urls": urls(1), "encodings": ["br"] }));
    finished(&node, &id);
    ask(&node, "DELETE", &format!("/v1/warmups/{id}"), "").assert_status(409);
    ask(&node, "DELETE", "/v1/warmups/9-none", "").assert_status(404);
}

#[test]
fn only_so_many_jobs_wait() {
    let origin = encoding_origin(FRESH);
    let node = node(&origin).start();
    let slow = json!({ "urls": urls(100), "rate": 0.1 }).to_string();
    for _ in 0..32 {
        ask(&node, "POST", "/v1/warmups", &slow).assert_status(202);
    }
    let answer = ask(&node, "POST", "/v1/warmups", &slow);
    answer.assert_status(429);
    assert!(answer.has("retry-after"));
    let status = node.admin_get("/v1/status").json();
    assert_eq!((&status["warmups"]["running"], &status["warmups"]["queued"]), (&4.into(), &28.into()));
}

/// At a limited rate, killed in the middle, and on to the end: all is there, and nothing is counted twice.
fn warm_over_a_restart(count: usize, rate: f64) {
    let encodings = ["br", "gzip", "identity"];
    let origin = encoding_origin(ENCODED);
    let node = node(&origin).disk("256MiB").start();
    let order = json!({ "urls": urls(count), "encodings": encodings, "rate": rate });
    let id = start(&node, &order);
    let total = count * encodings.len();
    let requests = |job: &Value| job["requests"]["done"].as_u64().expect("a number") as usize;
    let limit = Duration::from_secs_f64(total as f64 / rate * 2.0 + 20.0);
    // From a quarter to a half, as the origin sees it.
    assert!(holds_within(limit, || origin.total() >= total / 4));
    let (begun, at) = (origin.total(), std::time::Instant::now());
    assert!(holds_within(limit, || origin.total() >= total / 2));
    let found = (origin.total() - begun) as f64 / at.elapsed().as_secs_f64();
    assert!((found / rate - 1.0).abs() < 0.1, "{found} requests a second instead of {rate}");
    let before = job(&node, &id);
    let measured = before["rate"].as_f64().expect("a rate");
    assert!((measured / rate - 1.0).abs() < 0.1, "{before}");
    let node = node.restarted(Signal::KILL);
    let after = job(&node, &id);
    assert_ne!(after["state"], "done");
    // Those of the last two seconds are asked for again, and of a quarter more nothing is written down.
    assert!(requests(&after) as f64 >= requests(&before) as f64 - 3.0 * rate, "{before} {after}");
    assert!(holds_within(limit, || job(&node, &id)["state"] == "done"));
    let done = job(&node, &id);
    assert_eq!(done["requests"], json!({ "total": total, "done": total, "failed": 0 }));
    assert_eq!((&done["done"], &done["failed"]), (&count.into(), &0.into()));
    assert_eq!(done["who"], "local");
    let asked = origin.total();
    assert!(asked as f64 <= total as f64 + 3.0 * rate, "{asked} requests for {total}");
    assert_all_hit(&node, count, &encodings);
    assert_eq!(origin.total(), asked);
    eprintln!("{count} URLs in 3 encodings: {found:.1} requests a second of {rate}, {asked} asked in all");
}

#[test]
fn a_restarted_node_goes_on_at_the_rate_and_all_is_there() {
    warm_over_a_restart(50, 30.0);
}

#[test]
#[ignore = "half a minute and more; LARDER_WARM_URLS"]
fn many_urls_over_a_restart() {
    let count = std::env::var("LARDER_WARM_URLS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
    warm_over_a_restart(count, 200.0);
}

#[test]
fn jobs_of_a_memory_only_node_end_with_it() {
    let origin = encoding_origin(FRESH);
    let node = node(&origin).disk("0").start();
    let id = start(&node, &json!({ "urls": urls(1) }));
    assert_eq!(finished(&node, &id)["durable"], false);
    let node = node.restarted(Signal::TERM);
    assert_eq!(node.admin_get("/v1/warmups").json()["items"], json!([]));
}

#[test]
fn what_is_held_outlives_a_flood() {
    let origin = Origin::start();
    let body = "x".repeat(16 * 1024);
    origin.on("/*", move |_| respond(200, FRESH, &body));
    for disk in ["0", "4MiB"] {
        let node = node(&origin).disk(disk).memory("4MiB").start();
        let done = warm(&node, &json!({ "urls": urls(12), "encodings": ["identity"], "hold": "1h" }));
        assert_eq!(done["outcomes"]["stored"], 12, "{done}");
        assert!(done["held_until"].is_string());
        let others: Vec<String> = (0..12).map(|n| format!("{HOST}/other/{n}")).collect();
        warm(&node, &json!({ "urls": others, "encodings": ["identity"] }));
        for n in 0..800 {
            // Asked for more often, so that recency and frequency speak for it.
            for _ in 0..3 {
                node.get(&format!("/flood/{n}")).assert_status(200);
            }
        }
        let kept = (0..12).filter(|n| node.get(&format!("/other/{n}")).is_hit()).count();
        assert!(kept < 6, "disk {disk}: {kept} of 12 that are not held are there");
        assert_all_hit(&node, 12, &["identity"]);
        node.assert_no_panic();
    }
}

#[test]
fn at_most_half_of_a_tier_is_held() {
    let origin = Origin::start();
    let body = "x".repeat(16 * 1024);
    origin.on("/*", move |_| respond(200, FRESH, &body));
    let node = node(&origin).disk("4MiB").memory("8MiB").start();
    let id = start(&node, &json!({ "urls": urls(200), "encodings": ["identity"], "hold": "1h" }));
    finished(&node, &id);
    let held = rows(&node, &id, "limit=1000").iter().filter(|row| row["reason"].is_null()).count();
    // 2 MiB of 4, with their heads.
    assert!((100..=128).contains(&held), "{held} of 200 are held");
    let refused = rows(&node, &id, "limit=1000")
        .iter()
        .filter(|row| row["reason"].as_str().is_some_and(|why| why.contains("not held")))
        .count();
    assert_eq!(held + refused, 200);
}

#[test]
fn a_job_goes_on_when_nobody_waits_and_the_origin_comes_back() {
    let origin = Origin::start();
    let is_up = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    origin.on("/*", {
        let (is_up, asked) = (is_up.clone(), asked.clone());
        move |_| {
            asked.fetch_add(1, SeqCst);
            if is_up.load(SeqCst) { respond(200, FRESH, "x") } else { respond(502, &[], "down") }
        }
    });
    let node = node(&origin).start();
    let id = start(&node, &json!({ "urls": urls(4), "encodings": ["br"], "concurrency": 4 }));
    eventually("each was tried", || asked.load(SeqCst) >= 4);
    is_up.store(true, SeqCst);
    let done = finished(&node, &id);
    assert_eq!((&done["outcomes"]["stored"], &done["failed"]), (&4.into(), &0.into()));
}
