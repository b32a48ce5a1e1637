//! Several servers of one origin, loops, and requests that wait for a connection.

use std::time::Duration;

use crate::support::node::{Builder, bare, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::get;
use crate::support::{Gate, eventually};

const UNCACHED: &[(&str, &str)] = &[("Cache-Control", "no-store")];

fn in_front_of(servers: &[(&Origin, u32)], settings: &str) -> Builder {
    let list: Vec<String> = servers
        .iter()
        .map(|(origin, weight)| format!("{{ url = \"{}\", weight = {weight} }}", origin.url()))
        .collect();
    bare().sites(&format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{}]\n{settings}\n",
        list.join(", ")
    ))
}

#[test]
fn round_robin_asks_in_turn_by_weight() {
    let (light, heavy) = (Origin::with("/*", UNCACHED, "a"), Origin::with("/*", UNCACHED, "b"));
    let node = in_front_of(&[(&light, 1), (&heavy, 3)], "balance = \"round-robin\"").start();
    for n in 0..40 {
        node.get(&format!("/{n}")).assert_status(200);
    }
    assert_eq!((light.total(), heavy.total()), (10, 30));
}

#[test]
fn a_hash_sends_a_url_always_to_the_same_server() {
    let (a, b) = (Origin::with("/*", UNCACHED, "a"), Origin::with("/*", UNCACHED, "b"));
    let node = in_front_of(&[(&a, 1), (&b, 1)], "balance = \"hash\"").start();
    for n in 0..20 {
        let first = node.get(&format!("/{n}")).body;
        assert_eq!(node.get(&format!("/{n}")).body, first);
    }
    assert!(a.total() >= 4 && b.total() >= 4, "{} and {}", a.total(), b.total());
}

#[test]
fn a_server_that_is_down_is_not_seen_by_clients() {
    let (alive, dead) = (Origin::with("/*", UNCACHED, "a"), Origin::with("/*", UNCACHED, "b"));
    for balance in ["round-robin", "least-requests", "hash"] {
        let node = in_front_of(&[(&alive, 1), (&dead, 1)], &format!("balance = \"{balance}\"")).start();
        dead.stop();
        for n in 0..10 {
            node.get(&format!("/{n}")).assert_status(200).assert_body("a");
        }
    }
}

#[test]
fn a_full_queue_is_a_503_with_retry_after() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/*", move |_| [vec![Step::Wait(held.clone())], respond(200, UNCACHED, "late")].concat());
    let node = node(&origin).origin("max_connections = 1\nqueue = 1\nqueue_timeout = \"30s\"").start();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.get("/1").status);
        eventually("one is asked", || origin.begun("/1") == 1);
        let second = scope.spawn(|| node.get("/2").status);
        node.await_metric("larder_origin_queue", 1.0);
        let shed = node.get("/3");
        shed.assert_status(503).assert_own_error();
        assert_eq!(shed.field("retry-after"), Some("1"));
        gate.open();
        assert_eq!((first.join().expect("a thread"), second.join().expect("a thread")), (200, 200));
    });
}

#[test]
fn who_waits_too_long_for_a_connection_gets_a_503() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/*", move |_| [vec![Step::Wait(held.clone())], respond(200, UNCACHED, "late")].concat());
    let node = node(&origin).origin("max_connections = 1\nqueue_timeout = \"200ms\"").start();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.get("/1").status);
        eventually("one is asked", || origin.begun("/1") == 1);
        let started = std::time::Instant::now();
        node.get("/2").assert_status(503);
        assert!(started.elapsed() >= Duration::from_millis(200));
        gate.open();
        assert_eq!(first.join().expect("a thread"), 200);
    });
}

#[test]
fn a_loop_ends_with_508() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    let id = origin.last("/a").joined("cdn-loop");
    assert!(id.starts_with("larder-"), "{id}");
    for line in [id.clone(), format!("other, {id}; a=b"), format!("  {id}  ")] {
        let answer = get("/b").with("CDN-Loop", &line).to(&node);
        answer.assert_status(508).assert_own_error();
    }
    get("/a").with("CDN-Loop", format!("{id}0")).to(&node).assert_status(200);
    assert_eq!(origin.total(), 1);
}
