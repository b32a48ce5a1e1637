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
