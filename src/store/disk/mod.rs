//! The disk tier: a log of segments, mapped for reading.
//!
//! ```text
//! fills ──▶ queue ──▶ writer ──▶ segments ──▶ mapping ──▶ responses
//!                       │  ▲                     ▲
//!                       ▼  └── eviction          │
//!                     index ◀─── load ───────────┘
//! ```
//!
//! - [`log`]: the one thread that appends ([`append`]), indexes and evicts ([`evict`]).
//! - [`format`]: the bytes of a segment; [`meta`]: what a response frame says.
//! - [`segment`]: a mapped file and who reads it; [`read`]: from the log into memory.
//! - [`index`]: 16 bytes a key; [`recover`]: the index again after a start.
//! - [`io`]: the files, on disk or in memory; [`pool`]: the threads that wait for them; [`health`]:
//!   what fails, and what that means.
//!
//! With `disk = 0` the segments are memory files that take of the memory budget; small bodies then
//! live on the heap alone.

mod append;
mod directory;
mod evict;
mod files;
mod format;
mod handover;
mod health;
mod index;
mod inline;
mod io;
mod limits;
mod log;
mod marks;
mod meta;
mod ops;
mod pending;
mod pool;
mod position;
mod read;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod sim;
mod stats;
mod table;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Entry;
use super::admission::Sketch;
use super::budget::Budget;
use super::comparison::Comparison;
use super::holds::Holds;
use super::metrics::DiskCounters;
use super::versions::Versions;
use super::warm::Wants;
use crate::region::Arena;
use crate::rules::key::KeyHash;
use crate::telemetry::Clock;
pub use directory::{OpenError, lock_unused};
use files::Shared;
use health::Health;
pub use health::Mode;
use index::Index;
use limits::Limits;
use log::Writer;
use ops::{Op, Unwritten};
use pending::Pending;
pub use position::Position;
pub use scan::{Held, Order};
pub use stats::DiskStats;
use table::Table;

/// Bytes that may wait for the writer, in KiB.
const QUEUE_KIB: u64 = 16 * 1024;
/// A key takes this much of a store of unknown objects when the sketch of admission is sized.
const TYPICAL_OBJECT_BYTES: u64 = 32 * 1024;

/// What enters the disk tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everything.
    All,
    /// What was asked for before.
    SecondHit,
}

/// The disk tier of `[store]`.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The directory; `None`: segments in memory.
    pub path: Option<PathBuf>,
    /// What all segment files take at most.
    pub bytes: u64,
    /// A segment's length.
    pub segment_bytes: u64,
    /// Bodies up to here are kept on the heap too.
    pub memory_object_bytes: u64,
    /// What enters.
    pub admission: Admission,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tier {
    index: Index,
    table: Table,
    shared: Arc<Shared>,
    health: Arc<Health>,
    budget: Arc<Budget>,
    versions: Arc<Versions>,
    clock: Clock,
    limits: Limits,
    admission: Option<Mutex<Sketch>>,
    ops: mpsc::Sender<Op>,
    queue: Arc<Semaphore>,
    /// By key: what was said last, and the number of the operation that says it.
    pending: Mutex<HashMap<KeyHash, (u64, Pending)>>,
    next_number: AtomicU64,
    /// Bytes that accepted fills will write.
    promised: Arc<AtomicU64>,
    counters: DiskCounters,
    /// What is not to be evicted.
    pub(super) holds: Holds,
    /// What is admitted in any case.
    pub(super) wants: Wants,
    pub(super) comparison: Comparison,
    /// What is older than this version is stale: the clock went back while the node was down.
    stale_below: u64,
    /// Held as long as the store is open.
    lock: Option<directory::Lock>,
    /// Another process is about to have the store.
    is_leaving: AtomicBool,
}

