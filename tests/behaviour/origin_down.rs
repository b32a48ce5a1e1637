//! An origin that goes away while many ask: what is stored covers for it, and it is not asked by everybody all the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, head};
use crate::support::{Gate, OpenOnDrop, eventually};

const KEYS: usize = 100;
const CLIENTS: usize = 16;

/// A node with answers that are stale by now.
fn with_stale(origin: &Origin, keys: usize) -> Node {
    origin.on("/*", |seen| respond(200, &[("Cache-Control", "max-age=1")], &seen.target));
    let node = node(origin).start();
    let mut client = Client::connect(node.http());
    for key in 0..keys {
        client.exchange(&get(&format!("/{key}"))).assert_status(200);
    }
    std::thread::sleep(Duration::from_millis(1100));
    node
}

/// Attempts to reach the origin that failed.
fn attempts(node: &Node) -> f64 {
    node.metric("larder_origin_requests_total{outcome=\"connect_error\"}")
        + node.metric("larder_origin_requests_total{outcome=\"broken\"}")
}

#[test]
fn no_client_sees_that_the_origin_is_gone_and_it_is_tried_once_a_second() {
    let origin = Origin::start();
    let node = with_stale(&origin, KEYS);
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..CLIENTS {
            let (node, stop, answers) = (&node, &stop, &answers);
            scope.spawn(move || {
                let mut client = Client::connect(node.http());
                for turn in thread.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = format!("/{}", turn % KEYS);
                    let ask = if turn % 7 == 0 { head(&path) } else { get(&path) };
                    let answer = client.exchange(&ask);
                    answer.assert_status(200);
                    if turn % 7 != 0 {
                        answer.assert_body(&path);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        origin.stop();
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
    });
    // Those that were under way when it went, four while the wait doubles, one a second from then on.
    let bound = CLIENTS as f64 * 2.0 + 4.0 + started.elapsed().as_secs_f64();
    let tried = attempts(&node);
    assert!(tried >= 2.0 && tried <= bound, "{tried} attempts, at most {bound}");
    assert!(answers.load(Ordering::Relaxed) > KEYS);
    let covered = node.get("/1");
    let detail = covered.cache_parameter("detail").unwrap_or_default();
    assert!(detail.contains("stale-if-error"), "{:?}", covered.fields);
    assert!(covered.age().is_some_and(|age| age >= 1), "{:?}", covered.fields);
}

#[test]
fn an_origin_that_fails_is_asked_for_a_url_once_a_second() {
    let origin = Origin::start();
    let node = with_stale(&origin, 1);
    origin.fixed("/0", 503, &[], "down");
    let started = Instant::now();
    let mut client = Client::connect(node.http());
    for turn in 0..200 {
        let ask = if turn % 5 == 0 { head("/0") } else { get("/0") };
        client.exchange(&ask).assert_status(200);
    }
    let asked = origin.count("/0") - 1;
    let bound = 1 + started.elapsed().as_secs();
    assert!(asked >= 1 && asked as u64 <= bound, "{asked} requests, at most {bound}");
    origin.fixed("/0", 200, FRESH, "back");
    eventually("the new answer is served", || client.exchange(&get("/0")).text() == "back");
}

#[test]
fn an_origin_that_hangs_is_waited_for_no_more_than_half_of_the_time() {
    let origin = Origin::start();
    origin.on("/0", |_| respond(200, &[("Cache-Control", "max-age=1")], "old"));
    let node = node(&origin).origin("first_byte_timeout = \"2500ms\"").start();
    node.get("/0").assert_status(200);
    std::thread::sleep(Duration::from_millis(1100));
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    origin.on("/0", move |_| vec![Step::Wait(gate.clone())]);
    // Who asks first waits for it, and everybody after that for nothing.
    node.get("/0").assert_status(200).assert_body("old");
    let asked = origin.begun("/0");
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1800) {
        node.get("/0").assert_status(200).assert_body("old");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(origin.begun("/0"), asked, "it is left alone");
}

#[test]
fn what_is_stale_stands_in_where_the_queue_is_full() {
    let origin = Origin::start();
    origin.on("/*", |seen| respond(200, &[("Cache-Control", "max-age=1")], &seen.target));
    let node = node(&origin).origin("max_connections = 1\nqueue = 1\nqueue_timeout = \"30s\"").start();
    for path in ["/a", "/b"] {
        node.get(path).assert_status(200);
    }
    std::thread::sleep(Duration::from_millis(1100));
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let held = gate.clone();
    origin.on("/held*", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "late")].concat());
    let mut waiting: Vec<Client> = ["/held/1", "/held/2"]
        .into_iter()
        .map(|path| {
            let mut client = Client::connect(node.http());
            client.send(&get(path).bytes());
            client
        })
        .collect();
    node.await_metric("larder_origin_queue", 1.0);
    for path in ["/a", "/b", "/a"] {
        let covered = node.get(path);
        covered.assert_status(200).assert_body(path);
        let detail = covered.cache_parameter("detail").unwrap_or_default();
        assert!(detail.contains("stale-if-error"), "{:?}", covered.fields);
    }
    let shed = node.get("/new");
    shed.assert_status(503).assert_own_error();
    assert_eq!(shed.field("retry-after"), Some("1"));
    gate.open();
    for client in &mut waiting {
        client.response("GET").assert_status(200).assert_body("late");
    }
}

#[test]
fn what_is_not_stored_fails_at_once_while_the_origin_is_down_and_is_there_soon_after() {
    let origin = Origin::start();
    let node = with_stale(&origin, 1);
    let address = origin.address();
    origin.stop();
    for _ in 0..50 {
        node.get("/new").assert_status(502).assert_own_error();
    }
    assert!(node.metric("larder_origin_requests_total{outcome=\"down\"}") > 0.0);
    let back = Origin::start_at(address);
    back.fixed("/new", 200, FRESH, "back");
    eventually("it is tried again", || node.get("/new").status == 200);
    node.await_hit("/new").assert_body("back");
}
