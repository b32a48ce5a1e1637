//! The store on a simulated disk, against a model that knows what was stored.
//!
//! `LARDER_SIM_SEEDS` multiplies the seeds of the long ones, and the operations at which they stop.

mod crash;
mod faults;
mod formats;
mod holds;
mod invariants;
mod races;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::io::{Disk, Memory};
use super::sim::{Operation, SimDisk};
use super::*;
use crate::object::{Body, Charge, Growing, Head, Object, Reader};
use crate::rules::freshness::Freshness;
use crate::rules::key::{CacheKey, Scheme};
use crate::rules::time::Millis;
use crate::rules::vary::VaryRule;
use crate::store::Store;

const MIB: u64 = 1024 * 1024;
/// Of the largest body on the heap.
const INLINE: u64 = 32 * 1024;
/// Nothing that is waited for takes longer, unless it is stuck.
const STUCK: Duration = Duration::from_secs(30);
const MAX_VARIANTS: usize = 4;

fn factor() -> u64 {
    std::env::var("LARDER_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn seeds(n: u64) -> std::ops::Range<u64> {
    0..n * factor()
}

/// Of operations, each `nth` is tried, or more of them.
fn stride(nth: u64) -> usize {
    (nth / factor()).max(1) as usize
}

fn config(bytes: u64) -> DiskConfig {
    DiskConfig {
        path: Some(PathBuf::from("simulated")),
        bytes,
        segment_bytes: MIB,
        memory_object_bytes: INLINE,
        admission: Admission::All,
    }
}

fn key(n: u32) -> CacheKey {
    CacheKey::new(Scheme::Http, "a.example", &format!("/{n}"), None)
}

/// The bytes of a body: each stretch of them tells which one it is.
fn content(id: u64, length: usize) -> Vec<u8> {
    let word = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.iter().copied().cycle().take(length).collect()
}

/// What is found of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    variant: String,
    id: u64,
    is_invalidated: bool,
    /// Whether its bytes could be read; they are right then.
    is_readable: bool,
}

/// A store on a simulated disk.
struct Rig {
    disk: SimDisk,
    store: Arc<Store>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn open(disk: &SimDisk, bytes: u64) -> std::io::Result<Self> {
        Self::open_on(disk.clone(), Arc::new(disk.clone()), &config(bytes), 8 * MIB)
    }

    fn in_memory(memory: u64) -> Self {
        let config = DiskConfig { path: None, ..config(0) };
        Self::open_on(SimDisk::new(0), Arc::new(Memory::default()), &config, memory).unwrap()
    }

