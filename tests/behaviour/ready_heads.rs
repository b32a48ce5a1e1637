//! Hits are sent with heads that are ready: each is whole and its own, whatever goes before and behind it on the connection.

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::origin::{Origin, respond};
use crate::support::pattern;
use crate::support::request::{Request, get, head};
use crate::support::response::Response;
use crate::support::tls::Ca;

const TAG: (&str, &str) = ("ETag", "\"a\"");

/// The fields, in order of their names; of those that differ from one answer to the next the names alone.
fn fields(response: &Response) -> Vec<(String, String)> {
    let fixed = |(name, value): &(String, String)| {
        let name = name.to_ascii_lowercase();
        let is_drawn = name == "age" || name == "cache-status" || value.starts_with("multipart/");
        let value = if is_drawn { String::new() } else { value.clone() };
        (name, value)
    };
    let mut fields: Vec<_> = response.fields.iter().map(fixed).collect();
    fields.sort_unstable();
    fields
}

fn asked() -> Vec<(Request, &'static str)> {
    vec![
        (get("/small"), "GET"),
        (get("/small").with("If-None-Match", "\"a\""), "GET"),
        (get("/small"), "GET"),
        (get("/empty"), "GET"),
        (head("/small"), "HEAD"),
        (get("/large"), "GET"),
        (get("/large").with("Range", "bytes=70000-149999"), "GET"),
        (get("/large").with("Range", "bytes=0-9, 20-29"), "GET"),
        (get("/large").with("Range", "bytes=999999-"), "GET"),
        (get("/small").with("If-Match", "\"b\""), "GET"),
        (get("/small").with("Range", "bytes=3-5"), "GET"),
        (get("/small").with("If-None-Match", "\"b\""), "GET"),
        (get("/missing"), "GET"),
        (get("/small"), "GET"),
    ]
}

#[test]
fn every_head_is_whole_in_a_pipeline_too() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let (small, large) = (pattern(1000, 1), pattern(200_000, 2));
    let lasting = ("Cache-Control", "max-age=600");
    let vary = [lasting, TAG, ("Vary", "X-A"), ("Vary", "X-B"), ("X-Own", "one"), ("X-Own", "two")];
    origin.fixed("/small", 200, &vary, &small);
    origin.fixed("/large", 200, &[lasting, TAG], &large);
    origin.fixed("/empty", 200, &[lasting, TAG], "");
    origin.on("/missing", move |_| respond(404, &[lasting, TAG], "nothing"));
    let node = node(&origin).disk("64MiB").tls(&ca, &["test.example"]).start();
    let plain = || Client::connect(node.http());
    let secure =
        || Client::connect_tls(node.https(), "test.example", &ca.client(&["http/1.1"])).expect("a handshake");
    for connect in [&plain as &dyn Fn() -> Client, &secure] {
        // A connection and a second of its own for each: heads that are made, not ready ones.
        let expected: Vec<Response> = asked()
            .iter()
            .map(|(request, _)| {
                connect().exchange(request);
                connect().exchange(request)
            })
            .collect();
        assert_eq!(expected[5].body, large);
        assert_eq!(expected[6].body, large[70_000..150_000]);
        assert!(expected[0].joined("etag") == "\"a\"" && expected[0].has("age"));
        let mut client = connect();
        for _ in 0..20 {
            let all: Vec<u8> = asked().iter().flat_map(|(request, _)| request.bytes()).collect();
            client.send(&all);
            for ((request, method), expected) in asked().iter().zip(&expected) {
                let answer = client.response(method);
                assert_eq!(
                    (answer.status, fields(&answer)),
                    (expected.status, fields(expected)),
                    "{request:?}"
                );
                // What stands between the parts is drawn for each answer.
                let is_multipart = answer.joined("content-type").starts_with("multipart");
                assert!(is_multipart || answer.body == expected.body, "{request:?}");
            }
        }
    }
    node.assert_no_panic();
}

/// A Content-Range on a 200 means nothing, and is stored like any field; a range of it has its own.
#[test]
fn a_part_has_one_content_range_whatever_the_whole_has() {
    let fields = [("Cache-Control", "max-age=600"), ("Content-Range", "bytes 5-9/100")];
    let origin = Origin::with("/a", &fields, "0123456789");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    let mut client = Client::connect(node.http());
    for _ in 0..20 {
        let part = client.exchange(&get("/a").with("Range", "bytes=1-2"));
        part.assert_status(206).assert_body("12");
        assert_eq!(part.joined("content-range"), "bytes 1-2/10");
        let whole = client.exchange(&get("/a"));
        whole.assert_status(200).assert_body("0123456789");
        assert_eq!(whole.joined("content-range"), "bytes 5-9/100");
    }
}
