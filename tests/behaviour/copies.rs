//! What is sent most over plain HTTP/1.1 is sent from copies in huge pages: the same bytes, and never those of before.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use larder::region::{Arena, HUGE_PAGE_BYTES, memory_file};
use serde_json::json;

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::pattern;
use crate::support::request::{get, request};
use crate::support::tls::Ca;

const PATHS: [&str; 4] = ["/12k", "/16k", "/20k", "/32k"];
/// More sends than a body needs to have a copy.
const SENDS: usize = 40;

fn length_of(path: &str) -> usize {
    path[1..].trim_end_matches('k').parse::<usize>().expect("a number") * 1024
}

/// The bodies of one generation.
fn body(path: &str, generation: u64) -> Vec<u8> {
    pattern(length_of(path), generation)
}

/// Whether the kernel puts pages of memory files together to huge ones when asked (Linux 6.1).
fn has_huge_pages() -> bool {
    let file = memory_file("test", HUGE_PAGE_BYTES).expect("a memory file");
    file.write_all_at(&[0], 0).expect("a byte");
    let arena = Arena::reserve(1, HUGE_PAGE_BYTES).expect("addresses");
    arena.map(file, HUGE_PAGE_BYTES).expect("a mapping").collapse().is_ok()
}

/// Whether the node sends from copies. A file that is being made ready is mapped too, for some milliseconds.
fn has_copies(node: &Node) -> bool {
    let is_mapped = || {
        let mappings = fs::read_to_string(format!("/proc/{}/maps", node.pid())).expect("its mappings");
        mappings.contains("memfd:larder-copies")
    };
    let settled = || {
        sleep(Duration::from_millis(50));
        true
    };
    is_mapped() && settled() && is_mapped()
}

/// Sends until there are copies: one can be made once a file is ready, which a thread sees to.
#[track_caller]
fn send_until_copied(node: &Node, mut send: impl FnMut()) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !has_copies(node) && Instant::now() < deadline {
        send();
    }
    assert!(has_copies(node) || !has_huge_pages(), "there are huge pages, and no copy in them");
}

fn assert_bodies(client: &mut Client, generation: u64) {
    for path in PATHS {
        let whole = body(path, generation);
        let answer = client.exchange(&get(path));
        answer.assert_status(200);
        assert!(answer.body == whole, "{path}: other bytes");
        let part = client.exchange(&get(path).with("Range", "bytes=100-12999"));
        let end = whole.len().min(13_000);
        assert!(part.status == 206 && part.body == whole[100..end], "{path}: other bytes of a part");
    }
}

#[test]
fn copies_have_the_bytes_of_their_bodies_whatever_was_there_before() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let script = |generation| {
        for path in PATHS {
            origin.on(path, move |_| respond(200, FRESH, body(path, generation)));
        }
    };
    script(1);
    // A disk tier, so that no segment is a memory file.
    let node = node(&origin).workers(1).memory("300MiB").disk("64MiB").tls(&ca, &["test.example"]).start();
    let mut plain = Client::connect(node.http());
    for path in PATHS {
        node.await_hit(path);
    }
    send_until_copied(&node, || assert_bodies(&mut plain, 1));
    let client = ca.client(&["http/1.1"]);
    let mut secure = Client::connect_tls(node.https(), "test.example", &client).expect("a handshake");
    assert_bodies(&mut secure, 1);

    script(2);
    let order = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
    node.ask_admin(&order.body(json!({"site": "test", "all": true}).to_string())).assert_status(201);
    for path in PATHS {
        node.await_hit(path);
    }
    for _ in 0..SENDS {
        assert_bodies(&mut plain, 2);
    }
    node.assert_no_panic();
}

#[test]
fn a_client_that_reads_slowly_gets_every_byte_of_a_copy() {
    let origin = Origin::start();
    let path = PATHS[3];
    origin.on(path, move |_| respond(200, FRESH, body(path, 3)));
    let node = node(&origin).workers(1).memory("300MiB").disk("64MiB").start();
    node.await_hit(path);
    let mut fast = Client::connect(node.http());
    send_until_copied(&node, || {
        assert!(fast.exchange(&get(path)).body == body(path, 3), "other bytes");
    });
    // More than the sockets' buffers take.
    const MANY: usize = 600;
    let mut slow = Client::connect(node.http());
    let requests: Vec<u8> = (0..MANY).flat_map(|_| get(path).bytes()).collect();
    slow.send(&requests);
    sleep(Duration::from_millis(200));
    for _ in 0..MANY {
        assert!(slow.response("GET").body == body(path, 3), "other bytes");
    }
}
