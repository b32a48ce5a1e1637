//! Many clients, one cold URL.

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::process::open_files_limit;
use crate::support::request::{get, head};
use crate::support::response::Response;
use crate::support::{Gate, OpenOnDrop, assert_same_bytes, eventually, heavy, pattern};

const CLIENTS: usize = 50;

/// Sends from every client before any answer is read; `release` runs in between.
fn all_at_once(node: &crate::support::node::Node, path: &str, release: impl FnOnce()) -> Vec<Response> {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(node.http())).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(&get(path).with("X-Client", id.to_string()).bytes());
    }
    release();
    clients.iter_mut().map(|client| client.response("GET")).collect()
}

#[test]
fn one_request_reaches_the_origin_however_many_ask() {
    let body = pattern(300_000, 3);
    let (origin, gate) = (Origin::start(), Gate::new());
    let (held, sent) = (gate.clone(), body.clone());
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, &sent)].concat());
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let answers = all_at_once(&node, "/a", || {
        eventually("the origin is asked", || origin.begun("/a") == 1);
        gate.open();
    });
    for answer in &answers {
        answer.assert_status(200);
        assert_same_bytes(&answer.body, &body);
    }
    let leaders = answers.iter().filter(|a| !a.is_hit() && a.cache_parameter("collapsed").is_none()).count();
    assert_eq!((origin.count("/a"), leaders), (1, 1));
    assert!(answers.iter().any(|a| a.cache_parameter("collapsed").is_some()), "nobody waited for the leader");
}

#[test]
fn nobody_gets_an_answer_that_was_meant_for_another() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |seen| {
        let own = seen.field("x-client").unwrap_or("?").to_owned();
        [vec![Step::Wait(held.clone())], respond(200, &[("Cache-Control", "private")], own)].concat()
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let answers = all_at_once(&node, "/a", || {
        eventually("the origin is asked", || origin.begun("/a") >= 1);
        gate.open();
    });
    for (id, answer) in answers.iter().enumerate() {
        answer.assert_status(200).assert_body(id.to_string());
    }
    assert_eq!(origin.count("/a"), CLIENTS);
}

#[test]
fn a_url_that_was_not_shared_no_longer_makes_a_queue() {
    let (origin, gate) = (Origin::start(), Gate::new());
    gate.open();
    let held = std::sync::Arc::new(std::sync::Mutex::new(gate));
    let current = std::sync::Arc::clone(&held);
    origin.on("/a", move |_| {
        let gate = crate::support::lock(&current).clone();
        [vec![Step::Wait(gate)], respond(200, &[("Cache-Control", "no-store")], "a")].concat()
    });
    let node = node(&origin).start();
    node.get("/a").assert_status(200);

    let closed = Gate::new();
    let _open = OpenOnDrop(closed.clone());
    *crate::support::lock(&held) = closed.clone();
    let answers = all_at_once(&node, "/a", || {
        eventually("all are at the origin at once", || origin.begun("/a") == 1 + CLIENTS);
        closed.open();
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[test]
fn the_fill_goes_on_when_its_first_client_leaves() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "worth it")].concat());
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());

    let mut leader = Client::connect(node.http());
    leader.send(&get("/a").bytes());
    eventually("the origin is asked", || origin.begun("/a") == 1);
    let mut follower = Client::connect(node.http());
    follower.send(&get("/a").bytes());
    drop(leader);
    gate.open();
    follower.response("GET").assert_status(200).assert_body("worth it");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_fill_that_nobody_waits_for_is_stored_all_the_same() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "worth it")].concat());
    let node = node(&origin).start();
    let mut leader = Client::connect(node.http());
    leader.send(&get("/a").bytes());
    eventually("the origin is asked", || origin.begun("/a") == 1);
    drop(leader);
    gate.open();
    node.await_hit("/a").assert_body("worth it");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn all_get_an_answer_when_the_origin_breaks() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |_| vec![Step::Wait(held.clone()), Step::Reset]);
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let answers = all_at_once(&node, "/a", || {
        eventually("the origin is asked", || origin.begun("/a") >= 1);
        gate.open();
    });
    for answer in answers {
        answer.assert_status(502).assert_own_error();
    }
    assert!(origin.count("/a") <= 2 * CLIENTS, "{} requests", origin.count("/a"));
}

