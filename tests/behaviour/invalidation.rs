//! Unsafe methods make stored answers invalid (RFC 9111 §4.4).

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Seen, Step, respond};
use crate::support::request::{get, request};
use crate::support::{Gate, OpenOnDrop, eventually};

/// Answers GET with what it was asked for and other methods as `unsafe_answer` says.
fn origin(
    unsafe_answer: impl Fn(&Seen) -> (u16, Vec<(&'static str, String)>) + Send + Sync + 'static,
) -> Origin {
    let origin = Origin::start();
    origin.on("/*", move |seen| {
        if seen.method == "GET" {
            return respond(200, FRESH, &seen.target);
        }
        let (status, fields) = unsafe_answer(seen);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        respond(status, &fields, "done")
    });
    origin
}

fn stored(node: &Node, path: &str) -> bool {
    node.get(path);
    node.get(path).is_hit()
}

#[test]
fn a_successful_change_makes_the_stored_answer_invalid() {
    let origin = origin(|_| (200, vec![]));
    let node = node(&origin).start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FROB"] {
        let path = format!("/{method}");
        assert!(stored(&node, &path));
        request(method, &path).body("x").to(&node).assert_status(200).assert_body("done");
        assert!(!node.get(&path).is_hit(), "after {method}");
        assert!(node.get(&path).is_hit(), "and the new answer is stored again");
    }
}

#[test]
fn a_redirect_after_a_change_counts_as_success() {
    let origin = origin(|_| (303, vec![("Location", "/elsewhere".to_owned())]));
    let node = node(&origin).start();
    assert!(stored(&node, "/a") && stored(&node, "/elsewhere"));
    request("POST", "/a").body("x").to(&node).assert_status(303);
    assert!(!node.get("/a").is_hit());
    assert!(!node.get("/elsewhere").is_hit(), "where it points to changed too");
}

#[test]
fn a_change_that_failed_leaves_the_stored_answer() {
    for status in [400, 403, 404, 500, 503] {
        let origin = origin(move |_| (status, vec![]));
        let node = node(&origin).start();
        assert!(stored(&node, "/a"));
        request("POST", "/a").body("x").to(&node).assert_status(status);
        assert!(node.get("/a").is_hit(), "after {status}");
    }
}

#[test]
fn safe_methods_leave_the_stored_answer() {
    let origin = origin(|_| (200, vec![]));
    let node = node(&origin).start();
    assert!(stored(&node, "/a"));
    for method in ["OPTIONS", "HEAD", "PROPFIND", "REPORT", "SEARCH"] {
        request(method, "/a").to(&node).assert_status(200);
        assert!(node.get("/a").is_hit(), "after {method}");
    }
}

#[test]
fn the_urls_that_the_answer_names_are_invalid_on_the_same_host_only() {
    let origin = origin(|seen| {
        let content = seen.field("x-content-location").unwrap_or("/").to_owned();
        (200, vec![("Content-Location", content)])
    });
    let node = node(&origin).start();
    let change = |location: &str| {
        request("POST", "/form").with("X-Content-Location", location).body("x").to(&node).assert_status(200);
    };
    for (location, path, invalid) in [
        ("/b", "/b", true),
        ("c", "/c", true),
        ("http://test.example/d", "/d", true),
        ("http://other.example/e", "/e", false),
        ("//other.example/f", "/f", false),
    ] {
        assert!(stored(&node, path));
        change(location);
        assert_eq!(!node.get(path).is_hit(), invalid, "{location}");
    }
    // Nor does it reach the other host's own entry.
    get("/e").host("other.example").to(&node);
    change("http://other.example/e");
    get("/e").host("other.example").to(&node).assert_hit();
}

#[test]
fn every_variant_is_invalid() {
    let origin = Origin::start();
    origin.on("/a", |seen| {
        let fields = [FRESH[0], ("Vary", "X-Kind")];
        if seen.method == "GET" { respond(200, &fields, "a") } else { respond(204, &[], "") }
    });
    let node = node(&origin).start();
    let ask = |kind: &str| get("/a").with("X-Kind", kind).to(&node);
    for kind in ["1", "2"] {
        ask(kind);
        ask(kind).assert_hit();
    }
    request("DELETE", "/a").to(&node).assert_status(204);
    for kind in ["1", "2"] {
        assert!(!ask(kind).is_hit(), "{kind}");
    }
}

#[test]
fn an_invalid_answer_is_not_served_when_the_origin_is_down() {
    let origin = origin(|_| (204, vec![]));
    let node = node(&origin).start();
    assert!(stored(&node, "/a"));
    request("POST", "/a").body("x").to(&node).assert_status(204);
    origin.stop();
    let answer = node.get("/a");
    assert!([502, 504].contains(&answer.status), "{}", answer.status);
}

#[test]
fn a_rule_for_changes_does_not_hide_what_they_change() {
    let origin = Origin::start();
    origin.on("/*", |seen| match seen.method.as_str() {
        "GET" => respond(200, &[FRESH[0], ("ETag", "\"v1\"")], &seen.target),
        _ => respond(201, &[("Location", "/list?page=2&utm_source=x")], ""),
    });
    let rules = "[[site.rule]]\nmethods = [\"POST\"]\ncache = { query = { mode = \"none\" } }\n\
                 [[site.rule]]\npath = [\"/list\"]\ncache = { query = { mode = \"deny\", names = [\"@tracking\"] } }";
    let node = node(&origin).rules(rules).start();
    for target in ["/a?x=1", "/a?x=2", "/list?page=2"] {
        node.get(target);
        node.get(target).assert_hit();
    }
    request("POST", "/a?x=1").body("x").to(&node).assert_status(201);
    node.get("/a?x=1").assert_fwd("stale");
    node.get("/list?page=2").assert_fwd("stale");
    node.get("/a?x=2").assert_hit();
}

/// RFC 9875 §3: by a successful answer to an unsafe method, and only of the same site.
#[test]
fn an_answer_names_the_groups_that_a_change_invalidates() {
    let origin = Origin::start();
    origin.on("/*", |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", "/cart") => respond(200, &[FRESH[0], ("Cache-Groups", "\"cart\", \"all pages\"")], "cart"),
        ("GET", "/menu") => respond(200, &[FRESH[0], ("Cache-Groups", "\"all pages\";x=1")], "menu"),
        ("GET", "/sloppy") => respond(200, &[FRESH[0], ("Cache-Groups", "cart")], "no string is no group"),
        ("GET", _) => {
            respond(200, &[FRESH[0], ("Cache-Group-Invalidation", "\"cart\"")], "said of a safe method")
        }
        (_, "/failed") => respond(500, &[("Cache-Group-Invalidation", "\"cart\"")], "no"),
        (_, "/broken") => respond(200, &[("Cache-Group-Invalidation", "\"cart")], "unparsable"),
        (_, "/pages") => respond(200, &[("Cache-Group-Invalidation", "\"x\", \"all pages\"")], "done"),
        _ => respond(200, &[("Cache-Group-Invalidation", "\"cart\"")], "done"),
    });
    let node = node(&origin).start();
    for path in ["/cart", "/menu", "/sloppy", "/other"] {
        assert!(stored(&node, path), "{path}");
    }
    request("POST", "/failed").body("x").to(&node).assert_status(500);
    request("POST", "/broken").body("x").to(&node).assert_status(200);
    assert!(node.get("/cart").is_hit(), "nothing has said so yet");
    assert_eq!(node.get("/cart").field("Cache-Groups"), Some("\"cart\", \"all pages\""), "clients see them");

    request("POST", "/buy").body("x").to(&node).assert_status(200);
    assert!(!node.get("/cart").is_hit());
    for path in ["/menu", "/sloppy", "/other", "/cart"] {
        assert!(node.get(path).is_hit(), "{path} is in no such group, or was stored again");
    }

    request("DELETE", "/pages").to(&node).assert_status(200);
    assert!(!node.get("/cart").is_hit() && !node.get("/menu").is_hit());
    assert!(node.get("/sloppy").is_hit() && node.get("/other").is_hit());
}

