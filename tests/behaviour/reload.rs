//! A new configuration while the node runs: whole or not at all.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::node::{bare, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, request};
use crate::support::{Gate, OpenOnDrop, eventually};

#[test]
fn what_a_site_does_changes_with_the_next_request_and_hits_stay_hits() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).site("[site.headers]\nresponse = { set = { x-version = \"1\" } }").start();
    let mut client = Client::connect(node.http());
    node.get("/a").assert_status(200);
    // Often enough that every worker remembers the route.
    for _ in 0..10 {
        let answer = client.exchange(&get("/a"));
        answer.assert_hit();
        assert_eq!(answer.joined("x-version"), "1");
    }
    node.edit("x-version = \"1\"", "x-version = \"2\"");
    node.reload().assert_status(200);
    for _ in 0..10 {
        let answer = client.exchange(&get("/a"));
        answer.assert_hit();
        assert_eq!(answer.joined("x-version"), "2", "on a connection that was open");
        assert_eq!(node.get("/a").joined("x-version"), "2");
    }
    assert_eq!(origin.count("/a"), 1);
    assert_eq!(node.metric("larder_config_reloads_total{outcome=\"ok\"}"), 1.0);
    assert!(node.metric("larder_requests_total{site=\"test\",result=\"hit\"}") >= 29.0, "counters go on");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why_in_answer_log_and_metrics() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).site("[site.headers]\nresponse = { set = { x-version = \"1\" } }").start();
    let read_at = node.metric("larder_config_last_reload_timestamp_seconds");
    assert!(read_at > 1_700_000_000.0);
    assert_eq!(node.metric("larder_config_last_reload_success"), 1.0);
    node.edit("x-version = \"1\"", "x-version = \"2\"");
    node.edit("workers = 2", "workerz = 2");
    let refused = node.reload();
    refused.assert_status(422);
    let text = refused.text();
    assert!(refused.joined("content-type").contains("application/problem+json"), "{:?}", refused.fields);
    assert!(text.contains("larder.toml:2:1\"") && text.contains("did you mean `workers`?"), "{text}");
    assert_eq!(node.get("/a").joined("x-version"), "1");
    eventually("the log says why", || {
        node.lines().iter().any(|line| line.contains("larder.toml:2:1: node.workerz"))
    });
    assert_eq!(node.metric("larder_config_reloads_total{outcome=\"failed\"}"), 1.0);
    assert_eq!(node.metric("larder_config_last_reload_success"), 0.0);

    node.edit("workerz = 2", "workers = 2");
    node.signal(Signal::HUP);
    node.await_metric("larder_config_reloads_total{outcome=\"ok\"}", 1.0);
    assert_eq!(node.get("/a").joined("x-version"), "2");
    assert_eq!(node.metric("larder_config_last_reload_success"), 1.0);
    std::fs::remove_file(node.config()).expect("it was there");
    let gone = node.reload();
    gone.assert_status(422);
    assert!(gone.text().contains("larder.toml"), "{}", gone.text());
    node.get("/a").assert_status(200);
}

#[test]
fn what_can_not_change_is_refused_by_name() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    let file = std::fs::read_to_string(node.config()).expect("the file");
    for (from, to, name) in [
        ("workers = 2", "workers = 3", "node.workers"),
        ("workers = 2", "workers = 2\nname = \"other\"", "node.name"),
        ("memory = \"64MiB\"", "memory = \"65MiB\"", "store.memory"),
        ("/store\"", "/elsewhere\"", "store.path"),
        ("[[listen]]", "[[listen]]\naddress = \"127.0.0.1:1\"\n[[listen]]", "listen[0].address"),
        ("tls = false", "proxy_protocol = false", "listen[0]"),
        ("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"127.0.0.1:1\"", "admin.address"),
        ("[limits]", "[metrics]\naddress = \"127.0.0.1:1\"\n[limits]", "metrics.address"),
    ] {
        std::fs::write(node.config(), file.replacen(from, to, 1)).expect("the file");
        let answer = node.reload();
        if to == "proxy_protocol = false" {
            // Both are the defaults: nothing changes.
            answer.assert_status(200);
            continue;
        }
        answer.assert_status(422);
        let text = answer.text();
        assert!(text.contains(name) && text.contains("only a restart or an upgrade"), "{name}: {text}");
        assert!(text.contains("larder.toml:"), "{text}");
    }
    node.get("/a").assert_status(200);
}

