//! Warming into a memory that is full of other things, while purges come, and of URLs that no client gets.

use serde_json::{Value, json};

use super::warm::{HOST, ask, finished, rows, start, urls, warm};
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::get;
use crate::support::{Gate, OpenOnDrop, eventually};

fn origin() -> Origin {
    let origin = Origin::start();
    // Noise, so that nothing is made of it in other codings.
    let body = crate::support::pattern(30_000, 7);
    origin.on("/*", move |_| respond(200, FRESH, &body));
    origin
}

/// Fills the memory with what clients ask for.
fn full(origin: &Origin) -> Node {
    let node = node(origin).disk("0").memory("8MiB").start();
    for n in 0..300 {
        node.get(&format!("/old/{n}")).assert_status(200);
    }
    node
}

/// The numbers of the warmed URLs that are there.
fn there(node: &Node) -> Vec<usize> {
    let page = node.admin_get("/v1/objects?prefix=test.example/p&limit=1000").json();
    let items = page["items"].as_array().expect("items").iter();
    let number = |item: &Value| item["key"].as_str()?.rsplit('/').next()?.parse().ok();
    let mut found: Vec<usize> = items.filter_map(number).collect();
    found.sort_unstable();
    found
}

fn order(count: usize) -> Value {
    json!({ "urls": urls(count), "encodings": ["identity"], "rate": 2000 })
}

#[test]
fn what_is_warmed_pushes_out_what_others_asked_for_once() {
    let origin = origin();
    let node = full(&origin);
    let done = warm(&node, &order(60));
    assert_eq!(done["outcomes"]["stored"], 60, "{done}");
    assert_eq!(there(&node), (0..60).collect::<Vec<_>>());
    // What a client brought into the window is as lasting.
    node.get("/p/60").assert_status(200);
    assert_eq!(warm(&node, &order(61))["failed"], 0);
    assert_eq!(there(&node).len(), 61);
    for n in 0..61 {
        node.get(&format!("/p/{n}")).assert_hit();
    }
    node.assert_no_panic();
}

#[test]
fn a_job_that_is_larger_than_the_memory_says_what_has_no_room() {
    let origin = origin();
    let node = full(&origin);
    let id = start(&node, &order(400));
    finished(&node, &id);
    let stored = rows(&node, &id, "outcome=stored&limit=1000");
    let number = |row: &Value| row["url"].as_str()?.rsplit('/').next()?.parse::<usize>().ok();
    let stored: Vec<usize> = stored.iter().filter_map(number).collect();
    assert!((150..260).contains(&stored.len()), "{}", stored.len());
    assert_eq!(there(&node), stored, "what is said to be there is");
    for row in rows(&node, &id, "outcome=failed&limit=1000") {
        assert!(row["reason"].as_str().is_some_and(|why| why.contains("room")), "{row}");
    }
    // Another job is not kept out by what the first one brought.
    let others: Vec<String> = (0..50).map(|n| format!("{HOST}/other/{n}")).collect();
    let done = warm(&node, &json!({ "urls": others, "encodings": ["identity"] }));
    assert_eq!(done["outcomes"]["stored"], 50, "{done}");
}

#[test]
fn without_a_disk_an_eighth_of_the_memory_is_held_and_the_reason_says_so() {
    let origin = origin();
    let node = node(&origin).disk("0").memory("8MiB").start();
    let mut order = order(50);
    order["hold"] = json!("1h");
    let id = start(&node, &order);
    assert_eq!(finished(&node, &id)["outcomes"]["stored"], 50);
    let all = rows(&node, &id, "limit=100");
    let reasons: Vec<&str> = all.iter().filter_map(|row| row["reason"].as_str()).collect();
    assert!((10..30).contains(&reasons.len()), "{reasons:?}");
    assert!(reasons.iter().all(|why| why.contains("1024 KiB of the memory")), "{reasons:?}");
}

#[test]
fn what_a_purge_hits_on_its_way_is_fetched_again() {
    for order in [
        json!({ "prefixes": ["test.example/p"] }),
        json!({ "tags": ["p"] }),
        json!({ "tags": ["p"], "soft": true }),
    ] {
        let origin = Origin::start();
        let gate = Gate::new();
        let _open = OpenOnDrop(gate.clone());
        origin.on("/p/*", {
            let gate = gate.clone();
            move |_| {
                let mut reply = vec![Step::Wait(gate.clone())];
                reply.extend(respond(200, &[FRESH[0], ("Surrogate-Key", "p")], "x"));
                reply
            }
        });
        let node = node(&origin).start();
        let id = start(&node, &json!({ "urls": urls(1), "encodings": ["identity"] }));
        eventually("it is on its way", || origin.begun("/p/0") == 1);
        ask(&node, "POST", "/v1/purges", &order.to_string()).assert_status(201);
        gate.open();
        finished(&node, &id);
        let row = &rows(&node, &id, "")[0];
        assert_eq!((&row["outcome"], &row["reason"]), (&json!("stored"), &Value::Null), "{order}: {row}");
        assert_eq!(row["requests"][0]["attempts"], 2, "{order}: {row}");
        node.get("/p/0").assert_hit();
    }
}

#[test]
fn a_url_that_clients_are_sent_away_from_is_not_warmed() {
    let origin = origin();
    let node = node(&origin).site("https = \"redirect\"").start();
    let id = start(&node, &json!({ "urls": [format!("{HOST}/a?b=c")], "encodings": ["identity"] }));
    assert_eq!(finished(&node, &id)["failed"], 1);
    let row = &rows(&node, &id, "")[0];
    assert_eq!(row["reason"], "this site is served over https: https://test.example/a?b=c", "{row}");
    assert_eq!(origin.total(), 0);
    get("/a?b=c").to(&node).assert_status(308);
    let https = ["https://test.example/a?b=c"];
    assert_eq!(warm(&node, &json!({ "urls": https, "encodings": ["identity"] }))["outcomes"]["stored"], 1);
}