#[test]
fn different_urls_do_not_wait_for_each_other() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/slow", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "slow")].concat());
    origin.fixed("/fast", 200, FRESH, "fast");
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut slow = Client::connect(node.http());
    slow.send(&get("/slow").bytes());
    eventually("the origin is asked", || origin.begun("/slow") == 1);
    node.get("/fast").assert_status(200);
    gate.open();
    slow.response("GET").assert_body("slow");
}

#[test]
fn many_clients_on_what_is_not_shared_are_at_the_origin_together() {
    const MANY: usize = 300;
    let _alone = heavy();
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    let _open = OpenOnDrop(gate.clone());
    let is_first = std::sync::atomic::AtomicBool::new(true);
    origin.on("/a", move |_| {
        let answer = respond(200, &[("Cache-Control", "private")], "a");
        if is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return answer;
        }
        [vec![Step::Wait(held.clone())], answer].concat()
    });
    assert!(MANY * 3 < open_files_limit(), "{MANY} clients, and as many connections to the origin here");
    let node = node(&origin)
        .limits("connections = 5000\nconnections_per_client = 5000")
        .origin("max_connections = 2000\nfirst_byte_timeout = \"5m\"\nconnect_timeout = \"1m\"")
        .start();
    // The first answer says that none can be shared: nobody waits for another from then on.
    let mut clients: Vec<Client> = (0..MANY).map(|_| Client::connect(node.http())).collect();
    for client in &mut clients {
        client.send(&get("/a").bytes());
    }
    eventually("all but the first are at the origin at once", || origin.begun("/a") == MANY);
    gate.open();
    for client in &mut clients {
        client.response("GET").assert_status(200).assert_body("a");
    }
    assert_eq!(origin.count("/a"), MANY);
}

#[test]
fn head_conditions_and_ranges_follow_as_any_other() {
    let body = pattern(100_000, 8);
    let (origin, gate) = (Origin::start(), Gate::new());
    let (held, sent) = (gate.clone(), body.clone());
    origin.on("/a", move |_| {
        let fields = [FRESH[0], ("ETag", "\"1\"")];
        [vec![Step::Wait(held.clone())], respond(200, &fields, &sent)].concat()
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let asks = [
        (get("/a").with("Range", "bytes=5-9"), 206),
        (get("/a"), 200),
        (head("/a"), 200),
        (get("/a").with("Range", "bytes=99990-"), 206),
        (get("/a").with("If-None-Match", "\"1\""), 304),
        (get("/a").with("If-None-Match", "\"2\""), 200),
        (head("/a").with("If-None-Match", "\"1\""), 304),
    ];
    let mut clients: Vec<Client> = asks.iter().map(|_| Client::connect(node.http())).collect();
    for (client, (ask, _)) in clients.iter_mut().zip(&asks) {
        client.send(&ask.bytes());
        // The first leads, with a fetch of the whole.
        eventually("the origin is asked", || origin.begun("/a") == 1);
    }
    node.await_metric("larder_connections", asks.len() as f64);
    gate.open();
    for (client, (ask, status)) in clients.iter_mut().zip(&asks) {
        let answer = client.response(&ask.method);
        answer.assert_status(*status);
        let expected = match (ask.method.as_str(), status, ask.fields.first()) {
            ("HEAD", ..) | (_, 304, _) => &[][..],
            (_, 206, Some((_, range))) if range == "bytes=5-9" => &body[5..10],
            (_, 206, _) => &body[99_990..],
            _ => &body[..],
        };
        assert_same_bytes(&answer.body, expected);
    }
    assert_eq!(
        origin.seen("/a").len(),
        1,
        "{:?}",
        origin.seen("/a").iter().map(|s| &s.method).collect::<Vec<_>>()
    );
}

/// Threads that ask for the same URLs in the same order meet where one's fetch has just landed.
#[test]
fn what_has_landed_and_is_on_disk_only_is_not_fetched_again() {
    const URLS: usize = 600;
    let body = pattern(20_000, 9);
    let origin = Origin::with("/*", FRESH, &body);
    let node = node(&origin).memory("4MiB").disk("1GiB").start();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = Client::connect(node.http());
                for url in 0..URLS {
                    let answer = client.exchange(&get(&format!("/{url}")));
                    answer.assert_status(200);
                    assert_same_bytes(&answer.body, &body);
                }
            });
        }
    });
    assert_eq!(origin.total(), URLS);
}
