//! Hits from memory on a worker that has other things to do: cold bodies to send, fills to take.
//!
//! The real program with one worker. One connection asks for a small object in a closed loop; others make the load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::Signal;

use crate::Aims;
use crate::process::{disk_read_bytes, drop_pages, major_faults};
use crate::support::node::{Node, bare};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::pattern;
use crate::trace::{Folder, fill, key, mib, open, runtime};

const SMALL: &str = "small.example";
const LARGE: &str = "large.example";
const LARGE_BYTES: usize = 1 << 20;
/// Bodies that are read cold in a round.
const COLD_BODIES: u64 = 1536;
const READERS: u64 = 8;
const FILLERS: u64 = 4;
const MEASURE: Duration = Duration::from_secs(5);
/// The one worker's thread.
const WORKER: &str = "larder-0";
const SLACK_US: f64 = 1000.0;

/// What a closed loop of hits saw.
struct Hits {
    count: usize,
    /// Percentiles at the client in microseconds.
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// The bound of the program's own histogram below which 99 of 100 are.
    inside_p99_us: f64,
}

/// Cold reads of large bodies beside hits.
pub fn stalls(aims: &mut Aims) {
    let origin = origin();
    let mut node = start(&origin, "4GiB");
    println!("  storing {COLD_BODIES} bodies of 1 MiB");
    node.get_small();
    in_parallel(READERS, |n| {
        get_range(node.http(), (0..COLD_BODIES).skip(n as usize).step_by(READERS as usize));
    });
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", COLD_BODIES as f64 + 1.0);
    for _ in 0..2 {
        node = node.restarted_after(Signal::TERM, drop_segments);
        println!("  ready again after {} ms, page cache dropped", node.ready_after.as_millis());
        let idle = while_running(&node, || std::thread::sleep(MEASURE));
        let before = (major_faults(node.pid(), WORKER), disk_read_bytes(node.pid()));
        let started = Instant::now();
        let loaded = while_running(&node, || read_cold(&node));
        let took = started.elapsed().as_secs_f64();
        let faults = major_faults(node.pid(), WORKER) - before.0;
        let from_disk = disk_read_bytes(node.pid()) - before.1;
        println!(
            "  cold: {:.0} MiB/s sent, {:.0} of {} MiB from the disk",
            mib(COLD_BODIES * LARGE_BYTES as u64) / took,
            mib(from_disk),
            COLD_BODIES
        );
        compare(aims, &idle, &loaded, 3.0);
        aims.check(&format!("{faults} major faults on the worker"), faults == 0);
    }
    node.assert_no_panic();
}

/// Fills at full rate beside hits.
pub fn fills(aims: &mut Aims) {
    write_alone();
    let origin = origin();
    let node = start(&origin, "1GiB");
    node.get_small();
    let idle = while_running(&node, || std::thread::sleep(MEASURE));
    let written = || node.metric("larder_store_written_bytes_total{kind=\"payload\"}");
    let before = written();
    let faults = major_faults(node.pid(), WORKER);
    let next = AtomicU64::new(0);
    let started = Instant::now();
    let loaded = while_running(&node, || {
        in_parallel(FILLERS, |_| {
            let numbers = std::iter::repeat_with(|| next.fetch_add(1, Relaxed));
            get_range(node.http(), numbers.take_while(|_| started.elapsed() < 2 * MEASURE));
        });
    });
    let took = started.elapsed().as_secs_f64();
    println!(
        "  filled {:.0} MiB/s and wrote {:.0} MiB/s; {} of {} fills not stored, the writer being behind",
        next.load(Relaxed) as f64 / took,
        (written() - before) / took / f64::from(1 << 20),
        node.metric("larder_store_writes_total{outcome=\"writer_behind\"}"),
        next.load(Relaxed)
    );
    compare(aims, &idle, &loaded, 2.0);
    let faults = major_faults(node.pid(), WORKER) - faults;
    aims.check(&format!("{faults} major faults on the worker"), faults == 0);
    node.assert_no_panic();
}

/// How fast the log takes bodies when nothing else is done.
fn write_alone() {
    for (bytes, count) in [(1 << 20, 1024_u64), (16 << 10, 32_768)] {
        let folder = Folder::new("writes");
        let (store, clock) = open(Some(folder.path()), 64 << 20, 2 << 30);
        let body = Bytes::from(pattern(bytes, 1));
        let started = Instant::now();
        runtime().block_on(async {
            for n in 0..count {
                fill(&store, clock, &key(n), body.clone()).await;
            }
            store.close().await;
        });
        let rate = mib(bytes as u64 * count) / started.elapsed().as_secs_f64();
        println!("  the store alone: {rate:.0} MiB/s in bodies of {} KiB, sealed and synced", bytes >> 10);
    }
}

fn origin() -> Origin {
    let origin = Origin::with("/small", FRESH, [b's'; 1024]);
    let reply = respond(200, FRESH, pattern(LARGE_BYTES, 1));
    origin.on("/large/*", move |_| reply.clone());
    origin
}