    fn open_on(
        disk: SimDisk,
        files: Arc<dyn Disk>,
        config: &DiskConfig,
        memory: u64,
    ) -> std::io::Result<Self> {
        let clock = Clock::start();
        let budget = Budget::new(memory, 0, config.path.is_some(), clock);
        let versions = Arc::new(Versions::new(clock));
        let parts = (budget.clone(), versions.clone(), clock);
        let tier = Tier::open_on(files, None, config, parts, Arc::default())?;
        let store = Store::on(tier, budget, versions, 4 * MIB);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { disk, store, runtime })
    }

    fn tier(&self) -> &Arc<Tier> {
        &self.store.tier
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(STUCK, future).await.expect("it is stuck") })
    }

    /// Stores a body; whether the store took it.
    fn fill(&self, n: u32, variant: &str, id: u64, length: usize, is_sized: bool) -> bool {
        self.wait(self.fill_from(self.store.version(), (n, variant), id, length, is_sized))
    }

    async fn fill_from(
        &self,
        version: u64,
        (n, variant): (u32, &str),
        id: u64,
        length: usize,
        is_sized: bool,
    ) -> bool {
        let (store, key) = (&self.store, key(n));
        let Ok(mut deposit) = store.deposit(key.hash(), is_sized.then_some(length as u64)) else {
            return false;
        };
        for chunk in content(id, length).chunks(50_000) {
            if deposit.push(&Bytes::copy_from_slice(chunk)).await.is_none() {
                return false;
            }
        }
        let Some(mut complete) = deposit.complete().await else { return false };
        // As a fill does.
        store.load(&key).await;
        let body = std::mem::take(&mut complete.body);
        let object = Object::new(Arc::new(head(n, variant, id, version)), Arc::new(body), store.gauge());
        store.insert(Arc::new(object), MAX_VARIANTS, complete);
        true
    }

    /// A 304 for every variant there is.
    fn refresh(&self, n: u32) -> Vec<String> {
        let Some(entry) = self.wait(self.store.load(&key(n))) else { return Vec::new() };
        let mut renewed = Vec::new();
        for object in entry.variants() {
            let (variant, id) = identity(object);
            let head = head(n, &variant, id, self.store.version());
            self.store.refresh(Arc::new(object.renewed(Arc::new(head), self.store.gauge())), MAX_VARIANTS);
            renewed.push(variant);
        }
        renewed
    }

    fn remove(&self, n: u32) {
        while let Some(entry) = self.wait(self.store.load(&key(n))) {
            self.store.remove(&entry.variants()[0]);
        }
    }

    /// What a request would get: each body is read, and its bytes compared. Every other key finds memory full, and so its
    /// bodies where they lie.
    fn look(&self, n: u32) -> Vec<Seen> {
        let _full = (n % 2 == 1).then(|| self.full_memory());
        let Some(entry) = self.wait(self.store.load(&key(n))) else { return Vec::new() };
        entry.variants().iter().map(|object| self.see(object)).collect()
    }

    fn see(&self, object: &Arc<Object>) -> Seen {
        let (variant, id) = identity(object);
        let read = self.wait(read(&object.body));
        if let Some(bytes) = &read {
            assert!(*bytes == content(id, object.body.len() as usize), "wrong bytes of {id}");
        }
        Seen { variant, id, is_invalidated: object.is_invalidated(), is_readable: read.is_some() }
    }

    /// Memory without any room, while this lives.
    fn full_memory(&self) -> Charge {
        Charge::new(self.store.gauge(), self.store.budget.limit)
    }

    /// Forgets what is in memory, so that the next look is at the disk.
    fn forget_memory(&self) {
        self.settle();
        self.store.budget.memory.evict(None, u64::MAX);
    }

    /// Waits until the writer has done all that it was asked.
    fn settle(&self) {
        let tier = self.tier();
        let all = QUEUE_KIB as usize;
        // A part that is not written, and passes through the queue all the same.
        if let Ok(permit) = tier.queue.clone().try_acquire_owned() {
            let growing = Arc::new(Growing::new(key(0).hash(), Charge::new(self.store.gauge(), 0)));
            growing.fail();
            tier.append(&growing, Vec::new(), permit);
        }
        until("the queue is empty", || tier.queue.is_closed() || tier.queue.available_permits() == all);
    }

    /// Waits until what was given up is gone, too.
    fn settle_files(&self) {
        self.settle();
        until("files are gone", || self.tier().shared.given_up_bytes() == 0);
    }

    fn close(self) -> SimDisk {
        self.wait(self.store.close());
        self.disk
    }

    fn is_stopped(&self) -> bool {
        Disk::list(&self.disk).is_err()
    }

    /// The sums agree with what they are of, once what goes on ahead of need has come to its end.
    fn check_accounts(&self, keys: std::ops::Range<u32>) {
        self.settle_files();
        let tier = self.tier();
        until("the sums agree", || {
            let (stats, files) = (tier.stats(), Disk::list(&self.disk).unwrap());
            let found = keys.clone().filter(|n| tier.index.get(key(*n).hash()).is_some()).count();
            stats.file_bytes == files.iter().map(|(_, length)| length).sum::<u64>()
                && stats.segments as usize == files.len()
                && stats.objects == found as u64
        });
        assert!(tier.shared.file_bytes() <= tier.limits.capacity());
        for segment in tier.table.all() {
            assert!(segment.used_bytes() <= segment.length && segment.live_bytes() <= segment.length);
        }
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < STUCK, "never: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn head(n: u32, variant: &str, id: u64, version: u64) -> Head {
    let mut request = HeaderMap::new();
    request.insert("x-variant", HeaderValue::try_from(variant).unwrap());
    let vary = VaryRule::new(vec!["x-variant".parse().unwrap()]);
    let selecting = (vary.clone(), vary.key(&request));
    let mut headers = request;
    headers.insert("x-id", id.into());
    let now = Clock::start().now();
    let freshness = Freshness {
        response_time: now,
        initial_age_ms: 0,
        fresh_until: Millis(now.0 + 60_000),
        swr_until: Millis(now.0 + 60_000),
        sie_until: Millis(now.0 + 120_000),
        no_cache: false,
        never_stale: false,
        source: "max-age",
        strip_fields: Box::default(),
    };
    let mut head = Head::new(key(n), StatusCode::OK, headers, selecting, freshness);
    head.version = version;
    head
}

