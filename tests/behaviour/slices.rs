//! Ranges of large responses: slices, fetched once and put together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::{Broken, Client};
use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin, Reply, Seen, Step, respond};
use crate::support::request::{Request, get, request};
use crate::support::{assert_same_bytes, eventually, pattern};

const SIZE: usize = 64 * 1024;
const LENGTH: usize = 10 * SIZE + 1234;

/// An origin with one large file that can be replaced.
struct File {
    origin: Origin,
    seed: Arc<AtomicU64>,
}

impl File {
    fn new(fields: &'static [(&'static str, &'static str)]) -> Self {
        let origin = Origin::start();
        let seed = Arc::new(AtomicU64::new(1));
        let current = seed.clone();
        origin.on("/large", move |seen| answer(seen, current.load(Relaxed), fields));
        Self { origin, seed }
    }

    /// The ranges that were asked for, `-` for the whole.
    fn asked(&self) -> Vec<String> {
        let range = |seen: &Seen| seen.field("range").unwrap_or("-").to_owned();
        self.origin.seen("/large").iter().map(range).collect()
    }
}

fn answer(seen: &Seen, seed: u64, fields: &[(&str, &str)]) -> Reply {
    let body = pattern(LENGTH, seed);
    let tag = format!("\"{seed}\"");
    let mut fields = fields.to_vec();
    if !matches!(&*seen.method, "GET" | "HEAD") {
        return respond(204, &[], "");
    }
    fields.push(("Accept-Ranges", "bytes"));
    if !fields.iter().any(|(name, _)| *name == "Cache-Control") {
        fields.extend(FRESH);
    }
    if !fields.iter().any(|(name, _)| *name == "ETag") {
        fields.push(("ETag", &tag));
    }
    let is_same = seen.field("if-range").is_none_or(|given| given == tag);
    let range = seen.field("range").filter(|_| is_same).and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().map_or(LENGTH - 1, |l| l.min(LENGTH - 1))))
    });
    match range {
        Some((first, last)) => {
            let content_range = format!("bytes {first}-{last}/{LENGTH}");
            fields.push(("Content-Range", &content_range));
            respond(206, &fields, &body[first..=last])
        }
        None => respond(200, &fields, &body),
    }
}

fn sliced(file: &File) -> Builder {
    node(&file.origin).cache("range_slices = \"64KiB\"")
}

fn range(first: usize, last: usize) -> Request {
    get("/large").with("Range", format!("bytes={first}-{last}"))
}

#[track_caller]
fn assert_range(node: &Node, first: usize, last: usize, seed: u64) {
    let answer = range(first, last).to(node);
    answer.assert_status(206);
    assert_eq!(answer.field("content-range"), Some(&*format!("bytes {first}-{last}/{LENGTH}")));
    assert_same_bytes(&answer.body, &pattern(LENGTH, seed)[first..=last]);
}

#[test]
fn only_the_slices_of_a_range_are_fetched_and_each_once() {
    let file = File::new(&[]);
    let node = sliced(&file).start();
    assert_range(&node, SIZE + 10, 3 * SIZE - 1, 1);
    assert_eq!(file.asked(), ["-", "bytes=65536-131071", "bytes=131072-196607"]);
    assert_range(&node, SIZE, 2 * SIZE + 5, 1);
    assert_range(&node, 2 * SIZE, 2 * SIZE, 1);
    assert_eq!(file.asked().len(), 3, "all of it is stored");
    assert_range(&node, 2 * SIZE + 1, 3 * SIZE + 1, 1);
    assert_eq!(file.asked()[3..], ["bytes=196608-262143"]);
    // A suffix, and the last slice, which is shorter.
    let suffix = get("/large").with("Range", "bytes=-10").to(&node);
    suffix.assert_status(206);
    assert_same_bytes(&suffix.body, &pattern(LENGTH, 1)[LENGTH - 10..]);
    assert_eq!(file.asked()[4..], ["bytes=655360-656593"]);
    node.assert_no_panic();
}

#[test]
fn the_whole_is_put_together_from_slices_and_the_origin() {
    let file = File::new(&[]);
    let node = sliced(&file).start();
    assert_range(&node, 5 * SIZE, 7 * SIZE - 1, 1);
    let whole = node.get("/large");
    whole.assert_status(200);
    assert_eq!(whole.field("content-length"), Some(&*LENGTH.to_string()));
    assert_eq!(whole.field("content-range"), None);
    assert_same_bytes(&whole.body, &pattern(LENGTH, 1));
    assert_eq!(file.asked().len(), 12, "the head, and each of eleven slices once");
    let again = node.get("/large");
    again.assert_hit();
    assert_same_bytes(&again.body, &pattern(LENGTH, 1));
    assert_eq!(file.asked().len(), 12);
}

