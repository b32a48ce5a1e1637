//! Compression Dictionary Transport (RFC 9842): a new version costs its difference, for who has the old one.

use rustix::process::Signal;

use crate::support::codec::{decode, decode_against, dictionary_field};
use crate::support::eventually;
use crate::support::node::{Node, node};
use crate::support::origin::Origin;
use crate::support::request::{HOST, Request, get, head, request};
use crate::support::response::Response;

const BROWSER: &str = "gzip, deflate, br, zstd, dcb, dcz";
const JS: [(&str, &str); 2] = [("Cache-Control", "max-age=600"), ("Content-Type", "text/javascript")];
const USE: (&str, &str) = ("Use-As-Dictionary", "match=\"/app.*.js\", match-dest=(\"script\")");

fn script(lines: std::ops::Range<u32>) -> Vec<u8> {
    let line = |i: u32| format!("export const f{} = () => {i}\n", i.wrapping_mul(2_654_435_761));
    lines.flat_map(|i| line(i).into_bytes()).collect()
}

fn coding(response: &Response) -> &str {
    response.field("content-encoding").unwrap_or("identity")
}

fn having(path: &str, dictionary: &[u8], accept: &str) -> Request {
    get(path).with("Accept-Encoding", accept).with("Available-Dictionary", dictionary_field(dictionary))
}

/// Two versions of a script, the first of which is stored.
fn two_versions() -> (Origin, Vec<u8>, Vec<u8>) {
    let (old, new) = (script(0..3000), script(20..3100));
    let origin = Origin::start();
    for (path, tag, body) in [("/app.1.js", "\"v1\"", &old), ("/app.2.js", "\"v2\"", &new)] {
        origin.fixed(path, 200, &[JS[0], JS[1], USE, ("ETag", tag)], body);
    }
    (origin, old, new)
}

#[track_caller]
fn await_coding(node: &Node, request: &Request, wanted: &str) -> Response {
    eventually(wanted, || coding(&request.to(node)) == wanted);
    request.to(node)
}

#[track_caller]
fn assert_new(response: &Response, old: &[u8], new: &[u8]) {
    let body = match coding(response) {
        delta @ ("dcb" | "dcz") => decode_against(delta, old, &response.body),
        plain => decode(plain, &response.body),
    };
    assert!(body == new, "{}: another content", coding(response));
}

#[test]
fn who_has_the_old_version_gets_the_difference() {
    let (origin, old, new) = two_versions();
    let mut node = node(&origin).disk("64MiB").site("compress = { dictionaries = true }").start();
    node.get("/app.1.js").assert_status(200);
    assert_eq!(node.get("/app.1.js").field("use-as-dictionary"), Some(USE.1));
    eventually("a dictionary", || node.metric("larder_store_objects{tier=\"memory\"}") >= 2.0);
    let first = having("/app.2.js", &old, BROWSER).to(&node);
    assert_new(&first, &old, &new);
    let both = "Accept-Encoding, Available-Dictionary";
    assert_eq!((coding(&first), first.joined("vary").as_str()), ("zstd", both), "on its way");
    let plain = || get("/app.2.js").with("Accept-Encoding", "br, zstd").to(&node);
    eventually("encodings", || plain().has("content-length") && coding(&plain()) != "identity");
    for wanted in ["dcb", "dcz"] {
        let request = having("/app.2.js", &old, wanted);
        let delta = await_coding(&node, &request, wanted);
        assert_new(&delta, &old, &new);
        assert!(delta.body.len() * 5 < plain().body.len(), "{wanted}: {}", delta.body.len());
        let tag = delta.field("etag").unwrap().to_owned();
        let sum = blake3::hash(&delta.body).to_hex();
        assert_eq!(tag, format!("\"v2-{wanted}-{}\"", &sum.as_str()[..8]), "it names the bytes");
        assert_eq!(delta.joined("vary"), both);
        assert_eq!(delta.field("content-length").unwrap(), delta.body.len().to_string());
        // Conditions and ranges are of these bytes; nobody else is given them.
        having("/app.2.js", &old, wanted).with("If-None-Match", &tag).to(&node).assert_status(304);
        get("/app.2.js").with("If-None-Match", &tag).to(&node).assert_status(304);
        let part = having("/app.2.js", &old, wanted).with("Range", "bytes=3-9").with("If-Range", &tag);
        part.to(&node).assert_status(206).assert_body(&delta.body[3..10]);
        let other = get("/app.2.js").with("Range", "bytes=3-9").with("If-Range", &tag).to(&node);
        other.assert_status(200).assert_body(&new);
        let told = head("/app.2.js")
            .with("Accept-Encoding", wanted)
            .with("Available-Dictionary", dictionary_field(&old))
            .to(&node);
        assert_eq!((coding(&told), told.field("etag")), (wanted, Some(tag.as_str())));
    }
    let smallest = having("/app.2.js", &old, BROWSER).to(&node);
    assert!(["dcb", "dcz"].contains(&coding(&smallest)));
    for request in [
        get("/app.2.js").with("Accept-Encoding", BROWSER),
        having("/app.2.js", b"another dictionary", BROWSER),
        having("/app.2.js", &old, "gzip, br, zstd, *"),
        having("/app.2.js", &old, "br, dcb;q=0, dcz;q=0"),
        get("/app.2.js").with("Accept-Encoding", "br, dcb").with("Available-Dictionary", ":AAAA:"),
    ] {
        let response = request.to(&node);
        assert!(!["dcb", "dcz"].contains(&coding(&response)), "{}", coding(&response));
        assert_new(&response, &old, &new);
        assert_eq!(response.joined("vary"), both);
    }
    assert!(origin.seen("/app.2.js").iter().all(|seen| !seen.has("available-dictionary")));
    assert_eq!(origin.count("/app.2.js"), 1, "the cache is not split");
    for signal in [Signal::TERM, Signal::KILL] {
        node.await_metric("larder_store_objects{tier=\"disk\"}", 3.0);
        node = node.restarted(signal);
        for wanted in ["dcb", "dcz"] {
            let response = having("/app.2.js", &old, wanted).to(&node);
            response.assert_hit();
            assert_eq!(coding(&response), wanted, "after a restart");
            assert_new(&response, &old, &new);
        }
    }
    assert_eq!(origin.count("/app.2.js"), 1);
    node.assert_no_panic();
}

