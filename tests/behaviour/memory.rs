//! Memory stays within its budget, whatever passes through.

use crate::support::client::Client;
use crate::support::heavy;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{Request, get};

/// What a node may take beside its budget: code and runtime, buffers of connections in use, slack of the allocator.
const OVERHEAD_KIB: u64 = 48 * 1024;
const BUDGET_KIB: u64 = 16 * 1024;
const STREAMED: usize = 200_000_000;
const SIZES: [usize; 5] = [1_000, 20_000, 60_000, 300_000, 1_000_000];

/// Streams objects that differ and returns the most memory that the node held meanwhile.
fn stream(node: &Node, request: impl Fn(usize) -> Request) -> u64 {
    let (mut streamed, mut peak) = (0, 0);
    let mut client = Client::connect(node.http());
    for index in 0.. {
        let size = SIZES[index % SIZES.len()];
        let answer = client.exchange(&request(index).with("X-Size", size.to_string()));
        assert_eq!((answer.status, answer.body.len()), (200, size));
        streamed += size;
        if index % 20 == 0 {
            peak = peak.max(node.rss_anon_kib());
        }
        if streamed >= STREAMED {
            break;
        }
    }
    peak
}

fn sized() -> Origin {
    let origin = Origin::start();
    let body = vec![b'x'; SIZES[4]];
    origin.on("/*", move |seen| {
        let size: usize = seen.field("x-size").and_then(|size| size.parse().ok()).unwrap_or(0);
        let fields = [FRESH[0], ("Vary", seen.field("x-vary").unwrap_or("Accept"))];
        respond(200, &fields, &body[..size])
    });
    origin
}

#[track_caller]
fn assert_bounded(node: &Node, peak: u64) {
    assert!(peak <= BUDGET_KIB + OVERHEAD_KIB, "{peak} KiB for a budget of {BUDGET_KIB} KiB");
    let held = node.metric("larder_store_bytes{tier=\"memory\"}");
    assert!(held > 0.0 && held <= 16.0 * 1024.0 * 1024.0, "{held} bytes in the store");
    assert!(node.metric("larder_store_evictions_total") > 0.0, "nothing was evicted");
}

#[test]
fn distinct_objects_do_not_fill_more_than_the_budget() {
    let _alone = heavy();
    let origin = sized();
    let node = node(&origin).memory("16MiB").start();
    let peak = stream(&node, |index| get(&format!("/{index}")));
    assert_bounded(&node, peak);
}

#[test]
fn variants_of_one_url_do_not_either() {
    let _alone = heavy();
    let origin = sized();
    let node = node(&origin).memory("16MiB").cache("max_variants = 64").start();
    let peak = stream(&node, |index| get("/a").with("X-Vary", "X-Kind").with("X-Kind", index.to_string()));
    assert!(peak <= BUDGET_KIB + OVERHEAD_KIB, "{peak} KiB for a budget of {BUDGET_KIB} KiB");
}