#[test]
fn conditions_and_bad_ranges_are_answered_as_for_the_whole() {
    let file = File::new(&[]);
    let node = sliced(&file).start();
    assert_range(&node, 0, 0, 1);
    get("/large").with("If-None-Match", "\"1\"").to(&node).assert_status(304);
    range(0, 9).with("If-Range", "\"other\"").to(&node).assert_status(200);
    let beyond = get("/large").with("Range", format!("bytes={LENGTH}-")).to(&node);
    beyond.assert_status(416);
    assert_eq!(beyond.field("content-range"), Some(&*format!("bytes */{LENGTH}")));
    crate::support::request::head("/large").to(&node).assert_status(200).assert_body("");
}

#[test]
fn slices_of_a_changed_file_never_meet() {
    let file = File::new(&[]);
    let node = sliced(&file).start();
    assert_range(&node, 0, SIZE, 1);
    file.seed.store(2, Relaxed);
    // Slices 0 and 1 are stored of the old one; 2 and 3 can only be had of the new one.
    let mut client = Client::connect(node.http());
    client.send(&range(SIZE, 3 * SIZE).bytes());
    match client.try_response("GET") {
        Ok(answer) => {
            let new = &pattern(LENGTH, 2)[SIZE..=3 * SIZE];
            assert_eq!(answer.status, 206);
            assert_same_bytes(&answer.body, new);
        }
        Err(Broken::Truncated(answer)) => {
            assert_same_bytes(&answer.body, &pattern(LENGTH, 1)[SIZE..SIZE + answer.body.len()]);
        }
        Err(other) => panic!("{other:?}"),
    }
    // From now on it is the new one that is put together.
    assert_range(&node, SIZE, 3 * SIZE, 2);
    assert_range(&node, 0, LENGTH - 1, 2);
    node.assert_no_panic();
}

#[test]
fn without_a_strong_tag_or_when_small_the_whole_is_fetched() {
    let file = File::new(&[("ETag", "W/\"weak\"")]);
    let node = sliced(&file).start();
    assert_range(&node, 100, 200, 1);
    node.await_hit("/large");
    assert_range(&node, 300_000, 400_000, 1);
    assert_eq!(file.asked(), ["-"]);
    let file = File::new(&[]);
    let node = node_of(&file, "range_slices = \"10MiB\"");
    assert_range(&node, 100, 200, 1);
    node.await_hit("/large");
    assert_eq!(file.asked(), ["-"]);
}

fn node_of(file: &File, cache: &str) -> Node {
    node(&file.origin).cache(cache).start()
}

#[test]
fn many_clients_of_one_range_cost_one_request_a_slice() {
    let file = File::new(&[]);
    let node = sliced(&file).start();
    assert_range(&node, 0, 0, 1);
    let before = file.asked().len();
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let answer = range(4 * SIZE + 7, 8 * SIZE).to(&node);
                if answer.body != pattern(LENGTH, 1)[4 * SIZE + 7..=8 * SIZE] {
                    wrong.lock().unwrap().push(answer.status);
                }
            });
        }
    });
    assert_eq!(*wrong.lock().unwrap(), Vec::<u16>::new());
    assert_eq!(file.asked().len() - before, 5, "{:?}", file.asked());
}

#[test]
fn slices_survive_a_restart() {
    let file = File::new(&[]);
    let node = sliced(&file).disk("64MiB").start();
    assert_range(&node, 0, 4 * SIZE - 1, 1);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 4.0);
    let before = file.asked().len();
    let node = node.restarted(Signal::KILL);
    assert_range(&node, 10, 4 * SIZE - 1, 1);
    assert_eq!(file.asked()[before..], ["-"], "only the head is asked for again");
}

