//! A steady load, every body compared, while the node is reloaded, its certificates renewed and its binary upgraded:
//! not one request fails. `LARDER_STEADY_FULL=1` makes it the whole proof, at `LARDER_STEADY_RATE` (5000) requests a
//! second, which have to be reached; let `LARDER_BIN` name a release build then.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::support::client::Client;
use crate::support::lean::Expected;
use crate::support::node::{Node, is_alive, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::get;
use crate::support::tls::{Ca, Issued};
use crate::support::{PATIENCE, eventually, heavy, holds_within, pattern};

const THREADS: usize = 2;
/// Connections of a thread, the first of them over TLS.
const CONNECTIONS: usize = 12;
const TLS_CONNECTIONS: usize = 2;
const OBJECTS: usize = 40;
/// What a thread sleeps when no request is due: so it wakes once for two or three of them at the full rate.
const TICK: Duration = Duration::from_millis(1);

/// How much of everything.
struct Scale {
    is_full: bool,
    /// Requests a second.
    rate: u64,
    reloads: usize,
    swaps: usize,
    upgrades: usize,
    pause: Duration,
}

impl Scale {
    fn of_environment() -> Self {
        let is_full = std::env::var("LARDER_STEADY_FULL").is_ok_and(|value| value == "1");
        let rate = std::env::var("LARDER_STEADY_RATE").ok().and_then(|value| value.parse().ok());
        if is_full {
            let pause = Duration::from_secs(1);
            return Self { is_full, rate: rate.unwrap_or(5000), reloads: 20, swaps: 5, upgrades: 5, pause };
        }
        let pause = Duration::from_millis(200);
        Self { is_full, rate: rate.unwrap_or(400), reloads: 6, swaps: 1, upgrades: 2, pause }
    }
}

struct Load<'a> {
    node: &'a Node,
    tls: Arc<ClientConfig>,
    /// What is sent for each object, and the body that must come.
    objects: Vec<(Vec<u8>, Vec<u8>)>,
    stop: AtomicBool,
    served: AtomicU64,
    hits: AtomicU64,
    reconnects: AtomicU64,
    /// The longest time that a request was sent too late, in microseconds.
    late_us: AtomicU64,
    rate: u64,
}

/// Ends the load when it goes, so that a step that fails does not leave it running for ever.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn target(object: usize) -> String {
    format!("/o/{object}")
}

impl Load<'_> {
    fn connect(&self, is_secure: bool) -> Client {
        if is_secure {
            Client::connect_tls(self.node.https(), "test.example", &self.tls).expect("a handshake")
        } else {
            Client::connect(self.node.http())
        }
    }

    /// One thread's share, at a steady rate: what is due is sent at once, each request on another connection, then all
    /// answers are read. One that is not as it must be ends the test.
    fn run(&self, thread: usize) {
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|n| self.connect(n < TLS_CONNECTIONS)).collect();
        let mut buffer = vec![0; 256 * 1024];
        let rate = self.rate as f64 / THREADS as f64;
        let (started, mut sent) = (Instant::now(), 0);
        while !self.stop.load(Relaxed) {
            let due = (started.elapsed().as_secs_f64() * rate) as usize - sent;
            if due == 0 {
                std::thread::sleep(TICK);
                continue;
            }
            self.late_us.fetch_max((due as f64 / rate * 1e6) as u64, Relaxed);
            let burst = sent..sent + due.min(CONNECTIONS);
            // Over time each connection gets each object.
            let object = |n: usize| &self.objects[(n + n / OBJECTS + thread * OBJECTS / THREADS) % OBJECTS];
            for n in burst.clone() {
                clients[n % CONNECTIONS].send(&object(n).0);
            }
            for n in burst.clone() {
                let (slot, expected) = (n % CONNECTIONS, Expected { status: 200, body: &object(n).1 });
                let told = clients[slot].expect(&expected, &mut buffer);
                let told = told.unwrap_or_else(|broken| panic!("request {n} of thread {thread}: {broken:?}"));
                self.hits.fetch_add(u64::from(told.is_hit), Relaxed);
                if told.is_last {
                    // Told to leave, as any client would be.
                    clients[slot] = self.connect(slot < TLS_CONNECTIONS);
                    self.reconnects.fetch_add(1, Relaxed);
                }
            }
            sent = burst.end;
            self.served.fetch_add(burst.len() as u64, Relaxed);
        }
    }
}

