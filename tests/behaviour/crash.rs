//! A node that is killed at any moment, under load, serves afterwards only what was stored whole.
//!
//! `LARDER_CRASH_ROUNDS` sets how often each profile is killed, `LARDER_CRASH_SEED` repeats the choices of
//! a run (not its timing). All rounds of a profile have one store.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::random::{Random, seed, setting};
use crate::support::request::get;
use crate::support::response::Response;
use crate::support::revisions::Revisions;
use crate::support::{heavy, lock, pattern};

/// What was whole for so long before the kill must be there after it.
const SETTLED: Duration = Duration::from_secs(1);
const CLIENTS: usize = 6;

/// What the clients know of a path.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Revisions received whole since the last kill, and when.
    received: Vec<(Instant, u64)>,
    /// Nothing older than this may be served after a kill.
    floor: u64,
    /// The last whole answer was a hit, or said that it is stored.
    is_stored: bool,
    /// When a request last began or ended that may change what is stored.
    changed: Option<Instant>,
}

/// Clients of one node.
struct Load<'a> {
    revisions: &'a Revisions,
    paths: &'a [String],
    known: Mutex<HashMap<String, Known>>,
    is_over: AtomicBool,
    exchanges: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// What became of all rounds.
#[derive(Debug, Default)]
struct Figures {
    rounds: u64,
    exchanges: u64,
    read_back: u64,
    hits: u64,
    expected: u64,
    slowest_start: Duration,
}

