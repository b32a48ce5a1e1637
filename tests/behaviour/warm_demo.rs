//! Warming a shop whose origin is a directory, as the demo's is; and what is asked for by https.
//!
//! `LARDER_WARM_URLS=2000` and `LARDER_WARM_RATE=200` for the figures of the promise.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::warm::{ENCODED, HOST, encoding_origin, job, start, warm};
use crate::support::client::Client;
use crate::support::holds_within;
use crate::support::node::{node, node_on_directory};
use crate::support::request::{get, request};
use crate::support::tls::Ca;

const ENCODINGS: [&str; 3] = ["br", "gzip", "identity"];

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Every file of the sample shop, as often as it takes, told apart by a query as assets are by their version.
fn targets(count: usize) -> Vec<String> {
    fn files(directory: &Path, found: &mut Vec<String>, root: &Path) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.strip_prefix(root).expect("below it").to_str() {
                Some(_) if path.is_dir() => files(&path, found, root),
                Some(name) => found.push(format!("/{name}")),
                None => {}
            }
        }
    }
    let root = shop();
    let mut found = Vec::new();
    files(&root, &mut found, &root);
    found.sort();
    (0..count).map(|n| format!("{}?v={}", found[n % found.len()], n / found.len())).collect()
}

fn shop() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets-sample")
}

fn requests_done(job: &Value) -> usize {
    job["requests"]["done"].as_u64().expect("a number") as usize
}

#[test]
fn the_shop_is_warm_in_three_encodings_at_its_rate_and_over_a_restart() {
    let (count, rate) = (setting("LARDER_WARM_URLS", 100), setting("LARDER_WARM_RATE", 60) as f64);
    let targets = targets(count);
    let urls: Vec<String> = targets.iter().map(|target| format!("{HOST}{target}")).collect();
    let node = node_on_directory(&shop()).cache("override_ttl = \"1d\"").disk("1GiB").start();
    let id = start(&node, &json!({ "urls": urls, "encodings": ENCODINGS, "rate": rate }));
    let total = count * ENCODINGS.len();
    let limit = Duration::from_secs_f64(total as f64 / rate * 2.0 + 30.0);
    assert!(holds_within(limit, || requests_done(&job(&node, &id)) >= total / 4));
    let (begun, at) = (requests_done(&job(&node, &id)), Instant::now());
    assert!(holds_within(limit, || requests_done(&job(&node, &id)) >= total / 2));
    let before = job(&node, &id);
    let found = (requests_done(&before) - begun) as f64 / at.elapsed().as_secs_f64();
    assert!((found / rate - 1.0).abs() < 0.1, "{found} requests a second instead of {rate}");
    let node = node.restarted(Signal::KILL);
    let after = job(&node, &id);
    assert_ne!(after["state"], "done");
    assert!(requests_done(&after) as f64 >= requests_done(&before) as f64 - 3.0 * rate, "{before} {after}");
    assert!(holds_within(limit, || job(&node, &id)["state"] == "done"));
    let done = job(&node, &id);
    assert_eq!(done["requests"], json!({ "total": total, "done": total, "failed": 0 }), "{done}");
    assert_eq!((&done["done"], &done["failed"]), (&count.into(), &0.into()));
    let mut client = Client::connect(node.http());
    for target in &targets {
        for encoding in ENCODINGS {
            client.exchange(&get(target).with("Accept-Encoding", encoding)).assert_status(200).assert_hit();
        }
    }
    println!("{count} files of the shop in 3 encodings: {found:.1} requests a second of {rate}");
}

#[test]
fn by_https_it_is_warm_for_https_alone() {
    let (origin, ca) = (encoding_origin(ENCODED), Ca::new());
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let urls = ["https://test.example/a", "https://test.example/b"];
    let done = warm(&node, &json!({ "urls": urls, "encodings": ["br", "identity"] }));
    assert_eq!(done["outcomes"]["stored"], 2, "{done}");
    let mut secure =
        Client::connect_tls(node.https(), "test.example", &ca.client(&["http/1.1"])).expect("a handshake");
    for path in ["/a", "/b"] {
        for encoding in ["br", "identity"] {
            secure.exchange(&get(path).with("Accept-Encoding", encoding)).assert_hit();
        }
        assert!(!request("GET", path).to(&node).is_hit(), "another URL");
    }
}
