//! Records that are written again: a purge that should hit what is in them hits it afterwards, too; and dropping what the
//! log of purges needs no more hides nothing that is old, or on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{Request, get, request};
use crate::support::{Gate, OpenOnDrop, eventually, heavy};

/// The tags of a response are its first segment and, where it varies, its kind; its body is a number that only grows.
fn numbering() -> Origin {
    let (origin, last) = (Origin::start(), Arc::new(AtomicU64::new(0)));
    origin.on("/*", move |seen| {
        let kind = seen.joined("x-kind");
        let tags = format!("{} {kind}", seen.path().split('/').nth(1).unwrap_or_default());
        let fields = [FRESH[0], ("Vary", "X-Kind"), ("Surrogate-Key", tags.trim()), ("ETag", "\"v\"")];
        respond(200, &fields, last.fetch_add(1, SeqCst).to_string())
    });
    origin
}

fn purge(token: &str, body: &Value) -> Request {
    let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {token}"));
    ask.body(body.to_string())
}

#[track_caller]
fn purged(node: &Node, body: &Value) {
    node.ask_admin(&purge(&node.token(), body)).assert_status(201);
}

fn of_kind(node: &Node, target: &str, kind: &str) -> crate::support::response::Response {
    get(target).with("X-Kind", kind).to(node)
}

/// Behind these, memory has forgotten what was there, and the log has gone round.
fn flood(node: &Node, prefix: &str) {
    for n in 0..150 {
        node.get(&format!("/{prefix}/{n}")).assert_status(200);
    }
}

fn large(origin: &Origin) {
    let body = "x".repeat(100 * 1024);
    for prefix in ["one", "two"] {
        let body = body.clone();
        origin.on(&format!("/{prefix}/*"), move |_| respond(200, FRESH, &body));
    }
}

#[test]
fn a_variant_that_is_purged_stays_so_when_another_one_is_written_beside_it() {
    let origin = numbering();
    let mut node = node(&origin).disk("64MiB").start();
    for kind in ["a", "b"] {
        of_kind(&node, "/x/1", kind).assert_status(200);
        of_kind(&node, "/x/1", kind).assert_hit();
    }
    // Noted by both, since it is asked for afterwards.
    purged(&node, &json!({ "tags": ["unrelated"] }));
    of_kind(&node, "/x/1", "a").assert_hit();
    of_kind(&node, "/x/1", "b").assert_hit();
    purged(&node, &json!({ "tags": ["a"] }));
    // Nobody asks for the purged one; the record is written again, with it inside.
    of_kind(&node, "/x/1", "c").assert_status(200);
    of_kind(&node, "/x/1", "c").assert_hit();
    node = node.restarted(Signal::TERM);
    assert!(!of_kind(&node, "/x/1", "a").is_hit(), "it was purged");
    of_kind(&node, "/x/1", "b").assert_hit();
    of_kind(&node, "/x/1", "c").assert_hit();
    // And with one of them loaded from there.
    purged(&node, &json!({ "tags": ["b"] }));
    of_kind(&node, "/x/1", "d").assert_status(200);
    node = node.restarted(Signal::TERM);
    assert!(!of_kind(&node, "/x/1", "b").is_hit(), "it was purged");
    of_kind(&node, "/x/1", "c").assert_hit();
    purged(&node, &json!({ "tags": ["x"] }));
    node = node.restarted(Signal::KILL);
    for kind in ["a", "c", "d"] {
        assert!(!of_kind(&node, "/x/1", kind).is_hit(), "{kind}");
    }
}

