//! From the start to the drain.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{Broken, Client};
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::process::Process;
use crate::support::request::get;
use crate::support::{Gate, OpenOnDrop, PATIENCE, assert_same_bytes, eventually, pattern};

#[test]
fn it_is_ready_quickly() {
    let origin = Origin::start();
    // The aim is 100 ms on a machine of one's own; tests beside this one take their share.
    let best = (0..5).map(|_| node(&origin).start().ready_after).min().expect("five starts");
    assert!(best < Duration::from_millis(500), "ready after {best:?}");
}

#[test]
fn a_large_download_in_flight_arrives_whole() {
    const LENGTH: usize = 50_000_000;
    let body = pattern(LENGTH, 11);
    let (origin, gate) = (Origin::start(), Gate::new());
    let (held, sent) = (gate.clone(), body.clone());
    origin.on("/big", move |_| {
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {LENGTH}\r\n\r\n");
        let (first, rest) = sent.split_at(1_000_000);
        let mut steps = vec![Step::Send(head.into()), Step::Send(first.to_vec()), Step::Wait(held.clone())];
        for part in rest.chunks(5_000_000) {
            steps.extend([Step::Send(part.to_vec()), Step::Sleep(Duration::from_millis(50))]);
        }
        steps
    });
    let mut node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&get("/big").bytes());
    eventually("the origin is asked", || origin.begun("/big") == 1);

    node.signal(Signal::TERM);
    eventually("listeners are closed", || Client::try_connect(node.http()).is_err());
    gate.open();
    let answer = client.response("GET");
    answer.assert_status(200);
    assert_same_bytes(&answer.body, &body);
    client.expect_close();
    assert!(node.wait(PATIENCE).is_some_and(|status| status.success()), "{:?}", node.exited());
}

#[test]
fn idle_connections_close_and_the_program_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let origin = Origin::with("/a", FRESH, "a");
        let mut node = node(&origin).start();
        let mut used = Client::connect(node.http());
        used.exchange(&get("/a")).assert_status(200);
        let mut silent = Client::connect(node.http());
        let started = Instant::now();
        node.signal(signal);
        used.expect_close();
        silent.expect_close();
        let status = node.wait(Duration::from_secs(10));
        assert!(status.is_some_and(|status| status.success()), "{status:?} after {:?}", started.elapsed());
        node.assert_no_panic();
    }
}

#[test]
fn what_was_sent_when_a_drain_begins_is_answered() {
    let origin = Origin::with("/a", FRESH, "a");
    let proxied = "[[listen]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true";
    let mut node = node(&origin).node("trusted_proxies = [\"127.0.0.1\"]").extra(proxied).start();
    node.get("/a").assert_status(200);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(node.http())).collect();
    for used in &mut clients {
        used.exchange(&get("/a")).assert_status(200);
    }
    let request = get("/a").bytes();
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n";
    // The signal and all that comes before it are there when the node looks again.
    node.signal(Signal::STOP);
    for used in &mut clients {
        used.send(&request);
    }
    for n in 0..16 {
        let mut new = Client::connect(node.listener(false, usize::from(n % 2 == 1)));
        new.send(&[if n % 2 == 1 { &header[..] } else { b"" }, &request].concat());
        clients.push(new);
    }
    node.signal(Signal::TERM);
    node.signal(Signal::CONT);
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.try_response("GET").unwrap_or_else(|broken| panic!("client {n}: {broken:?}"));
        answer.assert_status(200).assert_body("a");
    }
    assert!(node.wait(PATIENCE).is_some_and(|status| status.success()), "{:?}", node.exited());
}

#[test]
fn the_last_response_of_a_connection_says_that_it_closes() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "a")].concat());
    let mut node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    eventually("the origin is asked", || origin.begun("/a") == 1);
    node.signal(Signal::TERM);
    eventually("listeners are closed", || Client::try_connect(node.http()).is_err());
    gate.open();
    let answer = client.response("GET");
    answer.assert_status(200).assert_body("a");
    assert!(answer.joined("connection").to_ascii_lowercase().contains("close"), "{:?}", answer.fields);
    client.expect_close();
    assert!(node.wait(PATIENCE).is_some());
}

