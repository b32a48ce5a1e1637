//! A directory as an origin.

use std::os::unix::fs::symlink;

use crate::support::assert_same_bytes;
use crate::support::client::Client;
use crate::support::node::{Node, node_on_directory};
use crate::support::pattern;
use crate::support::request::{get, head, request};
use crate::support::temp::TempDir;

/// A folder to serve, with a secret beside it.
fn folder() -> TempDir {
    let dir = TempDir::new();
    dir.write("outside/secret.txt", "a secret");
    dir.write("site/index.html", "<!doctype html>home");
    dir.write("site/a.txt", "twelve bytes");
    dir.write("site/with space.txt", "spaced");
    dir.write("site/sub/b.css", "body{}");
    dir.write("site/.hidden", "a secret");
    dir.write("site/.git/config", "a secret");
    dir
}

/// A node that keeps what the directory serves for a minute.
fn serve(dir: &TempDir) -> Node {
    node_on_directory(&dir.path().join("site")).cache("override_ttl = \"60s\"").start()
}

#[test]
fn files_are_served_with_type_strong_tag_and_date() {
    let dir = folder();
    let types = [
        ("x.html", "text/html"),
        ("x.css", "text/css"),
        ("x.js", "text/javascript"),
        ("x.json", "application/json"),
        ("x.svg", "image/svg+xml"),
        ("x.png", "image/png"),
        ("x.webp", "image/webp"),
        ("x.jpg", "image/jpeg"),
        ("x.woff2", "font/woff2"),
        ("x.wasm", "application/wasm"),
        ("x.mp4", "video/mp4"),
        ("x.unknownkind", "application/octet-stream"),
    ];
    for (name, _) in types {
        dir.write(&format!("site/{name}"), name);
    }
    let node = serve(&dir);
    for (name, kind) in types {
        let answer = node.get(&format!("/{name}"));
        answer.assert_status(200).assert_body(name);
        let found = answer.joined("content-type");
        assert_eq!(found.split(';').next(), Some(kind), "{name}");
        let tag = answer.joined("etag");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{name}: {tag}");
        assert!(answer.joined("last-modified").ends_with("GMT"), "{name}");
    }
    node.get("/x.html").assert_hit();
    node.get("/sub/b.css").assert_status(200).assert_body("body{}");
    node.get("/with%20space.txt").assert_status(200).assert_body("spaced");
}

#[test]
fn a_folder_is_its_index() {
    let dir = folder();
    let node = serve(&dir);
    node.get("/").assert_status(200).assert_body("<!doctype html>home");
    assert_eq!(node.get("/sub/").status, 404, "there is no list of files");
}

#[test]
fn different_content_has_a_different_tag() {
    let dir = folder();
    dir.write("site/one", "1111");
    dir.write("site/two", "2222");
    let node = serve(&dir);
    assert_ne!(node.get("/one").joined("etag"), node.get("/two").joined("etag"));
}

#[test]
fn head_ranges_and_conditions_work_on_files() {
    let dir = folder();
    let body = pattern(2_000_000, 9);
    dir.write("site/big.bin", &body);
    let node = serve(&dir);
    let answer = head("/a.txt").to(&node);
    answer.assert_status(200).assert_body("");
    assert_eq!(answer.field("content-length"), Some("12"));

    let whole = node.get("/big.bin");
    assert_same_bytes(&whole.body, &body);
    let part = get("/big.bin").with("Range", "bytes=1000000-1000099").to(&node);
    part.assert_status(206);
    assert_same_bytes(&part.body, &body[1_000_000..1_000_100]);
    get("/big.bin").with("If-None-Match", whole.joined("etag")).to(&node).assert_status(304);
    let modified = whole.joined("last-modified");
    get("/big.bin").with("If-Modified-Since", modified).to(&node).assert_status(304);
}

#[test]
fn ranges_pass_to_files_that_are_not_cached() {
    let dir = folder();
    let rule = "[[site.rule]]\npath = [\"/*\"]\npass = true";
    let node = node_on_directory(&dir.path().join("site")).rules(rule).start();
    let part = get("/a.txt").with("Range", "bytes=0-5").to(&node);
    part.assert_status(206).assert_body("twelve");
    assert_eq!(part.field("content-range"), Some("bytes 0-5/12"));
    get("/a.txt").with("Range", "bytes=50-").to(&node).assert_status(416);
}

