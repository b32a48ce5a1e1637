//! What is held: dry runs, lists of objects and tags, and what of it a token may see.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::node::{Builder, Node, bare, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::process::run;
use crate::support::request::{get, request};
use crate::support::response::Response;

const HOST: &str = "test.example";

#[track_caller]
fn dry_run(node: &Node, mut body: Value) -> Value {
    body["dry_run"] = json!(true);
    let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
    let answer = node.ask_admin(&ask.body(body.to_string()));
    answer.assert_status(200);
    answer.json()
}

#[track_caller]
fn matches(node: &Node, body: Value) -> (u64, u64) {
    let found = dry_run(node, body);
    assert_eq!(found["complete"], true, "{found}");
    let of = |name: &str| found["matches"][name].as_u64().expect("a number");
    (of("objects"), of("bytes"))
}

/// An origin whose bodies are as long as the number at the end of the path; tags: `all`, and the first segment.
fn sized() -> Origin {
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let size: usize = seen.path().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let first = seen.path().split('/').nth(1).unwrap_or_default().to_owned();
        let tags = format!("all {first}");
        respond(200, &[FRESH[0], ("Surrogate-Key", tags.as_str())], "x".repeat(size))
    });
    origin
}

#[test]
fn a_dry_run_counts_what_a_purge_would_hit_and_purges_nothing() {
    let origin = sized();
    for disk in ["0", "64MiB"] {
        let node = node(&origin).disk(disk).start();
        for path in ["/a/10", "/a/b/20", "/ab/40", "/c/100000"] {
            node.await_hit(path);
        }
        for (body, wanted) in [
            (json!({ "urls": [format!("https://{HOST}/a/10")] }), (1, 10)),
            (json!({ "urls": [format!("http://{HOST}/none")] }), (0, 0)),
            (json!({ "prefixes": [format!("{HOST}/a")] }), (2, 30)),
            (json!({ "prefixes": [format!("{HOST}/a")], "tags": ["a", "ab"] }), (3, 70)),
            (json!({ "tags": ["all"] }), (4, 100_070)),
            (json!({ "hosts": [HOST] }), (4, 100_070)),
            (json!({ "all": true }), (4, 100_070)),
            (json!({ "site": "test", "all": true, "soft": true }), (4, 100_070)),
        ] {
            assert_eq!(matches(&node, body.clone()), wanted, "{body}, disk {disk}");
        }
        let sample = dry_run(&node, json!({ "tags": ["c"] }))["sample"].clone();
        assert_eq!(sample, json!([format!("http://{HOST}/c/100000")]));
        for path in ["/a/10", "/a/b/20", "/ab/40", "/c/100000"] {
            node.get(path).assert_hit();
        }
        assert_eq!(node.admin_get("/v1/purges").json()["items"], json!([]));
        // What was purged is not held any more, though nothing was looked for.
        let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {}", node.token()));
        node.ask_admin(&ask.body(json!({ "tags": ["a"] }).to_string())).assert_status(201);
        assert_eq!(matches(&node, json!({ "all": true })), (2, 100_040));
    }
}

#[test]
fn what_is_in_memory_and_on_disk_counts_once() {
    let origin = sized();
    // Little memory: most are on disk only.
    let node = node(&origin).memory("16MiB").disk("256MiB").start();
    let mut bytes = 0;
    for n in 0..300 {
        let size = 30_000 + n * 100;
        node.get(&format!("/d{}/{n}/{size}", n % 3)).assert_status(200);
        bytes += size;
    }
    let count = || matches(&node, json!({ "all": true }));
    eventually("all is stored", || count() == (300, bytes));
    assert_eq!(matches(&node, json!({ "tags": ["d1"] })).0, 100);
    // And after a start, when nothing is in memory.
    let node = node.restarted(Signal::TERM);
    assert_eq!(matches(&node, json!({ "all": true })), (300, bytes));
    node.get("/d0/0/30000").assert_hit();
    assert_eq!(matches(&node, json!({ "all": true })), (300, bytes));
    assert_eq!(matches(&node, json!({ "tags": ["d1"] })).0, 100);
}

