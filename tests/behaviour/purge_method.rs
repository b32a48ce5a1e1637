//! PURGE on a data listener: who may send it, what it hits, and how it is answered.

use serde_json::json;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{Request, get, request};

const ALLOW: &str = "purge = { allow = [\"127.0.0.0/8\"] }";

fn purge(target: &str) -> Request {
    request("PURGE", target)
}

fn with_tokens(origin: &Origin) -> Node {
    let token = |name: &str, scope: &str, sites: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!(
            "[[admin.token]]\nname = \"{name}\"\nhash = \"blake3:{hash}\"\nscopes = [\"{scope}\"]\nsites = {sites}\n"
        )
    };
    let tables = [
        token("purger", "purge", "[]"),
        token("reader", "read", "[]"),
        token("of-test", "purge", "[\"test\"]"),
    ];
    node(origin).admin(&tables.concat()).start()
}

#[test]
fn a_token_or_an_allowed_address_is_needed() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = with_tokens(&origin);
    for (name, value, status) in [
        ("X-Nothing", "", 403),
        ("Authorization", "Bearer wrong", 403),
        ("Authorization", "Bearer reader", 403),
        ("Fastly-Key", "wrong", 403),
        ("Fastly-Key", "purger", 200),
        ("Authorization", "Bearer purger", 200),
        ("Authorization", "Bearer of-test", 200),
    ] {
        node.await_hit("/a");
        purge("/a").with(name, value).to(&node).assert_status(status);
        assert_eq!(node.get("/a").is_hit(), status == 403, "{name}: {value}");
    }
    assert!(origin.seen("/a").iter().all(|seen| seen.method == "GET"), "a purge was forwarded");
}

#[test]
fn the_address_is_the_verified_one() {
    let origin = Origin::with("/a", FRESH, "a");
    let allowed = node(&origin).site(ALLOW).start();
    allowed.await_hit("/a");
    purge("/a").to(&allowed).assert_status(200).assert_body("Purged");
    allowed.get("/a").assert_fwd("uri-miss");
    // Nobody is believed whom the node does not trust, and a trusted proxy is not its client.
    let trusting = node(&origin).site(ALLOW).node("trusted_proxies = [\"127.0.0.1/32\"]").start();
    purge("/a").with("X-Forwarded-For", "192.0.2.1").to(&trusting).assert_status(403);
    purge("/a").to(&trusting).assert_status(200);
    let elsewhere = node(&origin).site("purge = { allow = [\"192.0.2.0/24\"] }").start();
    purge("/a").with("X-Forwarded-For", "192.0.2.1").to(&elsewhere).assert_status(403);
}

#[test]
fn it_purges_the_url_of_its_host_and_a_star_is_a_prefix() {
    let origin = Origin::start();
    origin.fixed("/*", 200, FRESH, "x");
    let node =
        node(&origin).site(ALLOW).cache("query = { mode = \"deny\", names = [\"@tracking\"] }").start();
    let paths = ["/a", "/a?v=1", "/a/b", "/ab", "/"];
    for (target, gone) in [
        ("/a", &["/a"][..]),
        ("/a?v=1&utm_source=x", &["/a?v=1"]),
        ("/a/*", &["/a", "/a?v=1", "/a/b"]),
        ("/a/.*", &["/a", "/a?v=1", "/a/b"]),
        ("/*", &paths),
        ("/.*", &paths),
    ] {
        for path in paths {
            node.await_hit(path);
        }
        purge(target).to(&node).assert_status(200);
        for path in paths {
            assert_eq!(node.get(path).is_hit(), !gone.contains(&path), "PURGE {target}: {path}");
        }
    }
    node.await_hit("/a");
    purge("/a").host("other.example").to(&node).assert_status(200);
    node.get("/a").assert_hit();
}

#[test]
fn what_it_can_not_do_is_never_a_silent_success() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).site(ALLOW).start();
    node.await_hit("/a");
    for ask in [
        purge("/a*"),
        purge("/a.*"),
        purge("/a/*?x=1"),
        purge("/a").with("X-Purge-Method", "regex"),
        purge("/a").with("X-Magento-Tags-Pattern", "cat_.*"),
        purge("/a").with("X-Pool", "t"),
    ] {
        let answer = ask.to(&node);
        answer.assert_status(400);
        assert!(
            answer.text().contains("nothing was purged") || answer.text().contains("regular"),
            "{}",
            answer.text()
        );
        let json = ask.with("Accept", "application/json").to(&node);
        json.assert_status(400);
        assert_eq!(json.json()["status"], 400);
    }
    node.get("/a").assert_hit();
    request("BAN", "/").to(&node).assert_status(400);
}

#[test]
fn the_answer_is_text_or_fastlys_json() {
    let origin = Origin::with("/a", FRESH, "old");
    let node = node(&origin).site(ALLOW).start();
    let text = purge("/a").to(&node);
    assert!(text.joined("content-type").starts_with("text/plain"), "{:?}", text.fields);
    for (name, value) in [("Accept", "application/json"), ("Fastly-Soft-Purge", "1"), ("Fastly-Debug", "1")] {
        node.await_hit("/a");
        let answer = purge("/a").with(name, value).to(&node).json();
        assert_eq!(answer["status"], json!("ok"));
        let id = answer["id"].as_str().expect("an id");
        let known = node.admin_get(&format!("/v1/purges/{id}")).json();
        assert_eq!((&known["who"], &known["soft"]), (&json!("cidr"), &json!(name == "Fastly-Soft-Purge")));
        assert_eq!(known["source"], if name == "Accept" { "varnish" } else { "fastly" });
    }
    // Softly: it covers an origin that is down.
    node.await_hit("/a");
    purge("/a").with("Fastly-Soft-Purge", "1").to(&node).assert_status(200);
    origin.stop();
    get("/a").to(&node).assert_body("old").assert_fwd("stale");
    purge("/a").with("Fastly-Soft-Purge", "0").to(&node).assert_status(200);
    get("/a").to(&node).assert_status(502);
}

#[test]
fn guessing_tokens_is_slowed_down_on_data_listeners_too() {
    let origin = Origin::start();
    let node = with_tokens(&origin);
    let guess = |n: usize| purge("/a").with("Fastly-Key", format!("guess-{n}")).to(&node);
    let statuses: Vec<u16> = (0..12).map(|n| guess(n).status).collect();
    assert_eq!(statuses[..10], [403; 10], "{statuses:?}");
    let refused = guess(99);
    refused.assert_status(429);
    assert!(refused.has("retry-after"));
    // Nobody is kept out who asks without one, or with a good one.
    purge("/a").to(&node).assert_status(403);
    purge("/a").with("Fastly-Key", "purger").to(&node).assert_status(200);
}
