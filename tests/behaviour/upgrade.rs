//! Another process takes over, and no client notices.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::node::{Builder, Node, is_alive, node};
use crate::support::origin::{FRESH, Origin, Step, respond};
use crate::support::process::{install, install_script};
use crate::support::request::{get, request};
use crate::support::response::Response;
use crate::support::{Gate, OpenOnDrop, PATIENCE, assert_same_bytes, eventually, pattern};

/// A node with a disk tier, started from a copy of the binary that the test may replace.
fn on_disk(origin: &Origin) -> Builder {
    node(origin).disk("64MiB")
}

/// What is hit by a purge, and the answer.
fn purge(node: &Node, url: &str) -> u16 {
    let body = format!("{{\"urls\":[\"{url}\"]}}");
    let ask = request("POST", "/v1/purges")
        .with("Authorization", format!("Bearer {}", node.token()))
        .with("Content-Type", "application/json")
        .body(body);
    node.ask_admin(&ask).status
}

/// The binary in the test's own folder, to be replaced.
fn own_binary(builder: &Builder) -> PathBuf {
    let path = builder.path().join("larder");
    install(&crate::support::process::binary(), &path);
    path
}

fn replace(binary: &std::path::Path, script: &str) {
    let new = binary.with_extension("new");
    install_script(script, &new);
    fs::rename(&new, binary).expect("in place");
}

#[test]
fn hits_stay_hits_and_addresses_stay_what_they_are() {
    let large = pattern(3_000_000, 1);
    let origin = Origin::with("/small", FRESH, "small");
    origin.fixed("/large", 200, FRESH, &large);
    let node = on_disk(&origin).extra("[metrics]\naddress = \"127.0.0.1:0\"").start();
    node.get("/small").assert_status(200);
    node.get("/large").assert_status(200);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 2.0);
    for _ in 0..3 {
        node.upgrade();
        node.get("/small").assert_hit().assert_body("small");
        let answer = node.get("/large");
        answer.assert_hit();
        assert_same_bytes(&answer.body, &large);
        Client::connect(node.metrics_address()).exchange(&get("/metrics")).assert_status(200);
        assert_eq!(node.metric("larder_upgrades_total{outcome=\"ok\"}"), 1.0);
    }
    assert_eq!((origin.count("/small"), origin.count("/large")), (1, 1));
    node.assert_no_panic();
}

#[test]
fn open_connections_are_answered_and_told_to_leave() {
    let (origin, gate) = (Origin::with("/a", FRESH, "a"), Gate::new());
    let held = gate.clone();
    origin.on("/slow", move |_| [vec![Step::Wait(held.clone())], respond(200, FRESH, "slow")].concat());
    let node = on_disk(&origin).start();
    let _open = OpenOnDrop(gate.clone());
    let mut idle = Client::connect(node.http());
    idle.exchange(&get("/a")).assert_status(200);
    let unused = Client::connect(node.http());
    let mut busy = Client::connect(node.http());
    busy.send(&get("/slow").bytes());
    eventually("the origin is asked", || origin.begun("/slow") == 1);
    let before = node.pid();
    node.signal(Signal::USR2);
    eventually("another process serves", || node.pid() != before);
    // Through the origin: purges of the new process are unknown here.
    for mut client in [idle, unused] {
        let answer = client.exchange(&get("/a"));
        answer.assert_status(200).assert_body("a").assert_fwd("bypass");
        assert!(answer.joined("connection").contains("close"), "{:?}", answer.fields);
        client.expect_close();
    }
    node.get("/a").assert_hit();
    gate.open();
    busy.response("GET").assert_status(200).assert_body("slow");
    busy.expect_close();
    eventually("the one before has ended", || !is_alive(before));
}