impl Load<'_> {
    fn client(&self, address: SocketAddr, mut random: Random) {
        let mut client = None;
        while !self.is_over.load(Relaxed) {
            let path = random.pick(self.paths);
            let connection = client.take().map_or_else(|| Client::try_connect(address), Ok);
            // Refused: the node is dead.
            let Ok(mut connection) = connection else { return };
            if self.exchange(&mut connection, path, &mut random) {
                client = Some(connection);
            }
        }
    }

    /// One request; whether the connection can be used again.
    fn exchange(&self, client: &mut Client, path: &str, random: &mut Random) -> bool {
        let mut request = get(path);
        let is_renewed = random.one_in(20);
        if is_renewed {
            request = request.with("Cache-Control", "no-cache");
        }
        if random.one_in(6) {
            request = request.with("Range", format!("bytes={}-", random.within(0..200_000)));
        }
        let may_change = is_renewed || !self.with(path, |known| known.is_stored);
        let change = || self.with(path, |known| known.changed = Some(Instant::now()));
        if may_change {
            change();
        }
        let response = client.try_send(&request.bytes()).ok().and_then(|()| {
            if random.one_in(15) {
                // It leaves in the middle of the answer.
                drop(client.try_head());
                return None;
            }
            client.try_response("GET").ok()
        });
        if may_change {
            change();
        }
        let Some(response) = response else { return false };
        self.exchanges.fetch_add(1, Relaxed);
        self.note(path, &response);
        true
    }

    fn note(&self, path: &str, response: &Response) {
        if response.status == 416 {
            return;
        }
        match self.revisions.revision(path, response) {
            Ok(revision) => self.with(path, |known| {
                known.is_stored = response.is_hit() || response.is_stored();
                if response.status == 200 {
                    known.received.push((Instant::now(), revision));
                }
            }),
            Err(wrong) => lock(&self.wrong).push(wrong),
        }
    }

    fn with<T>(&self, path: &str, change: impl FnOnce(&mut Known) -> T) -> T {
        change(lock(&self.known).entry(path.to_owned()).or_default())
    }

    /// Until the load is over: the last time by which everything was written that had been answered for
    /// [`SETTLED`]. A disk that is busy with other things takes longer.
    fn settled_at(&self, node: &Node) -> Instant {
        let mut settled = Instant::now().checked_sub(SETTLED).expect("a clock that runs for a second");
        let change = |status: &Option<serde_json::Value>, name: &str| {
            status.as_ref().and_then(|status| status["store"]["log"][name].as_u64())
        };
        let status = || node.try_admin_get("/v1/status").map(|answer| answer.json());
        while !self.is_over.load(Relaxed) {
            let (now, noted) = (Instant::now(), change(&status(), "noted_changes"));
            while !self.is_over.load(Relaxed) && noted.is_some() {
                if change(&status(), "written_changes") >= noted {
                    settled = now.checked_sub(SETTLED).unwrap_or(settled);
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        settled
    }

    /// Loads the node for a while and kills it in the middle; gives the node after its restart.
    fn round(&self, node: Node, random: &mut Random, figures: &mut Figures, evicts: bool) -> Node {
        let address = node.http();
        let time = Duration::from_millis(random.within(100..2500));
        self.is_over.store(false, Relaxed);
        let settled_at = std::thread::scope(|scope| {
            let settled_at = scope.spawn(|| self.settled_at(&node));
            for _ in 0..CLIENTS {
                let random = Random::new(random.next());
                scope.spawn(move || self.client(address, random));
            }
            std::thread::sleep(time);
            node.signal(Signal::KILL);
            self.is_over.store(true, Relaxed);
            settled_at.join().expect("it only looks")
        });
        node.assert_no_panic();
        let node = node.restarted(Signal::KILL);
        figures.rounds += 1;
        figures.slowest_start = figures.slowest_start.max(node.ready_after);
        let mut client = Client::connect(node.http());
        for path in self.paths {
            self.read_back(&mut client, path, (settled_at, evicts), figures);
        }
        assert!(lock(&self.wrong).is_empty(), "{:#?}", lock(&self.wrong));
        node
    }

    /// Asks for what is stored, and nothing else.
    fn read_back(
        &self,
        client: &mut Client,
        path: &str,
        (settled_at, evicts): (Instant, bool),
        figures: &mut Figures,
    ) {
        let mut known = self.with(path, |known| known.clone());
        let settled = known.received.iter().filter(|(at, _)| *at < settled_at).map(|(_, revision)| *revision);
        known.floor = settled.fold(known.floor, u64::max);
        known.received.clear();
        let is_expected = known.is_stored && !evicts && known.changed.is_none_or(|at| at < settled_at);
        let response = client.exchange(&get(path).with("Cache-Control", "only-if-cached"));
        figures.read_back += 1;
        figures.expected += u64::from(is_expected);
        known.is_stored = response.status == 200;
        if known.is_stored {
            figures.hits += 1;
            match self.revisions.revision(path, &response) {
                Ok(revision) if revision < known.floor => lock(&self.wrong)
                    .push(format!("{path}: revision {revision} after a client had {}", known.floor)),
                Ok(revision) => known.floor = revision,
                Err(wrong) => lock(&self.wrong).push(wrong),
            }
        } else if is_expected {
            lock(&self.wrong)
                .push(format!("{path}: lost ({}), it had revision {}", response.status, known.floor));
        }
        self.with(path, |current| *current = known);
    }
}

fn paths() -> Vec<String> {
    let kinds = [("small", 300), ("large", 30), ("chunked", 40)];
    kinds.iter().flat_map(|(kind, count)| (0..*count).map(move |n| format!("/{kind}/{n}"))).collect()
}

fn kill_again_and_again(configure: impl FnOnce(Builder) -> Builder, evicts: bool) {
    let _alone = heavy();
    let (rounds, mut random) = (setting("LARDER_CRASH_ROUNDS", 5), Random::new(seed("LARDER_CRASH_SEED")));
    let revisions = Revisions::start();
    let paths = paths();
    let load = Load {
        revisions: &revisions,
        paths: &paths,
        known: Mutex::default(),
        is_over: AtomicBool::new(false),
        exchanges: AtomicU64::new(0),
        wrong: Mutex::default(),
    };
    let builder = node(&revisions.origin).cache("honor_request_cache_control = true");
    let mut node = configure(builder.store("segment = \"1MiB\"\nmax_object = \"2MiB\"")).start();
    let mut figures = Figures::default();
    for _ in 0..rounds {
        node = load.round(node, &mut random, &mut figures, evicts);
    }
    figures.exchanges = load.exchanges.load(Relaxed);
    eprintln!("{figures:?}");
    assert!(figures.hits > 0 && (evicts || figures.expected > 0), "nothing was tested: {figures:?}");
    node.stop();
}

#[test]
fn what_was_whole_survives_a_kill() {
    kill_again_and_again(|builder| builder.disk("512MiB"), false);
}

#[test]
fn a_kill_while_segments_are_evicted_brings_nothing_old_back() {
    kill_again_and_again(|builder| builder.memory("16MiB").disk("16MiB"), true);
}

#[test]
fn what_was_replaced_stays_so_although_a_slow_client_still_reads_it() {
    const LENGTH: usize = 8_000_000;
    let origin = Origin::start();
    let (old, new) = (respond(200, FRESH, pattern(LENGTH, 1)), respond(200, FRESH, pattern(1_000, 2)));
    origin.sequence("/page", vec![old, new]);
    for path in ["/between/*", "/other/*"] {
        origin.on(path, |_| respond(200, FRESH, pattern(900_000, 3)));
    }
    let store = "segment = \"1MiB\"\nmax_object = \"16MiB\"";
    let builder = node(&origin).cache("honor_request_cache_control = true").memory("16MiB");
    let node = builder.disk("64MiB").store(store).start();
    node.get("/page").assert_status(200);
    // Larger than what the kernel takes of it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    socket.connect(&node.http().into()).expect("a connection");
    let mut slow = Client::on(socket.into()).expect("a client");
    slow.send(&get("/page").bytes());
    slow.try_head().expect("a head").assert_hit();
    // What replaces it comes into another segment.
    for n in 0..3 {
        node.get(&format!("/between/{n}")).assert_status(200);
    }
    let renewed = get("/page").with("Cache-Control", "no-cache").to(&node);
    renewed.assert_body(pattern(1_000, 2));
    for n in 0..150 {
        node.get(&format!("/other/{n}")).assert_status(200);
    }
    node.await_metric("larder_store_evictions_total{tier=\"disk\"}", 50.0);
    let held = node.metric("larder_store_given_up_bytes");
    assert!(held > 0.0, "the slow client holds nothing");
    let node = node.restarted(Signal::KILL);
    drop(slow);
    let found = get("/page").with("Cache-Control", "only-if-cached").to(&node);
    assert!(
        found.status == 504 || found.body == pattern(1_000, 2),
        "the old one is back: {:?}",
        found.fields
    );
}
