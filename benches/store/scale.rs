//! A million objects of 1 KiB: what they cost in memory, how long a start takes, how fast they are found.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::store::Store;

use crate::Aims;
use crate::process::{read_bytes, status_kib};
use crate::trace::{Folder, Random, fill, key, mib, open, runtime};

const OBJECTS: u64 = 1_000_000;
const BODY_BYTES: usize = 1024;
/// Enough for 1.6 KiB an object.
const DISK_BYTES: u64 = 2 << 30;
/// Small, so that lookups read from the log.
const MEMORY_BYTES: u64 = 32 << 20;
const LOOKUPS: u64 = 300_000;
const MAX_INDEX_BYTES: f64 = 48.0;
/// What the start needed for itself is given back by then.
const SETTLED: Duration = Duration::from_secs(1);
const MAX_START: Duration = Duration::from_secs(1);

/// Fills a store, then opens it in processes of their own.
pub fn run(aims: &mut Aims) {
    let objects = std::env::var("STORE_BENCH_OBJECTS").ok().and_then(|n| n.parse().ok()).unwrap_or(OBJECTS);
    let folder = Folder::new("scale");
    fill_all(folder.path(), objects);
    for _ in 0..3 {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let command = command.arg("measure-open").arg(folder.path()).arg(objects.to_string());
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        for line in text.lines() {
            match line.split_once('|') {
                Some((met, what)) => aims.check(what, met == "true"),
                None => println!("  {line}"),
            }
        }
    }
}

fn fill_all(path: &Path, objects: u64) {
    let (store, clock) = open(Some(path), MEMORY_BYTES, DISK_BYTES);
    let started = Instant::now();
    runtime().block_on(async {
        for n in 0..objects {
            fill(&store, clock, &key(n), Bytes::from(vec![n as u8; BODY_BYTES])).await;
        }
        store.close().await;
    });
    let took = started.elapsed().as_secs_f64();
    let disk = store.stats().disk;
    println!(
        "  filled {} objects of {BODY_BYTES} bytes in {took:.1} s: {:.0} a second, {:.0} MiB in {} segments",
        disk.objects,
        disk.objects as f64 / took,
        mib(disk.used_bytes),
        disk.segments
    );
    assert_eq!(disk.objects, objects, "all of them are stored");
}

/// What one start costs; printed for [`run`], an aim as `true|text`.
pub fn measure(path: &Path, objects: u64) {
    let pid = std::process::id();
    let (anon_before, read_before) = (status_kib(pid, "RssAnon"), read_bytes());
    let started = Instant::now();
    let (store, _) = open(Some(path), MEMORY_BYTES, DISK_BYTES);
    let took = started.elapsed();
    let read = read_bytes() - read_before;
    let anon = || (status_kib(pid, "RssAnon") - anon_before) * 1024;
    let at_once = anon();
    std::thread::sleep(SETTLED);
    let stats = store.stats().disk;
    assert_eq!(stats.objects, objects);
    let each = |bytes: u64| bytes as f64 / objects as f64;
    println!(
        "{}|start: ready after {} ms (at most {} ms), {:.1} MiB read",
        took <= MAX_START,
        took.as_millis(),
        MAX_START.as_millis(),
        mib(read)
    );
    println!(
        "{}|index: {:.1} bytes an object (at most {MAX_INDEX_BYTES}); all anonymous memory {:.1}, at once {:.1}",
        each(stats.index_bytes) <= MAX_INDEX_BYTES,
        each(stats.index_bytes),
        each(anon()),
        each(at_once)
    );
    lookups(&store, objects);
}

fn lookups(store: &std::sync::Arc<Store>, objects: u64) {
    let mut random = Random::new(1);
    let there: Vec<_> = (0..LOOKUPS).map(|_| key(random.below(objects))).collect();
    let absent: Vec<_> = (0..LOOKUPS).map(|_| key(objects + random.below(1 << 40))).collect();
    let rate = |what: &str, started: Instant| {
        let took = started.elapsed();
        let each = took.as_nanos() as f64 / LOOKUPS as f64;
        println!("{what}: {:.0} a second, {each:.0} ns each", LOOKUPS as f64 / took.as_secs_f64());
    };
    let started = Instant::now();
    let found = there.iter().filter(|key| store.may_load(key)).count() as u64;
    rate("may_load of what is there", started);
    assert_eq!(found, LOOKUPS);
    let started = Instant::now();
    let found = absent.iter().filter(|key| store.may_load(key)).count();
    rate("may_load of what is not", started);
    assert_eq!(found, 0);
    let started = Instant::now();
    let loaded = runtime().block_on(async {
        let mut loaded = 0;
        for key in &there {
            loaded += u64::from(store.load(key).await.is_some());
        }
        loaded
    });
    rate("load of random keys", started);
    assert_eq!(loaded, LOOKUPS);
}