#[test]
fn variants_count_each_and_slices_of_one_response_as_one() {
    let origin = Origin::start();
    origin.on("/v", |_| respond(200, &[FRESH[0], ("Vary", "X-Kind")], "12345"));
    let large = crate::support::pattern(300_000, 1);
    let whole = large.clone();
    origin.on("/large", move |seen| {
        let range = seen.field("range").and_then(|range| range.strip_prefix("bytes="));
        let range = range.and_then(|range| range.split_once('-'));
        let number = |text: &str| text.parse::<usize>().ok();
        let fields = [FRESH[0], ("ETag", "\"l\""), ("Accept-Ranges", "bytes")];
        match range.and_then(|(from, to)| Some((number(from)?, number(to)?.min(299_999)))) {
            None => respond(200, &fields, &whole),
            Some((from, to)) => {
                let of = format!("bytes {from}-{to}/300000");
                respond(206, &[fields.as_slice(), &[("Content-Range", &of)]].concat(), &whole[from..=to])
            }
        }
    });
    let node = node(&origin).cache("range_slices = \"64KiB\"").start();
    for kind in ["a", "b"] {
        get("/v").with("X-Kind", kind).to(&node).assert_status(200);
    }
    let first = get("/large").with("Range", "bytes=0-199999").to(&node);
    first.assert_status(206).assert_body(&large[..200_000]);
    let count = |path: &str| matches(&node, json!({ "urls": [format!("http://{HOST}{path}")] }));
    eventually("both are stored", || count("/v") == (2, 10));
    eventually("the slices are stored", || count("/large") == (1, 4 * 65_536));
}

#[test]
fn objects_are_listed_by_prefix_tag_and_site_page_by_page() {
    let origin = sized();
    for disk in ["0", "64MiB"] {
        let mut node = node(&origin).disk(disk).start();
        let paths: Vec<String> =
            (0..25).map(|n| format!("/{}/{n}", if n % 2 == 0 { "even" } else { "odd" })).collect();
        for path in &paths {
            node.await_hit(path);
        }
        for is_restarted in [false, true] {
            if is_restarted {
                if disk == "0" {
                    continue;
                }
                node = node.restarted(Signal::TERM);
            }
            for (query, wanted) in [
                ("site=test", 25),
                ("tag=odd", 12),
                ("tag=none", 0),
                ("prefix=test.example/even", 13),
                ("prefix=test.example/eve", 0),
                ("site=test&tag=even", 13),
            ] {
                let mut keys = Vec::new();
                let mut after = String::new();
                loop {
                    let page = node.admin_get(&format!("/v1/objects?{query}&limit=4{after}"));
                    page.assert_status(200);
                    let page = page.json();
                    let items = page["items"].as_array().expect("items");
                    assert!(items.len() <= 4, "{page}");
                    keys.extend(items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()));
                    let Some(next) = page["next"].as_str() else { break };
                    after = format!("&after={next}");
                }
                let distinct: BTreeSet<_> = keys.iter().collect();
                assert_eq!((keys.len(), distinct.len()), (wanted, wanted), "{query}, disk {disk}");
            }
        }
        let page = node.admin_get("/v1/objects?prefix=test.example/even/24").json();
        let item = &page["items"][0];
        assert_eq!(item["tags"], json!(["all", "even"]), "{item}");
        assert_eq!(
            (&item["size"], &item["state"], &item["status"]),
            (&json!(24), &json!("fresh"), &json!(200))
        );
    }
}

#[test]
fn tags_are_listed_in_order_with_how_many_have_them() {
    let origin = sized();
    let node = node(&origin).start();
    for path in ["/b1/1", "/b2/1", "/b2/2", "/c/1"] {
        node.await_hit(path);
    }
    let tags = |query: &str| {
        let answer = node.admin_get(&format!("/v1/tags{query}"));
        answer.assert_status(200);
        let page = answer.json();
        let item = |item: &Value| (item["tag"].as_str().expect("a tag").to_owned(), item["objects"].as_u64());
        let items: Vec<_> = page["items"].as_array().expect("items").iter().map(item).collect();
        (items, page["next"].as_str().map(str::to_owned))
    };
    let of =
        |list: &[(&str, u64)]| list.iter().map(|(tag, n)| ((*tag).to_owned(), Some(*n))).collect::<Vec<_>>();
    assert_eq!(tags(""), (of(&[("all", 4), ("b1", 1), ("b2", 2), ("c", 1)]), None));
    assert_eq!(tags("?prefix=b&site=test"), (of(&[("b1", 1), ("b2", 2)]), None));
    assert_eq!(tags("?limit=3"), (of(&[("all", 4), ("b1", 1), ("b2", 2)]), Some("b2".to_owned())));
    assert_eq!(tags("?limit=3&after=b2"), (of(&[("c", 1)]), None));
}

