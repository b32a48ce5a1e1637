//! What is stored and what a hit looks like.

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::origin::{FRESH, Origin, Step, raw, respond};
use crate::support::request::{get, head};
use crate::support::{assert_same_bytes, pattern};

#[test]
fn a_second_get_is_a_hit_with_age() {
    let origin = Origin::with("/a", &[("Cache-Control", "max-age=600"), ("X-Kept", "yes")], "body of a");
    let node = node(&origin).start();

    let miss = node.get("/a");
    miss.assert_status(200).assert_fwd("uri-miss").assert_body("body of a");
    assert_eq!(miss.cache_parameter("fwd-status").as_deref(), Some("200"));
    assert!(miss.is_stored(), "{:?}", miss.fields);
    assert_eq!(miss.age(), None, "Age on a miss would say that it came from a cache");

    let hit = node.get("/a");
    hit.assert_status(200).assert_hit().assert_body("body of a");
    assert!(hit.age().is_some_and(|age| age < 60), "{:?}", hit.fields);
    let ttl: i64 = hit.cache_parameter("ttl").expect("a ttl").parse().expect("a number");
    assert!((540..=600).contains(&ttl), "{ttl}");
    for kept in ["date", "cache-control", "x-kept", "content-length"] {
        assert_eq!(hit.field(kept), miss.field(kept), "{kept}");
    }
    assert!(hit.joined("via").contains("larder"), "{:?}", hit.fields);
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn the_age_of_the_origin_is_passed_on_a_miss_and_grows_on_a_hit() {
    let origin = Origin::with("/a", &[("Cache-Control", "max-age=600"), ("Age", "100")], "a");
    let node = node(&origin).start();
    assert_eq!(node.get("/a").field("age"), Some("100"));
    let hit = node.get("/a");
    hit.assert_hit();
    assert!((100..160).contains(&hit.age().expect("an age")), "{:?}", hit.fields);
    assert_eq!(hit.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("age")).count(), 1);
}

#[test]
fn head_is_answered_from_a_stored_get_without_its_body() {
    let origin = Origin::with("/a", FRESH, "twelve bytes");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);

    let mut client = Client::connect(node.http());
    let answer = client.exchange(&head("/a"));
    answer.assert_status(200).assert_hit().assert_body("");
    assert_eq!(answer.field("content-length"), Some("12"));
    // A body on the wire would be taken for the next response.
    client.exchange(&get("/a")).assert_hit().assert_body("twelve bytes");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn head_on_an_empty_cache_never_becomes_an_empty_get() {
    let origin = Origin::with("/a", FRESH, "twelve bytes");
    let node = node(&origin).start();
    let answer = head("/a").to(&node);
    answer.assert_status(200).assert_body("");
    assert_eq!(answer.field("content-length"), Some("12"));
    node.get("/a").assert_status(200).assert_body("twelve bytes");
}

#[test]
fn each_framing_of_an_origin_is_stored_whole() {
    let origin = Origin::start();
    origin.on("/length", |_| respond(200, FRESH, "abcdef"));
    origin.on("/chunked", |_| {
        raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
    });
    origin.on("/close", |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nConnection: close\r\n\r\n";
        vec![Step::Send(head.into()), Step::Body(b"abcdef".to_vec()), Step::Close]
    });
    let node = node(&origin).start();
    for path in ["/length", "/chunked", "/close"] {
        node.get(path).assert_status(200).assert_body("abcdef");
        let hit = node.get(path);
        hit.assert_hit().assert_body("abcdef");
        assert_eq!(hit.field("content-length"), Some("6"), "{path}");
        assert!(hit.has("date"), "{path}: an origin without Date gets one");
        assert_eq!(origin.count(path), 1, "{path}");
    }
}

#[test]
fn empty_bodies_are_stored_too() {
    let origin = Origin::start();
    origin.on("/empty", |_| respond(200, FRESH, ""));
    origin.on("/none", |_| respond(204, FRESH, ""));
    let node = node(&origin).start();
    for (path, status) in [("/empty", 200), ("/none", 204)] {
        node.get(path).assert_status(status);
        node.get(path).assert_status(status).assert_hit().assert_body("");
    }
}

#[test]
fn a_body_of_five_megabytes_comes_back_byte_for_byte() {
    let body = pattern(5_000_000, 1);
    let origin = Origin::with("/big", FRESH, &body);
    let node = node(&origin).start();
    assert_same_bytes(&node.get("/big").body, &body);
    let hit = node.get("/big");
    hit.assert_hit();
    assert_same_bytes(&hit.body, &body);
}

