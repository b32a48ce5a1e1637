//! What purges cost: `cargo bench --bench purge -- NAME`; the names, and what they show, stand in `benches/README.md`.
//! Without a name all of them run. Exits with 1 when an aim is missed. `OBJECTS` and `ENTRIES` make it smaller.

#![allow(missing_docs, unreachable_pub, reason = "a program, no library")]

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use larder::purge::{Config, Purges, Request, Selector, Source};
use larder::telemetry::Clock;
use serde_json::json;
use support::client::Client;
use support::node::{Node, node};
use support::origin::{FRESH, Origin, respond};
use support::request::{get, request};

/// Tags of each object; one of them is on all.
const TAGS: usize = 20;
/// Purges of all objects.
const PURGES: usize = 101;
/// Objects that are hit while purges come.
const HOT: usize = 1000;
const HITS_TIME: Duration = Duration::from_secs(5);
const ROUNDS: usize = 5;

#[derive(Default)]
struct Aims {
    missed: u32,
}

impl Aims {
    fn check(&mut self, what: &str, is_met: bool) {
        println!("  {} {what}", if is_met { "met   " } else { "MISSED" });
        self.missed += u32::from(!is_met);
    }
}

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let mut aims = Aims::default();
    if is_wanted("tags") {
        tags(&mut aims);
    }
    if is_wanted("log") {
        log(&mut aims);
    }
    ExitCode::from(u8::from(aims.missed > 0))
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// The value below which this share of the sorted ones is.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn tags(aims: &mut Aims) {
    let objects = number("OBJECTS", 1_000_000);
    println!("tags: {objects} objects with {TAGS} tags each");
    let origin = Origin::start();
    let tags: Vec<String> = (1..TAGS).map(|n| format!("category-{n}")).collect();
    let tags = format!("all {}", tags.join(" "));
    origin.on("/*", move |_| respond(200, &[FRESH[0], ("Surrogate-Key", tags.as_str())], "x".repeat(100)));
    let node = node(&origin).memory("256MiB").disk("8GiB").start();
    fill(&node, objects);
    let held = || node.metric("larder_store_objects{tier=\"disk\"}");
    support::holds_within(Duration::from_secs(60), || held() >= objects as f64);
    println!("  {} objects on disk", held());
    let started = Instant::now();
    let counted = purge(&node, &json!({ "all": true, "dry_run": true }));
    println!("  a dry run over all of them: {} in {:?}", counted["matches"], started.elapsed());

    let (mut latencies, mut hits_after) = (Vec::new(), 0);
    let mut client = Client::connect(node.http());
    for n in 0..PURGES {
        let started = Instant::now();
        purge(&node, &json!({ "tags": ["all"] }));
        latencies.push(started.elapsed().as_micros() as u64);
        let target = format!("/{}", n * 7919 % objects);
        hits_after += usize::from(client.exchange(&get(&target)).is_hit());
    }
    latencies.sort_unstable();
    let median = quantile(&latencies, 0.5);
    println!(
        "  a purge of all, new connection included: p50 {median} µs, p99 {} µs",
        quantile(&latencies, 0.99)
    );
    aims.check("acknowledged in less than 5 ms, median", median < 5000);
    aims.check("the next request of one of them is a miss", hits_after == 0);
    hits_beside_purges(&node, aims);
}

fn fill(node: &Node, objects: usize) {
    let (next, address, started) = (AtomicUsize::new(0), node.http(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                loop {
                    let n = next.fetch_add(1, SeqCst);
                    if n >= objects {
                        return;
                    }
                    client.exchange(&get(&format!("/{n}"))).assert_status(200);
                }
            });
        }
    });
    println!("  filled in {:?}", started.elapsed());
}

#[track_caller]
fn purge(node: &Node, body: &serde_json::Value) -> serde_json::Value {
    let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
    let answer = node.ask_admin(&ask.body(body.to_string()));
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    answer.json()
}

