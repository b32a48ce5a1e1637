//! What a node holds in memory while many slow clients read a large object that is still being fetched.
//!
//! A hundred clients and 100 MiB, which is quick; `LARDER_SLOW_CLIENTS=1000 LARDER_SLOW_BYTES=1073741824`, with
//! `--nocapture`, shows the figures of the promise.

use std::net::TcpStream;

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::process::open_files_limit;
use crate::support::request::get;
use crate::support::{Gate, OpenOnDrop, PATIENCE, eventually, heavy};

const BUDGET_KIB: u64 = 16 * 1024;
/// What the node may take beside its budget.
const OVERHEAD_KIB: u64 = 64 * 1024;
/// The origin waits so often, until what it sent has been looked at.
const STAGES: usize = 10;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A client that has little room for what it does not read.
fn slow_client(address: std::net::SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
    socket.connect(&address.into()).expect("a connection");
    Client::on(TcpStream::from(socket)).expect("a client")
}

/// Why the node ended connections.
fn ends(node: &Node) -> String {
    let metrics = node.admin_get("/metrics").text();
    metrics
        .lines()
        .filter(|line| line.contains("ended") || line.contains("disk"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn slow_clients_of_a_fill_do_not_hold_its_bytes_in_memory() {
    let _alone = heavy();
    let (clients, length) = (setting("LARDER_SLOW_CLIENTS", 100), setting("LARDER_SLOW_BYTES", 100 << 20));
    assert!(clients + 1000 <= open_files_limit(), "{clients} clients need as many open files");
    let stage = length / STAGES;
    let length = stage * STAGES;
    let (origin, block) = (Origin::start(), vec![b'x'; stage]);
    let gates: Vec<Gate> = (0..STAGES).map(|_| Gate::new()).collect();
    let _open: Vec<OpenOnDrop> = gates.iter().cloned().map(OpenOnDrop).collect();
    let held = gates.clone();
    origin.on("/a", move |_| {
        let length = (block.len() * STAGES).to_string();
        // A head is passed on with the first bytes.
        let mut steps = respond(200, &[FRESH[0], ("Content-Length", &length)], &block[..1]);
        for (stage, gate) in held.iter().enumerate() {
            steps.extend([Step::Wait(gate.clone()), Step::Body(block[usize::from(stage == 0)..].to_vec())]);
        }
        steps
    });
    let mib = length >> 20;
    let disk = format!("{}MiB\"\nmax_object = \"{mib}MiB", mib * 5);
    let node = node(&origin)
        .memory("16MiB")
        .disk(&disk)
        .limits("connections = 5000\nconnections_per_client = 5000\nwrite_timeout = \"30m\"")
        .origin("between_bytes_timeout = \"30m\"")
        .start();
    let mut slow: Vec<Client> = (0..clients).map(|_| slow_client(node.http())).collect();
    for client in &mut slow {
        client.send(&get("/a").bytes());
    }
    for client in &mut slow {
        client.try_head().expect("a head").assert_status(200);
    }
    // One that reads all there is shows how far the fill has come.
    let mut fast = Client::connect(node.http());
    fast.send(&get("/a").bytes());
    fast.try_head().expect("a head").assert_status(200);
    let (mut peak, mut read) = (node.rss_anon_kib(), Vec::new());
    for (stage_number, gate) in gates.iter().enumerate() {
        gate.open();
        assert!(fast.take(stage, &mut read).expect("a stage"), "the connection ended");
        read.clear();
        for client in &mut slow {
            // Each is somewhere else.
            let taken = client.take(1 + stage_number * 1000, &mut read).expect("a little");
            assert!(taken, "a connection ended in stage {stage_number}: {}", ends(&node));
            read.clear();
        }
        peak = peak.max(node.rss_anon_kib());
    }
    println!("{clients} slow clients, {} MiB: at most {peak} KiB", length >> 20);
    assert!(peak <= BUDGET_KIB + OVERHEAD_KIB, "{peak} KiB for a budget of {BUDGET_KIB} KiB");
    // What the slow ones have not read is there for them.
    let behind = (0..STAGES).map(|stage| 1 + stage * 1000).sum::<usize>();
    for client in slow.iter_mut().take(3) {
        // A kernel with so little room says that there is some only when it is asked, and is asked ever more seldom.
        client.read_timeout(PATIENCE * 9);
        assert!(client.take(length - behind, &mut read).expect("the rest"));
        assert!(read.iter().all(|byte| *byte == b'x'));
        read.clear();
    }
    drop(slow);
    eventually("it is stored", || node.get("/a").is_hit());
    assert_eq!(origin.count("/a"), 1);
    node.assert_no_panic();
}
