//! Purging by the API: what a purge hits, when it is in effect, what it survives, and who may purge.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::node::{Builder, Node, bare, node};
use crate::support::origin::{FRESH, Origin, Step, raw, respond};
use crate::support::request::{get, request};
use crate::support::response::Response;
use crate::support::tls::Ca;
use crate::support::{Gate, OpenOnDrop, eventually};

const HOST: &str = "test.example";
const TAGGED: &[(&str, &str)] = &[FRESH[0], ("Surrogate-Key", "t")];
const VARIED: &[(&str, &str)] = &[FRESH[0], ("Vary", "X-Kind")];

#[track_caller]
fn ask(node: &Node, token: &str, body: impl AsRef<[u8]>) -> Response {
    let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {token}")).body(body);
    node.ask_admin(&ask)
}

#[track_caller]
fn purge(node: &Node, body: &Value) -> Value {
    let answer = ask(node, &node.token(), body.to_string());
    answer.assert_status(201);
    answer.json()
}

/// An origin that answers everything with the number of the request, and the fields.
fn counting(fields: &'static [(&'static str, &'static str)]) -> Origin {
    let origin = Origin::start();
    let count = std::sync::atomic::AtomicUsize::new(0);
    origin.on("/*", move |_| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        respond(200, fields, n.to_string())
    });
    origin
}

/// Stores these and purges: the first ones are gone, the others are there.
#[track_caller]
fn assert_hits(node: &Node, body: &Value, gone: &[&str], kept: &[&str]) {
    let all = || gone.iter().chain(kept);
    for path in all() {
        node.await_hit(path);
    }
    purge(node, body);
    for path in kept {
        node.get(path).assert_hit();
    }
    for path in gone {
        node.get(path).assert_fwd("uri-miss");
    }
}

#[test]
fn a_url_is_purged_after_the_sites_query_rule() {
    let origin = counting(FRESH);
    let node = node(&origin).cache("query = { mode = \"deny\", names = [\"@tracking\"] }").start();
    let url = |target: &str| json!({ "urls": [format!("http://{HOST}{target}")] });
    assert_hits(&node, &url("/a"), &["/a"], &["/a?v=1", "/a/b", "/b"]);
    assert_hits(&node, &url("/a?utm_source=x&v=1"), &["/a?v=1"], &["/a", "/a?v=2"]);
    assert_hits(&node, &url("/x/../%61?v=1"), &["/a?v=1"], &["/a"]);
    assert_hits(&node, &json!({ "urls": [format!("HTTPS://TEST.example:443/a")] }), &["/a"], &["/b"]);
}

#[test]
fn a_query_is_purged_as_it_is_typed_and_as_browsers_send_it() {
    let origin = counting(FRESH);
    let node = node(&origin).start();
    for target in ["/s?q=\u{fc}", "/s?q=%C3%BC", "/\u{fc}?\u{fc}=\u{20ac}"] {
        let encoded = target.replace('\u{fc}', "%C3%BC").replace('\u{20ac}', "%E2%82%AC");
        let url = json!({ "urls": [format!("http://{HOST}{target}")] });
        assert_hits(&node, &url, &[&encoded], &["/s?q=u"]);
        // Sent raw it is the same URL, and the origin sees it encoded.
        purge(&node, &url);
        node.get(target).assert_fwd("uri-miss");
        assert_eq!(origin.last(encoded.split('?').next().expect("a path")).target, encoded);
        node.await_hit(&encoded);
        let found = node.admin_get(&format!("/v1/objects?url=http://{HOST}{encoded}").replace('%', "%25"));
        assert_eq!(found.json()["items"].as_array().map(Vec::len), Some(1), "{}", found.text());
    }
}

#[test]
fn a_url_is_purged_with_all_its_variants() {
    let origin = counting(VARIED);
    let node = node(&origin).start();
    let of_kind = |kind: &str| get("/a").with("X-Kind", kind).to(&node);
    for kind in ["1", "2"] {
        of_kind(kind).assert_status(200);
        eventually("it is stored", || of_kind(kind).is_hit());
    }
    purge(&node, &json!({ "urls": [format!("http://{HOST}/a")] }));
    for kind in ["1", "2"] {
        assert!(!of_kind(kind).is_hit(), "{kind}");
    }
}

