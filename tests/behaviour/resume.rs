//! An origin that breaks off in the middle: with a strong tag and ranges the fill goes on, else nobody
//! takes a part for the whole.

use crate::support::client::{Broken, Client};
use crate::support::node::{Node, node};
use crate::support::origin::{Origin, Reply, Seen, Step, respond};
use crate::support::request::get;
use crate::support::{assert_same_bytes, pattern};

const LENGTH: usize = 300_000;

/// The head of the whole and only `sent` bytes of it.
fn broken(tag: &str, ranges: &str, sent: usize) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nCache-Control: max-age=600\r\nETag: {tag}\r\n{ranges}\r\n"
    );
    let body = pattern(LENGTH, 1)[..sent].to_vec();
    vec![Step::Send(head.into_bytes()), Step::Send(body), Step::Close]
}

/// The rest that a range asks for, of a representation with this tag and seed.
fn rest(seen: &Seen, tag: &str, seed: u64) -> Reply {
    let first: usize = seen
        .field("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .expect("an open range");
    let content_range = format!("bytes {first}-{}/{LENGTH}", LENGTH - 1);
    respond(206, &[("ETag", tag), ("Content-Range", &content_range)], &pattern(LENGTH, seed)[first..])
}

const RANGES: &str = "Accept-Ranges: bytes\r\n";

fn asked(node: &Node) -> Result<crate::support::response::Response, Broken> {
    let mut client = Client::connect(node.http());
    client.send(&get("/a").bytes());
    client.try_response("GET")
}

#[test]
fn a_fill_that_broke_off_goes_on_where_it_was() {
    let origin = Origin::start();
    origin.on("/a", |seen| match seen.field("range") {
        None => broken("\"1\"", RANGES, 100_000),
        Some("bytes=100000-") => {
            let mut reply = rest(seen, "\"1\"", 1);
            // And breaks off once more.
            if let Some(Step::Body(body)) = reply.last_mut() {
                body.truncate(50_000);
            }
            reply.push(Step::Close);
            reply
        }
        Some(_) => rest(seen, "\"1\"", 1),
    });
    let node = node(&origin).start();
    let answer = asked(&node).expect("a whole answer");
    assert_same_bytes(&answer.body, &pattern(LENGTH, 1));
    assert_eq!(origin.count("/a"), 3);
    assert_eq!(origin.seen("/a")[1].field("if-range"), Some("\"1\""));
    assert_same_bytes(&node.await_hit("/a").body, &pattern(LENGTH, 1));
    assert_eq!(origin.count("/a"), 3);
}

/// A tag, the field that says that ranges are taken, and the answer to the second request.
type Case = (&'static str, &'static str, fn(&Seen) -> Reply);

#[test]
fn what_can_not_be_resumed_breaks_off_and_is_not_stored() {
    let cases: [Case; 6] = [
        ("W/\"1\"", RANGES, |seen| rest(seen, "W/\"1\"", 1)),
        ("\"1\"", "", |seen| rest(seen, "\"1\"", 1)),
        // Another representation: its bytes must not follow those of the first.
        ("\"1\"", RANGES, |seen| rest(seen, "\"2\"", 2)),
        ("\"1\"", RANGES, |_| respond(200, &[("ETag", "\"2\"")], pattern(LENGTH, 2))),
        ("\"1\"", RANGES, |_| {
            respond(
                206,
                &[("ETag", "\"1\""), ("Content-Range", "bytes 99999-299999/300000")],
                pattern(200_001, 1),
            )
        }),
        ("\"1\"", RANGES, |_| vec![Step::Close]),
    ];
    for (index, (tag, ranges, second)) in cases.into_iter().enumerate() {
        let origin = Origin::start();
        origin.on("/a", move |seen| match seen.field("range") {
            None => broken(tag, ranges, 100_000),
            Some(_) => second(seen),
        });
        let node = node(&origin).start();
        let answer = asked(&node);
        let Err(Broken::Truncated(answer)) = answer else { panic!("case {index}: {answer:?}") };
        assert_same_bytes(&answer.body, &pattern(LENGTH, 1)[..answer.body.len()]);
        assert!(answer.body.len() <= 100_000, "case {index}");
        assert!(asked(&node).is_err(), "case {index}: nothing is stored");
    }
}

#[test]
fn an_origin_that_never_gets_further_is_not_asked_for_ever() {
    let origin = Origin::start();
    origin.on("/a", |seen| match seen.field("range") {
        None => broken("\"1\"", RANGES, 100_000),
        Some(_) => {
            let head = format!("HTTP/1.1 206 Partial\r\nContent-Length: 200000\r\nETag: \"1\"\r\nContent-Range: bytes 100000-299999/{LENGTH}\r\n\r\n");
            vec![Step::Send(head.into_bytes()), Step::Close]
        }
    });
    let node = node(&origin).start();
    assert!(asked(&node).is_err());
    assert_eq!(origin.count("/a"), 3, "the first, and two more");
}

/// The first of two answers: the head as it is given, and half of a hundred bytes.
fn half(fields: &[(&str, &str)]) -> Reply {
    let fields = [fields, &[("Cache-Control", "max-age=600"), ("Accept-Ranges", "bytes")]].concat();
    let mut reply = respond(200, &fields, "");
    reply.extend([Step::Send(hundred()[..50].to_vec()), Step::Close]);
    reply
}

/// The same in chunks, without the last one.
fn half_in_chunks(tag: &str) -> Reply {
    let fields = [
        ("Cache-Control", "max-age=600"),
        ("Accept-Ranges", "bytes"),
        ("Transfer-Encoding", "chunked"),
        ("ETag", tag),
    ];
    let mut reply = respond(200, &fields, "");
    reply.extend([Step::Send(chunk(&hundred()[..50])), Step::Close]);
    reply
}

fn hundred() -> Vec<u8> {
    pattern(100, 7)
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A 206 in chunks that ends cleanly after `bytes`, whatever its Content-Range promises.
fn part_in_chunks(content_range: &str, bytes: &[u8]) -> Reply {
    let fields = [("ETag", "\"e\""), ("Content-Range", content_range), ("Transfer-Encoding", "chunked")];
    let body = [&chunk(bytes)[..], b"0\r\n\r\n"].concat();
    respond(206, &fields, body)
}

fn first_byte(seen: &Seen) -> Option<usize> {
    seen.field("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The first answer, and that to a range from its first byte on.
type Halves = (fn() -> Reply, fn(usize) -> Reply);

const SIZED: fn() -> Reply = || half(&[("Content-Length", "100"), ("ETag", "\"e\"")]);
const CHUNKED: fn() -> Reply = || half_in_chunks("\"e\"");

#[test]
fn a_rest_that_does_not_reach_the_end_is_not_taken_for_it() {
    let cases: [Halves; 5] = [
        (SIZED, |first| part_in_chunks(&format!("bytes {first}-59/*"), &hundred()[50..60])),
        (SIZED, |_| part_in_chunks("bytes 50-99/100", &hundred()[50..60])),
        // More than was promised, of the whole and of the part.
        (SIZED, |_| part_in_chunks("bytes 50-99/100", &[&hundred()[50..], &[0; 20]].concat())),
        (SIZED, |_| part_in_chunks("bytes 50-59/100", &hundred()[50..])),
        (CHUNKED, |_| part_in_chunks("bytes 50-59/*", &hundred()[50..60])),
    ];
    for (index, (first, second)) in cases.into_iter().enumerate() {
        let origin = Origin::start();
        origin.on("/a", move |seen| match first_byte(seen) {
            None => first(),
            Some(50) => second(50),
            Some(_) => respond(416, &[("Content-Range", "bytes */100")], ""),
        });
        let node = node(&origin).start();
        for _ in 0..2 {
            let Err(Broken::Truncated(answer)) = asked(&node) else { panic!("case {index}: a whole answer") };
            assert_same_bytes(&answer.body, &hundred()[..answer.body.len()]);
        }
        assert!(origin.count("/a") >= 4, "case {index}: nothing is stored");
    }
}

#[test]
fn a_rest_may_come_in_several_parts() {
    let cases: [Halves; 3] = [
        (SIZED, |first| part_in_chunks(&format!("bytes {first}-{}/*", first + 9), &hundred()[first..][..10])),
        (CHUNKED, |first| {
            part_in_chunks(&format!("bytes {first}-{}/100", first + 9), &hundred()[first..][..10])
        }),
        // Cut short where it ends cleanly.
        (SIZED, |first| part_in_chunks(&format!("bytes {first}-99/100"), &hundred()[first..][..10])),
    ];
    for (index, (first, next)) in cases.into_iter().enumerate() {
        let origin = Origin::start();
        origin.on("/a", move |seen| first_byte(seen).map_or_else(first, next));
        let node = node(&origin).start();
        assert_same_bytes(&asked(&node).expect("a whole answer").body, &hundred());
        let hit = node.await_hit("/a");
        assert_same_bytes(&hit.body, &hundred());
        assert_eq!(hit.field("content-length"), Some("100"), "case {index}");
        assert_eq!(origin.count("/a"), 6, "case {index}");
    }
}

#[test]
fn a_date_is_a_validator_only_while_it_is_the_same() {
    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Mon, 07 Nov 1994 08:49:37 GMT";
    for (second, is_same) in [(OLD, true), (NEW, false)] {
        let origin = Origin::start();
        origin.on("/a", move |seen| match seen.field("range") {
            None => half(&[("Content-Length", "100"), ("Last-Modified", OLD)]),
            Some(_) => {
                let seed = if is_same { 7 } else { 8 };
                let fields = [("Last-Modified", second), ("Content-Range", "bytes 50-99/100")];
                respond(206, &fields, &pattern(100, seed)[50..])
            }
        });
        let node = node(&origin).start();
        let answer = asked(&node);
        assert_eq!(origin.seen("/a")[1].field("if-range"), Some(OLD));
        if is_same {
            assert_same_bytes(&answer.expect("a whole answer").body, &hundred());
        } else {
            assert!(matches!(answer, Err(Broken::Truncated(_))), "{answer:?}");
            assert!(asked(&node).is_err(), "nothing is stored");
        }
    }
}
