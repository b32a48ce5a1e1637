//! Servers that are out: by probes, and for their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::eventually;
use crate::support::node::{Builder, Node, bare};
use crate::support::origin::{Origin, raw, respond};

const UNCACHED: &[(&str, &str)] = &[("Cache-Control", "no-store")];

/// A server whose answers, and whose health, have a status that the test can change.
struct Server {
    origin: Origin,
    status: Arc<AtomicU16>,
    health: Arc<AtomicU16>,
}

fn server(name: &'static str) -> Server {
    let origin = Origin::start();
    let (status, health) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
    let (answers, probes) = (status.clone(), health.clone());
    origin.on("/*", move |_| match answers.load(Ordering::Relaxed) {
        // Closes without an answer.
        0 => raw(""),
        status => respond(status, UNCACHED, name),
    });
    origin.on("/health", move |_| respond(probes.load(Ordering::Relaxed), UNCACHED, ""));
    Server { origin, status, health }
}

fn in_front_of(servers: &[&Server], settings: &str) -> Builder {
    let urls: Vec<String> = servers.iter().map(|s| format!("{{ url = \"{}\" }}", s.origin.url())).collect();
    bare().workers(1).sites(&format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{}]\n{settings}\n",
        urls.join(", ")
    ))
}

fn state(node: &Node, server: usize) -> (String, String) {
    let origins = node.admin_get("/v1/origins").json();
    let server = &origins["items"][0]["servers"][server];
    (
        server["state"].as_str().expect("a state").to_owned(),
        server["why"].as_str().unwrap_or_default().to_owned(),
    )
}

fn up(node: &Node, server: &Server) -> f64 {
    node.metric(&format!("larder_origin_up{{server=\"{}\"}}", server.origin.url()))
}

/// Which server answers each of so many requests.
fn answers(node: &Node, count: usize) -> String {
    (0..count).map(|n| node.get(&format!("/{n}")).assert_status(200).text()).collect()
}

const PROBES: &str =
    "health = { path = \"/health\", interval = \"100ms\", status = \"200-299\", unhealthy = 2, healthy = 2 }";

#[test]
fn a_server_whose_probes_fail_is_out_until_they_succeed() {
    for balance in ["round-robin", "least-requests", "hash"] {
        let (a, b) = (server("a"), server("b"));
        let node = in_front_of(&[&a, &b], &format!("balance = \"{balance}\"\n{PROBES}")).start();
        let both = answers(&node, 40);
        assert!(both.contains('a') && both.contains('b'), "{both}");
        b.health.store(404, Ordering::Relaxed);
        eventually("it is out", || state(&node, 1).0 == "down");
        assert_eq!(state(&node, 1).1, "its probes fail: status 404");
        assert_eq!(answers(&node, 20), "a".repeat(20), "{balance}");
        assert_eq!((up(&node, &a), up(&node, &b)), (1.0, 0.0));
        b.health.store(204, Ordering::Relaxed);
        eventually("it is in again", || state(&node, 1) == ("up".into(), String::new()));
        assert!(answers(&node, 40).contains('b'));
    }
}

#[test]
fn probes_notice_a_server_that_is_gone_without_any_request_and_that_it_is_back() {
    let a = server("a");
    let node = in_front_of(&[&a], &format!("host = \"shop.example\"\n{PROBES}")).start();
    eventually("it is probed", || a.origin.count("/health") > 2);
    let probe = a.origin.last("/health");
    assert_eq!((probe.method.as_str(), probe.field("host")), ("GET", Some("shop.example")));
    assert!(probe.joined("user-agent").starts_with("larder/"), "{probe:?}");
    let address = a.origin.address();
    a.origin.stop();
    eventually("it is down", || state(&node, 0).0 == "down" && up(&node, &a) == 0.0);
    assert_eq!(node.admin_get("/readyz").assert_status(200).json()["parts"]["origins"], "degraded");
    let back = Origin::start_at(address);
    back.fixed("/health", 200, UNCACHED, "");
    eventually("it is up", || state(&node, 0).0 == "up" && up(&node, &a) == 1.0);
}