fn two_sites(origin: &Origin) -> Builder {
    bare().sites(&format!(
        "[[site]]\nname = \"shop\"\nhosts = [\"shop.example\"]\norigin = \"o\"\n\
         [[site]]\nname = \"blog\"\nhosts = [\"blog.example\"]\norigin = \"o\"\n\
         [[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n",
        origin.url()
    ))
}

#[test]
fn a_token_sees_its_sites_and_no_other() {
    let origin = sized();
    let token = |name: &str, scopes: &str, sites: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!(
            "[[admin.token]]\nname = \"{name}\"\nhash = \"blake3:{hash}\"\nscopes = {scopes}\nsites = {sites}\n"
        )
    };
    let tokens = token("shop", "[\"read\"]", "[\"shop\"]")
        + &token("all", "[\"read\"]", "[]")
        + &token("purger", "[\"purge\"]", "[\"shop\"]");
    let node = two_sites(&origin).admin(&tokens).start();
    for host in ["shop.example", "blog.example"] {
        eventually("it is stored", || get("/x/1").host(host).to(&node).is_hit());
    }
    let ask = |token: &str, target: &str| -> Response {
        node.ask_admin(&get(target).with("Authorization", format!("Bearer {token}")))
    };
    let items = |token: &str, target: &str| {
        let answer = ask(token, target);
        answer.assert_status(200);
        answer.json()["items"].as_array().expect("items").len()
    };
    assert_eq!((items("all", "/v1/objects?tag=all"), items("shop", "/v1/objects?tag=all")), (2, 1));
    assert_eq!(ask("shop", "/v1/tags").json()["items"][0], json!({ "tag": "all", "objects": 1 }));
    assert_eq!(ask("all", "/v1/tags").json()["items"][0], json!({ "tag": "all", "objects": 2 }));
    for (token, target, status) in [
        ("shop", "/v1/objects?site=blog", 403),
        ("shop", "/v1/objects?prefix=blog.example/", 403),
        ("shop", "/v1/objects?url=http://blog.example/x/1", 403),
        ("shop", "/v1/tags?site=blog", 403),
        ("shop", "/v1/tags?site=none", 403),
        ("purger", "/v1/tags", 403),
        ("purger", "/v1/objects?site=shop", 403),
        ("nobody", "/v1/tags", 401),
        ("all", "/v1/objects", 400),
        ("all", "/v1/objects?site=none", 400),
        ("all", "/v1/objects?tag=", 400),
        ("all", "/v1/objects?tag=a&prefix=shop.example/", 400),
        ("all", "/v1/objects?prefix=nowhere.example/", 400),
        ("all", "/v1/objects?site=shop&after=zz", 400),
        ("all", "/v1/objects?site=shop&limit=1001", 400),
        ("all", "/v1/objects?nonsense=1", 400),
        ("all", "/v1/tags?limit=0", 400),
    ] {
        let answer = ask(token, target);
        assert_eq!(answer.status, status, "{token} {target}: {}", answer.text());
        assert!(answer.joined("content-type").starts_with("application/problem+json"), "{target}");
    }
}

#[test]
fn the_command_line_shows_what_it_would_hit() {
    let origin = sized();
    let node = node(&origin).start();
    node.await_hit("/a/10");
    node.await_hit("/a/20");
    let (admin, token) = (format!("http://{}", node.admin()), node.token_file());
    let at = ["--node", &admin, "--token-file", token.to_str().expect("UTF-8")];
    let ask = |command: &[&str]| run(&[command, &at].concat());
    let shown = ask(&["purge", "--dry-run", "--prefix", "test.example/a"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("2 objects, 30 B") && text.contains("http://test.example/a/10"), "{text}");
    let json = ask(&["purge", "--dry-run", "--all", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["matches"], json!({ "objects": 2, "bytes": 30 }));
    let unasked = ask(&["purge", "--all"]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    node.get("/a/10").assert_hit();
}