/// Latencies of hits, in microseconds, one connection, one at a time; with and without 100 purges a second.
fn hits_beside_purges(node: &Node, aims: &mut Aims) {
    let mut client = Client::connect(node.http());
    for n in 0..HOT {
        client.exchange(&get(&format!("/{n}")));
    }
    let mut measure = || {
        let mut latencies = Vec::new();
        let started = Instant::now();
        while started.elapsed() < HITS_TIME {
            let asked = Instant::now();
            let answer = client.exchange(&get(&format!("/{}", latencies.len() % HOT)));
            assert!(answer.is_hit());
            latencies.push(asked.elapsed().as_micros() as u64);
            // An open road: what is measured is the node, not a queue.
            std::thread::sleep(Duration::from_micros(500));
        }
        latencies.sort_unstable();
        (quantile(&latencies, 0.5), quantile(&latencies, 0.99))
    };
    let (mut idle, mut purged) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        idle.push(measure());
        let ends = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let purger = scope.spawn(|| {
                let (started, mut sent) = (Instant::now(), 0_u32);
                while !ends.load(SeqCst) {
                    purge(node, &json!({ "tags": [format!("none-{round}-{sent}")] }));
                    sent += 1;
                    std::thread::sleep((Duration::from_millis(10) * sent).saturating_sub(started.elapsed()));
                }
                f64::from(sent) / started.elapsed().as_secs_f64()
            });
            purged.push(measure());
            ends.store(true, SeqCst);
            purger.join().expect("the purger")
        });
        let ((idle, idle_p99), (with, with_p99)) = (idle[round], purged[round]);
        println!(
            "  hits: p50 {idle} µs, p99 {idle_p99} µs; beside {sent:.0} purges/s: p50 {with} µs, p99 {with_p99} µs"
        );
    }
    let median_p99 = |list: &mut Vec<(u64, u64)>| {
        list.sort_unstable_by_key(|(_, p99)| *p99);
        list[list.len() / 2].1
    };
    let (idle, purged) = (median_p99(&mut idle), median_p99(&mut purged));
    let limit = (idle * 3 / 2).max(idle + 1000);
    aims.check(
        &format!("p99 of hits beside purges {purged} µs, idle {idle} µs, at most {limit} µs"),
        purged <= limit,
    );
}

/// How long a node takes to start on a log of so many entries.
fn log(aims: &mut Aims) {
    let entries = number("ENTRIES", 1_000_000);
    println!("log: {entries} entries");
    let origin = Origin::start();
    let node = node(&origin).disk("64MiB").start();
    println!("  without one, a node is ready after {:?}", node.ready_after);
    let node =
        node.restarted_after(rustix::process::Signal::TERM, |folder| write(&folder.join("store"), entries));
    println!("  with {} entries after {:?}", node.metric("larder_purge_log_entries"), node.ready_after);
    aims.check("it starts within a second", node.ready_after < Duration::from_secs(1));
    let started = Instant::now();
    let is_short = support::holds_within(Duration::from_secs(60), || {
        node.metric("larder_purge_log_entries") <= 20_000.0
    });
    println!("  compacted: {is_short}, after {:?}", started.elapsed());
}

fn write(store: &std::path::Path, entries: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = Config { path: Some(store.to_owned()), ..Config::default() };
    let purges = Purges::open(config, Clock::start()).expect("a log");
    let request = |n: usize| Request {
        site: Some("test".into()),
        selectors: vec![Selector::Tag(format!("product-{n}").into())],
        soft: false,
        note: None,
        who: "bench".into(),
        from: None,
        source: Source::Api,
    };
    runtime.block_on(async {
        for group in 0..entries / 1000 {
            let together: Vec<_> = (0..1000)
                .map(|n| {
                    let purges: Arc<Purges> = purges.clone();
                    tokio::spawn(async move { purges.purge(request(group * 1000 + n)).await.is_ok() })
                })
                .collect();
            for purge in together {
                assert!(purge.await.expect("a task"), "it is durable");
            }
        }
        purges.close().await;
    });
}
