//! The disk tier: what survives a restart, what is served from the log, how full it gets.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::process::run;
use crate::support::request::{get, request};
use crate::support::{assert_same_bytes, eventually, pattern};

const DISK: &str = "64MiB";

/// Waits until the writer has written as many responses.
#[track_caller]
fn await_written(node: &Node, responses: usize) {
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", responses as f64);
}

#[test]
fn small_and_large_responses_survive_a_restart_and_a_kill() {
    let large = pattern(3_000_000, 1);
    let origin = Origin::with("/small", FRESH, "small body");
    origin.fixed("/large", 200, FRESH, &large);
    origin.fixed("/empty", 200, FRESH, "");
    let mut node = node(&origin).disk(DISK).start();
    for path in ["/small", "/large", "/empty"] {
        node.get(path).assert_fwd("uri-miss");
    }
    await_written(&node, 3);
    for signal in [Signal::TERM, Signal::KILL, Signal::KILL] {
        node = node.restarted(signal);
        let small = node.get("/small");
        small.assert_hit().assert_body("small body");
        assert_eq!(small.cache_parameter("detail").as_deref(), Some("memory"));
        assert!(small.age().is_some());
        assert_same_bytes(&node.get("/large").body, &large);
        node.get("/large").assert_hit();
        node.get("/empty").assert_hit().assert_body("");
        let range = get("/large").with("Range", "bytes=1000000-1999999").to(&node);
        range.assert_status(206).assert_hit();
        assert_same_bytes(&range.body, &large[1_000_000..2_000_000]);
    }
    for path in ["/small", "/large", "/empty"] {
        assert_eq!(origin.count(path), 1, "{path}");
    }
    node.assert_no_panic();
}

/// Ends the node and starts it with a disk tier of another size, over the same folder.
#[track_caller]
fn with_disk(node: Node, before: &str, after: &str) -> Node {
    node.edit(&format!("disk = \"{before}\""), &format!("disk = \"{after}\""));
    node.restarted(Signal::TERM)
}

#[test]
fn a_node_without_a_disk_tier_may_get_one_later() {
    let origin = Origin::with("/small", FRESH, "small body");
    let node = with_disk(node(&origin).disk("0").start(), "0", DISK);
    node.get("/small").assert_fwd("uri-miss");
    await_written(&node, 1);
    node.restarted(Signal::TERM).get("/small").assert_hit();
}

#[test]
fn what_was_purged_while_there_was_no_disk_tier_does_not_come_back_with_it() {
    for is_upgraded in [false, true] {
        let origin = Origin::with("/small", FRESH, "small body");
        let mut node = node(&origin).disk(DISK).start();
        node.get("/small").assert_fwd("uri-miss");
        await_written(&node, 1);
        if is_upgraded {
            node.edit(&format!("disk = \"{DISK}\""), "disk = \"0\"");
            node.upgrade();
        } else {
            node = with_disk(node, DISK, "0");
        }
        let all = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
        node.ask_admin(&all.body(r#"{ "all": true }"#)).assert_status(201);
        origin.fixed("/small", 200, FRESH, "another body");
        let node = with_disk(node, "0", DISK);
        node.get("/small").assert_body("another body");
        node.assert_no_panic();
    }
}

#[test]
fn a_start_that_fails_leaves_a_store_that_it_would_not_have_used_as_it_is() {
    let origin = Origin::with("/small", FRESH, "small body");
    let node = node(&origin).disk(DISK).start();
    node.get("/small").assert_fwd("uri-miss");
    await_written(&node, 1);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let node = node.restarted_after(Signal::TERM, |dir| {
        let file = dir.join("larder.toml");
        let text = fs::read_to_string(&file).expect("the configuration");
        let other = text.replacen(&format!("disk = \"{DISK}\""), "disk = \"0\"", 1);
        fs::write(&file, other.replacen("127.0.0.1:0", &address, 1)).expect("the configuration");
        let failed = run(&["serve", "--config", file.to_str().expect("a path in UTF-8")]);
        let told = String::from_utf8_lossy(&failed.stderr);
        assert!(!failed.status.success() && told.contains("can't listen"), "{told}");
        fs::write(&file, text).expect("the configuration");
    });
    node.get("/small").assert_hit();
}

#[test]
fn what_memory_has_no_room_for_is_served_from_disk() {
    let origin = Origin::start();
    for n in 0..400 {
        origin.fixed(&format!("/{n}"), 200, FRESH, pattern(20_000, n));
    }
    let node = node(&origin).memory("2MiB").disk(DISK).start();
    for n in 0..400 {
        node.get(&format!("/{n}")).assert_fwd("uri-miss");
        // A writer that is behind stores less, which is not the question here.
        if (n + 1) % 20 == 0 {
            await_written(&node, n + 1);
        }
    }
    for n in 0..400 {
        let hit = node.get(&format!("/{n}"));
        hit.assert_hit();
        assert_same_bytes(&hit.body, &pattern(20_000, n));
    }
    assert_eq!(node.metric("larder_store_objects{tier=\"disk\"}") as u64, 400);
    node.assert_no_panic();
}

#[test]
fn disk_use_stays_within_the_limit() {
    let origin = Origin::start();
    for n in 0..300 {
        origin.fixed(&format!("/{n}"), 200, FRESH, pattern(200_000, n));
    }
    let node = node(&origin).memory("8MiB").disk("20MiB").start();
    for n in 0..300 {
        let path = format!("/{n}");
        assert_same_bytes(&node.get(&path).body, &pattern(200_000, n));
        assert!(used(&node) <= 20 << 20, "after {n}: {} bytes", used(&node));
    }
    let hits = (0..300).rev().filter(|n| node.get(&format!("/{n}")).is_hit()).count();
    assert!(hits > 30, "{hits} of 300 are stored: 20 MiB hold about 90");
    eventually("evictions are counted", || {
        node.metric("larder_store_evictions_total{tier=\"disk\",reason=\"oldest\"}") > 0.0
    });
    let mut node = node.restarted(Signal::KILL);
    assert!(used(&node) <= 20 << 20);
    for n in 0..300 {
        assert_same_bytes(&node.get(&format!("/{n}")).body, &pattern(200_000, n));
    }
    node.assert_no_panic();
    node.stop();
}

/// Bytes of all segment files.
fn used(node: &Node) -> u64 {
    let files = std::fs::read_dir(node.store().join("segments")).expect("the segments");
    // A file may go while it is counted.
    files.flatten().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}