/// What was asked for before a change is no answer to who asks after it, and not fresh for anybody later.
#[test]
fn what_is_under_way_is_changed_too() {
    for first in [None, Some("no-cache"), Some("private")] {
        under_way(first, true);
        under_way(first, false);
    }
}

/// A change while an answer is under way: the first, or one that follows an answer with this Cache-Control.
fn under_way(first: Option<&'static str>, is_asked_after_it: bool) {
    let (origin, gate) = (Origin::start(), Gate::new());
    let (held, asked) = (gate.clone(), AtomicUsize::new(usize::from(first.is_none())));
    origin.on("/a", move |seen| {
        if seen.method != "GET" {
            return respond(204, &[], "");
        }
        match asked.fetch_add(1, SeqCst) {
            0 => respond(200, &[("Cache-Control", first.unwrap_or_default()), ("ETag", "\"a\"")], "old"),
            1 => {
                let status = if seen.has("if-none-match") { 304 } else { 200 };
                let body = if status == 200 { "old" } else { "" };
                let late = respond(status, &[FRESH[0], ("ETag", "\"a\"")], body);
                [vec![Step::Wait(held.clone())], late].concat()
            }
            _ => respond(200, &[FRESH[0], ("ETag", "\"b\"")], "new"),
        }
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    if first.is_some() {
        node.get("/a").assert_body("old");
    }
    let (mut early, begun) = (Client::connect(node.http()), origin.begun("/a"));
    early.send(&get("/a").bytes());
    eventually("the origin is asked", || origin.begun("/a") > begun);
    request("POST", "/a").body("x").to(&node).assert_status(204);
    if is_asked_after_it {
        node.get("/a").assert_body("new");
    }
    gate.open();
    early.response("GET").assert_status(200).assert_body("old");
    let late = node.get("/a");
    late.assert_body("new");
    assert_eq!(late.is_hit(), is_asked_after_it, "{first:?}: {:?}", late.fields);
}

#[test]
fn a_change_counts_though_its_client_does_not_wait_for_the_answer() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/a", move |seen| match seen.method.as_str() {
        "GET" => respond(200, FRESH, "a"),
        _ => [vec![Step::Wait(held.clone())], respond(200, &[], "done")].concat(),
    });
    let node = node(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    assert!(stored(&node, "/a"));
    let left = |bytes: &[u8], count: usize| {
        let mut client = Client::connect(node.http());
        client.send(bytes);
        eventually("the origin has the request", || origin.begun("/a") == count);
        drop(client);
        eventually("the node sees that it has left", || node.metric("larder_connections") == 0.0);
    };
    // Half a request changes nothing.
    let whole = request("POST", "/a").body("x=1").bytes();
    left(&whole[..whole.len() - 1], 2);
    eventually("the origin sees that", || origin.connections_open() < 2);
    node.get("/a").assert_hit();
    left(&whole, 3);
    node.get("/a").assert_hit();
    gate.open();
    eventually("it is invalid", || !node.get("/a").is_hit());
}
