//! The access log: one JSON object a line.

use std::path::Path;

use serde_json::Value;

use crate::support::eventually;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{get, request};

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Whether any member of the object, at any depth, is this text or number or contains this text.
fn mentions(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Object(members) => members.values().any(|member| mentions(member, wanted)),
        Value::Array(items) => items.iter().any(|item| mentions(item, wanted)),
        Value::String(text) => text.contains(wanted),
        Value::Number(number) => number.to_string() == wanted,
        Value::Null | Value::Bool(_) => false,
    }
}

#[test]
fn each_request_is_a_line_of_json() {
    let origin = Origin::with("/a", FRESH, "twelve bytes");
    let builder = node(&origin);
    let file = builder.path().join("access.log");
    let node = builder.extra(&format!("[access_log]\noutput = \"{}\"", file.display())).start();
    node.get("/a?secret=1").assert_status(200);
    node.get("/a?secret=1").assert_hit();
    get("/b").with("User-Agent", "quote\" back\\slash {\"x\":1}").to(&node).assert_status(404);
    request("TRACE", "/c").to(&node).assert_status(405);

    eventually("four lines", || lines(&file).len() == 4);
    for line in lines(&file) {
        assert_eq!(line["complete"], true, "every one of them was read to its end: {line}");
    }
    let lines = lines(&file);
    for (line, wanted) in lines.iter().zip([
        &["GET", "/a", "200", "miss", "test.example", "127.0.0.1"] as &[_],
        &["GET", "/a", "200", "hit"],
        &["GET", "/b", "404"],
        &["TRACE", "/c", "405"],
    ]) {
        for wanted in wanted {
            assert!(mentions(line, wanted), "no {wanted} in {line}");
        }
    }
}

#[test]
fn it_is_off_unless_asked_for() {
    let origin = Origin::with("/a", FRESH, "a");
    let mut node = node(&origin).start();
    node.get("/a-very-special-path").assert_status(404);
    node.stop();
    assert!(!node.lines().iter().any(|line| line.contains("a-very-special-path")), "{:?}", node.lines());
}

#[test]
fn what_was_logged_is_on_file_when_the_node_has_stopped() {
    let origin = Origin::with("/*", FRESH, "a");
    let builder = node(&origin);
    let file = builder.path().join("access.log");
    let mut node = builder.extra(&format!("[access_log]\noutput = \"{}\"", file.display())).start();
    for n in 0..50 {
        node.get(&format!("/{n}")).assert_status(200);
    }
    node.stop();
    assert_eq!(lines(&file).len(), 50);
}
