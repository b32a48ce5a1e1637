//! Interim responses: passed on at once to who can read them, and never stored.

use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Reply, Step, respond};
use crate::support::request::{get, head, request};
use crate::support::tls::Ca;
use crate::support::{Gate, OpenOnDrop, eventually};

const HINTS: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </a.js>; rel=preload\r\n\r\n";

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

/// An origin that gives hints, then waits for the gate, then answers.
fn hinting(path: &str, gate: &Gate) -> Origin {
    let (origin, gate) = (Origin::start(), gate.clone());
    origin.on(path, move |_| hints_then(&gate, respond(200, FRESH, "final")));
    origin
}

fn hints_then(gate: &Gate, reply: Reply) -> Reply {
    [vec![send(HINTS), Step::Wait(gate.clone())], reply].concat()
}

/// The hints come while the origin still works, the final response after.
fn check(client: &mut Client, bytes: &[u8], method: &str, gate: &Gate) {
    client.send(bytes);
    let hints = client.try_head().expect("a head");
    assert_eq!(hints.status, 103);
    assert_eq!(hints.joined("link"), "</a.css>; rel=preload, </a.js>; rel=preload");
    assert_eq!(hints.fields.len(), 2, "nothing is added: {:?}", hints.fields);
    assert!(client.surplus().is_empty());
    gate.open();
    let answer = client.response(method);
    answer.assert_status(200);
    assert!(answer.interim.is_empty() && !answer.has("link"), "{answer:?}");
}

#[test]
fn early_hints_arrive_before_the_response_is_ready_and_are_not_stored() {
    let gate = Gate::new();
    let origin = hinting("/a", &gate);
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    check(&mut client, &get("/a").bytes(), "GET", &gate);
    let hit = client.exchange(&get("/a"));
    hit.assert_hit().assert_body("final");
    assert!(hit.interim.is_empty() && !hit.has("link"));
}

#[test]
fn also_over_tls_and_for_what_passes_through() {
    for ask in [head("/a"), request("POST", "/a").body("abc"), get("/a").with("Range", "bytes=0-1")] {
        let (ca, gate) = (Ca::new(), Gate::new());
        let origin = hinting("/a", &gate);
        let node = node(&origin).tls(&ca, &["test.example"]).start();
        let _open = OpenOnDrop(gate.clone());
        let config = ca.client(&["http/1.1"]);
        let mut client = Client::connect_tls(node.https(), "test.example", &config).expect("TLS");
        if ask.fields.iter().any(|(name, _)| name == "Range") {
            // The whole is fetched, and the part of it served.
            client.send(&ask.bytes());
            assert_eq!(client.try_head().expect("hints").status, 103);
            gate.open();
            client.response("GET").assert_status(206).assert_body("fi");
        } else {
            check(&mut client, &ask.bytes(), &ask.method, &gate);
        }
    }
}

#[test]
fn they_keep_their_order_and_lose_what_ends_at_this_hop() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        let first = "HTTP/1.1 102 Processing\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n";
        let second = "HTTP/1.1 103 Early Hints\r\nX-End: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
        let rest = ["HTTP/1.1 100 Continue\r\n\r\n", first, second, "HTTP/1.1 199 Odd\r\n\r\n"];
        [vec![send(&rest.concat())], respond(200, FRESH, "a")].concat()
    });
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    let heads: Vec<_> = (0..3).map(|_| client.try_head().expect("a head")).collect();
    let fields: Vec<_> = heads.iter().map(|head| (head.status, head.fields.clone())).collect();
    assert_eq!(
        fields,
        [(102, vec![]), (103, vec![("x-end".to_owned(), "2".to_owned())]), (199, vec![])],
        "100 is about the origin's own connection"
    );
    client.response("GET").assert_status(200).assert_body("a");
}

