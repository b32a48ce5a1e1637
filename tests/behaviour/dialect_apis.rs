//! The purge APIs of Fastly and Cloudflare on the admin listener.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::node::{Builder, Node, bare};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::{Request, get, request};
use crate::support::response::Response;

const OBJECTS: [(&str, &str); 6] = [
    ("shop.example", "/a"),
    ("shop.example", "/a?x=1"),
    ("shop.example", "/a/b"),
    ("www.shop.example", "/a"),
    ("blog.example", "/a"),
    ("news.example", "/a"),
];

/// The tags of everything: its path, its host, and one that is everywhere.
fn origin() -> Origin {
    let origin = Origin::start();
    origin.on("/*", |seen| {
        let tags = format!("everywhere {} {}", seen.field("host").unwrap_or_default(), seen.path());
        respond(200, &[FRESH[0], ("Surrogate-Key", &tags)], "x")
    });
    origin
}

fn token(name: &str, scopes: &str, sites: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!(
        "[[admin.token]]\nname = \"{name}\"\nhash = \"blake3:{hash}\"\nscopes = {scopes}\nsites = {sites}\n"
    )
}

fn tokens() -> String {
    [
        token("master", "[\"admin\"]", "[]"),
        token("shop", "[\"purge\"]", "[\"shop\"]"),
        token("shop-all", "[\"purge:all\"]", "[\"shop\"]"),
        token("two", "[\"purge:all\"]", "[\"shop\", \"blog\"]"),
        token("reader", "[\"read\"]", "[]"),
    ]
    .concat()
}

fn three_sites(origin: &Origin, ids: [&str; 3]) -> Builder {
    let site = |name: &str, hosts: &str, ids: &str| {
        format!("[[site]]\nname = \"{name}\"\nhosts = [{hosts}]\norigin = \"o\"\n{ids}\n")
    };
    bare().admin(&tokens()).sites(&format!(
        "{}{}{}[[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n",
        site("shop", "\"shop.example\", \"www.shop.example\"", ids[0]),
        site("blog", "\"blog.example\"", ids[1]),
        site("news", "\"news.example\"", ids[2]),
        origin.url()
    ))
}

fn is_hit(node: &Node, object: usize) -> bool {
    let (host, path) = OBJECTS[object];
    get(path).host(host).to(node).is_hit()
}

#[track_caller]
fn log(node: &Node) -> Vec<Value> {
    let answer = node.ask_admin(&get("/v1/purges?limit=1000").with("Authorization", "Bearer master")).json();
    answer["items"].as_array().expect("items").clone()
}

/// Everything is stored; after this request exactly these are gone.
#[track_caller]
fn assert_gone(node: &Node, ask: &Request, gone: &[usize], source: &str) -> Response {
    let all = 0..OBJECTS.len();
    for object in all.clone() {
        eventually("it is stored", || is_hit(node, object));
    }
    let answer = node.ask_admin(ask);
    assert_eq!(answer.status, 200, "{ask:?}: {}", answer.text());
    assert!(answer.joined("content-type").starts_with("application/json"), "{:?}", answer.fields);
    let missed: Vec<usize> = all.filter(|object| !is_hit(node, *object)).collect();
    assert_eq!(missed, gone, "{ask:?}");
    assert_eq!(log(node)[0]["source"], source);
    answer
}

fn fastly(target: &str, key: &str) -> Request {
    request("POST", target).with("Fastly-Key", key).with("Accept", "application/json")
}

fn cloudflare(token: &str, body: &Value) -> Request {
    request("POST", "/client/v4/zones/023e105f/purge_cache")
        .with("Authorization", format!("Bearer {token}"))
        .with("Content-Type", "application/json")
        .body(body.to_string())
}

