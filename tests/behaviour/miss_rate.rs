//! `misses_per_client`: a limit on what a client can make the origin do, and on nothing else.

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, head, request};
use crate::support::{Gate, OpenOnDrop, eventually};

#[test]
fn beyond_the_rate_misses_are_429_and_hits_are_hits() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).cache("misses_per_client = \"3/m\"").start();
    node.get("/warm").assert_status(200);
    for n in 0..2 {
        node.get(&format!("/{n}")).assert_status(200);
    }
    let client = Http2::plain(node.http());
    for n in 0..50 {
        // Each is another URL to the cache, as a buster writes them.
        let refused = if n % 2 == 0 {
            node.get(&format!("/warm?{n}"))
        } else {
            client.exchange(&get(&format!("/x{n}")))
        };
        refused.assert_status(429).assert_own_error();
        let wait: u32 = refused.field("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=20).contains(&wait), "{wait}");
        node.get("/warm").assert_status(200).assert_hit();
        head("/warm").to(&node).assert_status(200).assert_hit();
    }
    head("/never").to(&node).assert_status(429);
    get("/never").with("Range", "bytes=0-1").to(&node).assert_status(429);
    // What is no miss of the cache is no matter of its.
    request("POST", "/warm").body("x").to(&node).assert_status(200);
    assert_eq!(origin.total(), 4);
    node.await_metric("larder_requests_refused_total{reason=\"too-many-misses\"}", 52.0);
}

#[test]
fn who_waits_for_anothers_fetch_causes_no_miss() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "a")].concat());
    let node = node(&origin).cache("misses_per_client = \"1/m\"").start();
    let _open = OpenOnDrop(gate.clone());
    let address = node.http();
    let ask = move || Client::connect(address).exchange(&get("/a")).status;
    let first = std::thread::spawn(ask);
    eventually("the origin is asked", || origin.begun("/a") == 1);
    let others: Vec<_> = (0..8).map(|_| std::thread::spawn(ask)).collect();
    node.get("/b").assert_status(429);
    gate.open();
    for asked in others.into_iter().chain([first]) {
        assert_eq!(asked.join().expect("a thread"), 200);
    }
}

#[test]
fn clients_count_apart_behind_a_trusted_proxy_and_by_64_bits_of_ipv6() {
    let origin = Origin::with("/*", FRESH, "a");
    let node =
        node(&origin).node("trusted_proxies = [\"127.0.0.1\"]").cache("misses_per_client = \"1/m\"").start();
    let mut next = 0;
    let mut miss = |client: &str| {
        next += 1;
        get(&format!("/{next}")).with("X-Forwarded-For", client).to(&node).status
    };
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::2", 429),
        ("2001:db8:0:2::1", 200),
        ("::ffff:192.0.2.1", 429),
    ] {
        assert_eq!(miss(client), status, "{client}");
    }
    // The proxy itself, when it names nobody, stands for many.
    for n in 0..3 {
        node.get(&format!("/proxy{n}")).assert_status(200);
    }
}

#[test]
fn a_rule_may_have_a_rate_of_its_own() {
    let origin = Origin::with("/*", FRESH, "a");
    let rule = "[[site.rule]]\npath = [\"/free/*\"]\ncache = { misses_per_client = \"\" }";
    let node = node(&origin).cache("misses_per_client = \"1/m\"").rules(rule).start();
    node.get("/a").assert_status(200);
    for n in 0..5 {
        node.get(&format!("/free/{n}")).assert_status(200);
        node.get(&format!("/{n}")).assert_status(429);
    }
}

#[test]
fn what_is_passed_to_the_origin_counts_too() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let rule = "[[site.rule]]\npath = [\"/pass/*\"]\npass = true";
    let node = node(&origin).cache("misses_per_client = \"3/m\"").rules(rule).start();
    for n in 0..6 {
        let answer = node.get(&format!("/pass/{n}"));
        answer.assert_status(if n < 3 { 200 } else { 429 });
        assert_eq!(answer.has("retry-after"), n >= 3);
        // A request with a body of its own is no miss.
        request("POST", &format!("/pass/{n}")).body("x").to(&node).assert_status(200);
    }
    head("/pass/a").to(&node).assert_status(429);
    node.get("/a").assert_status(429);
    assert_eq!(origin.total(), 9);
}