#[test]
fn pipelined_requests_keep_their_order() {
    let gate = Gate::new();
    let origin = hinting("/slow", &gate);
    origin.fixed("/fast", 200, FRESH, "fast");
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    node.get("/fast").assert_status(200);
    let mut client = Client::connect(node.http());
    client.send(&[get("/fast").bytes(), get("/slow").bytes(), get("/fast").bytes()].concat());
    client.response("GET").assert_status(200).assert_body("fast");
    assert_eq!(client.try_head().expect("hints").status, 103);
    gate.open();
    client.response("GET").assert_status(200).assert_body("final");
    let last = client.response("GET");
    last.assert_status(200).assert_body("fast");
    assert!(last.interim.is_empty());
}

#[test]
fn who_would_not_understand_them_gets_the_response_alone() {
    let gate = Gate::new();
    gate.open();
    let origin = hinting("/*", &gate);
    let node = node(&origin).start();
    let mut old = Client::connect(node.http());
    old.send(b"GET /old HTTP/1.0\r\nHost: test.example\r\n\r\n");
    let answer = old.response("GET");
    answer.assert_status(200).assert_body("final");
    assert!(answer.interim.is_empty());
    let client = Http2::plain(node.http());
    client.exchange(&get("/new")).assert_status(200).assert_body("final");
    client.exchange(&request("POST", "/new").body("a")).assert_status(200).assert_body("final");
}

#[test]
fn who_follows_a_flight_gets_the_response_alone() {
    let gate = Gate::new();
    let origin = hinting("/a", &gate);
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut leader = Client::connect(node.http());
    leader.send(&get("/a").bytes());
    assert_eq!(leader.try_head().expect("hints").status, 103);
    let mut follower = Client::connect(node.http());
    follower.send(&get("/a").bytes());
    std::thread::sleep(std::time::Duration::from_millis(100));
    gate.open();
    leader.response("GET").assert_status(200).assert_body("final");
    let answer = follower.response("GET");
    answer.assert_status(200).assert_body("final");
    assert!(answer.interim.is_empty());
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_storm_of_them_is_bounded() {
    let origin = Origin::start();
    for (path, size) in [("/many", 10), ("/large", 5000)] {
        origin.on(path, move |_| {
            let one = format!("HTTP/1.1 103 Early Hints\r\nLink: </{}>\r\n\r\n", "x".repeat(size));
            [vec![send(&one.repeat(1000))], respond(200, FRESH, "a")].concat()
        });
    }
    let node = node(&origin).start();
    for (method, path, most) in [("GET", "/many", 8), ("POST", "/many", 8), ("GET", "/large", 3)] {
        let mut client = Client::connect(node.http());
        let answer = client.exchange(&request(method, path));
        answer.assert_status(200).assert_body("a");
        assert!((1..=most).contains(&answer.interim.len()), "{path}: {}", answer.interim.len());
        client.exchange(&get("/many")).assert_status(200);
    }
    node.assert_no_panic();
}

/// The client asks to be told when to send, and is told before the origin has heard of it.
#[test]
fn a_client_that_waits_for_100_gets_it_first() {
    let gate = Gate::new();
    gate.open();
    let origin = hinting("/a", &gate);
    let node = node(&origin).start();
    let mut client = Client::connect(node.http());
    client
        .send(b"POST /a HTTP/1.1\r\nHost: test.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.try_head().expect("a head").status, 100);
    client.send(b"abc");
    let answer = client.response("POST");
    answer.assert_status(200).assert_body("final");
    assert_eq!(answer.interim, [103]);
    assert_eq!(origin.last("/a").body, b"abc");
}

#[test]
fn a_client_that_leaves_after_them_harms_nobody() {
    let gate = Gate::new();
    let origin = hinting("/a", &gate);
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    assert_eq!(client.try_head().expect("hints").status, 103);
    drop(client);
    gate.open();
    eventually("the fetch is finished for the store", || origin.count("/a") == 1);
    let answer = node.await_hit("/a");
    answer.assert_body("final");
    assert!(answer.interim.is_empty());
}