/// A node with a response under way that will not end by itself.
fn stuck(drain_timeout: &str) -> (crate::support::node::Node, Client, Origin, OpenOnDrop) {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| {
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()),
            Step::Wait(held.clone()),
        ]
    });
    let setting = format!("drain_timeout = \"{drain_timeout}\"");
    let node = node(&origin).origin("between_bytes_timeout = \"60s\"").node(&setting).start();
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    eventually("the origin is asked", || origin.begun("/a") == 1);
    (node, client, origin, OpenOnDrop(gate))
}

#[test]
fn a_second_signal_stops_at_once() {
    let (mut node, _client, _origin, _open) = stuck("60s");
    node.signal(Signal::TERM);
    eventually("listeners are closed", || Client::try_connect(node.http()).is_err());
    assert!(node.exited().is_none(), "it did not wait for the response");
    let started = Instant::now();
    node.signal(Signal::TERM);
    assert!(
        node.wait(Duration::from_secs(5)).is_some(),
        "it still runs {:?} after the second",
        started.elapsed()
    );
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let (mut node, mut client, _origin, _open) = stuck("700ms");
    let started = Instant::now();
    node.signal(Signal::TERM);
    assert!(node.wait(Duration::from_secs(10)).is_some(), "it still drains");
    assert!(started.elapsed() >= Duration::from_millis(600), "it did not wait: {:?}", started.elapsed());
    let broken = client.try_response("GET").expect_err("a response that never ended");
    assert!(matches!(broken, Broken::Truncated(_) | Broken::Closed | Broken::Reset), "{broken:?}");
}

#[test]
fn readiness_goes_before_the_listeners_do() {
    let origin = Origin::with("/a", FRESH, "a");
    let mut node = node(&origin).node("drain_delay = \"3s\"").start();
    node.ask_admin(&get("/readyz")).assert_status(200);
    node.signal(Signal::TERM);
    eventually("not ready", || node.ask_admin(&get("/readyz")).status == 503);
    node.get("/a").assert_status(200);
    node.ask_admin(&get("/healthz")).assert_status(200);
    assert!(node.wait(PATIENCE).is_some());
}

#[test]
fn both_address_families_are_served() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).listen("[::1]:0").start();
    node.get("/a").assert_status(200);
    let address = node.listener(false, 1);
    assert!(address.is_ipv6());
    Client::connect(address).exchange(&get("/a")).assert_status(200).assert_hit();
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let dir = crate::support::temp::TempDir::new();
    let store = dir.path().join("store");
    let listen = format!("127.0.0.1:{port}");
    let mut process = Process::start(&[
        "serve",
        "--origin",
        "http://127.0.0.1:9",
        "--listen",
        &listen,
        "--admin",
        "127.0.0.1:0",
        "--store",
        store.to_str().expect("UTF-8"),
        "--disk",
        "0",
    ]);
    let status = process.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1));
    eventually("the reason", || process.lines().iter().any(|line| line.contains(&port.to_string())));
}

#[test]
fn two_nodes_do_not_share_a_port_by_accident() {
    let origin = Origin::with("/a", FRESH, "a");
    let first = node(&origin).start();
    let dir = crate::support::temp::TempDir::new();
    let store = dir.path().join("store");
    let mut second = Process::start(&[
        "serve",
        "--origin",
        &origin.url(),
        "--listen",
        &first.http().to_string(),
        "--admin",
        "127.0.0.1:0",
        "--store",
        store.to_str().expect("UTF-8"),
        "--disk",
        "0",
    ]);
    assert_eq!(second.wait(PATIENCE).expect("it ends").code(), Some(1), "{:?}", second.lines());
    first.get("/a").assert_status(200);
}