#[test]
fn nothing_outside_the_folder_and_nothing_hidden_is_served() {
    let dir = folder();
    let site = dir.path().join("site");
    let outside = dir.path().join("outside");
    symlink(outside.join("secret.txt"), site.join("link.txt")).expect("a link");
    symlink(&outside, site.join("linked")).expect("a link");
    let node = serve(&dir);
    for path in [
        "/../outside/secret.txt",
        "/sub/../../outside/secret.txt",
        "/%2e%2e/outside/secret.txt",
        "/..%2foutside/secret.txt",
        "/sub/..%2f..%2foutside%2fsecret.txt",
        "/%2e%2e%2foutside%2fsecret.txt",
        "/..%5coutside%5csecret.txt",
        "//outside/secret.txt",
        "/a.txt%00.css",
        "/a.txt/",
        "/a.txt/x",
        "/.hidden",
        "/%2ehidden",
        "/.git/config",
        "/sub/../.git/config",
        "/link.txt",
        "/linked/secret.txt",
        "/missing",
        "/sub",
    ] {
        let answer = node.get(path);
        assert!(
            [400, 404].contains(&answer.status) || (path == "/sub" && answer.status / 100 == 3),
            "{path}: {}",
            answer.status
        );
        assert!(!answer.text().contains("secret"), "{path}");
    }
}

#[test]
fn one_url_names_a_file_so_that_no_rule_is_gone_round() {
    let dir = folder();
    dir.write("site/films/a.mp4", "a secret film");
    dir.write("site/a+b/s", "a secret");
    dir.write("site/50% [1] é@2x.txt", "named");
    let rules = "[[site.rule]]\npath = [\"/films/*\", \"/a+b/*\"]\naccess = { allow = [\"192.0.2.1\"] }";
    let node = node_on_directory(&dir.path().join("site")).rules(rules).start();
    for path in ["/films/a.mp4", "/a+b/s"] {
        node.get(path).assert_status(403);
    }
    for path in [
        "//films/a.mp4",
        "///films/a.mp4",
        "/x/..//films/a.mp4",
        "/x//../films//a.mp4",
        "/.//films/a.mp4",
        "//films//a.mp4",
        "/films//a.mp4",
    ] {
        let answer = node.get(path);
        assert!([403, 404].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret"), "{path}");
    }
    // Another spelling of a name leads to the one that rules know, be there a file or not.
    for (path, name) in [
        ("/a%2Bb/s", "/a+b/s"),
        ("/a%2bb/missing?x=%2B", "/a+b/missing?x=%2B"),
        ("/50%25%20[1]%20é%402x.txt", "/50%25%20%5B1%5D%20%C3%A9@2x.txt"),
    ] {
        for ask in [get(path), head(path)] {
            let answer = ask.to(&node);
            answer.assert_status(308).assert_body("");
            assert_eq!(answer.field("location"), Some(name), "{path}");
        }
    }
    node.get("/50%25%20%5B1%5D%20%C3%A9@2x.txt").assert_status(200).assert_body("named");
    node.get("/50%25%20%5b1%5D%20%c3%a9@2x.txt").assert_status(200).assert_body("named");
}

#[test]
fn a_link_within_the_folder_is_followed() {
    let dir = folder();
    symlink("a.txt", dir.path().join("site/alias.txt")).expect("a link");
    serve(&dir).get("/alias.txt").assert_status(200).assert_body("twelve bytes");
}

#[test]
fn a_directory_can_only_be_read() {
    let dir = folder();
    let node = serve(&dir);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = request(method, "/a.txt").body("x").to(&node);
        answer.assert_status(405);
        assert!(answer.joined("allow").contains("GET"), "{method}: {:?}", answer.fields);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("site/a.txt")).expect("the file"), "twelve bytes");
}

#[test]
fn a_changed_file_is_noticed_when_the_answer_is_validated() {
    let dir = folder();
    let node = node_on_directory(&dir.path().join("site")).cache("override_ttl = \"0s\"").start();
    let old = node.get("/a.txt");
    dir.write("site/a.txt", "something else");
    let new = node.get("/a.txt");
    new.assert_status(200).assert_body("something else");
    assert_ne!(old.joined("etag"), new.joined("etag"));
}

#[test]
fn serve_takes_a_directory_by_flags_alone() {
    let dir = folder();
    let site = dir.path().join("site");
    let store = dir.path().join("store");
    let arguments = [
        "serve",
        "--origin",
        site.to_str().expect("UTF-8"),
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let more =
        ["--store", store.to_str().expect("UTF-8"), "--memory", "64MiB", "--disk", "0", "--workers", "1"];
    let node = Node::from_flags(&[&arguments[..], &more[..]].concat());
    let mut client = Client::connect(node.http());
    client.exchange(&get("/a.txt").host("any.example")).assert_status(200).assert_body("twelve bytes");
}
