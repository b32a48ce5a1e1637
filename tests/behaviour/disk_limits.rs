//! What enters the log and what it may cost: admission, the largest object, memory, page faults.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Reply, Step, respond};
use crate::support::request::get;
use crate::support::{assert_same_bytes, heavy, pattern};

const MIB: usize = 1024 * 1024;
/// What a node may take beside its budget.
const OVERHEAD_KIB: u64 = 64 * 1024;

/// An answer whose length nobody announces.
fn chunked(body: &[u8]) -> Reply {
    let mut steps = respond(200, &[FRESH[0], ("ETag", "\"v1\""), ("Transfer-Encoding", "chunked")], "");
    for piece in body.chunks(MIB) {
        let head = format!("{:x}\r\n", piece.len()).into_bytes();
        steps.extend([Step::Body(head), Step::Body(piece.to_vec()), Step::Body(b"\r\n".to_vec())]);
    }
    steps.push(Step::Body(b"0\r\n\r\n".to_vec()));
    steps
}

/// The most memory that a node holds while something happens.
fn peak_kib(node: &Node, during: impl FnOnce()) -> u64 {
    let (peak, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                peak.fetch_max(node.rss_anon_kib(), Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        during();
        is_over.store(true, Relaxed);
    });
    peak.into_inner()
}

#[test]
fn with_second_hit_the_log_waits_for_a_second_request() {
    let large = pattern(300_000, 1);
    let origin = Origin::with("/large", FRESH, &large);
    origin.fixed("/small", 200, FRESH, "small");
    origin.on("/chunked", move |_| chunked(&pattern(300_000, 2)));
    let node = node(&origin).disk("64MiB").store("admission = \"second-hit\"").start();
    for path in ["/large", "/chunked"] {
        let first = node.get(path);
        first.assert_fwd("uri-miss");
        assert!(!first.is_stored() || path == "/chunked", "{:?}", first.fields);
        let why = (path == "/large").then_some("not-admitted");
        assert_eq!(first.cache_parameter("detail").as_deref(), why, "{:?}", first.fields);
        node.get(path).assert_fwd("uri-miss");
        node.await_hit(path);
        assert_eq!(origin.count(path), 2, "{path}");
    }
    assert_same_bytes(&node.get("/large").body, &large);
    // A small one is held in memory at once, and on disk not yet.
    node.get("/small").assert_fwd("uri-miss");
    node.get("/small").assert_hit();
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 2.0);
    assert_eq!(node.metric("larder_store_objects{tier=\"disk\"}"), 2.0);
    let node = node.restarted(Signal::TERM);
    node.get("/large").assert_hit();
    node.get("/small").assert_fwd("uri-miss");
}

#[test]
fn what_is_larger_than_the_largest_object_is_not_stored() {
    let origin = Origin::with("/known", FRESH, pattern(1_500_000, 1));
    origin.on("/unknown", |_| chunked(&pattern(1_500_000, 2)));
    origin.fixed("/fits", 200, FRESH, pattern(MIB, 3));
    origin.on("/fits-too", |_| chunked(&pattern(MIB, 4)));
    let node = node(&origin).disk("20MiB").store("max_object = \"1MiB\"").start();
    for (path, seed) in [("/known", 1), ("/unknown", 2)] {
        for _ in 0..3 {
            let answer = node.get(path);
            assert!(!answer.is_hit(), "{:?}", answer.fields);
            assert_same_bytes(&answer.body, &pattern(1_500_000, seed));
        }
        assert_eq!(origin.count(path), 3);
    }
    for (path, seed) in [("/fits", 3), ("/fits-too", 4)] {
        node.get(path).assert_fwd("uri-miss");
        assert_same_bytes(&node.await_hit(path).body, &pattern(MIB, seed));
        assert_eq!(origin.count(path), 1, "{path}");
    }
}

#[test]
fn without_a_disk_large_bodies_stay_within_the_memory() {
    let _alone = heavy();
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let seed = seen.path()[1..].parse().expect("a number");
        if seed % 2 == 0 { respond(200, FRESH, pattern(MIB, seed)) } else { chunked(&pattern(MIB, seed)) }
    });
    let node = node(&origin).memory("48MiB").disk("0").store("max_object = \"4MiB\"").start();
    let peak = peak_kib(&node, || {
        for n in 0..100 {
            let path = format!("/{n}");
            assert_same_bytes(&node.get(&path).body, &pattern(MIB, n));
            assert_same_bytes(&node.await_hit(&path).body, &pattern(MIB, n));
        }
    });
    assert!(peak <= 48 * 1024 + OVERHEAD_KIB, "{peak} KiB for a budget of 48 MiB");
    assert!(node.metric("larder_store_objects{tier=\"memory_log\"}") >= 10.0, "some are held");
    node.assert_no_panic();
}

#[test]
fn a_huge_body_of_unknown_length_is_stored_in_little_memory() {
    const HUGE: usize = 200_000_000;
    let _alone = heavy();
    let huge = pattern(HUGE, 5);
    let (origin, body) = (Origin::start(), huge.clone());
    origin.on("/huge", move |_| chunked(&body));
    let store = "max_object = \"300MiB\"";
    let mut node = node(&origin).memory("16MiB").disk("1GiB").store(store).start();
    let peak = peak_kib(&node, || {
        let answer = node.get("/huge");
        answer.assert_fwd("uri-miss");
        assert!(answer.body == huge, "other bytes");
        assert!(node.await_hit("/huge").body == huge, "other bytes");
    });
    assert!(peak <= 16 * 1024 + OVERHEAD_KIB, "{peak} KiB for a budget of 16 MiB");
    for signal in [Signal::KILL, Signal::TERM] {
        node = node.restarted(signal);
        for range in [0..=0, 77_000_000..=99_999_999, HUGE - 1..=HUGE - 1] {
            let field = format!("bytes={}-{}", range.start(), range.end());
            let part = get("/huge").with("Range", field).to(&node);
            part.assert_status(206).assert_hit();
            assert!(part.body == huge[range.clone()], "other bytes at {range:?}");
        }
        let peak = peak_kib(&node, || assert!(node.get("/huge").body == huge, "other bytes"));
        assert!(peak <= 16 * 1024 + OVERHEAD_KIB, "{peak} KiB for a budget of 16 MiB");
    }
    assert_eq!(origin.count("/huge"), 1);
    node.assert_no_panic();
}

#[test]
fn warm_reads_cost_no_worker_a_major_fault() {
    let origin = Origin::start();
    for n in 0..30 {
        origin.fixed(&format!("/{n}"), 200, FRESH, pattern(if n % 2 == 0 { 10_000 } else { 700_000 }, n));
    }
    let node = node(&origin).memory("8MiB").disk("64MiB").start();
    for n in 0..30 {
        node.get(&format!("/{n}")).assert_fwd("uri-miss");
    }
    let faults = || {
        let metrics = node.metrics();
        assert!(metrics.0.iter().any(|sample| sample.name == "larder_worker_major_faults_total"));
        metrics.sum("larder_worker_major_faults_total")
    };
    let before = faults();
    let mut client = Client::connect(node.http());
    for n in (0..30).cycle().take(300) {
        let answer = client.exchange(&get(&format!("/{n}")));
        answer.assert_hit();
    }
    assert_eq!(faults(), before);
}
