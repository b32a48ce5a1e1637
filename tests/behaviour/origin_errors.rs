//! Origins that are dead, silent or rude.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::lock;
use crate::support::node::{bare, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, request};
use crate::support::response::Response;

/// Nothing in the answer tells where the origin is.
#[track_caller]
fn assert_anonymous(answer: &Response, origin: &std::net::SocketAddr) {
    let everything = format!("{:?}\n{}", answer.fields, answer.text());
    assert!(!everything.contains(&origin.port().to_string()), "the origin's port leaks: {everything}");
    assert!(!everything.contains("127.0.0.1"), "the origin's address leaks: {everything}");
}

#[test]
fn a_dead_origin_is_a_502_at_once() {
    let origin = Origin::start();
    let node = node(&origin).start();
    origin.stop();
    for ask in [get("/a"), request("POST", "/a").body("x"), get("/a").with("Accept", "application/json")] {
        let started = Instant::now();
        let answer = ask.to(&node);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        answer.assert_status(502).assert_own_error();
        assert!(answer.joined("proxy-status").contains("connection_refused"), "{:?}", answer.fields);
        assert_anonymous(&answer, &origin.address());
        assert!(!answer.is_hit() && !answer.is_stored());
    }
    node.await_metric("larder_requests_total{result=\"error\"}", 3.0);
}

#[test]
fn a_silent_origin_is_a_504() {
    let origin = Origin::start();
    origin.on("/a", |_| vec![Step::Sleep(Duration::from_secs(15))]);
    let node = node(&origin).origin("first_byte_timeout = \"300ms\"").start();
    for ask in [get("/a"), request("POST", "/a").body("x")] {
        let started = Instant::now();
        let answer = ask.to(&node);
        answer.assert_status(504).assert_own_error();
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(8), "{took:?}");
        assert!(answer.joined("proxy-status").contains("timeout"), "{:?}", answer.fields);
        assert_anonymous(&answer, &origin.address());
    }
}

#[test]
fn an_origin_that_hangs_up_or_resets_is_a_502() {
    let origin = Origin::start();
    origin.on("/close", |_| vec![Step::Close]);
    origin.on("/reset", |_| vec![Step::Reset]);
    let node = node(&origin).start();
    for path in ["/close", "/reset"] {
        let answer = node.get(path);
        answer.assert_status(502).assert_own_error();
        assert_anonymous(&answer, &origin.address());
        assert!(origin.count(path) <= 2, "{path}: asked {} times", origin.count(path));
    }
}

#[test]
fn an_error_of_the_node_is_not_stored() {
    let origin = Origin::start();
    origin.sequence("/a", vec![vec![Step::Reset], vec![Step::Reset], respond(200, FRESH, "back")]);
    let node = node(&origin).start();
    node.get("/a").assert_status(502);
    for _ in 0..2 {
        if node.get("/a").status == 200 {
            break;
        }
    }
    node.get("/a").assert_status(200).assert_body("back");
}

#[test]
fn an_answer_of_the_origin_is_never_asked_for_again() {
    let origin = Origin::start();
    for status in [500, 502, 503, 504] {
        let path = format!("/{status}");
        origin.fixed(&path, status, &[("X-Own", "1"), ("Retry-After", "7")], "its own words");
        let node = node(&origin).start();
        let answer = node.get(&path);
        answer.assert_status(status).assert_body("its own words");
        assert_eq!((answer.field("x-own"), answer.field("retry-after")), (Some("1"), Some("7")));
        assert_eq!(origin.count(&path), 1);
    }
}

#[test]
fn a_kept_connection_that_went_stale_is_no_error() {
    let origin = Origin::start();
    let served: Mutex<HashSet<usize>> = Mutex::new(HashSet::new());
    // The first request of a connection is answered; the second finds it closed.
    origin.on("/*", move |seen| {
        if lock(&served).insert(seen.connection) {
            respond(200, &[("Cache-Control", "no-store")], "a")
        } else {
            vec![Step::Close]
        }
    });
    let node = node(&origin).start();
    for n in 0..10 {
        node.get(&format!("/{n}")).assert_status(200).assert_body("a");
    }

    let polite = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = crate::support::node::node(&polite).start();
    for n in 0..10 {
        node.get(&format!("/{n}")).assert_status(200);
        polite.hang_up();
    }
}

#[test]
fn a_post_that_the_origin_has_seen_is_not_sent_twice() {
    let origin = Origin::start();
    origin.fixed("/first", 200, &[("Cache-Control", "no-store")], "a");
    origin.on("/form", |_| vec![Step::Close]);
    let node = node(&origin).start();
    // So that there is a kept connection, whose loss could be taken for staleness.
    node.get("/first").assert_status(200);
    request("POST", "/form").body("order").to(&node).assert_status(502).assert_own_error();
    assert_eq!(origin.count("/form"), 1);
}

#[test]
fn connections_to_the_origin_are_kept() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).workers(1).start();
    for n in 0..20 {
        node.get(&format!("/{n}")).assert_status(200);
    }
    assert!(origin.connections_accepted() <= 3, "{} connections", origin.connections_accepted());
}

#[test]
fn a_port_that_never_accepts_is_bounded_by_the_connect_timeout() {
    // A listener whose queue is full drops further handshakes.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    shrink_queue(&listener);
    let address = listener.local_addr().expect("an address");
    let mut fillers = Vec::new();
    for _ in 0..8 {
        let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) else {
            break;
        };
        fillers.push(stream);
    }
    let tables = format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nconnect_timeout = \"300ms\"\nservers = [{{ url = \"http://{address}\" }}]\n"
    );
    let node = bare().sites(&tables).start();
    let started = Instant::now();
    let answer = node.get("/a");
    assert!([502, 504].contains(&answer.status), "{}", answer.status);
    answer.assert_own_error();
    assert_anonymous(&answer, &address);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

/// Shrinks the queue of a listener as far as the kernel allows.
fn shrink_queue(listener: &TcpListener) {
    socket2::SockRef::from(listener).listen(0).expect("a backlog");
}
