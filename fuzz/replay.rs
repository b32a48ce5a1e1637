//! Replays every seed of every fuzz target, on stable Rust: `#[path]`-include this file into a test.

#[path = "src_shared/mod.rs"]
mod shared;

use std::{fs, path::Path};

/// The corpus of one target; an empty one would prove nothing.
fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&directory).expect("a corpus") {
        let path = entry.expect("a seed").path();
        println!("{}", path.display());
        run(&fs::read(&path).expect("a seed"));
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", directory.display());
}

#[test]
fn age() {
    replay("age", shared::age::run);
}

#[test]
fn cache_control() {
    replay("cache_control", shared::cache_control::run);
}

#[test]
fn date() {
    replay("date", shared::date::run);
}

#[test]
fn etag() {
    replay("etag", shared::etag::run);
}

#[test]
fn if_range() {
    replay("if_range", shared::if_range::run);
}

#[test]
fn proxy_protocol() {
    replay("proxy_protocol", shared::proxy_protocol::run);
}

#[test]
fn range() {
    replay("range", shared::range::run);
}

#[test]
fn response() {
    replay("response", shared::response::run);
}

#[test]
fn signed() {
    replay("signed", shared::signed::run);
}

#[test]
fn structured() {
    replay("structured", shared::structured::run);
}

#[test]
fn url() {
    replay("url", shared::url::run);
}

#[test]
fn vary() {
    replay("vary", shared::vary::run);
}