#[test]
fn no_acknowledged_purge_is_lost_or_late() {
    let origin = Origin::start();
    origin.fixed("/p/*", 200, FRESH, "p");
    let node = on_disk(&origin).start();
    for n in 0..50 {
        node.get(&format!("/p/{n}")).assert_status(200);
    }
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 50.0);
    let mut keep_alive = Client::connect(node.http());
    keep_alive.exchange(&get("/p/0")).assert_hit();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A purge that is acknowledged has to be in effect on every connection, whichever process answers.
        let purging = scope.spawn(|| {
            let (mut done, mut refused) = (0, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || done < 50 {
                let target = format!("/p/{}", done % 50);
                match purge(&node, &format!("http://test.example{target}")) {
                    201 => done += 1,
                    503 => {
                        refused += 1;
                        continue;
                    }
                    other => panic!("{other}"),
                }
                let answer = node.get(&target);
                answer.assert_status(200);
                assert!(!answer.is_hit(), "{target}: {:?}", answer.fields);
            }
            (done, refused)
        });
        for _ in 0..3 {
            node.upgrade();
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (done, refused) = purging.join().expect("purges");
        assert!(done >= 50 && refused < done, "{done} acknowledged, {refused} refused");
    });
    // And one that the process before has acknowledged.
    node.await_hit("/p/1");
    assert_eq!(purge(&node, "http://test.example/p/1"), 201);
    node.upgrade();
    assert!(!node.get("/p/1").is_hit());
}

/// The new process goes on with what is left, and nothing is asked for twice that was written down.
#[test]
fn a_warm_job_goes_on_in_the_new_process() {
    let origin = Origin::start();
    origin.fixed("/p/*", 200, FRESH, "p");
    let node = on_disk(&origin).start();
    let urls: Vec<String> = (0..60).map(|n| format!("http://test.example/p/{n}")).collect();
    let order = serde_json::json!({ "urls": urls, "encodings": ["identity"], "rate": 40 });
    let ask = |method: &str, target: &str, body: String| {
        let token = format!("Bearer {}", node.token());
        node.ask_admin(&request(method, target).with("Authorization", token).body(body))
    };
    let answer = ask("POST", "/v1/warmups", order.to_string());
    answer.assert_status(202);
    let target = answer.field("location").expect("where it is").to_owned();
    eventually("half of it is done", || origin.total() >= 20);
    node.upgrade();
    assert!(origin.total() < 60, "the upgrade came too late to show anything");
    let state = || ask("GET", &target, String::new()).json();
    eventually("it is done", || state()["state"] == "done");
    let done = state();
    assert_eq!((&done["done"], &done["failed"]), (&60.into(), &0.into()), "{done}");
    for n in 0..60 {
        node.get(&format!("/p/{n}")).assert_hit();
    }
    // What was on its way when the jobs were stopped may be asked for again.
    assert!(origin.total() <= 70, "{}", origin.total());
}

#[test]
fn whatever_is_wrong_with_the_new_one_the_old_one_goes_on() {
    let origin = Origin::with("/a", FRESH, "a");
    origin.fixed("/b", 200, FRESH, "b");
    origin.fixed("/c", 200, FRESH, "c");
    let builder = on_disk(&origin).node("upgrade_timeout = \"2s\"");
    let binary = own_binary(&builder);
    let node = builder.start_as(&binary);
    node.get("/a").assert_status(200);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 1.0);
    let pid = node.pid();
    let mut failures = 0.0;
    let mut fails = |why: &str| {
        node.signal(Signal::USR2);
        failures += 1.0;
        node.await_metric("larder_upgrades_total{outcome=\"failed\"}", failures);
        assert_eq!(node.pid(), pid);
        assert!(node.lines().iter().any(|line| line.contains("ERROR") && line.contains(why)), "{why}");
        node.get("/a").assert_hit();
    };
    replace(&binary, "not even a script");
    fails("can't be started");
    replace(&binary, "#!/bin/sh\nexit 3\n");
    fails("exit status: 3");
    replace(&binary, "#!/bin/sh\nexec sleep 60\n");
    fails("not ready within 2s");
    let real = crate::support::process::binary();
    replace(&binary, &format!("#!/bin/sh\nexec {} \"$@\"\n", real.display()));
    // It says hello, is given everything, and can't use it.
    let marker = node.store().join("FORMAT");
    let format = fs::read_to_string(&marker).expect("the format");
    fs::write(&marker, "larder store, format 99\n").expect("another format");
    fails("ended before it was ready (exit status: 1)");
    fs::write(&marker, format).expect("the format");
    node.edit("workers = 2", "workers = \"many\"");
    fails("exit status: 1");
    node.edit("workers = \"many\"", "workers = 2");

    // The store and the purges are this process's again.
    node.get("/b").assert_status(200);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 2.0);
    assert_eq!(purge(&node, "http://test.example/a"), 201);
    assert!(!node.get("/a").is_hit());
    node.reload().assert_status(200);
    // And with a good one it goes well.
    node.upgrade();
    node.get("/b").assert_hit();
    assert_eq!(origin.count("/b"), 1);
    node.get("/c").assert_status(200);
    node.assert_no_panic();
}