#[test]
fn fastlys_calls() {
    let origin = origin();
    let node = three_sites(&origin, [""; 3]).start();
    for (target, gone) in [
        ("/purge/shop.example/a", &[0][..]),
        ("/purge/shop.example/a?x=1", &[1]),
        ("/purge/https://www.shop.example/a", &[3]),
        ("/service/SU1Z0isxPaozGVKXdv0eY/purge/shop.example", &[0, 1, 2]),
        ("/service/SU1Z0isxPaozGVKXdv0eY/purge//a/b", &[2]),
        ("/service/SU1Z0isxPaozGVKXdv0eY/purge/%2Fa%2Fb", &[2]),
        ("/service/SU1Z0isxPaozGVKXdv0eY/purge_all", &[0, 1, 2, 3, 4, 5]),
    ] {
        let answer = assert_gone(&node, &fastly(target, "master"), gone, "fastly").json();
        assert_eq!(answer["status"], "ok", "{target}");
        assert_eq!(answer["id"], log(&node)[0]["id"], "{target}");
    }
    // Many keys at once: in the body, in a field, or both.
    let batch = || fastly("/service/any/purge", "master");
    let body = json!({ "surrogate_keys": ["shop.example", "/a/b"] }).to_string();
    let before = log(&node).len();
    let answer = assert_gone(&node, &batch().body(&body), &[0, 1, 2], "fastly").json();
    assert_eq!(log(&node).len(), before + 1, "one purge");
    let id = &log(&node)[0]["id"];
    assert_eq!(answer, json!({ "shop.example": id, "/a/b": id }));
    assert_gone(&node, &batch().with("Surrogate-Key", "/a/b blog.example"), &[2, 4], "fastly");
    assert_gone(&node, &batch().with("Surrogate-Key", "news.example").body(&body), &[0, 1, 2, 5], "fastly");
    // Softly: stale, not gone.
    eventually("it is stored", || is_hit(&node, 0));
    let soft = fastly("/purge/shop.example/a", "master").with("Fastly-Soft-Purge", "1");
    node.ask_admin(&soft).assert_status(200);
    assert_eq!(log(&node)[0]["soft"], true);
    get("/a").host("shop.example").to(&node).assert_fwd("stale");
    // As an API's token, too.
    let bearer = request("POST", "/purge/shop.example/a").with("Authorization", "Bearer shop");
    assert_gone(&node, &bearer, &[0], "fastly");
    assert_eq!((&log(&node)[0]["who"], &log(&node)[0]["from"]), (&json!("shop"), &json!("127.0.0.1")));
}

#[test]
fn what_fastlys_calls_refuse() {
    let origin = origin();
    let node = three_sites(&origin, ["[site.ids]\nfastly = \"S1\"", "", ""]).start();
    for object in 0..OBJECTS.len() {
        eventually("it is stored", || is_hit(&node, object));
    }
    let keys = |count: usize| json!({ "surrogate_keys": vec!["k"; count] }).to_string();
    let post = |target: &str, key: &str| fastly(target, key);
    for (ask, status) in [
        (request("POST", "/service/S1/purge/k"), 401),
        (post("/service/S1/purge/k", "nobody"), 401),
        (post("/service/S1/purge/k", "reader"), 403),
        (post("/service/S1/purge_all", "shop"), 403),
        (post("/service/S2/purge/k", "shop"), 404),
        (post("/service/S2/purge_all", "master"), 404),
        (post("/purge/blog.example/a", "shop"), 400),
        (post("/purge/nowhere.example/a", "master"), 400),
        (post("/purge/shop.example/%20%", "shop").with("Fastly-Soft-Purge", "maybe"), 400),
        (post("/service/S1/purge/%FF", "shop"), 400),
        (post("/service/S1/purge", "shop"), 400),
        (post("/service/S1/purge", "shop").body("{"), 400),
        (post("/service/S1/purge", "shop").body("{\"keys\":[\"k\"]}"), 400),
        (post("/service/S1/purge", "shop").body("[[\"shop.example\"]]"), 400),
        (post("/service/S1/purge", "shop").body("{\"surrogate_keys\":[\"k\",\"\",3]}"), 400),
        (
            post("/service/S1/purge", "shop")
                .with("Surrogate-Key", "shop.example")
                .body("{\"surrogate_keys\":[3]}"),
            400,
        ),
        (post("/service/S1/purge", "shop").body(keys(10_001)), 413),
        (post("/service/S1/purge", "shop").body("x".repeat(2 << 20)), 413),
        (post("/service/S1/purge/k", "shop").with("Fastly-Purge-Environment", "staging"), 400),
        (post(&format!("/service/S1/purge/{}", "k".repeat(1100)), "shop"), 400),
    ] {
        let answer = node.ask_admin(&ask);
        let start: String = format!("{ask:?}").chars().take(200).collect();
        assert_eq!(answer.status, status, "{start}: {}", answer.text());
        let body = answer.json();
        assert!(body["msg"].is_string() && body["detail"].is_string(), "{start}: {body}");
    }
    assert_eq!(log(&node), Vec::<Value>::new());
    assert!((0..OBJECTS.len()).all(|object| is_hit(&node, object)));
    node.ask_admin(&post("/service/S1/purge", "shop").body(keys(10_000))).assert_status(200);
}