#[test]
fn the_whole_query_is_part_of_the_key_and_of_what_the_origin_gets() {
    let origin = Origin::start();
    origin.on("/a", |seen| respond(200, FRESH, &seen.target));
    let node = node(&origin).start();
    for target in ["/a", "/a?", "/a?x=1", "/a?x=2", "/a?x=1&y=2", "/a?y=2&x=1", "/a?x=%31%2F"] {
        node.get(target).assert_body(target);
        node.get(target).assert_hit().assert_body(target);
    }
}

#[test]
fn spellings_of_one_url_share_an_entry_and_different_urls_do_not() {
    let origin = Origin::start();
    origin.on("/*", |seen| respond(200, FRESH, &seen.target));
    let node = node(&origin).start();
    node.get("/k/b").assert_status(200);

    for same in ["/k/b", "/k/%62", "/k/./b", "/k/x/../b", "/k/%2e/b"] {
        node.get(same).assert_hit().assert_body("/k/b");
    }
    for host in ["TEST.example", "test.example.", "test.example:80"] {
        get("/k/b").host(host).to(&node).assert_hit();
    }
    for other in ["/k/B", "/K/b", "/k//b", "/k%2fb", "/k/b/", "/k/b%20", "/k/b%00x", "/k/b;x"] {
        let answer = node.get(other);
        assert!(!answer.is_hit() && answer.text() != "/k/b", "{other}: {:?}", answer.fields);
    }
    assert!(!get("/k/b").host("other.example").to(&node).is_hit());
    assert!(!get("/k/b").host("test.example:8080").to(&node).is_hit());
}

#[test]
fn percent_encoding_in_two_cases_is_one_url() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).start();
    node.get("/a%c3%a4").assert_status(200);
    node.get("/a%C3%A4").assert_hit();
}

#[test]
fn an_answer_to_credentials_is_stored_only_where_the_origin_allows_it() {
    let cases = [
        ("/plain", "max-age=600", false),
        ("/public", "max-age=600, public", true),
        ("/shared", "s-maxage=600", true),
        ("/must", "max-age=600, must-revalidate", true),
        ("/private", "private, max-age=600", false),
    ];
    let origin = Origin::start();
    for (path, control, _) in cases {
        origin.on(path, move |_| respond(200, &[("Cache-Control", control)], "secret"));
    }
    let node = node(&origin).start();
    for (path, control, shared) in cases {
        get(path).with("Authorization", "Basic abc").to(&node).assert_status(200);
        assert_eq!(origin.last(path).field("authorization"), Some("Basic abc"));
        assert_eq!(node.get(path).is_hit(), shared, "{control}");
    }
}

#[test]
fn cookies_of_a_client_do_not_bypass_the_cache() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    node.get("/a");
    get("/a").with("Cookie", "session=1").to(&node).assert_hit();
}

#[test]
fn a_client_can_not_bypass_the_cache() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    node.get("/a");
    for (name, value) in [
        ("Cache-Control", "no-cache"),
        ("Cache-Control", "no-store"),
        ("Cache-Control", "max-age=0"),
        ("Pragma", "no-cache"),
    ] {
        get("/a").with(name, value).to(&node).assert_hit();
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn an_interim_response_is_not_taken_for_the_final_one() {
    let origin = Origin::start();
    origin.on("/a", |_| {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\nX-Early: 1\r\n\r\n";
        [raw(early), respond(200, FRESH, "final")].concat()
    });
    let node = node(&origin).start();
    node.get("/a").assert_status(200).assert_body("final");
    let hit = node.get("/a");
    hit.assert_hit().assert_body("final");
    assert!(hit.interim.is_empty());
    assert!(!hit.has("x-early"), "{:?}", hit.fields);
}

#[test]
fn set_cookie_can_be_stripped_or_stored_by_choice() {
    let fields = [("Cache-Control", "max-age=600"), ("Set-Cookie", "s=1")];
    let origin = Origin::with("/a", &fields, "a");
    for (choice, hit, cookie) in [("pass", false, true), ("strip", true, false), ("store", true, true)] {
        let node = node(&origin).cache(&format!("set_cookie = \"{choice}\"")).start();
        node.get("/a").assert_status(200);
        let second = node.get("/a");
        assert_eq!((second.is_hit(), second.has("set-cookie")), (hit, cookie), "{choice}");
    }
}

#[test]
fn why_something_is_not_stored_stands_in_the_detail() {
    let origin = Origin::with("/a", &[("Cache-Control", "max-age=600"), ("Set-Cookie", "s=1")], "a");
    let node = node(&origin).start();
    let answer = node.get("/a");
    assert!(!answer.is_stored());
    assert_eq!(answer.cache_parameter("detail").as_deref(), Some("set-cookie"));
}
