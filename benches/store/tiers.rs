//! The memory tier beside LRU and S3-FIFO: the same requests, the same bytes, a scan in the middle.

use std::io::Write as _;
use std::ops::Range;

use bytes::Bytes;

use crate::Aims;
use crate::policies::{Lru, Policy, S3Fifo};
use crate::trace::{Random, Zipf, fill_now, key, mib, open, percent, runtime};

const MEMORY_BYTES: u64 = 64 << 20;
/// The memory tier's share of the budget; the rest is for what is in flight.
const CAPACITY: u64 = MEMORY_BYTES / 8 * 7;
const OBJECTS: u32 = 100_000;
const REQUESTS: usize = 1_000_000;
/// Objects that are asked for once, one after the other: twice what fits.
const SCAN: u32 = 14_000;
const MAX_BODY_BYTES: u64 = 32 << 10;

struct Trace {
    name: String,
    requests: Vec<u32>,
    scan: Range<usize>,
}

/// Hits and their bytes; of all, and of those right behind the scan.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_field_names, reason = "hits of objects and of bytes")]
struct Hits {
    hits: u64,
    hit_bytes: u64,
    bytes: u64,
    hits_after_scan: u64,
}

/// Compares them on every trace.
pub fn run(aims: &mut Aims) {
    let mut random = Random::new(3);
    let sizes: Vec<u64> =
        (0..OBJECTS + SCAN).map(|_| random.size(4_000.0, 1.2, 200..=MAX_BODY_BYTES)).collect();
    let weights = weights(&sizes);
    println!(
        "  {OBJECTS} objects of {:.1} KiB on average, {REQUESTS} requests and {SCAN} more of a scan; {:.0} MiB for {:.0}",
        mean(&weights) / 1024.0,
        mib(CAPACITY),
        mib(weights.iter().take(OBJECTS as usize).sum())
    );
    println!("  hit ratio in %                  objects   bytes   objects behind the scan");
    let mut traces: Vec<Trace> = [0.7, 0.9, 1.1].map(|alpha| zipf(alpha, &mut random)).into();
    traces.push(shifting(0.9, &mut random));
    for trace in &traces {
        write_for_others(trace, &weights);
        let count = |ask: &mut dyn FnMut(u32) -> bool| count(trace, &weights, ask);
        let mut lru = Lru::new(CAPACITY);
        let lru = count(&mut |id| lru.ask(id, weights[id as usize]));
        let mut s3fifo = S3Fifo::new(CAPACITY);
        let s3fifo = count(&mut |id| s3fifo.ask(id, weights[id as usize]));
        let larder = replay(trace, &sizes, &weights);
        for (policy, hits) in [("LRU", &lru), ("S3-FIFO", &s3fifo), ("larder", &larder)] {
            let requests = trace.requests.len() as u64;
            let behind = after_scan(trace).len() as u64;
            println!(
                "  {:22} {policy:8}   {:5.2}   {:5.2}   {:5.2}",
                trace.name,
                percent(hits.hits, requests),
                percent(hits.hit_bytes, hits.bytes),
                percent(hits.hits_after_scan, behind)
            );
        }
        aims.check("more objects from memory than with LRU", larder.hits >= lru.hits);
    }
}

fn mean(of: &[u64]) -> f64 {
    of.iter().sum::<u64>() as f64 / of.len() as f64
}

/// What each object takes in memory, which the other policies are charged too.
fn weights(sizes: &[u64]) -> Vec<u64> {
    let (store, clock) = open(None, MEMORY_BYTES, 0);
    let body = Bytes::from(vec![b'x'; MAX_BODY_BYTES as usize]);
    let runtime = runtime();
    let weight = |(n, size): (usize, &u64)| {
        runtime.block_on(fill_now(&store, clock, &key(n as u64), body.slice(..*size as usize)))
    };
    sizes.iter().enumerate().map(weight).collect()
}

fn zipf(alpha: f64, random: &mut Random) -> Trace {
    let zipf = Zipf::new(OBJECTS as usize, alpha);
    let requests = (0..REQUESTS).map(|_| zipf.sample(random)).collect();
    with_scan(format!("Zipf({alpha})"), requests)
}

/// Every tenth of the requests a tenth of the ranks changes places.
fn shifting(alpha: f64, random: &mut Random) -> Trace {
    let zipf = Zipf::new(OBJECTS as usize, alpha);
    let mut objects: Vec<u32> = (0..OBJECTS).collect();
    let mut requests = Vec::with_capacity(REQUESTS);
    for n in 0..REQUESTS {
        if n % (REQUESTS / 10) == 0 {
            for _ in 0..OBJECTS / 10 {
                let (a, b) = (random.below(u64::from(OBJECTS)), random.below(u64::from(OBJECTS)));
                objects.swap(a as usize, b as usize);
            }
        }
        requests.push(objects[zipf.sample(random) as usize]);
    }
    with_scan(format!("Zipf({alpha}), shifting"), requests)
}

fn with_scan(name: String, mut requests: Vec<u32>) -> Trace {
    let middle = requests.len() / 2;
    requests.splice(middle..middle, OBJECTS..OBJECTS + SCAN);
    Trace { name, requests, scan: middle..middle + SCAN as usize }
}

fn after_scan(trace: &Trace) -> Range<usize> {
    trace.scan.end..trace.scan.end + SCAN as usize
}

fn count(trace: &Trace, weights: &[u64], ask: &mut dyn FnMut(u32) -> bool) -> Hits {
    let mut counted = Hits::default();
    let behind = after_scan(trace);
    for (n, id) in trace.requests.iter().enumerate() {
        let weight = weights[*id as usize];
        let is_hit = ask(*id);
        counted.bytes += weight;
        if is_hit {
            counted.hits += 1;
            counted.hit_bytes += weight;
            counted.hits_after_scan += u64::from(behind.contains(&n));
        }
    }
    counted
}

fn replay(trace: &Trace, sizes: &[u64], weights: &[u64]) -> Hits {
    let (store, clock) = open(None, MEMORY_BYTES, 0);
    let body = Bytes::from(vec![b'x'; MAX_BODY_BYTES as usize]);
    let keys: Vec<_> = (0..sizes.len() as u64).map(key).collect();
    let runtime = runtime();
    count(trace, weights, &mut |id| {
        let key = &keys[id as usize];
        let is_hit = store.get(key).is_some();
        if is_hit {
            store.promote(key.hash());
        } else {
            runtime.block_on(fill_now(&store, clock, key, body.slice(..sizes[id as usize] as usize)));
        }
        is_hit
    })
}

/// The trace as `time,id,bytes` for other simulators, when `STORE_BENCH_TRACES` names a folder.
fn write_for_others(trace: &Trace, weights: &[u64]) {
    let Some(folder) = std::env::var_os("STORE_BENCH_TRACES") else { return };
    let name = trace.name.replace(|c: char| !c.is_alphanumeric(), "_");
    let path = std::path::Path::new(&folder).join(format!("{name}.csv"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    for (n, id) in trace.requests.iter().enumerate() {
        writeln!(file, "{n},{id},{}", weights[*id as usize]).expect("written");
    }
}