impl Tier {
    /// Opens the store's directory, or memory, and starts the writer.
    pub(super) fn open(
        config: &DiskConfig,
        budget: Arc<Budget>,
        versions: Arc<Versions>,
        clock: Clock,
        inherited: Option<OwnedFd>,
    ) -> Result<Arc<Self>, OpenError> {
        let health = Arc::new(Health::default());
        let (disk, lock) = directory::open(config.path.as_deref(), &health, inherited)?;
        Self::open_on(disk, lock, config, (budget, versions, clock), health)
            .map_err(|source| OpenError::of(config.path.as_deref(), source))
    }

    fn open_on(
        disk: Arc<dyn io::Disk>,
        lock: Option<directory::Lock>,
        config: &DiskConfig,
        (budget, versions, clock): (Arc<Budget>, Arc<Versions>, Clock),
        health: Arc<Health>,
    ) -> std::io::Result<Arc<Self>> {
        let mut limits = Limits::new(config, budget.limit);
        let holds = Holds::new(limits.configured / 2, clock);
        let files = disk.list()?;
        let largest = files.iter().map(|(_, length)| *length).max().unwrap_or(0);
        // Files of another configuration are kept; those given up and still read count as files too.
        let slots = (limits.configured / limits.segment) as usize + files.len() + 2;
        let slots = slots.min(usize::from(u16::MAX));
        let arena = Arena::reserve(slots, limits.segment.max(largest))?;
        limits.inline = limits.inline.min(limits.segment / 4);
        if !disk.is_persistent()
            && let Some(charge) = budget.reserve(limits.segment)
        {
            disk.keep_ready(limits.segment, charge);
        }
        let shared = Shared::new(disk, health.clone(), arena)?;
        let (ops, queue) = mpsc::channel();
        let sketch = || Sketch::new((limits.configured / TYPICAL_OBJECT_BYTES) as usize);
        let mut tier = Arc::new(Self {
            index: Index::new(),
            table: Table::new(slots),
            shared,
            health,
            budget,
            clock,
            admission: (config.admission == Admission::SecondHit).then(|| Mutex::new(sketch())),
            limits,
            ops,
            queue: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            pending: Mutex::default(),
            next_number: AtomicU64::new(0),
            promised: Arc::default(),
            counters: DiskCounters::default(),
            holds,
            wants: Wants::default(),
            comparison: Comparison::default(),
            stale_below: 0,
            versions,
            lock,
            is_leaving: AtomicBool::new(false),
        });
        let started = std::time::Instant::now();
        let recovered = recover::recover(&tier)?;
        tier.versions.resume(recovered.last_version);
        if Versions::time_of(recovered.last_version) > clock.now() {
            tracing::warn!("the clock is behind the newest stored response: everything stored is stale");
            if let Some(tier) = Arc::get_mut(&mut tier) {
                tier.stale_below = recovered.last_version + 1;
            }
        }
        if tier.shared.disk.is_persistent() {
            tracing::info!(
                keys = tier.index.len(),
                segments = recovered.segments,
                bytes_read = recovered.bytes_read,
                bytes_lost = recovered.lost_bytes,
                milliseconds = started.elapsed().as_millis() as u64,
                "the disk tier is open"
            );
        }
        let writer = Writer::new(tier.clone(), recovered.last_id + 1);
        std::thread::Builder::new().name("larder-writer".into()).spawn(move || writer.run(&queue))?;
        Ok(tier)
    }

    /// Whether a new response may be written, by mode and admission; counts the request.
    pub(super) fn admits(&self, key: KeyHash) -> bool {
        let is_leaving = self.is_leaving.load(Relaxed);
        if is_leaving || (self.health.mode() != Mode::Ok && !self.health.is_retry_due()) {
            return false;
        }
        let Some(sketch) = &self.admission else { return true };
        let mut sketch = sketch.lock();
        let is_known = sketch.estimate(key) > 0;
        sketch.record(key, (self.limits.configured / TYPICAL_OBJECT_BYTES) as usize);
        is_known || self.wants.has(key)
    }

