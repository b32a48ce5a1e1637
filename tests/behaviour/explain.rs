//! `POST /v1/explain` and `larder explain`: how the node would treat a request; and `larder token new`.

use serde_json::{Value, json};

use crate::support::node::{Node, bare, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::process::run;
use crate::support::request::{get, request};

fn ask(node: &Node, token: &str, body: &Value) -> crate::support::response::Response {
    let ask = request("POST", "/v1/explain").with("Authorization", format!("Bearer {token}"));
    node.ask_admin(&ask.body(body.to_string()))
}

#[track_caller]
fn explain(node: &Node, path: &str, headers: Value) -> Value {
    let body = json!({ "url": format!("http://test.example{path}"), "headers": headers });
    let answer = ask(node, &node.token(), &body);
    answer.assert_status(200);
    answer.json()
}

#[test]
fn why_something_is_stored_or_not() {
    let origin = Origin::start();
    origin.fixed("/fresh", 200, &[("Cache-Control", "public, max-age=60")], "a");
    origin.fixed("/targeted", 200, &[("CDN-Cache-Control", "max-age=9"), ("Cache-Control", "no-store")], "a");
    origin.fixed("/cookie", 200, &[FRESH[0], ("Set-Cookie", "a=b")], "a");
    origin.fixed("/private", 200, &[("Cache-Control", "private, max-age=60")], "a");
    origin.fixed("/agent", 200, &[FRESH[0], ("Vary", "User-Agent, Accept-Language")], "a");
    origin.fixed("/silent", 200, &[], "a");
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/api/*\"]\npass = true").start();
    for (path, headers, stored, reason, source) in [
        ("/fresh", json!({}), true, None, Some("max-age")),
        ("/targeted", json!({}), true, None, Some("cdn-cache-control")),
        ("/cookie", json!({}), false, Some("set-cookie"), None),
        ("/private", json!({}), false, Some("private"), None),
        ("/agent", json!({}), false, Some("vary"), None),
        ("/silent", json!({}), false, Some("no-freshness"), None),
        ("/fresh", json!({ "Authorization": "Basic x" }), true, None, Some("max-age")),
        ("/api/x", json!({}), false, Some("pass"), None),
    ] {
        let told = explain(&node, path, headers);
        assert_eq!(told["is_stored"], stored, "{told}");
        assert_eq!(
            (told["reason"].as_str(), told["freshness"]["source"].as_str()),
            (reason, source),
            "{told}"
        );
        assert_eq!(stored, told["advice"].as_array().is_some_and(Vec::is_empty), "{told}");
        let key = format!("http://test.example{path}");
        assert_eq!((&told["site"], &told["key"]), (&json!("test"), &json!(key)));
    }
    assert_eq!(explain(&node, "/api/x", json!({}))["rule"], "rule 1");
    // Nothing was stored by asking.
    assert!(!node.get("/fresh").is_hit());
    node.await_hit("/fresh");
    let asked = origin.count("/fresh");
    let told = explain(&node, "/fresh", json!({}));
    assert_eq!((&told["result"], &told["stored"]["status"]), (&json!("hit"), &json!(200)), "{told}");
    assert_eq!(told["freshness"]["field"], "cache-control: public, max-age=60");
    assert_eq!(origin.count("/fresh"), asked, "the origin need not be asked");
}

#[test]
fn vary_and_what_is_stored_for_others() {
    let origin = Origin::with("/v", &[FRESH[0], ("Vary", "Accept-Language")], "a");
    let node = node(&origin).start();
    get("/v").with("Accept-Language", "de").to(&node).assert_status(200);
    get("/v").with("Accept-Language", "de").to(&node).assert_hit();
    let told = explain(&node, "/v", json!({ "accept-language": "de" }));
    assert_eq!((&told["result"], &told["vary"]), (&json!("hit"), &json!(["accept-language"])), "{told}");
    let told = explain(&node, "/v", json!({ "accept-language": ["fr"] }));
    assert_eq!((&told["result"], &told["variants"]), (&json!("miss"), &json!(1)), "{told}");
}

#[test]
fn what_can_not_be_asked_is_refused_and_a_dead_origin_is_told() {
    let origin = Origin::start();
    let token = |name: &str, scopes: &str, sites: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!(
            "[[admin.token]]\nname = \"{name}\"\nhash = \"blake3:{hash}\"\nscopes = {scopes}\nsites = {sites}\n"
        )
    };
    let site =
        |name: &str| format!("[[site]]\nname = \"{name}\"\nhosts = [\"{name}.example\"]\norigin = \"o\"\n");
    let origins = format!("[[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n", origin.url());
    let node = bare()
        .sites(&(site("shop") + &site("blog") + &origins))
        .admin(&(token("shop", "[\"read\"]", "[\"shop\"]") + &token("purger", "[\"purge\"]", "[]")))
        .start();
    origin.stop();
    for (token, body, status) in [
        ("shop", json!({ "url": "http://shop.example/" }), 200),
        ("shop", json!({ "url": "http://blog.example/" }), 403),
        ("purger", json!({ "url": "http://shop.example/" }), 403),
        ("nobody", json!({ "url": "http://shop.example/" }), 401),
        ("shop", json!({ "url": "shop.example/" }), 400),
        ("shop", json!({ "url": "http://none.example/" }), 400),
        ("shop", json!({}), 400),
        ("shop", json!(["http://shop.example/", {}]), 400),
        ("shop", json!({ "url": "http://shop.example/", "nonsense": 1 }), 400),
        ("shop", json!({ "url": "http://shop.example/", "headers": { "a b": "c" } }), 400),
        ("shop", json!({ "url": "http://shop.example/", "headers": { "a": 1 } }), 400),
        ("shop", json!({ "url": "http://shop.example/", "headers": { "a": "x".repeat(70_000) } }), 413),
    ] {
        let answer = ask(&node, token, &body);
        assert_eq!(answer.status, status, "{token}: {}", answer.text());
        if status == 200 {
            let told = answer.json();
            assert_eq!((&told["result"], &told["is_stored"]), (&json!("miss"), &Value::Null), "{told}");
            assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("origin")), "{told}");
        }
    }
}

#[test]
fn the_command_explains() {
    let origin = Origin::with("/c", &[FRESH[0], ("Set-Cookie", "a=b")], "a");
    let node = node(&origin).start();
    let (admin, token) = (format!("http://{}", node.admin()), node.token_file());
    let at = ["--node", &admin, "--token-file", token.to_str().expect("UTF-8")];
    let ask = |command: &[&str]| run(&[command, &at].concat());
    let told = ask(&["explain", "http://test.example/c", "-H", "Cookie: x=y"]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert!(text.contains("no: set-cookie") && text.contains("advice"), "{text}");
    assert_eq!(ask(&["explain", "http://test.example/c", "-H", "nonsense"]).status.code(), Some(2));
    assert_eq!(ask(&["explain", "nonsense"]).status.code(), Some(1));
}

#[test]
fn a_new_token_works_with_the_lines_that_are_printed() {
    let made = run(&[
        "token",
        "new",
        "--name",
        "marketing",
        "--scope",
        "read",
        "--scope",
        "purge",
        "--site",
        "test",
        "--expires",
        "90d",
        "--json",
    ]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let (token, lines) =
        (made["token"].as_str().expect("a token"), made["configuration"].as_str().expect("lines"));
    assert!(token.starts_with("larder_") && !lines.contains(token), "{made}");
    let origin = Origin::start();
    let node = node(&origin).admin(lines).start();
    let status = |method: &str, target: &str, body: &str| {
        let ask = request(method, target).with("Authorization", format!("Bearer {token}"));
        node.ask_admin(&if body.is_empty() { ask } else { ask.body(body) }).status
    };
    assert_eq!(status("GET", "/v1/status", ""), 200);
    assert_eq!(status("POST", "/v1/purges", "{\"tags\":[\"a\"]}"), 201);
    assert_eq!(status("POST", "/v1/purges", "{\"all\":true}"), 403);
    let shown = run(&["token", "new", "--name", "a", "--scope", "admin"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("larder_") && text.contains("[[admin.token]]") && !text.contains("expires"),
        "{text}"
    );
    for bad in [
        &["token", "new", "--name", "a"][..],
        &["token", "new", "--name", "a", "--scope", "all"],
        &["token", "new", "--name", "", "--scope", "read"],
        &["token", "new", "--name", "a", "--scope", "read", "--expires", "yesterday"],
        &["token"],
    ] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad:?}");
    }
}