#[test]
fn a_dictionary_outlives_its_url_and_no_purge_of_all() {
    let (old, new, newest) = (script(0..3000), script(20..3100), script(30..3200));
    let origin = Origin::start();
    let fields = [JS[0], JS[1], ("Use-As-Dictionary", "match=\"/app.js\"")];
    origin.fixed("/app.js", 200, &fields, &old);
    let node = node(&origin).site("compress = { dictionaries = true }").start();
    let purge = |body: &str| {
        let purge = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
        node.ask_admin(&purge.body(body)).assert_status(201);
    };
    node.get("/app.js").assert_body(&old);
    eventually("a dictionary", || node.metric("larder_store_objects{tier=\"memory\"}") >= 2.0);
    origin.fixed("/app.js", 200, &fields, &new);
    purge(&format!("{{\"site\":\"test\",\"urls\":[\"http://{HOST}/app.js\"]}}"));
    node.get("/app.js").assert_body(&new);
    let delta = await_coding(&node, &having("/app.js", &old, "dcz"), "dcz");
    assert_new(&delta, &old, &new);
    assert!(!delta.has("etag") && !delta.has("accept-ranges"), "nothing tells its bytes from others");
    purge("{\"site\":\"test\",\"all\":true}");
    origin.fixed("/app.js", 200, &[JS[0], JS[1]], &newest);
    node.get("/app.js").assert_body(&newest);
    eventually("encodings", || coding(&get("/app.js").with("Accept-Encoding", "zstd").to(&node)) == "zstd");
    for _ in 0..5 {
        let response = having("/app.js", &old, BROWSER).to(&node);
        assert!(!["dcb", "dcz"].contains(&coding(&response)), "what was purged is not used");
        assert_new(&response, &old, &newest);
    }
    node.assert_no_panic();
}

#[test]
fn without_the_setting_there_are_no_dictionaries() {
    let (origin, old, new) = two_versions();
    let node = node(&origin).start();
    node.get("/app.1.js");
    for _ in 0..5 {
        let response = having("/app.2.js", &old, BROWSER).to(&node);
        assert_new(&response, &old, &new);
        assert_eq!(response.joined("vary"), "Accept-Encoding");
    }
    eventually("encodings", || coding(&having("/app.2.js", &old, BROWSER).to(&node)) != "identity");
    assert!(["br", "zstd"].contains(&coding(&having("/app.2.js", &old, BROWSER).to(&node))));
    for coding in ["dcb", "dcz"] {
        assert_eq!(node.metric(&format!("larder_compress_jobs_total{{encoding=\"{coding}\"}}")), 0.0);
    }
}

#[test]
fn what_does_not_pay_is_not_kept_and_not_tried_again() {
    let (origin, old, _) = two_versions();
    let unlike = crate::support::pattern(50_000, 3);
    origin.fixed("/app.3.js", 200, &[JS[0], JS[1], ("ETag", "\"v3\"")], &unlike);
    origin.fixed(
        "/style.css",
        200,
        &[JS[0], ("Content-Type", "text/css"), ("ETag", "\"s\"")],
        script(0..500),
    );
    let node = node(&origin).site("compress = { dictionaries = true }").start();
    node.get("/app.1.js");
    eventually("a dictionary", || node.metric("larder_store_objects{tier=\"memory\"}") >= 2.0);
    let not_worth = |coding: &str| {
        node.metric(&format!("larder_compress_jobs_total{{encoding=\"{coding}\",outcome=\"not_worth\"}}"))
    };
    eventually("word of both", || {
        assert_new(&having("/app.3.js", &old, BROWSER).to(&node), &old, &unlike);
        not_worth("dcb") >= 1.0 && not_worth("dcz") >= 1.0
    });
    for _ in 0..5 {
        assert_new(&having("/app.3.js", &old, BROWSER).to(&node), &old, &unlike);
        // Its pattern does not name this one.
        having("/style.css", &old, BROWSER).to(&node);
    }
    eventually("an idle pool", || node.metric("larder_compress_queue") == 0.0);
    assert_eq!((not_worth("dcb"), not_worth("dcz")), (1.0, 1.0));
    assert_eq!(node.metric("larder_compress_jobs_total{encoding=\"dcz\",outcome=\"kept\"}"), 0.0);
    node.assert_no_panic();
}