#[test]
fn another_number_of_workers_accepts_on_all_sockets() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = on_disk(&origin).workers(3).start();
    node.get("/a").assert_status(200);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 1.0);
    for (from, to) in [(3, 1), (1, 4), (4, 2)] {
        node.edit(&format!("workers = {from}"), &format!("workers = {to}"));
        node.upgrade();
        // Enough that each of the sockets gets some.
        for _ in 0..40 {
            node.get("/a").assert_hit();
        }
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn it_ends_while_another_is_on_its_way() {
    // Once it runs, and in the moment in which it is started.
    for is_awaited in [true, false, false, false] {
        let origin = Origin::with("/a", FRESH, "a");
        let builder = on_disk(&origin);
        let binary = own_binary(&builder);
        let pid_file = builder.path().join("heir");
        let mut node = builder.start_as(&binary);
        replace(
            &binary,
            &format!("#!/bin/sh\necho $$ > {}\nexec sleep 600 2>/dev/null\n", pid_file.display()),
        );
        let heir = || fs::read_to_string(&pid_file).ok()?.strip_suffix('\n')?.parse().ok();
        node.signal(Signal::USR2);
        if is_awaited {
            eventually("the other is started", || heir().is_some());
        }
        node.signal(Signal::TERM);
        assert!(node.wait(Duration::from_secs(10)).is_some(), "it waits for the other");
        eventually("the other is gone", || !heir().is_some_and(is_alive));
    }
}

/// What the node tells systemd.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    told: Vec<String>,
}

impl Manager {
    fn new(dir: &Path) -> Self {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, path, told: Vec::new() }
    }

    /// Waits for a line; gives the whole message.
    #[track_caller]
    fn await_line(&mut self, wanted: &str) -> String {
        let mut bytes = [0; 1024];
        loop {
            let Ok(length) = self.socket.recv(&mut bytes) else { panic!("no {wanted}: {:?}", self.told) };
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.told.push(text.clone());
            if text.lines().any(|line| line.starts_with(wanted)) {
                return text;
            }
        }
    }
}

#[test]
fn systemd_is_told_what_happens() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = on_disk(&origin);
    let mut manager = Manager::new(builder.path());
    let mut command = Command::new(crate::support::process::binary());
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000");
    let mut node = builder.start_with(command);
    manager.await_line("READY=1");
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    node.reload().assert_status(200);
    let reloading = manager.await_line("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.await_line("READY=1");
    let before = node.pid();
    node.signal(Signal::USR2);
    let main = manager.await_line("MAINPID=");
    assert!(!main.contains(&before.to_string()), "{main}");
    manager.await_line("READY=1");
    eventually("another process serves", || node.pid() != before);
    assert_eq!(main, format!("MAINPID={}", node.pid()));
    // Who does not listen does not stop the node.
    assert!(node.wait(PATIENCE).is_some(), "the one before goes on");
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    node.signal(Signal::TERM);
    manager.await_line("STOPPING=1");
}

/// The signals that a process watches: any other ends it, or does nothing.
fn watched(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    u64::from_str_radix(mask.trim(), 16).expect("a number")
}

