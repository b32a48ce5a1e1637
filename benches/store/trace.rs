//! Requests made up with a fixed seed, and the objects they are for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use larder::object::{Head, Object};
use larder::rules::freshness::Freshness;
use larder::rules::key::{CacheKey, Scheme};
use larder::rules::vary::VaryRule;
use larder::store::{Admission, Complete, Config, DiskConfig, Store};
use larder::telemetry::Clock;

/// `SplitMix64`: the same numbers on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// From 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Lognormal around `median`, cut to a range.
    pub fn size(&mut self, median: f64, sigma: f64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let (u, v) = (self.fraction().max(1e-12), self.fraction());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        ((median * (sigma * normal).exp()) as u64).clamp(*range.start(), *range.end())
    }
}

/// Ranks with the popularity `1 / rank^alpha`.
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(n: usize, alpha: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=n).map(|rank| {
            sum += 1.0 / (rank as f64).powf(alpha);
            sum
        });
        Self(sums.collect())
    }

    pub fn sample(&self, random: &mut Random) -> u32 {
        let at = random.fraction() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|sum| *sum <= at).min(self.0.len() - 1) as u32
    }
}

/// The key of an object.
pub fn key(n: u64) -> CacheKey {
    CacheKey::new(Scheme::Http, "shop.example", &format!("/assets/{n:08}.bin"), None)
}

/// A folder of the benchmark's own, below `STORE_BENCH_DIR` or the one for temporary files; removed when it goes.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let parent = std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = parent.join(format!("larder-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens a store; without a path it is in memory alone.
pub fn open(path: Option<&Path>, memory_bytes: u64, disk_bytes: u64) -> (Arc<Store>, Clock) {
    let clock = Clock::start();
    let disk = DiskConfig {
        path: path.map(Path::to_owned),
        bytes: disk_bytes,
        segment_bytes: 64 << 20,
        memory_object_bytes: 32 << 10,
        admission: Admission::All,
    };
    let config = Config { memory_bytes, max_object_bytes: 16 << 20, workers: 0, disk };
    (Store::open(&config, clock).expect("the store opens"), clock)
}

/// A head like that of a static asset.
pub fn head(key: CacheKey, length: u64, store: &Store, clock: Clock) -> Head {
    let now = clock.now();
    let freshness = Freshness {
        response_time: now,
        initial_age_ms: 0,
        fresh_until: now.saturating_add(86_400_000),
        swr_until: now,
        sie_until: now,
        no_cache: false,
        never_stale: false,
        source: "max-age",
        strip_fields: Box::default(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, length.into());
    for (name, value) in [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::ETAG, "\"0123456789abcdef\""),
        (header::LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (header::VIA, "1.1 larder"),
        (header::ACCEPT_RANGES, "bytes"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let rule = VaryRule::new(Vec::new());
    let variant = rule.key(&HeaderMap::new());
    let mut head = Head::new(key, StatusCode::OK, headers, (rule, variant), freshness);
    head.version = store.version();
    head
}

/// Fills an object as a miss does; waits when the writer is behind. Gives its weight in memory.
/// A large body is in the log when it is complete; a small one may be refused a place in the queue.
pub async fn fill(store: &Arc<Store>, clock: Clock, key: &CacheKey, body: Bytes) -> u64 {
    let complete = loop {
        if let Some(complete) = deposit(store, key, &body).await
            && (complete.is_admitted || !complete.body.parts().is_empty())
        {
            break complete;
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    };
    insert(store, clock, key, complete)
}

/// The same without waiting: what is not admitted to disk is kept in memory.
pub async fn fill_now(store: &Arc<Store>, clock: Clock, key: &CacheKey, body: Bytes) -> u64 {
    match deposit(store, key, &body).await {
        Some(complete) => insert(store, clock, key, complete),
        None => 0,
    }
}

async fn deposit(store: &Arc<Store>, key: &CacheKey, body: &Bytes) -> Option<Complete> {
    let mut deposit = store.deposit(key.hash(), Some(body.len() as u64)).ok()?;
    deposit.push(body).await?;
    deposit.complete().await
}

fn insert(store: &Arc<Store>, clock: Clock, key: &CacheKey, mut complete: Complete) -> u64 {
    let body = std::mem::take(&mut complete.body);
    let head = head(key.clone(), body.len(), store, clock);
    let object = Arc::new(Object::new(Arc::new(head), Arc::new(body), store.gauge()));
    let weight = object.weight();
    store.insert(object, 8, complete);
    weight
}

/// A runtime for one thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