fn start(origin: &Origin, disk: &str) -> Node {
    let sites = format!(
        "[[site]]\nname = \"small\"\nhosts = [\"{SMALL}\"]\norigin = \"origin\"\n\
         [[site]]\nname = \"large\"\nhosts = [\"{LARGE}\"]\norigin = \"origin\"\n\
         [[origin]]\nname = \"origin\"\nservers = [{{ url = \"{}\" }}]\n",
        origin.url()
    );
    bare().workers(1).memory("128MiB").disk(disk).sites(&sites).start()
}

impl Node {
    fn get_small(&self) {
        let mut client = Connection::open(self.http());
        // The first is a miss, or a hit from disk.
        (0..100).for_each(|_| _ = client.get(SMALL, "/small"));
    }
}

/// Asks for hits in a closed loop as long as the work takes.
fn while_running(node: &Node, work: impl FnOnce()) -> Hits {
    node.get_small();
    let before = buckets(node);
    let is_over = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        let hits = scope.spawn(|| {
            let mut client = Connection::open(node.http());
            let mut times = Vec::new();
            while !is_over.load(Relaxed) {
                times.push(client.get(SMALL, "/small").as_secs_f64() * 1e6);
            }
            times
        });
        work();
        is_over.store(true, Relaxed);
        hits.join().expect("the hits")
    });
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Hits {
        count: times.len(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
        inside_p99_us: p99(&before, &buckets(node)),
    }
}

fn compare(aims: &mut Aims, idle: &Hits, loaded: &Hits, times: f64) {
    for (name, hits) in [("idle", idle), ("loaded", loaded)] {
        println!(
            "  hits, {name:6}: {:7}; in the process p99 <= {:.0} us; at the client p50 {:.0}, p99 {:.0}, most {:.0} us",
            hits.count, hits.inside_p99_us, hits.p50_us, hits.p99_us, hits.max_us
        );
    }
    let limit = |idle: f64| (times * idle).max(idle + SLACK_US);
    let inside = limit(idle.inside_p99_us);
    aims.check(&format!("p99 in the process at most {inside:.0} us"), loaded.inside_p99_us <= inside);
    let outside = limit(idle.p99_us);
    aims.check(&format!("p99 at the client at most {outside:.0} us"), loaded.p99_us <= outside);
}

/// Cumulative counts of the program's histogram of hits, by their bound in seconds.
fn buckets(node: &Node) -> Vec<(f64, f64)> {
    let metrics = node.metrics();
    let label = |sample: &crate::support::openmetrics::Sample, name: &str| {
        sample.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let hits = metrics.0.iter().filter(|sample| {
        sample.name == "larder_request_duration_seconds_bucket"
            && label(sample, "site") == "small"
            && label(sample, "result") == "hit"
    });
    hits.map(|sample| (label(sample, "le").parse().unwrap_or(f64::INFINITY), sample.value)).collect()
}

fn p99(before: &[(f64, f64)], after: &[(f64, f64)]) -> f64 {
    let start = |n: usize| before.get(n).map_or(0.0, |(_, count)| *count);
    let counts: Vec<(f64, f64)> =
        after.iter().enumerate().map(|(n, (le, count))| (*le, count - start(n))).collect();
    let all = counts.last().map_or(0.0, |(_, count)| *count);
    counts.iter().find(|(_, count)| *count >= 0.99 * all).map_or(f64::NAN, |(le, _)| le * 1e6)
}

/// Each large body once, while the page cache forgets what is not mapped.
fn read_cold(node: &Node) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                drop_segments(node.store().parent().expect("its folder"));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let numbers = |n: u64| (0..COLD_BODIES).skip(n as usize).step_by(READERS as usize);
        in_parallel(READERS, |n| get_range(node.http(), numbers(n)));
        is_over.store(true, Relaxed);
    });
}

fn drop_segments(folder: &Path) {
    let segments = std::fs::read_dir(folder.join("store/segments")).expect("the segments");
    segments.flatten().for_each(|segment| drop_pages(&segment.path()));
}

fn in_parallel(threads: u64, work: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        (0..threads).for_each(|n| {
            drop(scope.spawn({
                let work = &work;
                move || work(n)
            }));
        });
    });
}

fn get_range(address: SocketAddr, numbers: impl Iterator<Item = u64>) {
    let mut connection = Connection::open(address);
    for n in numbers {
        connection.get(LARGE, &format!("/large/{n}"));
    }
}

/// A client that only counts bytes.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
        Self { stream, buffer: vec![0; 256 << 10] }
    }

    /// One exchange; gives how long it took.
    fn get(&mut self, host: &str, path: &str) -> Duration {
        let started = Instant::now();
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("sent");
        let (mut have, mut body_from) = (0, None);
        let body_from = loop {
            have += self.read(have);
            let end = self.buffer[..have].windows(4).position(|bytes| bytes == b"\r\n\r\n");
            body_from = body_from.or(end.map(|at| at + 4));
            if let Some(from) = body_from {
                break from;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..body_from]).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.and_then(|n| n.parse().ok()).expect("a length");
        let mut left = length + body_from - have;
        while left > 0 {
            left -= self.read(0);
        }
        started.elapsed()
    }

    fn read(&mut self, from: usize) -> usize {
        let read = self.stream.read(&mut self.buffer[from..]).expect("an answer");
        assert!(read > 0, "the connection ended");
        read
    }
}