/// What is done to the node meanwhile.
struct Operator<'a> {
    node: &'a Node,
    ca: &'a Ca,
    origin: &'a Origin,
    dir: crate::support::temp::TempDir,
    version: usize,
}

impl Operator<'_> {
    fn reload(&mut self, is_bad: bool) {
        let good = fs::read_to_string(self.node.config()).expect("the configuration");
        if is_bad {
            fs::write(self.node.config(), format!("{good}\n[nonsense]\nx = 1\n")).expect("a bad file");
            self.node.reload().assert_status(422);
            fs::write(self.node.config(), good).expect("the configuration");
            return;
        }
        let (from, to) = (self.version, self.version + 1);
        self.node.edit(&format!("x-version = \"{from}\""), &format!("x-version = \"{to}\""));
        self.node.reload().assert_status(200);
        self.version = to;
        assert_eq!(self.node.get("/o/0").joined("x-version"), to.to_string());
    }

    fn swap_certificate(&self) {
        let text = fs::read_to_string(self.node.config()).expect("the configuration");
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
            found.expect("a line").trim_end_matches('"').to_owned()
        };
        let Issued { cert, key } = self.ca.issue(&["test.example"], self.dir.path());
        let shown = || {
            let config = self.ca.client(&["http/1.1"]);
            let mut client = Client::connect_tls(self.node.https(), "test.example", &config).expect("TLS");
            client.exchange(&get("/o/1")).assert_status(200);
            client.session().peer_certificates().expect("a certificate")[0].to_vec()
        };
        let before = shown();
        fs::rename(cert, value("cert")).expect("a certificate");
        fs::rename(key, value("key")).expect("a key");
        eventually("the new certificate is shown", || shown() != before);
    }

    /// Every object is a hit after it, on connections that are new.
    fn upgrade(&self) {
        let asked = self.origin.total();
        let before = self.node.pid();
        self.node.signal(rustix::process::Signal::USR2);
        eventually("another process serves", || self.node.pid() != before);
        for n in 0..OBJECTS {
            self.node.get(&target(n)).assert_hit();
        }
        eventually("the one before has ended", || !is_alive(before));
        // What still came on the connections of the one before.
        let through = self.origin.total() - asked;
        assert!(through <= THREADS * CONNECTIONS + 2, "{through} requests to the origin");
    }
}

#[test]
fn nothing_fails_under_a_steady_load() {
    let _alone = heavy();
    let scale = Scale::of_environment();
    let (origin, ca) = (Origin::start(), Ca::new());
    // Small ones that live in memory, and some that are served from the log.
    let length = |n: usize| if n.is_multiple_of(8) { 200_000 } else { 500 + 300 * n };
    let bodies: Vec<Vec<u8>> = (0..OBJECTS).map(|n| pattern(length(n), n as u64 + 1)).collect();
    for (n, body) in bodies.iter().enumerate() {
        origin.fixed(&target(n), 200, FRESH, body);
    }
    let header = "[site.headers]\nresponse = { set = { x-version = \"0\" } }";
    let node = node(&origin).disk("128MiB").tls(&ca, &["test.example"]).site(header).start();
    for n in 0..OBJECTS {
        node.get(&target(n)).assert_status(200);
    }
    // The scheme is part of a key.
    let mut secure =
        Client::connect_tls(node.https(), "test.example", &ca.client(&["http/1.1"])).expect("TLS");
    for n in 0..OBJECTS {
        secure.exchange(&get(&target(n))).assert_status(200);
    }
    drop(secure);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 2.0 * OBJECTS as f64);
    let load = Load {
        node: &node,
        tls: ca.client(&["http/1.1"]),
        objects: bodies.into_iter().enumerate().map(|(n, body)| (get(&target(n)).bytes(), body)).collect(),
        stop: AtomicBool::new(false),
        served: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        reconnects: AtomicU64::new(0),
        late_us: AtomicU64::new(0),
        rate: scale.rate,
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let load = &load;
        let _ends = EndOnDrop(&load.stop);
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || load.run(thread))).collect();
        let dir = crate::support::temp::TempDir::new();
        let mut operator = Operator { node: &node, ca: &ca, origin: &origin, dir, version: 0 };
        for step in 0..scale.reloads {
            std::thread::sleep(scale.pause);
            operator.reload(step % 3 == 2);
            // Spread over the reloads.
            if step * scale.swaps / scale.reloads != (step + 1) * scale.swaps / scale.reloads {
                operator.swap_certificate();
            }
            if step * scale.upgrades / scale.reloads != (step + 1) * scale.upgrades / scale.reloads {
                operator.upgrade();
            }
            if threads.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        std::thread::sleep(scale.pause);
        load.stop.store(true, Relaxed);
        for thread in threads {
            thread.join().expect("every request is answered with its own bytes");
        }
    });
    let (served, hits) = (load.served.load(Relaxed), load.hits.load(Relaxed));
    let rate = served as f64 / started.elapsed().as_secs_f64();
    let (left, late_ms) = (load.reconnects.load(Relaxed), load.late_us.load(Relaxed) / 1000);
    eprintln!(
        "{served} requests, {rate:.0} a second (at most {late_ms} ms late), {hits} hits, \
         {left} connections told to leave, none failed"
    );
    assert!(!scale.is_full || rate >= 0.99 * scale.rate as f64, "{rate:.0} requests a second are too few");
    // All but what comes on connections of a process that leaves.
    assert!(
        served - hits <= left + (scale.upgrades * 2) as u64,
        "{served} requests, {hits} hits, {left} left"
    );
    node.assert_no_panic();
}