#[test]
fn when_all_are_out_all_are_asked() {
    let (a, b) = (server("a"), server("b"));
    let node = in_front_of(&[&a, &b], &format!("balance = \"round-robin\"\n{PROBES}")).start();
    a.health.store(500, Ordering::Relaxed);
    b.health.store(500, Ordering::Relaxed);
    eventually("both are out", || state(&node, 0).0 == "down" && state(&node, 1).0 == "down");
    let both = answers(&node, 10);
    assert_eq!((both.matches('a').count(), both.matches('b').count()), (5, 5));
}

#[test]
fn a_server_that_fails_in_a_row_is_ejected_for_a_while() {
    for failure in [0, 503] {
        let (a, b) = (server("a"), server("b"));
        let eject = "balance = \"round-robin\"\neject = { consecutive_errors = 3, base = \"1s\" }";
        let node = in_front_of(&[&a, &b], eject).start();
        b.status.store(failure, Ordering::Relaxed);
        let failed = (0..40).filter(|n| node.get(&format!("/{n}")).status != 200).count();
        assert_eq!(failed, 3, "and nobody sees it after that");
        let (state_of_b, why) = state(&node, 1);
        assert!(
            state_of_b == "ejected" && why.starts_with("3 requests in a row failed"),
            "{state_of_b} {why}"
        );
        assert_eq!(up(&node, &b), 0.0);
        let ejections = format!("larder_origin_ejections_total{{server=\"{}\"}}", b.origin.url());
        assert_eq!(node.metric(&ejections), 1.0);
        b.status.store(200, Ordering::Relaxed);
        eventually("it is asked again", || answers(&node, 2).contains('b'));
    }
}

#[test]
fn no_more_than_a_share_is_ejected_and_an_error_of_the_application_ejects_nobody() {
    let (a, b) = (server("a"), server("b"));
    let eject = "balance = \"round-robin\"\neject = { consecutive_errors = 2, max_percent = 50 }";
    let node = in_front_of(&[&a, &b], eject).start();
    for server in [&a, &b] {
        server.status.store(500, Ordering::Relaxed);
    }
    (0..20).for_each(|n| drop(node.get(&format!("/{n}"))));
    assert_eq!((state(&node, 0).0, state(&node, 1).0), ("up".into(), "up".into()));
    for server in [&a, &b] {
        server.status.store(502, Ordering::Relaxed);
    }
    (0..20).for_each(|n| drop(node.get(&format!("/{n}"))));
    let states = [state(&node, 0).0, state(&node, 1).0];
    assert_eq!(states.iter().filter(|state| *state == "ejected").count(), 1, "{states:?}");
}

#[test]
fn a_pool_of_one_is_never_ejected() {
    let a = server("a");
    let node = in_front_of(&[&a], "eject = { consecutive_errors = 1 }").start();
    a.status.store(503, Ordering::Relaxed);
    (0..10).for_each(|n| drop(node.get(&format!("/{n}"))));
    a.status.store(200, Ordering::Relaxed);
    assert_eq!(answers(&node, 1), "a");
}

#[test]
fn without_a_budget_there_is_no_retry() {
    let (a, b) = (server("a"), server("b"));
    let settings = "balance = \"round-robin\"\neject = { consecutive_errors = 10000 }";
    for (budget, failed) in [("0%", 1), ("10%", 0)] {
        let node = in_front_of(&[&a, &b], &format!("{settings}\nretry_budget = \"{budget}\"")).start();
        b.origin.stop();
        // Later ones are spared by the pause that follows a connection that was refused.
        let answers = (0..2).filter(|n| node.get(&format!("/{n}")).status == 502).count();
        assert_eq!(answers, failed, "{budget}");
    }
}

#[test]
fn what_can_not_be_is_told_with_its_place() {
    let a = server("a");
    for (settings, said) in [
        ("health = { path = \"health\" }", "origin[0].health.path"),
        ("health = { path = \"/\", status = \"2xx\" }", "origin[0].health.status"),
        ("health = { path = \"/\", interval = \"1ms\" }", "origin[0].health.interval"),
        ("eject = { max_percent = 101 }", "origin[0].eject.max_percent"),
        ("retry_budget = \"ten\"", "origin[0].retry_budget"),
    ] {
        let output = in_front_of(&[&a], settings).run();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{settings}: {text}");
    }
}
