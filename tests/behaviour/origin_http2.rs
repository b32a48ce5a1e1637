//! HTTP/2 towards origins: another node is the origin here.

use crate::support::node::{Builder, Node, bare, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::request::{get, request};
use crate::support::tls::Ca;
use crate::support::{Gate, eventually, pattern};

fn in_front_of(url: &str, settings: &str) -> Builder {
    bare().workers(1).sites(&format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{{ url = \"{url}\" }}]\nhttp2 = true\n{settings}\n"
    ))
}

/// A node that logs, and a look at the protocols of its requests.
fn logging(origin: &Origin) -> (Builder, std::path::PathBuf) {
    let builder = node(origin);
    let log = builder.path().join("access.log");
    (builder.extra(&format!("[access_log]\noutput = \"{}\"", log.display())), log)
}

fn assert_all_http2(log: &std::path::Path, count: usize) {
    let read = || std::fs::read_to_string(log).unwrap_or_default();
    eventually("all are logged", || read().lines().count() >= count);
    assert!(read().lines().all(|line| line.contains("\"protocol\":\"HTTP/2.0\"")), "{}", read());
}

#[test]
fn plain_servers_are_spoken_to_by_prior_knowledge() {
    let origin = Origin::with("/a", FRESH, "by http2");
    origin.on("/upload", |seen| respond(200, &[("Cache-Control", "no-store")], seen.body.len().to_string()));
    let (inner, log) = logging(&origin);
    let inner = inner.start();
    let outer = in_front_of(&format!("http://{}", inner.http()), "").start();
    outer.get("/a").assert_status(200).assert_body("by http2");
    outer.get("/a").assert_hit();
    request("POST", "/upload").body(vec![b'x'; 300_000]).to(&outer).assert_status(200).assert_body("300000");
    assert_eq!(origin.last("/a").field("host"), Some("test.example"));
    assert_eq!(request("HEAD", "/absent").to(&outer).status, 404);
    assert_all_http2(&log, 3);
}

#[test]
fn tls_agrees_on_it_and_falls_back() {
    let ca = Ca::new();
    let origin = Origin::with("/a", FRESH, pattern(3_000_000, 7));
    let (inner, log) = logging(&origin);
    let inner = inner.tls(&ca, &["test.example"]).start();
    let files = bare();
    let tls = format!("tls = {{ ca = \"{}\" }}", ca.write(files.path()).display());
    let outer = in_front_of(&format!("https://{}", inner.https()), &tls).start();
    outer.get("/a").assert_status(200).assert_body(pattern(3_000_000, 7));
    assert_all_http2(&log, 1);
}

#[test]
fn requests_share_a_connection_and_one_that_is_gone_is_replaced() {
    let (origin, gate) = (Origin::start(), Gate::new());
    let held = gate.clone();
    let slow = move |_: &_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "late")].concat();
    origin.on("/*", slow);
    origin.fixed("/first", 200, FRESH, "first");
    let inner = node(&origin).start();
    let outer = in_front_of(&format!("http://{}", inner.http()), "").start();
    outer.get("/first").assert_status(200);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..10)
            .map(|n| {
                let outer = &outer;
                scope.spawn(move || outer.get(&format!("/{n}")).assert_status(200).text())
            })
            .collect();
        eventually("all are asked at once", || (0..10).all(|n| origin.begun(&format!("/{n}")) == 1));
        gate.open();
        assert!(asking.into_iter().all(|asked| asked.join().expect("a thread") == "late"));
    });
    assert_eq!(accepted(&inner), 1.0);
    let connections = outer.admin_get("/v1/origins").json()["items"][0]["servers"][0]["connections"].clone();
    assert_eq!(connections, 1);
}

fn accepted(node: &Node) -> f64 {
    node.metric("larder_connections_accepted_total")
}

#[test]
fn a_server_that_is_restarted_costs_no_request() {
    let origin = Origin::with("/*", FRESH, "a");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let start = || node(&origin).listen(&port.to_string()).start();
    let mut inner = start();
    let outer = in_front_of(&format!("http://{port}"), "").start();
    outer.get("/1").assert_status(200);
    inner.stop();
    let _again = start();
    for n in 2..10 {
        get(&format!("/{n}")).to(&outer).assert_status(200);
    }
}
