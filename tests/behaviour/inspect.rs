//! `GET /v1/objects?url=`, `larder inspect` and `larder explain` after purges, and of what is kept in slices.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::warm::{HOST, ask, finished, rows, start};
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, Seen, respond};
use crate::support::process::run;
use crate::support::request::get;
use crate::support::{eventually, pattern};

const PATHS: [&str; 2] = ["/a/1", "/b/1"];

fn held(node: &Node, path: &str) -> Vec<Value> {
    let answer = node.admin_get(&format!("/v1/objects?url={HOST}{path}"));
    answer.assert_status(200);
    answer.json()["items"].as_array().expect("items").clone()
}

fn explained(node: &Node, path: &str, headers: &Value) -> Value {
    let body = json!({ "url": format!("{HOST}{path}"), "headers": headers });
    let answer = ask(node, "POST", "/v1/explain", &body.to_string());
    answer.assert_status(200);
    answer.json()
}

#[track_caller]
fn purge(node: &Node, body: &Value) -> Value {
    let answer = ask(node, "POST", "/v1/purges", &body.to_string());
    answer.assert_status(201);
    answer.json()
}

fn tagged() -> Origin {
    let origin = Origin::start();
    origin.on("/*", |seen: &Seen| {
        let tag = seen.path().split('/').nth(1).unwrap_or_default().to_owned();
        respond(200, &[("Cache-Control", "s-maxage=86400"), ("Surrogate-Key", &tag)], "body")
    });
    origin
}

#[test]
fn what_is_purged_is_not_shown_though_nobody_has_asked_for_it() {
    let origin = tagged();
    let mut node = node(&origin).disk("64MiB").start();
    let orders = [
        json!({ "urls": [format!("{HOST}/a/1")] }),
        json!({ "tags": ["a"] }),
        json!({ "prefixes": ["test.example/a"] }),
        json!({ "hosts": ["test.example"] }),
        json!({ "all": true }),
    ];
    for is_restarted in [false, true] {
        for order in &orders {
            for path in PATHS {
                node.await_hit(path);
                assert_eq!(held(&node, path).len(), 1, "{order}");
            }
            purge(&node, order);
            if is_restarted {
                node = node.restarted(Signal::TERM);
            }
            assert_eq!(held(&node, "/a/1"), Vec::<Value>::new(), "{order}");
            let is_of_all = order["all"] == true || order["hosts"].is_array();
            assert_eq!(held(&node, "/b/1").len(), usize::from(!is_of_all), "{order}");
        }
    }
    let (admin, token) = (format!("http://{}", node.admin()), node.token_file());
    let at = ["--node", &admin, "--token-file", token.to_str().expect("UTF-8")];
    let inspected = run(&[&["inspect", "http://test.example/a/1"][..], &at].concat());
    assert_eq!(inspected.status.code(), Some(1), "{inspected:?}");
}

#[test]
fn a_soft_purge_makes_it_stale_and_is_named_as_the_cause() {
    let origin = tagged();
    for disk in ["0", "64MiB"] {
        let mut node = node(&origin).disk(disk).start();
        node.await_hit("/a/1");
        let purged = purge(&node, &json!({ "tags": ["a"], "soft": true }));
        purge(&node, &json!({ "tags": ["b"], "soft": true }));
        for is_restarted in [false, true] {
            if is_restarted && disk != "0" {
                node = node.restarted(Signal::TERM);
            }
            let item = &held(&node, "/a/1")[0];
            assert_eq!(item["state"], "must-revalidate", "{item}");
            assert!(item["ttl"].as_i64().is_some_and(|ttl| ttl <= 0), "{item}");
            let told = explained(&node, "/a/1", &json!({}));
            assert_eq!(
                (&told["result"], &told["freshness"]["lifetime"]),
                (&json!("revalidate"), &json!(86_400))
            );
            let id = purged["id"].as_str().expect("an id");
            assert!(told["detail"].as_str().is_some_and(|why| why.contains(id)), "{told}");
            assert!(!told["advice"].to_string().contains("s-maxage"), "{told}");
        }
        // Renewed, it is as before.
        node.await_hit("/a/1");
        assert_eq!(held(&node, "/a/1")[0]["state"], "fresh");
        assert_eq!(explained(&node, "/a/1", &json!({}))["result"], "hit");
    }
}