#[test]
fn signals_are_watched_before_anybody_is_told() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = on_disk(&origin);
    let mut manager = Manager::new(builder.path());
    let mut command = Command::new(crate::support::process::binary());
    command.env("NOTIFY_SOCKET", &manager.path);
    let mut told = |what: &str| {
        let message = manager.await_line(what);
        let pid = message.lines().find_map(|line| line.strip_prefix("MAINPID=")).expect("of whom");
        watched(pid.parse().expect("a number"))
    };
    // In the very moment, which is before the log is looked at.
    let (node, first) = std::thread::scope(|scope| {
        let first = scope.spawn(|| told("READY=1"));
        (builder.start_with(command), first.join().expect("a mask"))
    });
    node.signal(Signal::USR2);
    let heir = told("MAINPID=");
    for signal in [Signal::HUP, Signal::INT, Signal::USR1, Signal::USR2, Signal::TERM] {
        for mask in [first, heir] {
            assert!(mask >> (signal.as_raw() - 1) & 1 == 1, "{signal:?} ends it: {mask:x}");
        }
    }
    eventually("another process serves", || {
        node.lines().iter().any(|line| line.contains("is_successor=true"))
    });
}

#[test]
fn sockets_of_systemd_are_used() {
    let origin = Origin::with("/a", FRESH, "a");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("its address");
    let number = listener.as_raw_fd();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("inherited");
    let mut command = Command::new("bash");
    let script = format!("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&{number} {number}<&-");
    command.arg("-c").arg(script).arg(crate::support::process::binary());
    // A client that comes before the node does.
    let mut early = Client::connect(address);
    early.send(&get("/a").bytes());
    let node = on_disk(&origin).listen_at(&address.to_string()).start_with(command);
    drop(listener);
    assert_eq!(node.http(), address);
    early.response("GET").assert_status(200).assert_body("a");
    for _ in 0..10 {
        node.get("/a").assert_hit();
    }
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 1.0);
    node.upgrade();
    for _ in 0..10 {
        node.get("/a").assert_hit();
    }
}

#[test]
fn a_large_fill_under_way_arrives_whole_though_the_store_is_another_s() {
    const LENGTH: usize = 12_000_000;
    let body = pattern(LENGTH, 5);
    let (origin, gate) = (Origin::start(), Gate::new());
    let (held, sent) = (gate.clone(), body.clone());
    origin.on("/big", move |_| {
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {LENGTH}\r\n\r\n");
        let (first, rest) = sent.split_at(2_000_000);
        vec![
            Step::Send(head.into()),
            Step::Send(first.to_vec()),
            Step::Wait(held.clone()),
            Step::Send(rest.to_vec()),
        ]
    });
    let node = node(&origin).disk("512MiB").start();
    let _open = OpenOnDrop(gate.clone());
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(node.http())).collect();
    for client in &mut clients {
        client.send(&get("/big").bytes());
    }
    // A fill is under way once its head is out: one that begins later, the store does not take any more, and
    // who does not read then is left behind.
    let heads: Vec<_> = clients.iter_mut().map(|client| client.try_head().expect("a head")).collect();
    assert!(heads.iter().all(Response::is_stored), "{heads:?}");
    assert_eq!(origin.begun("/big"), 1);
    let before = node.pid();
    node.signal(Signal::USR2);
    eventually("another process serves", || node.pid() != before);
    gate.open();
    for (mut client, head) in clients.into_iter().zip(heads) {
        head.assert_status(200);
        let answer = client.try_body("GET", head).expect("a whole body");
        assert_same_bytes(&answer.body, &body);
    }
    // The new one knows nothing of it, and asks for itself.
    assert_same_bytes(&node.get("/big").body, &body);
    assert_same_bytes(&node.await_hit("/big").body, &body);
    eventually("the one before has ended", || !is_alive(before));
    assert_eq!(origin.count("/big"), 2);
    node.assert_no_panic();
}