#[test]
fn cloudflares_call() {
    let origin = origin();
    let node = three_sites(&origin, [""; 3]).start();
    for (body, gone) in [
        (json!({ "files": ["http://shop.example/a", "https://www.shop.example/a"] }), &[0, 3][..]),
        (
            json!({ "files": [{ "url": "https://shop.example/a?x=1", "headers": { "CF-Device-Type": "mobile" } }] }),
            &[1],
        ),
        (json!({ "tags": ["shop.example"] }), &[0, 1, 2]),
        (json!({ "hosts": ["blog.example"] }), &[4]),
        (json!({ "prefixes": ["shop.example/a"] }), &[0, 1, 2]),
        (json!({ "tags": ["/a/b"], "hosts": ["blog.example"], "files": [] }), &[2, 4]),
        (json!({ "purge_everything": true }), &[0, 1, 2, 3, 4, 5]),
    ] {
        let before = log(&node).len();
        let answer = assert_gone(&node, &cloudflare("master", &body), gone, "cloudflare").json();
        let log = log(&node);
        assert_eq!(log.len(), before + 1, "{body}");
        let wanted =
            json!({ "success": true, "errors": [], "messages": [], "result": { "id": log[0]["id"] } });
        assert_eq!(answer, wanted, "{body}");
    }
    let everything = json!({ "purge_everything": true }).to_string();
    let deleted = request("DELETE", "/client/v4/zones/any/purge_cache").body(&everything);
    let deleted = deleted.with("X-Auth-Email", "ops@shop.example").with("X-Auth-Key", "shop-all");
    assert_gone(&node, &deleted, &[0, 1, 2, 3], "cloudflare");
}

