//! Signed URLs: good until a time, for one URL, and no part of what is cached.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{HOST, get, request};
use crate::support::temp::TempDir;

const SECRET: &str = "a secret that nobody knows";

/// The value of the parameter, as `config/larder.toml` describes it.
fn sign(secret: &str, host: &str, target: &str, expires_in_secs: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let expires = i64::try_from(now).expect("a sane clock") + expires_in_secs;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{expires}\n{host}\n{target}").as_bytes());
    tag.as_ref().iter().fold(format!("{expires}-"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn good(target: &str) -> String {
    sign(SECRET, HOST, target, 600)
}

fn signing(origin: &Origin, dir: &TempDir, site: &str) -> Node {
    let secret = dir.write("secret", format!("{SECRET}\n"));
    let signed = format!("signed = {{ secret_file = \"{}\", param = \"sig\" }}", secret.display());
    node(origin).rules(&site.replace("SIGNED", &signed)).start()
}

#[test]
fn a_signed_url_is_good_for_everybody_until_its_time() {
    let (origin, dir) = (Origin::with("/*", FRESH, "film"), TempDir::new());
    let node = signing(&origin, &dir, "[site.access]\nSIGNED");
    node.get(&format!("/a?sig={}", good("/a"))).assert_status(200).assert_body("film");
    // Another signature of the same URL finds the same object.
    let other = sign(SECRET, HOST, "/a", 900);
    node.get(&format!("/a?sig={other}")).assert_hit();
    get(&format!("/a?sig={other}")).host("TEST.example:80").to(&node).assert_hit();
    assert_eq!(origin.seen("/a").len(), 1);
    assert_eq!(origin.last("/a").target, "/a", "the origin does not see it");

    let query = good("/b?x=1&y");
    for target in ["/b?x=1&y&sig=", "/b?sig=S&x=1&y", "/b?x=1&sig=S&y"] {
        let target =
            if target.ends_with('=') { format!("{target}{query}") } else { target.replace('S', &query) };
        node.get(&target).assert_status(200);
    }
    assert_eq!(origin.seen("/b").len(), 1);
    assert_eq!(origin.last("/b").target, "/b?x=1&y");
    // The path is signed as it is in the cache key.
    node.get(&format!("/x/../%61?sig={}", good("/a"))).assert_hit();
}

#[test]
fn no_other_url_gets_in_whatever_the_method_and_though_it_is_stored() {
    let (origin, dir) = (Origin::with("/*", FRESH, "film"), TempDir::new());
    let node = signing(&origin, &dir, "[site.access]\nSIGNED");
    node.get(&format!("/a?sig={}", good("/a"))).assert_status(200);
    let expired = sign(SECRET, HOST, "/a", -1);
    let elsewhere = sign(SECRET, "other.example", "/a", 600);
    let forged = sign("another secret of that length", HOST, "/a", 600);
    let later = good("/a").replacen('-', "0-", 1);
    for value in
        [&expired, &elsewhere, &forged, &later, &good("/b"), &good("/a")[..40].to_owned(), &String::new()]
    {
        for method in ["GET", "HEAD", "POST"] {
            let answer = request(method, &format!("/a?sig={value}")).to(&node);
            answer.assert_status(403).assert_own_error();
        }
    }
    for target in [
        "/a".to_owned(),
        "/a?sig".to_owned(),
        format!("/a?SIG={}", good("/a")),
        format!("/a?sig={0}&sig={0}", good("/a")),
        format!("/a?x=1&sig={}", good("/a")),
        format!("/A?sig={}", good("/a")),
    ] {
        node.get(&target).assert_status(403);
    }
    assert_eq!(origin.total(), 1);
    node.await_metric("larder_requests_refused_total{reason=\"signature\"}", 27.0);
    assert!(node.get(&format!("/a?sig={expired}")).text().contains("expired"));
}

#[test]
fn what_is_held_and_what_a_change_invalidates_is_found_with_and_without_a_signature() {
    let (origin, dir) = (Origin::with("/*", FRESH, "film"), TempDir::new());
    let node = signing(&origin, &dir, "[site.access]\nSIGNED");
    let url = format!("/a?x=1&sig={}", good("/a?x=1"));
    node.get(&url).assert_status(200);
    for target in ["/a?x=1", &url] {
        let encoded = target.replace('&', "%26").replace('=', "%3D");
        let held = node.admin_get(&format!("/v1/objects?url=http://{HOST}{encoded}"));
        assert!(held.text().contains("memory"), "{target}: {}", held.text());
    }
    let location = url.clone();
    origin.on("/b", move |_| respond(201, &[("Location", &location)], ""));
    request("POST", &format!("/b?sig={}", good("/b"))).to(&node).assert_status(201);
    node.get(&url).assert_fwd("stale");
}

#[test]
fn a_rule_may_ask_for_it_alone() {
    let (origin, dir) = (Origin::with("/*", FRESH, "a"), TempDir::new());
    let node = signing(&origin, &dir, "[[site.rule]]\npath = [\"/films/*\"]\naccess = { SIGNED }");
    node.get("/a?sig=kept").assert_status(200);
    assert_eq!(
        origin.last("/a").target,
        "/a?sig=kept",
        "where nothing is signed it is a parameter like others"
    );
    node.get("/films/a").assert_status(403);
    node.get(&format!("/films/a?sig={}", good("/films/a"))).assert_status(200);
    node.get("/x/../films/a").assert_status(403);
    node.get("/%66ilms/a").assert_status(403);
}
