//! Holds: over restarts, and what ends them before their time.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::warm::{HOST, ask, assert_all_hit, finished, rows, start, urls, warm};
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::get;
use crate::support::{eventually, holds_within};

const HELD: usize = 12;

fn origin() -> Origin {
    let origin = Origin::start();
    let body = "x".repeat(16 * 1024);
    origin.on("/*", move |seen| {
        let tag = seen.path().split('/').nth(1).unwrap_or_default().to_owned();
        respond(200, &[FRESH[0], ("Surrogate-Key", &tag)], &body)
    });
    origin
}

fn order(urls: &[String], hold: &str) -> Value {
    json!({ "urls": urls, "encodings": ["identity"], "hold": hold })
}

/// Others come, several times what the store takes, and are asked for more often.
fn flood(node: &Node) {
    for n in 0..800 {
        for _ in 0..3 {
            node.get(&format!("/flood/{n}")).assert_status(200);
        }
    }
}

/// How many of those that were held are there.
fn kept(node: &Node) -> usize {
    (0..HELD).filter(|n| node.get(&format!("/p/{n}")).is_hit()).count()
}

#[track_caller]
fn purge(node: &Node, body: &Value) {
    ask(node, "POST", "/v1/purges", &body.to_string()).assert_status(201);
}

#[test]
fn they_outlive_the_process() {
    let origin = origin();
    for signal in [Signal::TERM, Signal::KILL] {
        let node = node(&origin).disk("4MiB").memory("4MiB").start();
        // Of one that is done, and of one that is not.
        let done = warm(&node, &order(&urls(HELD), "1h"));
        assert_eq!(done["outcomes"]["stored"], HELD);
        let node = node.restarted(signal);
        flood(&node);
        assert_all_hit(&node, HELD, &["identity"]);
        node.assert_no_panic();
    }
}

#[test]
fn what_is_purged_is_held_no_longer() {
    let origin = origin();
    for (disk, body) in [
        ("0", json!({ "tags": ["p"] })),
        ("4MiB", json!({ "tags": ["p"] })),
        ("4MiB", json!({ "prefixes": ["test.example/p"] })),
    ] {
        let node = node(&origin).disk(disk).memory("4MiB").start();
        warm(&node, &order(&urls(HELD), "1h"));
        purge(&node, &body);
        // Fetched again by clients, it is as anything else.
        for n in 0..HELD {
            assert!(!node.get(&format!("/p/{n}")).is_hit());
        }
        flood(&node);
        let kept = kept(&node);
        assert!(kept < HELD / 2, "disk {disk}: {kept} of {HELD} are there");
        // Warmed once more it is held, whatever was purged before.
        warm(&node, &order(&urls(HELD), "1h"));
        flood(&node);
        assert_all_hit(&node, HELD, &["identity"]);
        node.assert_no_panic();
    }
}

#[test]
fn a_purge_that_came_before_a_restart_has_ended_them() {
    let origin = origin();
    let node = node(&origin).disk("4MiB").memory("4MiB").start();
    warm(&node, &order(&urls(HELD), "1h"));
    // On disk: a job whose end is lost goes on after the restart, and what it fetches anew is a hit.
    eventually("its end is written down", || {
        node.lines().iter().any(|line| line.contains("a warm job ended"))
    });
    purge(&node, &json!({ "tags": ["p"] }));
    let node = node.restarted(Signal::KILL);
    for n in 0..HELD {
        assert!(!node.get(&format!("/p/{n}")).is_hit());
    }
    flood(&node);
    let kept = kept(&node);
    assert!(kept < HELD / 2, "{kept} of {HELD} are there");
}

#[test]
fn what_is_purged_makes_room_for_other_holds_though_nobody_asks_for_it() {
    let origin = origin();
    let node = node(&origin).disk("4MiB").memory("8MiB").start();
    // Nearly half of the store.
    warm(&node, &order(&urls(110), "1h"));
    purge(&node, &json!({ "tags": ["p"] }));
    let others: Vec<String> = (0..60).map(|n| format!("{HOST}/other/{n}")).collect();
    let all_held = || {
        let id = start(&node, &order(&others, "1h"));
        finished(&node, &id);
        rows(&node, &id, "limit=1000").iter().all(|row| row["reason"].is_null())
    };
    eventually("the others are held", all_held);
}

#[test]
fn a_cancelled_job_releases_what_it_holds_and_no_other_one_does() {
    let origin = origin();
    let node = node(&origin).disk("0").memory("4MiB").start();
    // The shorter hold of two URLs stays.
    warm(&node, &order(&urls(2), "1h"));
    // It holds twelve, and has not begun with the rest.
    let rest = (0..1000).map(|n| format!("{HOST}/rest/{n}"));
    let all: Vec<String> = urls(HELD).into_iter().chain(rest).collect();
    let mut slow = order(&all, "2h");
    slow["rate"] = json!(10);
    slow["concurrency"] = json!(1);
    let id = start(&node, &slow);
    let target = format!("/v1/warmups/{id}");
    eventually("it holds them", || ask(&node, "GET", &target, "").json()["done"].as_u64() >= Some(12));
    let cancelled = ask(&node, "DELETE", &target, "").json();
    assert_eq!((&cancelled["state"], &cancelled["held_until"]), (&"cancelled".into(), &Value::Null));
    let is_released = || {
        flood(&node);
        (2..HELD).filter(|n| get(&format!("/p/{n}")).to(&node).is_hit()).count() < 5
    };
    assert!(holds_within(crate::support::PATIENCE, is_released));
    for n in 0..2 {
        node.get(&format!("/p/{n}")).assert_hit();
    }
}

#[test]
fn a_job_that_is_done_releases_what_it_holds_when_it_is_cancelled() {
    let origin = origin();
    for disk in ["0", "4MiB"] {
        let node = node(&origin).disk(disk).memory("4MiB").start();
        let id = start(&node, &order(&urls(HELD), "1h"));
        assert!(finished(&node, &id)["held_until"].is_string());
        let target = format!("/v1/warmups/{id}");
        let answer = ask(&node, "DELETE", &target, "");
        answer.assert_status(200);
        let shown = answer.json();
        assert_eq!((&shown["state"], &shown["held_until"]), (&"done".into(), &Value::Null), "{shown}");
        assert_eq!(shown["cancelled_by"]["who"], "local", "{shown}");
        ask(&node, "DELETE", &target, "").assert_status(409);
        let is_released = |node: &Node| {
            flood(node);
            kept(node) < HELD / 2
        };
        eventually("they are released", || is_released(&node));
        if disk != "0" {
            // For good.
            let node = node.restarted(Signal::KILL);
            assert_eq!(ask(&node, "GET", &target, "").json()["held_until"], Value::Null);
            ask(&node, "DELETE", &target, "").assert_status(409);
        }
    }
}