#[test]
fn a_soft_purge_is_remembered_by_what_is_written_again() {
    let origin = numbering();
    let mut node = node(&origin).cache("stale_while_revalidate = \"1h\"").disk("64MiB").start();
    of_kind(&node, "/x/1", "a").assert_status(200);
    purged(&node, &json!({ "tags": ["x"], "soft": true }));
    purged(&node, &json!({ "tags": ["unrelated"] }));
    of_kind(&node, "/x/1", "b").assert_status(200);
    node = node.restarted(Signal::TERM);
    origin.on("/x/1", |_| respond(200, FRESH, "new"));
    let answer = of_kind(&node, "/x/1", "a");
    assert!(answer.cache_parameter("ttl").is_some_and(|ttl| ttl.starts_with('-')), "{:?}", answer.fields);
}

#[test]
fn what_moves_ahead_with_the_log_falls_to_the_purges_it_should_fall_to() {
    let origin = numbering();
    large(&origin);
    let mut node = node(&origin).disk("8MiB").memory("4MiB").start();
    for n in 0..4 {
        node.await_hit(&format!("/x/{n}"));
        node.await_hit(&format!("/y/{n}"));
    }
    purged(&node, &json!({ "tags": ["x"] }));
    // Asked for, so that they are worth writing again; those that are purged, not.
    for _ in 0..3 {
        for n in 0..4 {
            node.get(&format!("/y/{n}")).assert_status(200);
        }
        flood(&node, "one");
    }
    purged(&node, &json!({ "tags": ["unrelated"] }));
    node = node.restarted(Signal::KILL);
    for n in 0..4 {
        assert!(!node.get(&format!("/x/{n}")).is_hit());
    }
    for n in 0..4 {
        node.await_hit(&format!("/y/{n}"));
    }
    flood(&node, "two");
    purged(&node, &json!({ "tags": ["y"] }));
    node = node.restarted(Signal::KILL);
    for n in 0..4 {
        assert!(!node.get(&format!("/y/{n}")).is_hit());
    }
}

#[test]
fn compaction_hides_neither_what_is_old_nor_what_is_on_its_way() {
    let _alone = heavy();
    let (origin, gate) = (numbering(), Gate::new());
    let _open = OpenOnDrop(gate.clone());
    for path in ["/slow/kept", "/slow/gone"] {
        let gate = gate.clone();
        let tag = &path[6..];
        origin.on(path, move |_| {
            [vec![Step::Wait(gate.clone())], respond(200, &[FRESH[0], ("Surrogate-Key", tag)], "late")]
                .concat()
        });
    }
    let mut node = node(&origin).disk("64MiB").origin("first_byte_timeout = \"2m\"").start();
    // Old, on disk and in memory; asked for now and then, which notes in memory what it outlived.
    node.await_hit("/old/1");
    node.await_hit("/oldgone/1");
    let mut fetches = ["/slow/kept", "/slow/gone"].map(|path| {
        let mut client = Client::connect(node.http());
        client.send(&get(path).bytes());
        eventually("the origin is asked", || origin.begun(path) == 1);
        client
    });
    let (token, address) = (node.token(), node.admin());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let token = &token;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for n in 0..1300 {
                    let ask = purge(token, &json!({ "tags": [format!("{thread}-{n}")] }));
                    client.exchange(&ask.host(&address.to_string())).assert_status(201);
                }
            });
        }
    });
    purged(&node, &json!({ "tags": ["gone", "oldgone"] }));
    node.get("/old/1").assert_hit();
    let compacted = || node.lines().iter().any(|line| line.contains("log of purges was compacted"));
    eventually("it is compacted", compacted);
    gate.open();
    for client in &mut fetches {
        client.response("GET").assert_status(200).assert_body("late");
    }
    for is_restarted in [false, true] {
        if is_restarted {
            node = node.restarted(Signal::KILL);
        }
        node.get("/old/1").assert_hit();
        node.await_hit("/slow/kept");
        assert_eq!(origin.count("/slow/kept"), 1, "what was fetched meanwhile is stored, and stays");
        assert!(is_restarted || !node.get("/slow/gone").is_hit(), "it was purged while it was fetched");
        assert!(is_restarted || !node.get("/oldgone/1").is_hit());
    }
}
