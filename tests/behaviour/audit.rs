//! The audit log: who changed what, from where, when, and what came of it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::node::{Node, bare};
use crate::support::origin::Origin;
use crate::support::request::{get, request};

fn with_tokens(origin: &Origin) -> Node {
    let token = |name: &str, scopes: &str, sites: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!(
            "[[admin.token]]\nname = \"{name}\"\nhash = \"blake3:{hash}\"\nscopes = {scopes}\nsites = {sites}\n"
        )
    };
    let tokens = token("all", "[\"admin\"]", "[]")
        + &token("shop", "[\"read\", \"purge\"]", "[\"shop\"]")
        + &token("reader", "[\"read\"]", "[\"blog\"]");
    bare()
        .sites(&format!(
            "[[site]]\nname = \"shop\"\nhosts = [\"shop.example\"]\norigin = \"o\"\n\
             [site.purge]\nallow = [\"127.0.0.0/8\"]\n\
             [[site]]\nname = \"blog\"\nhosts = [\"blog.example\"]\norigin = \"o\"\n\
             [[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n",
            origin.url()
        ))
        .admin(&tokens)
        .start()
}

fn records(node: &Node, token: &str, query: &str) -> Vec<Value> {
    let answer =
        node.ask_admin(&get(&format!("/v1/audit{query}")).with("Authorization", format!("Bearer {token}")));
    answer.assert_status(200);
    answer.json()["items"].as_array().expect("items").clone()
}

#[test]
fn what_was_purged_and_what_was_refused_is_recorded_and_outlives_the_node() {
    let origin = Origin::start();
    let mut node = with_tokens(&origin);
    let ask = |node: &Node, token: &str, body: Value| {
        let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {token}"));
        node.ask_admin(&ask.body(body.to_string())).status
    };
    assert_eq!(ask(&node, "shop", json!({ "tags": ["t"], "note": "sale" })), 201);
    assert_eq!(ask(&node, "shop", json!({ "tags": ["t"], "dry_run": true })), 200);
    assert_eq!(ask(&node, "shop", json!({ "all": true })), 403);
    assert_eq!(ask(&node, "all", json!({ "site": "blog", "tags": [""] })), 400);
    assert_eq!(ask(&node, "all", json!({ "site": "blog", "hosts": ["blog.example"], "soft": true })), 201);
    assert_eq!(ask(&node, "guess", json!({ "all": true })), 401);
    request("PURGE", "/a").host("shop.example").to(&node).assert_status(200);
    for is_restarted in [false, true] {
        if is_restarted {
            node = node.restarted(Signal::TERM);
        }
        let all = records(&node, "all", "");
        let of =
            |name: &str| all.iter().map(|r| r[name].as_str().unwrap_or("-").to_owned()).collect::<Vec<_>>();
        assert_eq!(of("outcome"), ["applied", "refused", "applied", "refused", "refused", "applied"]);
        assert_eq!(of("who"), ["cidr", "-", "all", "all", "shop", "shop"]);
        assert_eq!(of("action"), ["purge", "purge", "soft-purge", "purge", "purge", "purge"]);
        assert_eq!(of("site"), ["shop", "-", "blog", "-", "shop", "shop"]);
        let oldest = &all[5];
        assert_eq!((&oldest["what"], &oldest["detail"]), (&json!(["tag t"]), &json!("sale")));
        assert_eq!((&oldest["from"], &oldest["source"]), (&json!("127.0.0.1"), &json!("api")));
        assert!(oldest["at"].as_str().is_some_and(|at| at.ends_with('Z')) && oldest["id"].is_string());
        assert!(all[4]["detail"].as_str().is_some_and(|why| why.contains("purge:all")), "{}", all[4]);
        // A token sees what concerns its sites.
        assert_eq!(records(&node, "shop", "").len(), 3);
        assert_eq!(records(&node, "reader", "").len(), 1);
    }
    assert_eq!(records(&node, "all", "?outcome=refused&action=purge").len(), 3);
    assert_eq!(records(&node, "all", "?site=blog").len(), 1);
    let page = |query: &str| {
        let ask = get(&format!("/v1/audit{query}")).with("Authorization", "Bearer all");
        node.ask_admin(&ask).json()
    };
    let first = page("?limit=4");
    let next = first["next"].as_str().expect("more").to_owned();
    let second = page(&format!("?limit=4&after={next}"));
    assert_eq!(second["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(second["next"], Value::Null);
    node.ask_admin(&get("/v1/audit")).assert_status(401);
    assert_eq!(page("?nonsense=1")["status"], 400);
}