#[test]
fn sites_origins_limits_and_tokens_change() {
    let (first, second) = (Origin::with("/a", FRESH, "first"), Origin::with("/a", FRESH, "second"));
    let site = |name: &str, host: &str, origin: &str| {
        format!("[[site]]\nname = \"{name}\"\nhosts = [\"{host}\"]\norigin = \"{origin}\"\n")
    };
    let server = |name: &str, origin: &Origin| {
        format!("[[origin]]\nname = \"{name}\"\nservers = [{{ url = \"{}\" }}]\n", origin.url())
    };
    let one = site("one", "one.example", "one") + &server("one", &first);
    let node = bare().sites(&one).start();
    get("/a").host("one.example").to(&node).assert_body("first");
    get("/a").host("two.example").to(&node).assert_status(421);
    assert_eq!(first.connections_open(), 1, "kept for the next request");

    let two = site("two", "two.example", "two") + &server("two", &second);
    node.edit(&one, &(two.clone() + &one));
    node.edit("[limits]", "[limits]\nuri_bytes = \"1KiB\"");
    node.reload().assert_status(200);
    get("/a").host("two.example").to(&node).assert_body("second").assert_fwd("uri-miss");
    get("/a").host("one.example").to(&node).assert_body("first").assert_hit();
    assert_eq!(
        (first.connections_open(), first.connections_accepted()),
        (1, 1),
        "an origin that is as it was goes on"
    );
    get(&format!("/{}", "x".repeat(2000))).host("one.example").to(&node).assert_status(414);
    let status = node.admin_get("/v1/status").text();
    assert!(status.contains("\"two\""), "{status}");
    assert_eq!(node.metric("larder_requests_total{site=\"one\",result=\"hit\"}"), 1.0);

    // Tokens: a configured one takes the place of the made one.
    let hash = blake3::hash(b"secret").to_hex();
    let token = format!("[[admin.token]]\nname = \"op\"\nhash = \"blake3:{hash}\"\nscopes = [\"admin\"]\n");
    node.edit("[limits]", &format!("{token}[limits]"));
    node.reload().assert_status(200);
    node.admin_get("/v1/status").assert_status(401);
    let ask = get("/v1/status").with("Authorization", "Bearer secret");
    node.ask_admin(&ask).assert_status(200);

    // And a site that goes.
    node.edit(&two, "");
    let reload = request("POST", "/v1/reload").with("Authorization", "Bearer secret");
    node.ask_admin(&reload).assert_status(200);
    get("/a").host("two.example").to(&node).assert_status(421);
}

#[test]
fn the_access_log_goes_elsewhere() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = node(&origin);
    let (old, new) = (builder.path().join("old.log"), builder.path().join("new.log"));
    let node = builder.extra(&format!("[access_log]\noutput = \"{}\"", old.display())).start();
    node.get("/a").assert_status(200);
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    eventually("the old log", || lines(&old) == 1);
    node.edit("old.log", "new.log");
    node.reload().assert_status(200);
    for _ in 0..4 {
        node.get("/a").assert_hit();
    }
    eventually("the new log", || lines(&new) == 4);
    assert_eq!(lines(&old), 1);
    let written = "larder_access_log_lines_total{outcome=\"written\"}";
    assert_eq!(node.metric(written), 5.0, "counts go on");
    node.edit("[access_log]", "[access_log]\nsample = \"0%\"");
    node.reload().assert_status(200);
    node.get("/a").assert_hit();
    origin.on("/failing", |_| respond(500, &[], ""));
    node.get("/failing").assert_status(500);
    eventually("errors are logged all the same", || lines(&new) == 5);
    node.edit("sample = \"0%\"", "sample = \"100%\"");
    node.reload().assert_status(200);
    node.edit("new.log", "missing/new.log");
    let refused = node.reload();
    refused.assert_status(422);
    assert!(refused.text().contains("missing/new.log"), "{}", refused.text());
    node.get("/a").assert_hit();
    eventually("still the new log", || lines(&new) == 6);
}