/// The slice that is asked for, in chunks, with so many bytes more or fewer than it has.
fn of_wrong_length(seen: &Seen, by: isize) -> Reply {
    let mut reply = answer(seen, 1, &[("Transfer-Encoding", "chunked")]);
    if let Some(Step::Body(body)) = reply.last_mut() {
        body.resize(body.len().saturating_add_signed(by), 0);
        let head = format!("{:x}\r\n", body.len());
        *body = [head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    }
    reply
}

#[test]
fn a_slice_of_the_wrong_length_is_not_stored() {
    for by in [-1000, 1000] {
        let file = File::new(&[]);
        let node = sliced(&file).start();
        assert_range(&node, 0, 0, 1);
        file.origin.on("/large", move |seen| of_wrong_length(seen, by));
        let mut client = Client::connect(node.http());
        client.send(&range(SIZE, 2 * SIZE - 1).bytes());
        let broken = client.try_response("GET");
        assert!(broken.is_err(), "{by}: {broken:?}");
        file.origin.on("/large", |seen| answer(seen, 1, &[]));
        let before = file.asked().len();
        assert_range(&node, SIZE, 2 * SIZE - 1, 1);
        assert_eq!(file.asked()[before..], ["bytes=65536-131071"], "{by}");
        assert_same_bytes(&node.get("/large").body, &pattern(LENGTH, 1));
    }
}

#[test]
fn a_change_ends_what_is_known_of_the_slices() {
    for (method, is_disk) in [("PUT", false), ("POST", true)] {
        let file = File::new(&[]);
        let node = sliced(&file).disk(if is_disk { "64MiB" } else { "0" }).start();
        assert_range(&node, 0, 2 * SIZE, 1);
        file.seed.store(2, Relaxed);
        request(method, "/large").body("x").to(&node).assert_status(204);
        assert_range(&node, 0, 9, 2);
        assert_range(&node, 0, LENGTH - 1, 2);

        // The whole, too.
        file.seed.store(3, Relaxed);
        request(method, "/large").body("x").to(&node).assert_status(204);
        assert_same_bytes(&node.get("/large").body, &pattern(LENGTH, 3));
    }
}

#[test]
fn slices_from_before_a_change_are_used_only_if_the_origin_still_has_their_tag() {
    let file = File::new(&[]);
    let node = sliced(&file).disk("64MiB").start();
    assert_range(&node, 0, 4 * SIZE - 1, 1);
    request("PUT", "/large").body("x").to(&node).assert_status(204);
    let before = file.asked().len();
    assert_range(&node, 10, 4 * SIZE - 1, 1);
    assert_eq!(file.asked()[before..], ["-"], "only the head is asked for again");

    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 4.0);
    file.seed.store(2, Relaxed);
    request("PUT", "/large").body("x").to(&node).assert_status(204);
    let node = node.restarted(Signal::KILL);
    assert_range(&node, 10, 4 * SIZE - 1, 2);
}

const STALE: &[(&str, &str)] = &[("Cache-Control", "max-age=1")];

/// Two slices of a file that are stale, and what has gone to the origin for them.
fn stale_slices(file: &File, cache: &str) -> Node {
    let node = sliced(file).cache(cache).start();
    assert_range(&node, 0, SIZE, 1);
    std::thread::sleep(Duration::from_millis(1100));
    node
}

#[test]
fn stale_slices_stand_in_for_an_origin_that_fails() {
    for status in [0, 503] {
        let file = File::new(STALE);
        let node = stale_slices(&file, "");
        file.origin.on("/large", move |_| match status {
            0 => vec![Step::Close],
            status => respond(status, &[], "broken"),
        });
        let covered = range(SIZE - 10, SIZE).to(&node);
        covered.assert_status(206).assert_fwd("stale").assert_body(&pattern(LENGTH, 1)[SIZE - 10..=SIZE]);
        assert_eq!(covered.cache_parameter("detail").as_deref(), Some("stale-if-error"));
        let fwd_status = (status > 0).then(|| status.to_string());
        assert_eq!(covered.cache_parameter("fwd-status"), fwd_status);
        assert!(covered.age() >= Some(1));
        // What was never stored can't be had.
        assert!([502, status].contains(&range(3 * SIZE, 3 * SIZE).to(&node).status));
        file.origin.on("/large", |seen| answer(seen, 1, STALE));
        eventually("the origin is asked again", || !range(0, 0).to(&node).has("age"));
    }
}

#[test]
fn stale_slices_do_not_stand_in_where_that_is_forbidden() {
    const STRICT: &[(&str, &str)] = &[("Cache-Control", "max-age=1, must-revalidate")];
    const NEVER: &str = "stale_if_error = \"0s\"";
    for (fields, cache, is_changed) in [(STRICT, "", false), (STALE, NEVER, false), (STALE, "", true)] {
        let file = File::new(fields);
        let node = stale_slices(&file, cache);
        if is_changed {
            request("PUT", "/large").body("x").to(&node).assert_status(204);
        }
        file.origin.stop();
        range(0, 9).to(&node).assert_status(502).assert_own_error();
    }
}

#[test]
fn stale_slices_are_served_while_they_are_fetched_anew() {
    let file = File::new(STALE);
    let node = stale_slices(&file, "stale_while_revalidate = \"600s\"");
    let before = file.asked().len();
    let stale = range(0, 9).to(&node);
    stale.assert_status(206).assert_hit().assert_body(&pattern(LENGTH, 1)[..10]);
    assert_eq!(stale.cache_parameter("detail").as_deref(), Some("stale-revalidating"));
    eventually("one fetch in the background", || file.asked().len() > before);
    assert_eq!(file.asked()[before..], ["bytes=0-65535"]);
}