fn identity(object: &Object) -> (String, u64) {
    let field = |name| object.head.headers[name].to_str().unwrap().to_owned();
    (field("x-variant"), field("x-id").parse().unwrap())
}

/// All of a body, unless it can't be read.
async fn read(body: &Arc<Body>) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body.clone(), 0..body.len());
    let mut bytes = Vec::new();
    while let Some(slice) = std::future::poll_fn(|cx| reader.poll_next(cx)).await {
        bytes.extend_from_slice(&slice.ok()?);
    }
    Some(bytes)
}

/// A step of a workload.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Key, variant, length, whether the length is known.
    Fill(u32, &'static str, usize, bool),
    Refresh(u32),
    Remove(u32),
    Invalidate(u32),
    Look(u32),
    /// Memory is forgotten.
    Cool,
    Reopen,
}

use Step::{Cool, Fill, Invalidate, Look, Refresh, Remove, Reopen};

const KEYS: std::ops::Range<u32> = 0..40;

/// Everything that happens to keys, in less than the store's capacity.
fn small_workload() -> Vec<Step> {
    vec![
        Fill(1, "a", 100, true),
        Fill(2, "a", 20_000, true),
        Fill(3, "a", 300_000, true),
        Fill(4, "a", 60_000, false),
        Fill(5, "a", 0, true),
        Fill(2, "b", 30_000, false),
        Fill(3, "b", 290_000, false),
        Look(3),
        Fill(1, "a", 200, true),
        Invalidate(2),
        Refresh(3),
        Cool,
        Remove(4),
        Look(2),
        Refresh(2),
        Fill(6, "a", 500, true),
        Invalidate(1),
        Reopen,
        Invalidate(6),
        Fill(4, "a", 70_000, true),
        Fill(3, "a", 280_000, true),
        Cool,
        Refresh(1),
        Remove(3),
        Fill(7, "a", 1_000, true),
    ]
}

/// So much that segments come and go, with keys that stay in demand.
fn large_workload() -> Vec<Step> {
    let mut steps = vec![Fill(1, "a", 5_000, true), Fill(2, "a", 200_000, true), Fill(3, "a", 900, true)];
    for n in 10..28 {
        steps.push(Fill(n, "a", 420_000 + n as usize, n % 2 == 0));
        steps.push(Fill(n, "b", 2_000, true));
        steps.extend([Look(1), Look(2), Cool, Look(2)]);
        match n {
            13 => steps.push(Remove(11)),
            15 => steps.extend([Invalidate(2), Fill(3, "a", 1_000, true)]),
            17 => steps.extend([Remove(3), Reopen]),
            19 => steps.extend([Refresh(18), Fill(1, "a", 6_000, true)]),
            22 => steps.extend([Remove(1), Invalidate(21)]),
            _ => {}
        }
    }
    steps
}

/// What is stored under a key: by variant, which one and whether it is to be revalidated.
type Stored = BTreeMap<String, (u64, bool)>;

/// What should be there.
#[derive(Clone, Debug, Default)]
struct Model {
    now: HashMap<u32, Stored>,
    /// Everything there ever was.
    ever: BTreeSet<(u32, String, u64)>,
    next_id: u64,
}

