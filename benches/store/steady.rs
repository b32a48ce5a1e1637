//! A disk tier that is full: hit ratio beside LRU, bytes written for each byte filled, and its limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::rules::key::CacheKey;
use larder::store::Store;
use larder::telemetry::Clock;

use crate::Aims;
use crate::policies::{Lru, Policy};
use crate::trace::{Folder, Random, Zipf, fill, key, mib, open, percent, runtime};

const DISK_BYTES: u64 = 256 << 20;
const MEMORY_BYTES: u64 = 16 << 20;
/// Distinct bytes asked for, in disks.
const DISTINCT_DISKS: u64 = 10;
const ALPHA: f64 = 0.9;
const REQUESTS: usize = 1_200_000;
/// The share of the requests after which counting begins.
const WARM_UP_DIVISOR: usize = 3;
const MAX_WRITTEN_A_BYTE: f64 = 1.3;
const MAX_POINTS_BELOW: f64 = 1.0;
/// Fills that the writer may be behind: what waits for it is a cache too.
const MAX_BEHIND: u64 = 64;

#[derive(Default)]
struct Counts {
    requests: u64,
    bytes: u64,
    hits: u64,
    hit_bytes: u64,
    memory_hits: u64,
    filled_bytes: u64,
    highest_file_bytes: u64,
    fills: u64,
}

struct Run {
    store: Arc<Store>,
    clock: Clock,
    bytes: Bytes,
    keys: Vec<CacheKey>,
    sizes: Vec<u64>,
    counts: Counts,
}

pub fn run(aims: &mut Aims) {
    let mut random = Random::new(7);
    let mut sizes = Vec::new();
    while sizes.iter().sum::<u64>() < DISTINCT_DISKS * DISK_BYTES {
        sizes.extend((0..1000).map(|_| random.size(14_000.0, 0.7, 4096..=65_536)));
    }
    let zipf = Zipf::new(sizes.len(), ALPHA);
    let requests: Vec<u32> = (0..REQUESTS).map(|_| zipf.sample(&mut random)).collect();
    println!(
        "  Zipf({ALPHA}), {} objects of {:.1} KiB on average, {} requests; disk {} MiB, memory {} MiB",
        sizes.len(),
        sizes.iter().sum::<u64>() as f64 / sizes.len() as f64 / 1024.0,
        requests.len(),
        mib(DISK_BYTES),
        mib(MEMORY_BYTES)
    );
    let lru = simulate(&requests, &sizes, DISK_BYTES);
    let lru_both = simulate(&requests, &sizes, DISK_BYTES + MEMORY_BYTES);
    let folder = Folder::new("steady");
    let (store, clock) = open(Some(folder.path()), MEMORY_BYTES, DISK_BYTES);
    let keys = (0..sizes.len() as u64).map(key).collect();
    let bytes = Bytes::from(vec![b'x'; 65_536]);
    let mut run = Run { store, clock, bytes, keys, sizes, counts: Counts::default() };
    let started = Instant::now();
    let before = runtime().block_on(run.replay(&requests));
    report(aims, &run, &before, started.elapsed(), (lru, lru_both));
}

/// Hit ratios in per cent of objects and of bytes.
fn simulate(requests: &[u32], sizes: &[u64], capacity: u64) -> (f64, f64) {
    let mut lru = Lru::new(capacity);
    let (mut hits, mut hit_bytes, mut bytes) = (0, 0, 0);
    let warm_up = requests.len() / WARM_UP_DIVISOR;
    for (n, id) in requests.iter().enumerate() {
        let size = sizes[*id as usize];
        let is_hit = lru.ask(*id, size);
        if n >= warm_up {
            hits += u64::from(is_hit);
            hit_bytes += if is_hit { size } else { 0 };
            bytes += size;
        }
    }
    (percent(hits, (requests.len() - warm_up) as u64), percent(hit_bytes, bytes))
}