#[test]
fn a_url_is_purged_for_both_schemes() {
    let origin = counting(FRESH);
    let ca = Ca::new();
    let node = node(&origin).tls(&ca, &[HOST]).start();
    let over_tls = || {
        let client = Client::connect_tls(node.https(), HOST, &ca.client(&[]));
        client.expect("a TLS handshake").exchange(&get("/a"))
    };
    for scheme in ["http", "https"] {
        node.await_hit("/a");
        eventually("it is stored", || over_tls().is_hit());
        purge(&node, &json!({ "urls": [format!("{scheme}://{HOST}/a")] }));
        assert!(!node.get("/a").is_hit() && !over_tls().is_hit(), "{scheme}");
    }
}

#[test]
fn a_prefix_is_whole_segments() {
    let origin = counting(FRESH);
    let node = node(&origin).start();
    for prefix in ["/a", "/a/"] {
        let body = json!({ "prefixes": [format!("{HOST}{prefix}")] });
        assert_hits(&node, &body, &["/a", "/a?x=1", "/a/b", "/a/b/c"], &["/ab", "/b/a", "/"]);
    }
    assert_hits(&node, &json!({ "prefixes": [HOST] }), &["/", "/a"], &[]);
}

#[test]
fn a_tag_is_purged_wherever_it_stands_and_no_client_sees_it() {
    let origin = Origin::start();
    origin.fixed("/surrogate", 200, &[FRESH[0], ("Surrogate-Key", "product-1 shoes")], "a");
    origin.fixed("/comma", 200, &[FRESH[0], ("Cache-Tag", "home page, product-1")], "b");
    origin.fixed("/other", 200, &[FRESH[0], ("Surrogate-Key", "product-10 Shoes")], "c");
    let node = node(&origin).start();
    let tags = |tags: &[&str]| json!({ "tags": tags });
    assert_hits(&node, &tags(&["product-1"]), &["/surrogate", "/comma"], &["/other"]);
    assert_hits(&node, &tags(&["home page"]), &["/comma"], &["/surrogate", "/other"]);
    assert_hits(&node, &tags(&["shoes", "none"]), &["/surrogate"], &["/comma", "/other"]);
    for path in ["/surrogate", "/comma"] {
        for answer in [node.get(path), node.await_hit(path)] {
            assert!(!answer.has("surrogate-key") && !answer.has("cache-tag"), "{:?}", answer.fields);
        }
    }
}

#[test]
fn a_tag_that_is_no_text_takes_no_other_along() {
    let origin = Origin::start();
    let head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\nSurrogate-Key: aa ab c\xfc d\r\n\r\nx";
    origin.on("/a", move |_| raw(head));
    let node = node(&origin).start();
    for tag in ["aa", "ab", "d"] {
        assert_hits(&node, &json!({ "tags": [tag] }), &["/a"], &[]);
    }
    node.await_hit("/a");
    purge(&node, &json!({ "tags": ["c"] }));
    node.get("/a").assert_hit();
}

/// Two sites, one of which has two hosts.
fn two_sites(origin: &Origin) -> Builder {
    bare().sites(&format!(
        "[[site]]\nname = \"shop\"\nhosts = [\"shop.example\", \"www.shop.example\"]\norigin = \"o\"\n\
         [[site]]\nname = \"blog\"\nhosts = [\"blog.example\"]\norigin = \"o\"\n\
         [[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n",
        origin.url()
    ))
}

const HOSTS: [&str; 3] = ["shop.example", "www.shop.example", "blog.example"];

