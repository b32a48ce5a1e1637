//! What purges promise, tried hard: shared syncs, kills, failing disks, and a crowd against a model.
//!
//! `LARDER_TEST_KILLS` and `LARDER_TEST_ROUNDS` make the long ones longer; `LARDER_TEST_SEED` repeats one.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::inject::Failing;
use crate::support::node::{Node, bare, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::random::{Random, seed};
use crate::support::request::{Request, get, request};
use crate::support::{eventually, heavy, lock};

const HOST: &str = "test.example";

fn purge(token: &str, body: &Value) -> Request {
    let ask = request("POST", "/v1/purges").with("Authorization", format!("Bearer {token}"));
    ask.body(body.to_string())
}

#[track_caller]
fn purged(node: &Node, body: &Value) -> Value {
    let answer = node.ask_admin(&purge(&node.token(), body));
    answer.assert_status(201);
    answer.json()
}

fn times(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// An origin whose answers are numbers that only grow; the tag of a URL is its first segment, and `all`.
fn numbering() -> (Origin, Arc<AtomicU64>) {
    let (origin, last) = (Origin::start(), Arc::new(AtomicU64::new(0)));
    let next = last.clone();
    origin.on("/*", move |seen| {
        let number = next.fetch_add(1, SeqCst);
        let tag = format!("all {}", seen.path().split('/').nth(1).unwrap_or_default());
        respond(200, &[FRESH[0], ("Surrogate-Key", tag.as_str())], number.to_string())
    });
    (origin, last)
}

#[track_caller]
fn number(node: &Node, target: &str) -> u64 {
    let answer = node.get(target);
    answer.assert_status(200);
    answer.text().parse().expect("a number")
}

/// `fsync` and `fdatasync` that take 20 ms longer, for `LD_PRELOAD`; `None`, with a word on stderr, without a C compiler.
fn slow_syncs(directory: &std::path::Path) -> Option<std::path::PathBuf> {
    let (source, library) = (directory.join("slow.c"), directory.join("slow.so"));
    let code = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <unistd.h>\n\
        static int slow(const char *name, int fd) { usleep(20000); \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name); return real(fd); }\n\
        int fsync(int fd) { return slow(\"fsync\", fd); }\n\
        int fdatasync(int fd) { return slow(\"fdatasync\", fd); }\n";
    std::fs::write(&source, code).expect("a file");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    if built.is_ok_and(|status| status.success()) {
        return Some(library);
    }
    eprintln!("skipped: no C compiler");
    None
}

#[test]
fn a_hundred_purges_at_once_share_three_syncs_of_20_ms() {
    let _alone = heavy();
    let origin = Origin::start();
    let builder = node(&origin).disk("64MiB");
    let Some(library) = slow_syncs(builder.path()) else { return };
    let node = builder.preload(&library).start();
    let (token, address) = (node.token(), node.admin());
    let syncs = || node.metric("larder_purge_log_syncs_total");
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.exchange(&get("/healthz").host(&address.to_string())).assert_status(200);
    }
    let before = syncs();
    let ask =
        |n: usize| purge(&token, &json!({ "tags": [format!("t{n}")] })).host(&address.to_string()).bytes();
    let asks: Vec<Vec<u8>> = (0..100).map(ask).collect();
    for (client, ask) in clients.iter_mut().zip(&asks) {
        client.send(ask);
    }
    let slowest = clients.iter_mut().map(|client| {
        let answer = client.response("POST");
        answer.assert_status(201);
        answer.json()["applied_in_us"].as_u64().expect("a time")
    });
    let slowest = slowest.max().unwrap_or_default();
    assert!(slowest >= 20_000, "the syncs were not slow: {slowest} µs");
    let syncs = syncs() - before;
    assert!(syncs <= 3.0, "{syncs} syncs");
}

#[test]
fn a_purge_that_can_not_be_written_is_in_effect_and_answered_with_503() {
    let (origin, _) = numbering();
    let node = node(&origin).disk("64MiB").start();
    node.await_hit("/a");
    let Some(failing) = Failing::calls(&node, "fsync,fdatasync", "EIO") else { return };
    let answer = node.ask_admin(&purge(&node.token(), &json!({ "tags": ["a"] })));
    answer.assert_status(503);
    assert!(answer.text().contains("purge-not-durable"), "{}", answer.text());
    let location = answer.field("location").expect("where it is").to_owned();
    node.get("/a").assert_fwd("uri-miss");
    node.admin_get(&location).assert_status(200);
    let audit = node.admin_get("/v1/audit").json();
    assert_eq!(audit["items"][0]["outcome"], "not-durable", "{audit}");
    drop(failing);
    eventually("it is written after all", || node.metric("larder_purge_log_pending_bytes") == 0.0);
    purged(&node, &json!({ "tags": ["b"] }));
}

#[test]
fn nothing_purged_is_served_after_a_kill_right_behind_the_acknowledgement() {
    let _alone = heavy();
    let (origin, last) = numbering();
    let mut node = node(&origin).disk("64MiB").start();
    let paths: Vec<String> = (0..5).map(|n| format!("/{n}/x")).collect();
    let mut floors = [0_u64; 5];
    let kills = times("LARDER_TEST_KILLS", 12);
    for round in 0..kills {
        for (path, floor) in paths.iter().zip(&floors) {
            let seen = number(&node, path);
            assert!(seen >= *floor, "round {round}: {path} is {seen}, purged below {floor}");
        }
        let (victim, low) = (round % 5, last.load(SeqCst));
        let url = format!("http://{HOST}/{victim}/x");
        let body = match round % 6 {
            0 => json!({ "urls": [url] }),
            1 => json!({ "tags": [victim.to_string()] }),
            2 => json!({ "prefixes": [format!("{HOST}/{victim}")] }),
            3 => json!({ "hosts": [HOST] }),
            4 => json!({ "site": "test", "all": true }),
            _ => json!({ "all": true }),
        };
        purged(&node, &body);
        node = node.restarted(Signal::KILL);
        for (at, floor) in floors.iter_mut().enumerate() {
            if at == victim || round % 6 > 2 {
                *floor = low;
            }
        }
        node.get(&paths[victim]).assert_fwd("uri-miss");
    }
    let kept = node.metric("larder_purge_log_entries");
    assert!(kept >= kills as f64, "{kept} of {kills}");
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_acknowledged() {
    let _alone = heavy();
    let origin = Origin::start();
    let mut node = node(&origin).disk("64MiB").start();
    let mut random = Random::new(seed("LARDER_TEST_SEED"));
    for _ in 0..times("LARDER_TEST_KILLS", 12).div_ceil(4) {
        let acknowledged: Mutex<Vec<String>> = Mutex::default();
        let (token, address, ends) = (node.token(), node.admin(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (token, acknowledged, ends) = (&token, &acknowledged, &ends);
                scope.spawn(move || {
                    for n in 0.. {
                        // Of many sizes, so that frames are.
                        let tags: Vec<String> =
                            (0..=n % 50).map(|tag| format!("{thread}-{n}-{tag}")).collect();
                        let ask = purge(token, &json!({ "tags": tags })).host(&address.to_string());
                        let Ok(mut client) = Client::try_connect(address) else { return };
                        if ends.load(SeqCst) || client.try_send(&ask.bytes()).is_err() {
                            return;
                        }
                        let Ok(answer) = client.try_response("POST") else { return };
                        answer.assert_status(201);
                        lock(acknowledged).push(answer.json()["id"].as_str().expect("an id").to_owned());
                    }
                });
            }
            eventually("some are acknowledged", || lock(&acknowledged).len() > 20);
            std::thread::sleep(Duration::from_micros(random.within(0..50_000)));
            node.signal(Signal::KILL);
            ends.store(true, SeqCst);
        });
        node = node.restarted_when_ended();
        for id in lock(&acknowledged).iter() {
            node.admin_get(&format!("/v1/purges/{id}")).assert_status(200);
        }
    }
}

/// What the model knows of a URL: the lowest number that may still be served.
struct Url {
    host: &'static str,
    path: String,
    floor: AtomicU64,
}

#[test]
fn a_crowd_never_sees_what_was_purged_before_it_asked() {
    let _alone = heavy();
    let (origin, last) = numbering();
    let hosts = ["one.example", "two.example"];
    let site = |name: &str, host: &str| {
        format!("[[site]]\nname = \"{name}\"\nhosts = [\"{host}\"]\norigin = \"o\"\n")
    };
    let origins = format!("[[origin]]\nname = \"o\"\nservers = [{{ url = \"{}\" }}]\n", origin.url());
    let sites = site("one", hosts[0]) + &site("two", hosts[1]) + &origins;
    let mut node = bare().sites(&sites).memory("16MiB").disk("64MiB").start();
    let url =
        |n: usize| Url { host: hosts[n % 2], path: format!("/{}/{n}", n % 4), floor: AtomicU64::new(0) };
    let urls: Vec<Url> = (0..24).map(url).collect();
    let first = seed("LARDER_TEST_SEED");
    for round in 0..times("LARDER_TEST_ROUNDS", 3) as u64 {
        let (http, admin, token) = (node.http(), node.admin(), node.token());
        let (hits, purges) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..6_u64 {
                let (urls, hits, purges, last, token) = (&urls, &hits, &purges, &last, &token);
                let mut random = Random::new(first ^ (round << 8) ^ thread);
                scope.spawn(move || {
                    let (mut data, mut control) = (Client::connect(http), Client::connect(admin));
                    for _ in 0..300 {
                        if thread < 4 || random.one_in(3) {
                            let url = random.pick(urls);
                            let floor = url.floor.load(SeqCst);
                            let answer = data.exchange(&get(&url.path).host(url.host));
                            answer.assert_status(200);
                            let seen: u64 = answer.text().parse().expect("a number");
                            assert!(seen >= floor, "{}{}: {seen}, purged below {floor}", url.host, url.path);
                            hits.fetch_add(usize::from(answer.is_hit()), SeqCst);
                        } else {
                            let (body, is_hit) = any_purge(&mut random, urls);
                            let low = last.load(SeqCst);
                            let ask = purge(token, &body).host(&admin.to_string());
                            control.exchange(&ask).assert_status(201);
                            for url in urls.iter().filter(|url| is_hit(url)) {
                                url.floor.fetch_max(low, SeqCst);
                            }
                            purges.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        });
        let (hits, purges) = (hits.into_inner(), purges.into_inner());
        assert!(hits > 50 && purges > 50, "{hits} hits and {purges} purges show nothing");
        node = node.restarted(if round % 2 == 0 { Signal::KILL } else { Signal::TERM });
        for url in &urls {
            let answer = get(&url.path).host(url.host).to(&node);
            let (seen, floor) = (answer.text().parse::<u64>().expect("a number"), url.floor.load(SeqCst));
            assert!(seen >= floor, "{}{} after a restart: {seen}, purged below {floor}", url.host, url.path);
        }
    }
}

type Hits<'a> = Box<dyn Fn(&Url) -> bool + 'a>;

/// A purge, and what the model says that it hits.
fn any_purge<'a>(random: &mut Random, urls: &'a [Url]) -> (Value, Hits<'a>) {
    let Url { host, path, .. } = random.pick(urls);
    let site = host.split('.').next().unwrap_or_default();
    let first = path.split('/').nth(1).unwrap_or_default();
    let in_first = move |url: &Url| url.path.split('/').nth(1) == Some(first);
    match random.within(0..12) {
        0..=4 => (
            json!({ "site": site, "urls": [format!("http://{host}{path}")] }),
            Box::new(move |url| url.host == *host && url.path == *path),
        ),
        5..=7 => (
            json!({ "site": site, "prefixes": [format!("{host}/{first}")] }),
            Box::new(move |url| url.host == *host && in_first(url)),
        ),
        8 | 9 => (
            json!({ "site": site, "tags": [first] }),
            Box::new(move |url| url.host == *host && in_first(url)),
        ),
        10 => (json!({ "site": site, "hosts": [host] }), Box::new(move |url| url.host == *host)),
        _ => (json!({ "all": true }), Box::new(|_| true)),
    }
}

#[test]
fn the_log_is_compacted_and_what_is_older_stays_purged_and_what_is_newer_stays() {
    let _alone = heavy();
    let (origin, last) = numbering();
    let mut node = node(&origin).disk("64MiB").start();
    node.await_hit("/gone/1");
    purged(&node, &json!({ "tags": ["gone"] }));
    let low = last.load(SeqCst);
    let (token, address) = (node.token(), node.admin());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let token = &token;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for n in 0..1300 {
                    let ask = purge(token, &json!({ "tags": [format!("{thread}-{n}")] }));
                    client.exchange(&ask.host(&address.to_string())).assert_status(201);
                }
            });
        }
    });
    node.await_hit("/kept/1");
    let kept = number(&node, "/kept/1");
    let entries = |node: &Node| node.metric("larder_purge_log_entries");
    eventually("it is compacted", || entries(&node) <= 10_010.0);
    for is_restarted in [false, true] {
        if is_restarted {
            node = node.restarted(Signal::KILL);
        }
        node.get("/kept/1").assert_hit();
        assert_eq!(number(&node, "/kept/1"), kept);
        assert!(number(&node, "/gone/1") >= low);
    }
    // And it goes on purging.
    purged(&node, &json!({ "tags": ["kept"] }));
    node.get("/kept/1").assert_fwd("uri-miss");
}