#[test]
fn what_is_under_way_ends_as_it_began() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/slow", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "slow")].concat());
    let node = node(&origin).site("[site.headers]\nresponse = { set = { x-version = \"1\" } }").start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&get("/slow").bytes());
    eventually("the origin is asked", || origin.begun("/slow") == 1);
    node.edit("x-version = \"1\"", "x-version = \"2\"");
    node.reload().assert_status(200);
    gate.open();
    let answer = client.response("GET");
    answer.assert_status(200).assert_body("slow");
    assert_eq!(answer.joined("x-version"), "1");
    let next = client.exchange(&get("/slow"));
    next.assert_hit();
    assert_eq!(next.joined("x-version"), "2");
    assert_eq!(origin.count("/slow"), 1);
}

#[test]
fn the_command_tells_what_came_of_it() {
    let origin = Origin::with("/a", FRESH, "a");
    let mut node = node(&origin).start();
    let (url, token) = (format!("http://{}", node.admin()), node.token_file());
    let command = |name: &str| {
        let token = token.to_str().expect("UTF-8");
        crate::support::process::run(&[name, "--node", &url, "--token-file", token])
    };
    let told = command("reload");
    assert!(told.status.success(), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).contains("reloaded"), "{told:?}");
    node.edit("workers = 2", "workers = \"many\"");
    let told = command("reload");
    assert_eq!(told.status.code(), Some(1));
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(text.contains("larder.toml:2:11") && text.contains("node.workers"), "{text}");

    let drained = command("drain");
    assert!(drained.status.success(), "{drained:?}");
    assert!(node.wait(Duration::from_secs(10)).is_some_and(|status| status.success()));
}

#[test]
fn who_may_not_reload_or_drain_does_not() {
    let origin = Origin::with("/a", FRESH, "a");
    let hash = blake3::hash(b"reader").to_hex();
    let token = format!("[[admin.token]]\nname = \"r\"\nhash = \"blake3:{hash}\"\nscopes = [\"read\"]");
    let node = node(&origin).admin(&token).start();
    for call in ["/v1/reload", "/v1/drain"] {
        node.ask_admin(&request("POST", call)).assert_status(401);
        let reader = request("POST", call).with("Authorization", "Bearer reader");
        node.ask_admin(&reader).assert_status(403);
        node.ask_admin(&get(call)).assert_status(405);
    }
    node.get("/a").assert_status(200);
}

#[test]
fn a_drain_by_the_api_waits_for_what_is_begun_and_a_signal_after_it_does_not_stop_it() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    origin.on("/slow", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "slow")].concat());
    let mut node = node(&origin).node("drain_delay = \"1s\"").start();
    let _open = OpenOnDrop(gate.clone());
    let mut client = Client::connect(node.http());
    client.send(&get("/slow").bytes());
    eventually("the origin is asked", || origin.begun("/slow") == 1);
    node.admin_post("/v1/drain").assert_status(202);
    eventually("not ready", || node.ask_admin(&get("/readyz")).status == 503);
    eventually("listeners are closed", || Client::try_connect(node.http()).is_err());
    // As an orchestrator does after its hook.
    node.signal(Signal::TERM);
    node.admin_post("/v1/drain").assert_status(202);
    std::thread::sleep(Duration::from_millis(200));
    assert!(node.exited().is_none(), "it did not wait");
    gate.open();
    client.response("GET").assert_status(200).assert_body("slow");
    assert!(node.wait(Duration::from_secs(10)).is_some_and(|status| status.success()));
}
