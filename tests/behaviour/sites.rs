//! Which site and which rule a request belongs to, and what they change.

use std::fmt::Write as _;

use crate::support::client::Client;
use crate::support::node::{bare, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{Request, get, request};
use crate::support::tls::Ca;

#[test]
fn a_host_finds_its_site_exactly_then_by_wildcard_then_by_star() {
    let names = ["exact", "wildcard", "star"];
    let origins: Vec<Origin> = names.iter().map(|name| Origin::with("/*", FRESH, name)).collect();
    let mut tables = String::new();
    let hosts = ["\"shop.example\"", "\"*.shop.example\"", "\"*\""];
    // Written in the reverse order, so that the order of the file can't be what decides.
    for index in [2, 1, 0] {
        let (name, url) = (names[index], origins[index].url());
        let _ =
            write!(tables, "[[site]]\nname = \"{name}\"\nhosts = [{}]\norigin = \"{name}\"\n", hosts[index]);
        let _ = write!(tables, "[[origin]]\nname = \"{name}\"\nservers = [{{ url = \"{url}\" }}]\n");
    }
    let node = bare().sites(&tables).start();
    for (host, site) in [
        ("shop.example", "exact"),
        ("SHOP.example", "exact"),
        ("shop.example:8080", "exact"),
        ("shop.example.", "exact"),
        ("www.shop.example", "wildcard"),
        ("a.b.shop.example", "wildcard"),
        ("notshop.example", "star"),
        ("example", "star"),
        ("127.0.0.1", "star"),
        ("[::1]:80", "star"),
    ] {
        let answer = get("/a").host(host).to(&node);
        assert_eq!((answer.status, answer.text().as_str()), (200, site), "{host}");
    }
}

#[test]
fn an_unknown_host_is_misdirected() {
    let origin = Origin::with("/*", FRESH, "a");
    let tables = format!(
        "[[site]]\nname = \"shop\"\nhosts = [\"shop.example\"]\norigin = \"shop\"\n\
         [[origin]]\nname = \"shop\"\nservers = [{{ url = \"{}\" }}]\n",
        origin.url()
    );
    let node = bare().sites(&tables).start();
    get("/a").host("shop.example").to(&node).assert_status(200);
    for host in ["other.example", "www.shop.example", "127.0.0.1"] {
        get("/a").host(host).to(&node).assert_status(421).assert_own_error();
    }
    assert_eq!(origin.total(), 1);
}

#[test]
fn the_first_rule_that_matches_decides_and_the_rest_is_inherited() {
    let origin = Origin::with("/*", &[("Cache-Control", "max-age=0"), ("X-Own", "1")], "a");
    let special = Origin::with("/*", FRESH, "special");
    let rules = "[[site.rule]]\npath = [\"/api/*\", \"/cart*\"]\npass = true\n\
                 [[site.rule]]\npath = [\"/assets/*\"]\ncache = { override_ttl = \"60s\" }\n\
                 [[site.rule]]\npath = [\"/assets/special/*\"]\norigin = \"special\"\n\
                 [[site.rule]]\npath = [\"/special/*\"]\norigin = \"special\"\n\
                 [[site.rule]]\npath = [\"/form\"]\nmethods = [\"POST\"]\norigin = \"special\"\n";
    let other = format!("[[origin]]\nname = \"special\"\nservers = [{{ url = \"{}\" }}]", special.url());
    let node = node(&origin).rules(rules).extra(&other).start();
    for (path, hit, body) in [
        ("/api/x", false, "a"),
        ("/cart", false, "a"),
        ("/cart/7", false, "a"),
        ("/assets/x", true, "a"),
        ("/assets/special/x", true, "a"),
        ("/assetsx", false, "a"),
        ("/special/x", true, "special"),
        ("/else", false, "a"),
    ] {
        node.get(path).assert_status(200).assert_body(body);
        assert_eq!(node.get(path).is_hit(), hit, "{path}");
    }
    request("POST", "/form").body("x").to(&node).assert_body("special");
    node.get("/form").assert_body("a");
}

#[test]
fn a_pass_never_reads_nor_fills_the_cache() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/api/*\"]\npass = true").start();
    for _ in 0..3 {
        let answer = get("/api/a").with("If-None-Match", "\"v\"").to(&node);
        answer.assert_status(200).assert_fwd("bypass");
        assert!(!answer.is_stored());
    }
    assert_eq!(origin.count("/api/a"), 3);
    assert_eq!(
        origin.last("/api/a").field("if-none-match"),
        Some("\"v\""),
        "conditions go through untouched"
    );
}

#[test]
fn a_rule_can_not_be_evaded_by_another_spelling() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).rules("[[site.rule]]\npath = [\"/api/*\"]\npass = true").start();
    for path in ["/%61pi/x", "/./api/x", "/y/../api/x", "/y/%2e%2e/api/x"] {
        for _ in 0..2 {
            assert!(!node.get(path).is_hit(), "{path}");
        }
    }
}

#[test]
fn other_methods_than_the_sites_are_405_with_allow() {
    let origin = Origin::with("/*", FRESH, "a");
    let node = node(&origin).site("methods = [\"GET\", \"HEAD\", \"OPTIONS\"]").start();
    node.get("/a").assert_status(200);
    request("OPTIONS", "/a").to(&node).assert_status(200);
    let before = origin.total();
    for method in ["POST", "PUT", "DELETE", "FROB"] {
        let answer = request(method, "/a").to(&node);
        answer.assert_status(405).assert_own_error();
        let allow = answer.joined("allow");
        assert!(allow.contains("GET") && allow.contains("HEAD") && !allow.contains("POST"), "{allow}");
    }
    assert_eq!(origin.total(), before);
}

#[test]
fn plain_http_is_redirected_and_https_promises_to_stay() {
    let (ca, origin) = (Ca::new(), Origin::with("/*", FRESH, "a"));
    let node = node(&origin).site("https = \"redirect\"\nhsts = \"1d\"").tls(&ca, &["test.example"]).start();
    for ask in [get("/a?b=c"), request("POST", "/a?b=c").body("x")] {
        let answer = ask.to(&node);
        answer.assert_status(308);
        let location = answer.joined("location");
        assert!(location.starts_with("https://test.example") && location.ends_with("/a?b=c"), "{location}");
        assert!(!answer.has("strict-transport-security"), "over plain HTTP it means nothing");
    }
    assert_eq!(origin.total(), 0);
    let mut client = Client::connect_tls(node.https(), "test.example", &ca.client(&[])).expect("TLS");
    for _ in 0..2 {
        let answer = client.exchange(&get("/a"));
        answer.assert_status(200);
        assert!(
            answer.joined("strict-transport-security").starts_with("max-age=86400"),
            "{:?}",
            answer.fields
        );
    }
}

#[test]
fn https_promises_to_stay_on_errors_too() {
    let (ca, origin) = (Ca::new(), Origin::start());
    origin.fixed("/a", 200, FRESH, "a");
    origin.on("/broken", |_| vec![Step::Close]);
    let site = "methods = [\"GET\", \"HEAD\"]\nhsts = \"1d\"";
    let rule = "[[site.rule]]\npath = [\"/denied\"]\naccess = { allow = [\"192.0.2.1\"] }";
    let node = node(&origin).site(site).rules(rule).tls(&ca, &["test.example"]).start();
    let ask = |ask: &Request, status: u16| {
        let mut client = Client::connect_tls(node.https(), "test.example", &ca.client(&[])).expect("TLS");
        let answer = client.exchange(ask);
        answer.assert_status(status);
        assert!(answer.has("strict-transport-security"), "{ask:?}: {:?}", answer.fields);
    };
    ask(&get("/a"), 200);
    ask(&get("/broken"), 502);
    ask(&get("/denied"), 403);
    ask(&request("POST", "/a").body("x"), 405);
    ask(&get("/a").with("If-Match", "\"x\""), 412);
    ask(&get("/a").with("Range", "bytes=5-"), 416);
    assert!(!get("/broken").to(&node).has("strict-transport-security"), "over plain HTTP it means nothing");
}

#[test]
fn the_scheme_is_part_of_the_key() {
    let (ca, origin) = (Ca::new(), Origin::start());
    origin.on("/a", |seen| respond(200, FRESH, seen.joined("x-forwarded-proto")));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    node.get("/a").assert_body("http");
    let mut client = Client::connect_tls(node.https(), "test.example", &ca.client(&[])).expect("TLS");
    client.exchange(&get("/a")).assert_body("https");
}

#[test]
fn forwarding_fields_of_strangers_are_dropped_and_set_anew() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).start();
    let spoofed = get("/a")
        .with("X-Forwarded-For", "6.6.6.6")
        .with("X-Forwarded-Proto", "https")
        .with("X-Forwarded-Host", "evil.example")
        .with("Forwarded", "for=6.6.6.6;proto=https;host=evil.example");
    spoofed.to(&node).assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.joined("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.joined("x-forwarded-proto"), "http");
    let forwarded = seen.joined("forwarded").to_ascii_lowercase();
    assert!(forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=http"), "{forwarded}");
    let head = String::from_utf8_lossy(&seen.head).into_owned();
    assert!(!head.contains("6.6.6.6") && !head.contains("evil.example"), "{head}");
}

#[test]
fn forwarding_fields_of_a_trusted_proxy_are_kept_and_extended() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin).node("trusted_proxies = [\"127.0.0.0/8\"]").start();
    get("/a")
        .with("X-Forwarded-For", "203.0.113.7")
        .with("X-Forwarded-Proto", "https")
        .to(&node)
        .assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.joined("x-forwarded-for").replace(' ', ""), "203.0.113.7,127.0.0.1");
    assert_eq!(seen.joined("x-forwarded-proto"), "https");
    assert!(seen.joined("forwarded").contains("203.0.113.7"), "{:?}", seen.fields);
}

#[test]
fn forwarding_fields_spelled_with_an_underscore_pass_from_nobody() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let strict = node(&origin).start();
    let trusting = node(&origin).node("trusted_proxies = [\"127.0.0.0/8\"]").start();
    for node in [strict, trusting] {
        let names =
            ["X_Forwarded_Host", "x_forwarded-for", "X-Forwarded_Proto", "X_Real_IP", "X.Forwarded.Host"];
        let ask =
            names.iter().fold(get("/a").with("X_Other", "kept"), |ask, name| ask.with(name, "evil.example"));
        for method in ["GET", "POST"] {
            let mut ask = ask.clone();
            method.clone_into(&mut ask.method);
            ask.to(&node).assert_status(200);
            let seen = origin.last("/a");
            assert!(!String::from_utf8_lossy(&seen.head).contains("evil"), "{:?}", seen.fields);
            assert_eq!(seen.field("x_other"), Some("kept"));
        }
    }
}

#[test]
fn forwarded_of_a_trusted_proxy_names_the_client_and_the_scheme() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let node = node(&origin)
        .node("trusted_proxies = [\"127.0.0.0/8\"]")
        .site("access = { deny = [\"192.0.2.66/32\", \"2001:db8::66/128\"] }")
        .start();
    for denied in ["for=192.0.2.66;proto=https", "for=1.1.1.1, For=\"[2001:db8::66]:4711\", for=127.0.0.2"] {
        get("/a").with("Forwarded", denied).to(&node).assert_status(403).assert_own_error();
    }
    assert_eq!(origin.total(), 0);
    get("/a").with("Forwarded", "for=192.0.2.66, for=192.0.2.7;proto=https").to(&node).assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.joined("x-forwarded-for").replace(' ', ""), "192.0.2.7,127.0.0.1");
    assert_eq!(seen.joined("x-forwarded-proto"), "https");
    assert!(seen.joined("forwarded").contains("for=192.0.2.7;proto=https"), "{:?}", seen.fields);
    // The other field is what most proxies set, and decides.
    let both = get("/a").with("X-Forwarded-For", "192.0.2.7").with("Forwarded", "for=192.0.2.66");
    both.to(&node).assert_status(200);
}

#[test]
fn the_origin_gets_the_clients_host_unless_another_is_set() {
    let origin = Origin::with("/*", &[("Cache-Control", "no-store")], "a");
    let plain = node(&origin).start();
    plain.get("/a").assert_status(200);
    assert_eq!(origin.last("/a").joined("host"), "test.example");
    let renamed = node(&origin).origin("host = \"backend.internal\"").start();
    renamed.get("/b").assert_status(200);
    assert_eq!(origin.last("/b").joined("host"), "backend.internal");
}

#[test]
fn fields_are_set_and_removed_by_the_site() {
    let origin = Origin::with("/a", &[FRESH[0], ("X-Powered-By", "x")], "a");
    let headers = "[site.headers]\nrequest = { set = { X-Edge = \"1\" }, remove = [\"X-Secret\"] }\n\
                   response = { set = { X-Frame-Options = \"DENY\" }, remove = [\"X-Powered-By\"] }";
    let node = node(&origin).rules(headers).start();
    for _ in 0..2 {
        let answer = get("/a").with("X-Secret", "s").to(&node);
        assert_eq!(answer.field("x-frame-options"), Some("DENY"));
        assert!(!answer.has("x-powered-by"));
    }
    let seen = origin.last("/a");
    assert_eq!((seen.field("x-edge"), seen.has("x-secret")), (Some("1"), false));
}