#[test]
fn hosts_sites_and_everything() {
    let origin = counting(TAGGED);
    let node = two_sites(&origin).start();
    let is_hit = |host: &str| get("/a").host(host).to(&node).is_hit();
    for (body, gone) in [
        (json!({ "site": "shop", "hosts": ["shop.example"] }), &[0][..]),
        (json!({ "site": "shop", "tags": ["t"] }), &[0, 1]),
        (json!({ "site": "blog", "all": true }), &[2]),
        (json!({ "site": "shop", "all": true }), &[0, 1]),
        (json!({ "all": true }), &[0, 1, 2]),
    ] {
        for host in HOSTS {
            eventually("it is stored", || is_hit(host));
        }
        purge(&node, &body);
        for (index, host) in HOSTS.iter().enumerate() {
            assert_eq!(is_hit(host), !gone.contains(&index), "{body}: {host}");
        }
    }
}

#[test]
fn a_soft_purge_serves_what_is_stale_while_one_fetch_brings_the_new() {
    let origin = Origin::with("/a", &[("Cache-Control", "max-age=600, stale-while-revalidate=600")], "old");
    let node = node(&origin).start();
    node.await_hit("/a");
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let held = gate.clone();
    origin.on("/a", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "new")].concat());
    purge(&node, &json!({ "urls": [format!("http://{HOST}/a")], "soft": true }));
    for _ in 0..5 {
        let stale = node.get("/a");
        stale.assert_hit().assert_body("old");
        assert_eq!(stale.cache_parameter("detail").as_deref(), Some("stale-revalidating"));
    }
    eventually("one fetch in the background", || origin.count("/a") == 2);
    gate.open();
    eventually("the new answer is served", || node.get("/a").text() == "new");
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn what_was_purged_softly_covers_a_dead_origin() {
    let origin = Origin::with("/a", FRESH, "old");
    let node = node(&origin).start();
    node.await_hit("/a");
    purge(&node, &json!({ "urls": [format!("http://{HOST}/a")], "soft": true }));
    origin.stop();
    node.get("/a").assert_status(200).assert_body("old").assert_fwd("stale");
    purge(&node, &json!({ "urls": [format!("http://{HOST}/a")] }));
    node.get("/a").assert_status(502).assert_own_error();
}

#[test]
fn whoever_asks_after_the_acknowledgement_does_not_get_what_was_under_way() {
    for tagged in [false, true] {
        let origin = Origin::start();
        let gate = Gate::new();
        let _open = OpenOnDrop(gate.clone());
        let held = gate.clone();
        let count = std::sync::atomic::AtomicUsize::new(0);
        origin.on("/a", move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => [vec![Step::Wait(held.clone())], respond(200, TAGGED, "old")].concat(),
            _ => respond(200, TAGGED, "new"),
        });
        let node = node(&origin).start();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| node.get("/a"));
            eventually("the origin is asked", || origin.begun("/a") == 1);
            if tagged {
                purge(&node, &json!({ "tags": ["t"] }));
                gate.open();
                first.join().expect("an answer").assert_body("old");
                node.get("/a").assert_body("new");
            } else {
                purge(&node, &json!({ "urls": [format!("http://{HOST}/a")] }));
                node.get("/a").assert_body("new");
                gate.open();
                first.join().expect("an answer").assert_body("old");
            }
        });
        // The late answer did not take the place of the new one.
        node.await_hit("/a").assert_body("new");
    }
}

#[test]
fn what_was_purged_does_not_come_back_after_a_kill() {
    let origin = counting(TAGGED);
    let mut node = node(&origin).disk("64MiB").start();
    let paths = ["/a", "/b", "/c/d", "/kept"];
    for path in paths {
        node.await_hit(path);
    }
    node = node.restarted(Signal::TERM);
    for path in paths {
        node.get(path).assert_hit();
    }
    let url = purge(&node, &json!({ "urls": [format!("http://{HOST}/a")] }));
    purge(&node, &json!({ "urls": [format!("http://{HOST}/b")], "soft": true }));
    purge(&node, &json!({ "prefixes": [format!("{HOST}/c")] }));
    node = node.restarted(Signal::KILL);
    node.get("/kept").assert_hit();
    node.get("/a").assert_fwd("uri-miss");
    node.get("/b").assert_fwd("stale");
    node.get("/c/d").assert_fwd("uri-miss");
    let known = node.admin_get(&format!("/v1/purges/{}", url["id"].as_str().expect("an id")));
    known.assert_status(200);
    assert_eq!(known.json()["seq"], url["seq"]);
    purge(&node, &json!({ "tags": ["t"] }));
    node = node.restarted(Signal::KILL);
    node.get("/kept").assert_fwd("uri-miss");
}

