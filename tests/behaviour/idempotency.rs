//! `Idempotency-Key`: the same request under the same key is done once.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::node::{Node, node};
use crate::support::origin::Origin;
use crate::support::request::request;
use crate::support::response::Response;

#[track_caller]
fn ask(node: &Node, token: &str, key: &str, body: &Value) -> Response {
    let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {token}"));
    node.ask_admin(&ask.with("Idempotency-Key", key).body(body.to_string()))
}

fn made(node: &Node) -> usize {
    node.admin_get("/v1/purges").json()["items"].as_array().expect("items").len()
}

#[test]
fn the_same_request_is_done_once_and_over_a_restart() {
    let origin = Origin::start();
    let mut node = node(&origin).start();
    let body = json!({ "tags": ["a"] });
    let first = ask(&node, &node.token(), "k-1", &body);
    first.assert_status(201);
    assert!(!first.has("idempotency-replayed"));
    for is_restarted in [false, true] {
        if is_restarted {
            node = node.restarted(Signal::KILL);
        }
        let again = ask(&node, &node.token(), "k-1", &body);
        again.assert_status(201);
        assert_eq!(again.field("idempotency-replayed"), Some("true"), "restarted: {is_restarted}");
        assert_eq!((again.json(), again.field("location")), (first.json(), first.field("location")));
        let other = ask(&node, &node.token(), "k-1", &json!({ "tags": ["b"] }));
        other.assert_status(422);
        assert!(other.text().contains("idempotency-key-reused"), "{}", other.text());
    }
    // The node with `disk = 0` keeps no log of purges, only the answers.
    ask(&node, &node.token(), "k-2", &body).assert_status(201);
    assert_eq!(made(&node), 1);
}

#[test]
fn duplicates_at_the_same_time_get_one_answer() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let token = node.token();
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| ask(&node, &token, "at-once", &json!({ "tags": ["a"] }))))
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer").json()["id"].clone()).collect()
    });
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
    assert_eq!(made(&node), 1);
}

#[test]
fn what_failed_can_be_tried_again_and_a_key_is_a_tokens_own() {
    let origin = Origin::start();
    let token = |name: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!("[[admin.token]]\nname = \"{name}\"\nhash = \"blake3:{hash}\"\nscopes = [\"purge\"]\n")
    };
    let node = node(&origin).admin(&(token("one") + &token("two"))).start();
    ask(&node, "one", "k", &json!({ "tags": [""] })).assert_status(400);
    let one = ask(&node, "one", "k", &json!({ "tags": ["a"] }));
    one.assert_status(201);
    let two = ask(&node, "two", "k", &json!({ "tags": ["b"] }));
    two.assert_status(201);
    assert_ne!(one.json()["id"], two.json()["id"]);
    ask(&node, "nobody", "k", &json!({ "tags": ["a"] })).assert_status(401);
    for bad in ["", &"k".repeat(256)] {
        ask(&node, "one", bad, &json!({ "tags": ["a"] })).assert_status(400);
    }
    let long = json!({ "tags": ["a"], "note": "n".repeat(2 << 20) });
    ask(&node, "one", "long", &long).assert_status(413);
}

fn fastly(node: &Node, field: &str, key: &str, fields: &[(&str, &str)]) -> Response {
    let ask = request("POST", "/service/x/purge").with(field, node.token()).with("Idempotency-Key", key);
    node.ask_admin(&fields.iter().fold(ask, |ask, (name, value)| ask.with(name, value)))
}

#[test]
fn a_token_in_a_field_of_other_apis_has_keys_too() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let tags = &[("Surrogate-Key", "a")];
    let first = fastly(&node, "Fastly-Key", "k", tags);
    first.assert_status(200);
    for field in ["Fastly-Key", "X-Auth-Key"] {
        let again = fastly(&node, field, "k", tags);
        again.assert_status(200);
        assert_eq!(
            (again.field("idempotency-replayed"), again.json()),
            (Some("true"), first.json()),
            "{field}"
        );
    }
    assert_eq!(made(&node), 1);
    fastly(&node, "X-Auth-Key", "k", &[("Surrogate-Key", "b")]).assert_status(422);
}

#[test]
fn what_is_selected_by_fields_is_part_of_the_request() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let ask = |fields: &[(&str, &str)]| fastly(&node, "Fastly-Key", "k", fields);
    ask(&[("Surrogate-Key", "a1")]).assert_status(200);
    for fields in [
        &[("Surrogate-Key", "b1")][..],
        &[("Surrogate-Key", "a1"), ("Surrogate-Key", "b1")],
        &[("Surrogate-Key", "a1"), ("Fastly-Soft-Purge", "1")],
        &[("Surrogate-Key", "a1"), ("Fastly-Purge-Environment", "staging")],
        &[],
    ] {
        let answer = ask(fields);
        assert_eq!(answer.status, 422, "{fields:?}: {}", answer.text());
        assert!(answer.text().contains("idempotency-key-reused"), "{}", answer.text());
    }
    // What selects nothing may differ.
    let again = ask(&[("Surrogate-Key", "a1"), ("User-Agent", "another")]);
    assert_eq!(again.field("idempotency-replayed"), Some("true"));
    assert_eq!(made(&node), 1);
}
