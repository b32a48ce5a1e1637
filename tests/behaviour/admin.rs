//! The admin listener: health, metrics, status and who may ask.

use std::os::unix::fs::PermissionsExt;

use crate::support::client::Client;
use crate::support::node::node;
use crate::support::openmetrics;
use crate::support::origin::{FRESH, Origin};
use crate::support::request::{get, request};

#[test]
fn health_needs_no_token() {
    let origin = Origin::start();
    let node = node(&origin).start();
    node.ask_admin(&get("/healthz")).assert_status(200);
    let ready = node.ask_admin(&get("/readyz"));
    ready.assert_status(200);
    assert!(ready.json().is_object(), "each part's state: {}", ready.text());
}

#[test]
fn metrics_are_valid_openmetrics_and_count_what_happened() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    node.get("/a").assert_hit();
    node.get("/a").assert_hit();
    node.await_metric(
        "larder_requests_total{site=\"test\",method=\"GET\",status_class=\"2xx\",result=\"hit\"}",
        2.0,
    );
    node.await_metric("larder_requests_total{result=\"miss\"}", 1.0);
    node.await_metric("larder_origin_requests_total{origin=\"origin\"}", 1.0);

    let answer = node.admin_get("/metrics");
    assert!(answer.joined("content-type").starts_with("application/openmetrics-text"), "{:?}", answer.fields);
    let metrics = openmetrics::parse(&answer.text()).unwrap_or_else(|error| panic!("{error}"));
    for name in [
        "larder_connections",
        "larder_store_bytes",
        "larder_store_objects",
        "larder_store_capacity_bytes",
        "larder_build_info",
    ] {
        assert!(metrics.0.iter().any(|sample| sample.name == name), "no {name}");
    }
    assert!(metrics.sum("larder_store_objects{tier=\"memory\"}") >= 1.0);
    assert!(!answer.text().contains("/a\""), "a URL became a label");
    assert!(
        metrics
            .0
            .iter()
            .any(|sample| sample.name.starts_with("process_") || sample.name.starts_with("larder_process_"))
    );
}

#[test]
fn a_metrics_listener_shows_metrics_and_health_only() {
    let origin = Origin::start();
    let node = node(&origin).extra("[metrics]\naddress = \"127.0.0.1:0\"").start();
    let ask = |path: &str| Client::connect(node.metrics_address()).exchange(&get(path));
    for path in ["/metrics", "/healthz", "/readyz"] {
        ask(path).assert_status(200);
    }
    for path in ["/v1/status", "/v1/objects?url=http://test.example/a", "/"] {
        ask(path).assert_status(404);
    }
}

#[test]
fn everything_else_needs_a_token() {
    let origin = Origin::start();
    let node = node(&origin).start();
    for path in ["/v1/status", "/v1/objects?url=http://test.example/a"] {
        for ask in [
            get(path),
            get(path).with("Authorization", "Bearer wrong"),
            get(path).with("Authorization", "Basic abc"),
        ] {
            let answer = node.ask_admin(&ask);
            answer.assert_status(401);
            assert!(
                answer.joined("content-type").starts_with("application/problem+json"),
                "{:?}",
                answer.fields
            );
            assert!(answer.joined("www-authenticate").starts_with("Bearer"), "{:?}", answer.fields);
        }
        node.admin_get(path).assert_status(200);
    }
}

#[test]
fn the_generated_token_is_for_its_owner_alone_and_survives() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let mode = std::fs::metadata(node.token_file()).expect("the token").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(node.token().len() >= 22, "too short to be secret");
    assert!(!node.lines().iter().any(|line| line.contains(&node.token())), "the log tells the token");
}

#[test]
fn a_token_does_only_what_its_scopes_say() {
    let origin = Origin::start();
    let hash = |token: &str| format!("blake3:{}", blake3::hash(token.as_bytes()).to_hex());
    let tokens = format!(
        "[[admin.token]]\nname = \"reader\"\nhash = \"{}\"\nscopes = [\"read\"]\n\
         [[admin.token]]\nname = \"purger\"\nhash = \"{}\"\nscopes = [\"purge\"]\n\
         [[admin.token]]\nname = \"old\"\nhash = \"{}\"\nscopes = [\"read\"]\nexpires = 2020-01-01T00:00:00Z\n",
        hash("the-reading-token"),
        hash("the-purging-token"),
        hash("the-expired-token")
    );
    let node = node(&origin).admin(&tokens).start();
    for (token, status) in
        [("the-reading-token", 200), ("the-purging-token", 403), ("the-expired-token", 401), ("x", 401)]
    {
        let ask = get("/v1/status").with("Authorization", format!("Bearer {token}"));
        node.ask_admin(&ask).assert_status(status);
    }
    assert!(!node.token_file().exists(), "a token was made although the configuration names some");
}

#[test]
fn guessing_tokens_is_slowed_down() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let mut refused = None;
    for n in 0..500 {
        let answer = node.ask_admin(&get("/v1/status").with("Authorization", format!("Bearer guess-{n}")));
        if answer.status != 401 {
            refused = Some(answer);
            break;
        }
    }
    let answer = refused.expect("500 guesses were all heard");
    answer.assert_status(429);
    assert!(answer.has("retry-after"));
    node.ask_admin(&get("/healthz")).assert_status(200);
}

#[test]
fn status_shows_the_node_and_objects_what_is_held() {
    let origin = Origin::with("/a", &[FRESH[0], ("ETag", "\"v1\"")], "twelve bytes");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    assert!(node.admin_get("/v1/status").json().is_object());

    let url = "/v1/objects?url=http://test.example/a";
    let held = node.admin_get(url);
    held.assert_status(200);
    let text = held.text();
    assert!(text.contains("memory") && text.contains("v1"), "tier and validator: {text}");
    let absent = node.admin_get("/v1/objects?url=http://test.example/never");
    assert!([200, 404].contains(&absent.status), "{}", absent.status);
    assert!(!absent.text().contains("memory"), "{}", absent.text());
}

#[test]
fn nonsense_is_refused_politely() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let token = format!("Bearer {}", node.token());
    for (method, target, status) in [
        ("GET", "/v1/objects?url=nonsense", 400),
        ("GET", "/v1/objects", 400),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/status", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/v1/objects?limit=1&limit=2", 400),
        ("GET", "/v1/purges?limit=1&limit=2", 400),
        ("GET", "/v1/purges/%ff", 400),
        ("GET", "/v1/warmups?limit=1&limit=2", 400),
        ("GET", "/v1/warmups/%ff", 400),
        ("DELETE", "/v1/warmups/%ff", 400),
        ("GET", "/v1/warmups/%ff/urls", 400),
        ("GET", "/v1/warmups/x/urls?outcome=a&outcome=b", 400),
    ] {
        let answer = node.ask_admin(&request(method, target).with("Authorization", &token));
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
        assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{method} {target}");
        assert_eq!(answer.json()["status"], status, "{method} {target}");
        // Who asks is looked at before what is asked.
        if target.starts_with("/v1/") && status == 400 {
            node.ask_admin(&request(method, target)).assert_status(401);
        }
    }
}

#[test]
fn the_admin_api_is_not_on_a_data_listener() {
    let origin = Origin::start();
    let node = node(&origin).start();
    for path in ["/healthz", "/metrics", "/v1/status"] {
        node.get(path).assert_status(404).assert_body("no script for this path");
    }
}