#[test]
fn ids_are_names_of_sites_and_no_token_reaches_beyond_its_own() {
    let origin = origin();
    let ids = |id: &str| format!("[site.ids]\ncloudflare = \"{id}\"");
    let [shop, blog] = [ids("023e105f"), ids("other")];
    let node = three_sites(&origin, [&shop, &blog, &shop]).start();
    let tag = json!({ "tags": ["everywhere"] });
    let all = json!({ "purge_everything": true });
    // Two sites have the zone. Of a token's sites only those that have it.
    assert_gone(&node, &cloudflare("master", &tag), &[0, 1, 2, 3, 5], "cloudflare");
    assert_gone(&node, &cloudflare("master", &all), &[0, 1, 2, 3, 5], "cloudflare");
    assert_gone(&node, &cloudflare("two", &tag), &[0, 1, 2, 3], "cloudflare");
    assert_gone(&node, &cloudflare("shop-all", &all), &[0, 1, 2, 3], "cloudflare");
    // No site has a service of Fastly's: all of the token's are meant.
    let two = fastly("/service/any/purge/everywhere", "two");
    assert_gone(&node, &two, &[0, 1, 2, 3, 4], "fastly");
    // Each site's part of it can be seen by whom it concerns.
    let seen = |token: &str| {
        let answer = node.ask_admin(&get("/v1/purges").with("Authorization", format!("Bearer {token}")));
        let items = answer.json()["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["site"].as_str().unwrap_or("all").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen("shop"), ["shop", "shop", "shop", "shop", "shop"]);
    assert_eq!(seen("two").len(), 6);
    assert_eq!(seen("master").len(), 8);
}

#[test]
fn an_id_of_a_site_out_of_reach_is_no_other_sites() {
    let origin = origin();
    let ids = "[site.ids]\ncloudflare = \"zshop\"\nfastly = \"fshop\"";
    let node =
        three_sites(&origin, [ids, "", ""]).admin(&token("blog", "[\"purge:all\"]", "[\"blog\"]")).start();
    for object in 0..OBJECTS.len() {
        eventually("it is stored", || is_hit(&node, object));
    }
    let zone = |zone: &str| {
        request("POST", &format!("/client/v4/zones/{zone}/purge_cache"))
            .with("Authorization", "Bearer blog")
            .body(json!({ "purge_everything": true }).to_string())
    };
    for ask in [
        fastly("/service/fshop/purge/everywhere", "blog"),
        fastly("/service/fshop/purge", "blog").with("Surrogate-Key", "everywhere"),
        fastly("/service/fshop/purge_all", "blog"),
        fastly("/service/other/purge/everywhere", "blog"),
        zone("zshop"),
        zone("other"),
    ] {
        assert_eq!(node.ask_admin(&ask).status, 404, "{ask:?}");
    }
    assert_eq!(log(&node), Vec::<Value>::new());
    assert!((0..OBJECTS.len()).all(|object| is_hit(&node, object)));
    assert_gone(&node, &fastly("/service/fshop/purge/everywhere", "two"), &[0, 1, 2, 3], "fastly");
}

#[test]
fn what_cloudflares_call_refuses() {
    let origin = origin();
    let node = three_sites(&origin, ["[site.ids]\ncloudflare = \"023e105f\"", "", ""]).start();
    for object in 0..OBJECTS.len() {
        eventually("it is stored", || is_hit(&node, object));
    }
    let good = json!({ "tags": ["everywhere"] });
    let raw = |body: &str| {
        request("POST", "/client/v4/zones/023e105f/purge_cache")
            .with("Authorization", "Bearer shop")
            .body(body)
    };
    let mixed = json!({
        "files": ["https://shop.example/a", "shop.example/a", 3, { "href": "x" }],
        "tags": ["good", ""],
        "hosts": ["blog.example"],
        "prefixes": ["https://shop.example/"],
    });
    for (ask, status, code, errors) in [
        (request("POST", "/client/v4/zones/023e105f/purge_cache").body(good.to_string()), 401, 10000, 1),
        (cloudflare("nobody", &good), 401, 10000, 1),
        (cloudflare("reader", &good), 403, 9109, 1),
        (cloudflare("shop", &json!({ "purge_everything": true })), 403, 9109, 1),
        (
            request("POST", "/client/v4/zones/x/purge_cache")
                .with("X-Auth-Key", "shop")
                .body(good.to_string()),
            404,
            7003,
            1,
        ),
        (raw(""), 400, 1012, 1),
        (raw("{"), 400, 1012, 1),
        (raw("{}"), 400, 1012, 1),
        (raw("[[], [\"everywhere\"]]"), 400, 1012, 1),
        (raw("{\"file\": [\"https://shop.example/a\"]}"), 400, 1012, 1),
        (cloudflare("shop", &json!({ "purge_everything": false })), 400, 1012, 1),
        (cloudflare("shop-all", &json!({ "purge_everything": true, "tags": ["a"] })), 400, 1012, 1),
        (cloudflare("shop", &json!({ "tags": vec!["t"; 10_001] })), 413, 1012, 1),
        (raw(&"x".repeat(10 << 20)), 413, 1012, 1),
        (cloudflare("shop", &mixed), 400, 1012, 7),
    ] {
        let answer = node.ask_admin(&ask);
        let start: String = format!("{ask:?}").chars().take(200).collect();
        assert_eq!(answer.status, status, "{start}: {}", answer.text());
        let body = answer.json();
        assert_eq!((&body["success"], &body["result"]), (&json!(false), &Value::Null), "{start}");
        assert_eq!(body["errors"][0]["code"], code, "{start}: {body}");
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(errors), "{start}: {body}");
        assert!(body["errors"][0]["message"].is_string(), "{start}: {body}");
    }
    let said = node.ask_admin(&cloudflare("shop", &mixed)).text();
    for pointer in ["#/files/1", "#/files/2", "#/files/3", "#/tags/1", "#/hosts/0", "#/prefixes/0"] {
        assert!(said.contains(pointer), "{pointer}: {said}");
    }
    assert_eq!(log(&node), Vec::<Value>::new());
    assert!((0..OBJECTS.len()).all(|object| is_hit(&node, object)));
}