impl Model {
    /// Does a step on both.
    fn step(&mut self, rig: &Rig, step: Step) {
        match step {
            Fill(n, variant, length, is_sized) => {
                self.next_id += 1;
                self.ever.insert((n, variant.to_owned(), self.next_id));
                if rig.fill(n, variant, self.next_id, length, is_sized) {
                    self.now.entry(n).or_default().insert(variant.to_owned(), (self.next_id, false));
                }
            }
            Refresh(n) => {
                let stored = self.now.entry(n).or_default();
                for variant in rig.refresh(n) {
                    stored.entry(variant).and_modify(|state| state.1 = false);
                }
            }
            Remove(n) => {
                rig.remove(n);
                self.now.remove(&n);
            }
            Invalidate(n) => {
                rig.store.invalidate(&key(n));
                self.now.entry(n).or_default().values_mut().for_each(|state| state.1 = true);
            }
            Look(n) => self.check_live(rig, n),
            Cool => rig.forget_memory(),
            Reopen => {}
        }
        rig.settle();
    }

    /// The newest of each variant, or none; one that has to be revalidated is never taken to be fresh.
    fn check_live(&self, rig: &Rig, n: u32) {
        self.check_newest(n, &rig.look(n), &[self]);
    }

    /// What is found is as one of these models says.
    fn check_newest(&self, n: u32, seen: &[Seen], models: &[&Self]) {
        for seen in seen {
            let is_so = |model: &&Self| {
                let state = model.now.get(&n).and_then(|stored| stored.get(&seen.variant));
                state.is_some_and(|(id, invalid)| *id == seen.id && (!invalid || seen.is_invalidated))
            };
            assert!(models.iter().any(is_so), "key {n}: {seen:?}, not {:?}", self.now.get(&n));
        }
    }

    fn check_all_live(&self, rig: &Rig) {
        KEYS.for_each(|n| self.check_live(rig, n));
    }

    /// Everything is there and readable.
    fn check_complete(&self, rig: &Rig) {
        for (n, stored) in &self.now {
            let seen = rig.look(*n);
            let ids: BTreeMap<&str, u64> = seen.iter().map(|seen| (&*seen.variant, seen.id)).collect();
            let expected = stored.iter().map(|(variant, (id, _))| (&**variant, *id)).collect();
            assert_eq!(ids, expected, "key {n}");
            assert!(seen.iter().all(|seen| seen.is_readable), "key {n}: {seen:?}");
        }
    }

    /// What is found was stored under this key and variant at some time.
    fn check_ever(&self, n: u32, seen: &[Seen]) {
        for seen in seen {
            assert!(self.ever.contains(&(n, seen.variant.clone(), seen.id)), "key {n}: {seen:?}");
        }
    }
}

/// Runs a workload to its end, closing and opening the store where it says so.
fn run(disk: &SimDisk, bytes: u64, steps: &[Step]) -> (Rig, Model) {
    let (mut rig, mut model) = (Rig::open(disk, bytes).unwrap(), Model::default());
    for step in steps {
        if matches!(step, Reopen) {
            let disk = rig.close();
            rig = Rig::open(&disk, bytes).unwrap();
        }
        model.step(&rig, *step);
    }
    (rig, model)
}

#[test]
fn a_small_workload_is_there_to_the_last_byte() {
    let (rig, model) = run(&SimDisk::new(1), 8 * MIB, &small_workload());
    model.check_all_live(&rig);
    model.check_complete(&rig);
    rig.check_accounts(KEYS);
    rig.forget_memory();
    model.check_complete(&rig);
    let rig = Rig::open(&rig.close(), 8 * MIB).unwrap();
    model.check_complete(&rig);
    model.check_all_live(&rig);
    rig.check_accounts(KEYS);
}

#[test]
fn a_large_workload_keeps_within_the_limit_and_what_is_in_demand() {
    let (rig, model) = run(&SimDisk::new(1), 4 * MIB, &large_workload());
    model.check_all_live(&rig);
    rig.check_accounts(KEYS);
    let counters = rig.tier().stats().counters;
    assert!(counters.evicted_segments >= 4 && counters.reinserted_keys >= 1, "{counters:?}");
    assert!(rig.look(2).first().is_some_and(|seen| seen.is_readable), "asked for all the time");
    assert!(rig.look(10).is_empty(), "the oldest");
    let rig = Rig::open(&rig.close(), 4 * MIB).unwrap();
    model.check_all_live(&rig);
    rig.check_accounts(KEYS);
}
