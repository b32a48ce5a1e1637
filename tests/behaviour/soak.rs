//! Two thousand connections at once, of every kind, and nothing left behind.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{Request, get};
use crate::support::{eventually, heavy, pattern};

const CONNECTIONS: usize = 2000;
const THREADS: usize = 16;
/// What buffers and the allocator may keep after the load, beside the budget of the store.
const SLACK_KIB: u64 = 96 * 1024;
const BUDGET_KIB: u64 = 32 * 1024;

struct Load<'a> {
    node: &'a Node,
    stop: AtomicBool,
    served: AtomicUsize,
    big: &'a [u8],
}

impl Load<'_> {
    /// One client thread: its share of the connections, asked in turn.
    fn run(&self, thread: usize) {
        let connect = || Client::connect(self.node.http());
        let mut clients: Vec<Client> = (0..CONNECTIONS / THREADS).map(|_| connect()).collect();
        let mut round = thread;
        while !self.stop.load(Ordering::Relaxed) {
            for client in &mut clients {
                round += 1;
                if round.is_multiple_of(50) {
                    // A client that leaves in the middle of a large answer.
                    client.send(&get("/big").bytes());
                    drop(client.try_head());
                    *client = connect();
                } else {
                    self.exchange(client, round);
                }
            }
        }
    }

    fn exchange(&self, client: &mut Client, round: usize) {
        let hot = || get(&format!("/hot/{}", round % 20));
        let (ask, status, body): (Request, u16, &[u8]) = match round % 10 {
            0 => (get(&format!("/cold/{round}")), 200, b"cold"),
            1 => (hot().with("If-None-Match", "\"v1\""), 304, b""),
            2 => (hot().with("Range", "bytes=1-2"), 206, b"ot"),
            3 => (get("/never"), 200, b"never"),
            4 if round % 100 == 4 => (get("/big"), 200, self.big),
            _ => (hot(), 200, b"hot"),
        };
        let answer = client.exchange(&ask);
        assert_eq!(answer.status, status, "{ask:?}: {:?}", answer.fields);
        assert!(answer.body == body, "{ask:?}: another body of {} bytes", answer.body.len());
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn two_thousand_mixed_connections_leave_nothing_behind() {
    let _alone = heavy();
    let seconds = std::env::var("LARDER_SOAK_SECS").ok().and_then(|value| value.parse().ok()).unwrap_or(8);
    let big = pattern(400_000, 21);
    let origin = Origin::start();
    origin.fixed("/hot/*", 200, &[FRESH[0], ("ETag", "\"v1\"")], "hot");
    origin.fixed("/cold/*", 200, FRESH, "cold");
    origin.fixed("/never", 200, &[("Cache-Control", "no-store")], "never");
    let body = big.clone();
    origin.on("/big", move |_| respond(200, FRESH, &body));
    let limits = "connections = 5000\nconnections_per_client = 5000";
    let node = node(&origin).memory("32MiB").limits(limits).start();
    for n in 0..20 {
        node.get(&format!("/hot/{n}")).assert_status(200);
    }
    node.get("/big").assert_status(200);
    let (fds, open) = (node.open_fds(), node.metric("larder_connections"));

    let load = Load { node: &node, stop: AtomicBool::new(false), served: AtomicUsize::new(0), big: &big };
    std::thread::scope(|scope| {
        let load = &load;
        for thread in 0..THREADS {
            scope.spawn(move || load.run(thread));
        }
        std::thread::sleep(Duration::from_secs(seconds));
        load.stop.store(true, Ordering::Relaxed);
    });
    assert!(load.served.load(Ordering::Relaxed) > CONNECTIONS, "{:?} answers", load.served);

    // Kept connections to the origin may be open: at most what the origin still sees.
    eventually("descriptors are given back", || node.open_fds() <= fds + origin.connections_open() + 8);
    eventually("connections are counted down", || node.metric("larder_connections") <= open + 2.0);
    let memory = node.rss_anon_kib();
    assert!(memory <= BUDGET_KIB + SLACK_KIB, "{memory} KiB after the load");
    assert_eq!(node.metric("larder_requests_total{result=\"error\"}"), 0.0);
    assert_eq!(node.metric("larder_requests_total{status_class=\"5xx\"}"), 0.0);
    node.assert_no_panic();
    node.get("/hot/1").assert_status(200).assert_hit();
}