#[test]
fn a_purge_is_acknowledged_and_kept_for_people() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let body = json!({ "tags": ["a", "b"], "hosts": [HOST], "soft": true, "note": "spring sale" });
    let answer = ask(&node, &node.token(), body.to_string());
    answer.assert_status(201);
    let made = answer.json();
    let location = answer.field("location").expect("a Location").to_owned();
    assert_eq!(location, format!("/v1/purges/{}", made["id"].as_str().expect("an id")));
    assert_eq!(
        (&made["state"], &made["soft"], &made["entries"]),
        (&json!("applied"), &json!(true), &json!(3))
    );
    assert!(made["seq"].is_u64() && made["applied_in_us"].is_u64(), "{made}");
    assert_eq!(made["nodes"][0]["state"], "applied");

    let shown = node.admin_get(&location).json();
    for (name, value) in [
        ("who", json!("local")),
        ("from", json!("127.0.0.1")),
        ("source", json!("api")),
        ("note", json!("spring sale")),
        ("site", json!("test")),
    ] {
        assert_eq!(shown[name], value, "{name} of {shown}");
    }
    assert_eq!(shown["selectors"][2], json!({ "kind": "host", "value": HOST }));
    node.admin_get("/v1/purges/nonsense").assert_status(404);
    node.await_metric("larder_purges_total{kind=\"tag\",soft=\"true\",source=\"api\"}", 2.0);
    assert_eq!(node.admin_get("/v1/status").json()["purges"]["log_entries"], 1);
}

#[test]
fn the_list_goes_page_by_page_from_the_newest() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let made: Vec<Value> =
        (0..5).map(|n| purge(&node, &json!({ "tags": [format!("t{n}")] }))["id"].clone()).collect();
    let mut seen = Vec::new();
    let mut target = "/v1/purges?limit=2".to_owned();
    loop {
        let page = node.admin_get(&target).json();
        seen.extend(
            page["items"].as_array().expect("items").iter().rev().map(|item| item["id"].clone()).rev(),
        );
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/purges?limit=2&after={next}");
    }
    seen.reverse();
    assert_eq!(seen, made);
    for bad in ["limit=0", "limit=x", "limit=1001", "after=x"] {
        node.admin_get(&format!("/v1/purges?{bad}")).assert_status(400);
    }
}

fn tokens(list: &[(&str, &str, &str)]) -> String {
    let table = |(token, scopes, sites): &(&str, &str, &str)| {
        let hash = blake3::hash(token.as_bytes()).to_hex();
        format!(
            "[[admin.token]]\nname = \"{token}\"\nhash = \"blake3:{hash}\"\nscopes = {scopes}\nsites = {sites}\n"
        )
    };
    list.iter().map(table).collect()
}