    /// Room in the writer's queue for a body that is about to be fetched; `None`: the writer is behind.
    pub(super) fn queue_room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permit = self.queue.clone().try_acquire_many_owned(kib(bytes)).ok();
        if permit.is_none() {
            self.counters.writer_behind();
        }
        permit
    }

    /// The same for a body that is accepted: waits.
    pub(super) async fn wait_for_queue(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.queue.clone().acquire_many_owned(kib(bytes)).await.ok()
    }

    /// Promises room for a body; `None`: too much is promised already.
    pub(super) fn promise(&self, bytes: u64) -> Option<Promise> {
        let promised = self.promised.fetch_add(bytes, Relaxed) + bytes;
        let promise = Promise { promised: self.promised.clone(), bytes };
        (promised <= self.limits.capacity() / 2).then_some(promise)
    }

    /// Has an entry written; called while the key's shard of the memory tier is locked, so that the
    /// queue has the order of what happened.
    pub(super) fn put(
        &self,
        entry: &Arc<Entry>,
        replaces: Option<Arc<Entry>>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let number = self.note(entry.key().hash(), Pending::Put(entry.clone()));
        let put = Op::Put { entry: entry.clone(), replaces, number, permit };
        if self.ops.send(put).is_err() {
            self.left_unsaid(entry.key().hash(), number);
        }
    }

    /// The writer has ended: what is on disk of the key is outdated, and nothing more is said of it.
    fn left_unsaid(&self, key: KeyHash, number: u64) {
        self.index.remove(key);
        self.settled(key, number);
    }

    /// Takes a key out; likewise.
    pub(super) fn remove(&self, key: KeyHash) {
        let has_one = match self.pending(key) {
            Some(Pending::Put(_)) => true,
            Some(Pending::Removed) => false,
            None => self.index.get(key).is_some(),
        };
        if has_one {
            let number = self.note(key, Pending::Removed);
            if self.ops.send(Op::Remove { key, number }).is_err() {
                self.left_unsaid(key, number);
            }
        }
    }

    /// Has a key revalidated before its next use.
    pub(super) fn invalidate(&self, key: KeyHash) {
        let pending = self.pending_entry(key);
        let stored = self.index.get(key);
        // Once is enough, however often it is said.
        let is_news =
            pending.iter().flat_map(|entry| entry.variants()).any(|object| !object.is_invalidated())
                || stored.is_some_and(|found| !found.must_revalidate);
        if is_news {
            pending.iter().flat_map(|entry| entry.variants()).for_each(|object| object.invalidate());
            self.index.mark_must_revalidate(key);
            let _ = self.ops.send(Op::MustRevalidate(key));
        }
    }

    /// Has the next part of a body written.
    pub(super) fn append(
        &self,
        growing: &Arc<crate::object::Growing>,
        chunks: Vec<bytes::Bytes>,
        permit: OwnedSemaphorePermit,
    ) {
        let _ = self.ops.send(Op::Part { growing: Unwritten::new(growing), chunks, permit });
    }

    /// Writes what is queued and seals what is open.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.ops.send(Op::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }

    /// Ends the writer, after what is queued.
    pub(super) fn end(&self) {
        let (done, _) = oneshot::channel();
        let _ = self.ops.send(Op::Close(done));
    }

    /// Bodies up to here are kept whole with their head.
    pub(super) fn inline_bytes(&self) -> u64 {
        self.limits.inline
    }

    /// A segment's length.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.limits.segment
    }

    /// Whether what is written outlives the process.
    pub(super) fn is_persistent(&self) -> bool {
        self.shared.disk.is_persistent()
    }
}

/// Room that an accepted fill was promised; given back on drop.
#[derive(Debug)]
pub(super) struct Promise {
    promised: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.promised.fetch_sub(self.bytes, Relaxed);
    }
}

fn kib(bytes: u64) -> u32 {
    bytes.div_ceil(1024).clamp(1, QUEUE_KIB / 2) as u32
}

#[cfg(test)]
mod tests;

/// A path, as messages show it.
fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "memory".to_owned(), |path| path.display().to_string())
}