#[test]
fn memory_and_descriptors_are_flat_over_reloads() {
    let _alone = heavy();
    let seconds = std::env::var("LARDER_SOAK_SECS").ok().and_then(|value| value.parse().ok()).unwrap_or(6);
    let origin = Origin::start();
    origin.fixed("/hot/*", 200, FRESH, pattern(5000, 1));
    origin.fixed("/cold/*", 200, FRESH, pattern(20_000, 2));
    origin.fixed("/never", 200, &[("Cache-Control", "no-store")], "never");
    let header = "[site.headers]\nresponse = { set = { x-version = \"0\" } }";
    let builder = node(&origin).memory("16MiB").disk("16MiB").site(header);
    let log = builder.path().join("access-a.log");
    let node = builder.extra(&format!("[access_log]\noutput = \"{}\"", log.display())).start();
    let round = AtomicU64::new(0);
    let burst = |version: u64| {
        let mut client = Client::connect(node.http());
        for _ in 0..300 {
            let n = round.fetch_add(1, Relaxed);
            let target = match n % 10 {
                0 => format!("/cold/{n}"),
                1 => "/never".to_owned(),
                _ => format!("/hot/{}", n % 20),
            };
            client.exchange(&get(&target)).assert_status(200);
        }
        let next = version + 1;
        node.edit(&format!("x-version = \"{version}\""), &format!("x-version = \"{next}\""));
        if version.is_multiple_of(3) {
            let (from, to) =
                if version.is_multiple_of(6) { ("-a.log", "-b.log") } else { ("-b.log", "-a.log") };
            node.edit(from, to);
        }
        node.reload().assert_status(200);
    };
    // Until everything has its size: routes, pools, threads, the memory tier.
    let warm_up = 40;
    (0..warm_up).for_each(&burst);
    let (fds, mut memory) = (node.open_fds(), vec![node.rss_anon_kib()]);
    let (started, tenth) = (Instant::now(), Duration::from_secs(seconds) / 10);
    let mut version = warm_up;
    while memory.len() <= 10 {
        burst(version);
        version += 1;
        if started.elapsed() >= tenth * memory.len() as u32 {
            memory.push(node.rss_anon_kib());
        }
    }
    eprintln!(
        "{version} reloads, {} requests: {memory:?} KiB, {fds} descriptors then {}",
        round.load(Relaxed),
        node.open_fds()
    );
    let are_back = holds_within(PATIENCE, || node.open_fds() <= fds + 4);
    assert!(are_back, "{fds} descriptors, now {:#?}", node.open_files());
    // The allocator and the audit log, which keeps its last 10,000 calls, find their sizes in the first half; what grows
    // for ever grows in the second as well.
    let grown = |from: usize| memory[10].saturating_sub(memory[from]);
    assert!(grown(0) <= 16 * 1024 && grown(5) <= 6 * 1024, "{memory:?} KiB, by tenths of the run");
    assert_eq!(node.metric("larder_requests_total{status_class=\"5xx\"}"), 0.0);
    node.assert_no_panic();
}