#[test]
fn a_token_purges_what_its_scopes_and_sites_say() {
    let origin = counting(FRESH);
    let node = two_sites(&origin)
        .admin(&tokens(&[
            ("reader", "[\"read\"]", "[]"),
            ("shop", "[\"purge\"]", "[\"shop\"]"),
            ("shop-all", "[\"purge:all\"]", "[\"shop\"]"),
            ("both", "[\"purge\"]", "[\"shop\", \"blog\"]"),
        ]))
        .start();
    let shop = json!({ "urls": ["http://shop.example/a"] });
    let blog = json!({ "urls": ["http://blog.example/a"] });
    let of_blog = json!({ "site": "blog", "tags": ["t"] });
    let all = json!({ "all": true });
    for (token, body, status) in [
        ("nobody", &shop, 401),
        ("reader", &shop, 403),
        ("shop", &shop, 201),
        ("shop", &blog, 400),
        ("shop", &of_blog, 403),
        ("shop", &all, 403),
        ("shop-all", &all, 201),
        ("shop-all", &shop, 201),
        ("both", &shop, 400),
        ("both", &of_blog, 201),
        ("both", &json!({ "site": "shop", "hosts": ["blog.example"] }), 400),
        ("both", &json!({ "site": "none", "tags": ["t"] }), 403),
    ] {
        let answer = ask(&node, token, body.to_string());
        assert_eq!(answer.status, status, "{token} {body}: {}", answer.text());
    }
    // A token sees what concerns its sites only.
    let seen = |token: &str| {
        let answer = node.ask_admin(&get("/v1/purges").with("Authorization", format!("Bearer {token}")));
        answer.json()["items"].as_array().expect("items").len()
    };
    assert_eq!((seen("reader"), seen("shop"), seen("both")), (4, 3, 4));
    // A purge of everything of a site leaves the other one alone.
    get("/a").host("blog.example").to(&node).assert_status(200);
    eventually("it is stored", || get("/a").host("blog.example").to(&node).is_hit());
    ask(&node, "shop-all", all.to_string()).assert_status(201);
    get("/a").host("blog.example").to(&node).assert_hit();
}

#[test]
fn a_purge_with_a_wrong_entry_does_nothing_and_names_each() {
    let origin = counting(FRESH);
    let node = two_sites(&origin).start();
    let ask_for = |host: &str| get("/a").host(host).to(&node);
    eventually("it is stored", || ask_for("shop.example").is_hit());
    let body = json!({
        "site": "shop",
        "urls": ["http://shop.example/a", "shop.example/a", 3, "http://nowhere.example/"],
        "prefixes": ["shop.example/", "https://shop.example/", "shop.example/a?b"],
        "tags": ["", "good", "t".repeat(2000)],
        "hosts": ["a b", "shop.example"],
    });
    let answer = ask(&node, &node.token(), body.to_string());
    answer.assert_status(400);
    assert!(answer.joined("content-type").starts_with("application/problem+json"), "{:?}", answer.fields);
    let problem = answer.json();
    let errors = problem["errors"].as_array().expect("errors").iter();
    let pointers: Vec<&str> = errors.map(|error| error["pointer"].as_str().expect("a pointer")).collect();
    let wanted = [
        "#/urls/1",
        "#/urls/2",
        "#/urls/3",
        "#/prefixes/1",
        "#/prefixes/2",
        "#/tags/0",
        "#/tags/2",
        "#/hosts/0",
    ];
    assert_eq!(pointers, wanted, "{problem}");
    ask_for("shop.example").assert_hit();
    assert_eq!(node.admin_get("/v1/purges").json()["items"], json!([]));
}

#[test]
fn what_is_no_purge_is_refused() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let many = json!({ "tags": vec!["t"; 10_001] }).to_string();
    let long = json!({ "tags": vec!["t".repeat(1000); 1100] }).to_string();
    for (body, status) in [
        (String::new(), 400),
        ("[]".into(), 400),
        ("[\"shop\", [], [], [\"a\"]]".into(), 400),
        (" \r\n\t[\"shop\", [], [], [\"a\"]]".into(), 400),
        ("\"all\"".into(), 400),
        ("{".into(), 400),
        ("{}".into(), 400),
        (json!({ "tags": [] }).to_string(), 400),
        (json!({ "tag": ["t"] }).to_string(), 400),
        (json!({ "tags": "t" }).to_string(), 400),
        (json!({ "all": true, "tags": ["t"] }).to_string(), 400),
        (json!({ "tags": ["t"], "note": "n".repeat(2000) }).to_string(), 400),
        (many, 413),
        (long, 413),
    ] {
        let answer = ask(&node, &node.token(), &body);
        let start: String = body.chars().take(60).collect();
        assert_eq!(answer.status, status, "{start}: {}", answer.text());
        assert!(answer.joined("content-type").starts_with("application/problem+json"), "{start}");
    }
    assert_eq!(node.admin_get("/v1/purges").json(), json!({ "items": [], "next": null }));
    purge(&node, &json!({ "tags": vec!["t"; 10_000] }));
}
