//! How many fetches for the cache may be under way, and for how long.

use std::time::Duration;

use crate::support::client::{Broken, Client};
use crate::support::node::{Builder, bare, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{HOST, get};
use crate::support::{Gate, OpenOnDrop, eventually};

/// An origin that answers `/held*` when the gate is open.
fn held() -> (Origin, Gate, OpenOnDrop) {
    let (origin, gate) = (Origin::with("/*", FRESH, "a"), Gate::new());
    let closed = gate.clone();
    origin.on("/held*", move |_| [vec![Step::Wait(closed.clone())], respond(200, FRESH, "late")].concat());
    let open = OpenOnDrop(gate.clone());
    (origin, gate, open)
}

#[track_caller]
fn assert_one_at_a_time(builder: Builder, origin: &Origin, gate: &Gate) {
    let node = builder.start();
    let mut leader = Client::connect(node.http());
    leader.send(&get("/held").bytes());
    eventually("the origin is asked", || origin.begun("/held") == 1);

    let refused = node.get("/other");
    refused.assert_status(503).assert_own_error();
    assert_eq!(refused.field("retry-after"), Some("1"));
    // Who follows takes no turn.
    let mut follower = Client::connect(node.http());
    follower.send(&get("/held").bytes());
    gate.open();
    leader.response("GET").assert_status(200).assert_body("late");
    follower.response("GET").assert_status(200).assert_body("late");
    eventually("the turn is given back", || node.get("/other").status == 200);
    assert_eq!(origin.count("/held"), 1);
}

#[test]
fn of_a_node() {
    let (origin, gate, _open) = held();
    assert_one_at_a_time(node(&origin).limits("fills = 1"), &origin, &gate);
}

#[test]
fn of_a_site() {
    let (origin, gate, _open) = held();
    assert_one_at_a_time(node(&origin).cache("fills = 1"), &origin, &gate);
}

#[test]
fn of_an_origin() {
    let (origin, gate, _open) = held();
    assert_one_at_a_time(node(&origin).origin("fills = 1"), &origin, &gate);
}

#[test]
fn each_site_and_each_rule_with_a_number_of_its_own_counts_for_itself() {
    let (origin, _gate, _open) = held();
    let site = |name: &str, host: &str, rule: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\nhosts = [\"{host}\"]\norigin = \"o\"\n[site.cache]\nfills = 1\n{rule}\n"
        )
    };
    let rule = "[[site.rule]]\npath = [\"/ruled*\"]\ncache = { fills = 2 }";
    let tables = site("a", HOST, rule)
        + &site("b", "other.example", "")
        + &format!("[[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n", origin.url());
    let node = bare().sites(&tables).start();
    let mut leader = Client::connect(node.http());
    leader.send(&get("/held").bytes());
    eventually("the origin is asked", || origin.begun("/held") == 1);
    node.get("/a").assert_status(503);
    node.get("/ruled").assert_status(200);
    get("/a").host("other.example").to(&node).assert_status(200);
}

#[test]
fn what_is_stale_stands_in_for_a_fetch_too_many() {
    let (origin, _gate, _open) = held();
    origin.fixed("/a", 200, &[("Cache-Control", "max-age=1")], "old");
    let node = node(&origin).limits("fills = 1").start();
    node.get("/a").assert_status(200);
    std::thread::sleep(Duration::from_millis(1100));
    let mut leader = Client::connect(node.http());
    leader.send(&get("/held").bytes());
    eventually("the origin is asked", || origin.begun("/held") == 1);
    node.get("/a").assert_status(200).assert_body("old");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_fetch_that_trickles_for_too_long_is_given_up() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 1000\r\n\r\n";
        let mut steps = vec![Step::Send(head.into())];
        for _ in 0..1000 {
            steps.extend([Step::Body(b"x".to_vec()), Step::Sleep(Duration::from_millis(20))]);
        }
        steps
    });
    let node = node(&origin).origin("fill_timeout = \"500ms\"").start();
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    let broken = client.try_response("GET");
    assert!(matches!(broken, Err(Broken::Truncated(_) | Broken::Reset)), "{broken:?}");

    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    origin.on("/b", move |_| vec![Step::Wait(gate.clone())]);
    node.get("/b").assert_status(504).assert_own_error();
    origin.fixed("/a", 200, FRESH, "whole");
    node.get("/a").assert_status(200).assert_body("whole");
}

#[test]
fn no_fetch_at_all_is_no_limit_that_is_taken() {
    let origin = Origin::start();
    let refused = node(&origin).limits("fills = 0").run();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("fills"), "{refused:?}");
}