impl Run {
    /// Gives the disk tier's counts when counting began.
    async fn replay(&mut self, requests: &[u32]) -> larder::store::DiskStats {
        let warm_up = requests.len() / WARM_UP_DIVISOR;
        let mut before = self.store.stats().disk;
        for (n, id) in requests.iter().enumerate() {
            if n == warm_up {
                let highest_file_bytes = self.counts.highest_file_bytes;
                let fills = self.counts.fills;
                self.counts = Counts { highest_file_bytes, fills, ..Counts::default() };
                before = self.store.stats().disk;
            }
            self.request(*id as usize).await;
        }
        before
    }

    async fn request(&mut self, id: usize) {
        let (key, size) = (&self.keys[id], self.sizes[id]);
        self.counts.requests += 1;
        self.counts.bytes += size;
        let is_in_memory = self.store.get(key).is_some();
        if is_in_memory || (self.store.may_load(key) && self.store.load(key).await.is_some()) {
            self.store.promote(key.hash());
            self.counts.hits += 1;
            self.counts.hit_bytes += size;
            self.counts.memory_hits += u64::from(is_in_memory);
            return;
        }
        self.counts.filled_bytes += size;
        self.counts.fills += 1;
        fill(&self.store, self.clock, key, self.bytes.slice(..size as usize)).await;
        if self.counts.fills.is_multiple_of(16) {
            self.look();
        }
    }

    /// Samples the disk's use, and waits while the writer is behind.
    fn look(&mut self) {
        loop {
            let disk = self.store.stats().disk;
            self.counts.highest_file_bytes = self.counts.highest_file_bytes.max(disk.file_bytes);
            if disk.counters.written + disk.counters.failed + MAX_BEHIND >= self.counts.fills {
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn report(
    aims: &mut Aims,
    run: &Run,
    before: &larder::store::DiskStats,
    took: Duration,
    (lru, lru_both): ((f64, f64), (f64, f64)),
) {
    let counts = &run.counts;
    let disk = run.store.stats().disk;
    let (now, before) = (disk.counters, before.counters);
    let ratio = percent(counts.hits, counts.requests);
    let byte_ratio = percent(counts.hit_bytes, counts.bytes);
    println!("  hit ratio          objects   bytes");
    println!("  larder               {ratio:5.2}   {byte_ratio:5.2}");
    println!("  LRU, {:3.0} MiB         {:5.2}   {:5.2}", mib(DISK_BYTES), lru.0, lru.1);
    println!(
        "  LRU, {:3.0} MiB         {:5.2}   {:5.2}",
        mib(DISK_BYTES + MEMORY_BYTES),
        lru_both.0,
        lru_both.1
    );
    println!("  of larder's hits, {:.1} % from memory", percent(counts.memory_hits, counts.hits));
    let frames = now.frame_bytes - before.frame_bytes;
    let payload = now.payload_bytes - before.payload_bytes;
    let again = now.reinserted_bytes - before.reinserted_bytes;
    let filled = counts.filled_bytes as f64;
    // Metas and bodies, as they are filled and as they are written again.
    let written = payload as f64 / filled;
    println!(
        "  for each byte filled: {written:.3} of heads and bodies, {:.3} with frames and padding; {:.3} written again",
        frames as f64 / filled,
        again as f64 / filled
    );
    println!(
        "  evicted {} segments, {} keys; {} keys written again; {} failed; {:.0} s, {:.0} MiB/s filled",
        now.evicted_segments - before.evicted_segments,
        now.evicted_keys - before.evicted_keys,
        now.reinserted_keys - before.reinserted_keys,
        now.failed - before.failed,
        took.as_secs_f64(),
        mib(counts.filled_bytes) / took.as_secs_f64()
    );
    aims.check(
        &format!("objects: within {MAX_POINTS_BELOW} point of LRU, or above"),
        ratio >= lru.0 - MAX_POINTS_BELOW,
    );
    aims.check(
        &format!("bytes: within {MAX_POINTS_BELOW} point of LRU, or above"),
        byte_ratio >= lru.1 - MAX_POINTS_BELOW,
    );
    aims.check(
        &format!("at most {MAX_WRITTEN_A_BYTE} bytes written for each filled"),
        written <= MAX_WRITTEN_A_BYTE,
    );
    let highest = counts.highest_file_bytes;
    aims.check(
        &format!("disk use at most {:.0} MiB, of {:.0}", mib(highest), mib(DISK_BYTES)),
        highest <= DISK_BYTES,
    );
}