const SLICE: usize = 64 * 1024;
const LENGTH: usize = 10 * SLICE + 1000;

fn sliced() -> Origin {
    let origin = Origin::start();
    let whole = pattern(LENGTH, 1);
    origin.on("/large", move |seen| {
        let range = seen.field("range").and_then(|range| range.strip_prefix("bytes="));
        let number = |text: &str| text.parse::<usize>().ok();
        let fields = [FRESH[0], ("ETag", "\"l\""), ("Accept-Ranges", "bytes")];
        match range.and_then(|range| range.split_once('-')) {
            None => respond(200, &fields, &whole),
            Some((from, to)) => {
                let from = number(from).unwrap_or(0);
                let to = number(to).unwrap_or(LENGTH - 1).min(LENGTH - 1);
                let of = format!("bytes {from}-{to}/{LENGTH}");
                respond(206, &[fields.as_slice(), &[("Content-Range", &of)]].concat(), &whole[from..=to])
            }
        }
    });
    origin
}

#[test]
fn slices_are_shown_explained_and_warmed_to_the_whole() {
    let origin = sliced();
    for (disk, store) in [("0", ""), ("64MiB", "admission = \"second-hit\"")] {
        let node = node(&origin).disk(disk).store(store).cache("range_slices = \"64KiB\"").start();
        // Twice, for the second to be admitted.
        for index in [0, 3, 0, 3] {
            let range = format!("bytes={}-{}", index * SLICE, index * SLICE + 9);
            get("/large").with("Range", &range).to(&node).assert_status(206);
        }
        let slices = || held(&node, "/large").first().map_or(Value::Null, |item| item["slices"].clone());
        eventually("two are stored", || slices() == json!({ "stored": 2, "of": 11, "length": LENGTH }));
        let item = &held(&node, "/large")[0];
        assert_eq!(
            (&item["key"], &item["status"], &item["size"]),
            (&json!(format!("{HOST}/large")), &json!(200), &json!(2 * SLICE)),
        );
        for (range, result) in [("bytes=0-10", "hit"), ("bytes=70000-70010", "miss")] {
            let told = explained(&node, "/large", &json!({ "range": range }));
            assert_eq!(told["result"], result, "{told}");
            assert!(told["detail"].as_str().is_some_and(|why| why.contains("2 of 11")), "{told}");
        }
        let order = json!({ "urls": [format!("{HOST}/large")], "encodings": ["identity"], "hold": "1h" });
        let id = start(&node, &order);
        let done = finished(&node, &id);
        let row = &rows(&node, &id, "")[0];
        assert_eq!(
            (&row["outcome"], &done["bytes"]),
            (&json!("stored"), &json!(LENGTH - 2 * SLICE)),
            "{row}"
        );
        assert!(row["reason"].as_str().is_some_and(|why| why.contains("not held")), "{row}");
        assert_eq!(slices(), json!({ "stored": 11, "of": 11, "length": LENGTH }));
        let asked = origin.count("/large");
        node.get("/large").assert_hit().assert_body(&pattern(LENGTH, 1)[..]);
        assert_eq!(finished(&node, &start(&node, &order))["outcomes"]["fresh"], 1);
        assert_eq!(origin.count("/large"), asked);
        purge(&node, &json!({ "urls": [format!("{HOST}/large")] }));
        assert_eq!(slices(), Value::Null);
        assert_eq!(explained(&node, "/large", &json!({}))["result"], "miss");
    }
}
