//! Purges: a durable, ordered log of what is to go, and the question whether an object went.
//!
//! ```text
//!  purge() ──▶ queue ──▶ the "purge" thread ──────────────────────────────▶ answer
//!              bounded   number all that waits    log.rs: one write, one sync
//!                        then apply, in order     matcher.rs: a number under each selector's hash
//!                                                        ▲
//!  check() ──────────────────────────────────────────────┘   reads; never waits for a purge
//! ```
//!
//! Nothing is looked for when a purge comes: each object notes the last number that was applied before its fetch
//! (`as_of`), and is compared with the newest purge of its URL, host, site, tags and path segments when it is used. So a
//! purge of a million objects costs what a purge of none costs, and a check costs some hash lookups, however many purges
//! there are.
//!
//! - **A purge is durable, then applied, then answered.** A sync serves all who wait for it. When it fails, the purge is
//!   applied all the same, and the answer says so.
//! - **What is lost of the log counts as a purge of everything**: an object that noted a number that this log can't have
//!   given proves it, and so does a damaged log, which is set aside. A torn tail is cut: nobody was told of it.
//! - **A number is never given twice**, not even when the log is lost or is an old copy: each start leaves a gap up to the
//!   time in microseconds (`log.rs`).
//! - A soft purge is dated by the first of its run (`matcher.rs`): never too late, a minute too early at most if purges
//!   come one by one, and unknown ([`Millis::MIN`]) for an object that slept through several runs.
//!
//! Not here: who may purge, what dialects mean, idempotency, other nodes, and when to compact: whoever knows the oldest
//! object says so.

mod compact;
mod file;
mod format;
mod history;
mod keys;
mod log;
mod matcher;
mod metrics;
mod open;
mod probe;
mod reader;
mod selector;
mod table;
mod unused;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

pub use metrics::PurgeMetrics;
pub use probe::Probe;
pub use selector::{
    BadRequest, BadSelector, MAX_REQUEST_BYTES, MAX_SELECTORS, MAX_TAG_BYTES, Request, Selector, Source,
};
pub use unused::set_aside;

use crate::rules::time::Millis;
use file::Disk;
use history::History;
use matcher::Matcher;
use metrics::{Counters, Metrics};
use writer::{Job, Op};

/// Room in the queue is counted in units of so many bytes, and a purge takes one at least.
const UNIT_BYTES: usize = 64 << 10;
/// 64 MiB, or a thousand small purges.
const QUEUE_UNITS: usize = 1024;

/// Where purges are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's directory, which is there and locked; `None`: in memory only.
    pub path: Option<PathBuf>,
    /// Past purges that are kept for people, at most.
    pub history: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: None, history: 10_000 }
    }
}

/// Why the log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is of another version.
    #[error(
        "{path}: written by another version of this program: its format is {found}, and this one reads {}; nothing was deleted: run the version that wrote it, or move the file away, and everything stored counts as purged",
        format::FORMAT
    )]
    OtherFormat {
        /// The log.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The system says no.
    #[error("the log of purges {path}: {source}")]
    Io {
        /// The log.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Why a purge is not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Nothing was done.
    #[error(transparent)]
    Request(#[from] BadRequest),
    /// It is in effect; a restart may forget it, unless a later purge is durable.
    #[error("the purge is in effect, but it could not be written to disk and may be lost by a restart")]
    NotDurable(Arc<Purge>),
    /// The node ends. The purge may or may not be in effect.
    #[error("the log of purges is closed")]
    Closed,
}

/// A purge that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Its place in the order; not consecutive over restarts.
    pub seq: u64,
    /// Random.
    pub id: Box<str>,
    /// Node time.
    pub at: Millis,
    /// What was asked for.
    pub request: Request,
    /// From the call to the effect, in microseconds; `None`: an earlier process applied it.
    pub applied_in_us: Option<u64>,
}

/// An object, as far as purges see it. All as in its cache key; the scheme does not count.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The site's name.
    pub site: &'a str,
    /// Of the URL.
    pub host: &'a str,
    /// Of the URL.
    pub path: &'a str,
    /// Of the URL.
    pub query: Option<&'a str>,
    /// Compared byte by byte.
    pub tags: &'a [Box<str>],
}

/// What newer purges say about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Kept,
    /// It is stale.
    Soft {
        /// Since when: not later than the first soft purge that hit it. It may be before the object's own time
        /// ([`Millis::MIN`] when nobody knows), then the object is stale since it was fetched: take the later of the two.
        at: Millis,
    },
    /// It is gone.
    Hard,
}

/// Figures.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Purges in the log.
    pub entries: u64,
    /// Of the log.
    pub bytes: u64,
    /// Syncs of the log, those that failed included.
    pub syncs: u64,
    /// Those that failed.
    pub failed_syncs: u64,
    /// What the last one took, with its write.
    pub last_sync_us: u64,
    /// How often room could not be allocated ahead.
    pub failed_allocations: u64,
    /// Of purges that are in effect and not durable.
    pub pending_bytes: u64,
    /// Distinct selectors, hard and soft.
    pub selectors: u64,
    /// Memory of the selectors.
    pub selector_bytes: u64,
    /// The name under which a damaged log was set aside at the start.
    pub damaged: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Purges {
    shared: Arc<Shared>,
    disk: Option<Arc<dyn Disk>>,
    damaged: Option<String>,
    ops: mpsc::Sender<Op>,
    room: Arc<Semaphore>,
    /// One compaction at a time.
    compacting: Mutex<()>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and everybody else have in common.
#[derive(Debug)]
struct Shared {
    matcher: Matcher,
    history: History,
    metrics: Metrics,
    counters: Arc<Counters>,
    pending_bytes: AtomicU64,
}

impl Purges {
    /// Makes a purge durable, then applies it, in order of number, then returns.
    ///
    /// Waits for room in the queue. A caller that is dropped before that has done nothing; later, the purge takes its
    /// course without it.
    pub async fn purge(&self, request: Request) -> Result<Arc<Purge>, PurgeError> {
        let since = Instant::now();
        let bytes = request.check()?;
        let units = bytes.div_ceil(UNIT_BYTES) as u32;
        let permit = self.room.clone().acquire_many_owned(units).await.map_err(|_| PurgeError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { request, since, bytes, permit, answer };
        self.ops.send(Op::Purge(Box::new(job))).map_err(|_| PurgeError::Closed)?;
        answered.await.map_err(|_| PurgeError::Closed)?
    }

    /// The number of the last purge that is applied: what an object notes as `as_of` before its fetch.
    #[inline]
    pub fn applied(&self) -> u64 {
        self.shared.matcher.applied()
    }

    /// Whether there was a purge of this object after `as_of`. An `as_of` that equals [`Self::applied`] is
    /// [`Verdict::Kept`]; one that this log can't have given means that the log was lost, and all objects that are older
    /// than now are purged.
    #[inline]
    pub fn check(&self, subject: &Subject<'_>, as_of: u64) -> Verdict {
        self.shared.matcher.check(subject, as_of)
    }

    /// Past purges, the newest first; with `after`, those before that number: the next page.
    pub fn list(&self, after: Option<u64>, limit: usize) -> Vec<Arc<Purge>> {
        self.shared.history.list(after, limit)
    }

    /// A past purge.
    pub fn get(&self, id: &str) -> Option<Arc<Purge>> {
        self.shared.history.get(id)
    }

    /// Drops what only objects with an `as_of` below `below` could be hit by: there are none any more. If there is one
    /// nevertheless, it is purged.
    ///
    /// Writes the log anew, on the calling thread, which waits for the disk; purges wait for as long as it takes to copy
    /// what came meanwhile. On an error nothing changed.
    pub fn compact(&self, below: u64) -> io::Result<()> {
        let _one = self.compacting.lock();
        let floor = below.min(self.applied()).max(self.shared.matcher.floor());
        let closed = || io::Error::other("the log of purges is closed");
        let new = match &self.disk {
            None => None,
            Some(disk) => {
                let (answer, answered) = mpsc::sync_channel(1);
                self.ops.send(Op::Mark(answer)).map_err(|_| closed())?;
                let mark = answered.recv().ok().flatten().ok_or_else(closed)?;
                let history_from = self.shared.history.oldest().unwrap_or(u64::MAX);
                let wanted = compact::Wanted { floor, history_from };
                let new = compact::rewrite(disk.clone(), &mark, wanted).inspect_err(|_| self.clean_up())?;
                Some((Box::new(new), mark))
            }
        };
        let (answer, answered) = mpsc::sync_channel(1);
        self.ops.send(Op::Adopt { new, floor, answer }).map_err(|_| closed())?;
        answered.recv().map_err(|_| closed())?.inspect_err(|_| self.clean_up())
    }

    fn clean_up(&self) {
        if let Some(disk) = &self.disk {
            // The next start tries again.
            let _ = disk.remove(log::NEW_NAME);
        }
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let (selectors, selector_bytes) = self.shared.matcher.size();
        let in_memory = self.disk.is_none().then(|| self.shared.history.len() as u64);
        Stats {
            entries: in_memory.unwrap_or_else(|| of(&counters.entries)),
            bytes: of(&counters.bytes),
            syncs: of(&counters.syncs),
            failed_syncs: of(&counters.failed_syncs),
            last_sync_us: of(&counters.last_sync_us),
            failed_allocations: of(&counters.failed_allocations),
            pending_bytes: of(&self.shared.pending_bytes),
            selectors: selectors as u64,
            selector_bytes: selector_bytes as u64,
            damaged: self.damaged.clone(),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Answers what waits and closes the log, for another process to have it. Purges that come wait for
    /// [`Self::resume`]; checks go on.
    pub async fn pause(&self) {
        let (answer, answered) = oneshot::channel();
        if self.ops.send(Op::Pause(answer)).is_ok() {
            let _ = answered.await;
        }
    }

    /// Nobody else has the log any more, and nobody else has made purges. What waits is applied.
    pub async fn resume(&self) -> io::Result<()> {
        let closed = || io::Error::other("the log of purges is closed");
        let (answer, answered) = oneshot::channel();
        self.ops.send(Op::Resume(answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Answers what waits, makes the log's end known and closes it, for another process to open. Purges fail from then
    /// on; checks go on.
    pub async fn close(&self) {
        self.room.close();
        let (answer, answered) = oneshot::channel();
        if self.ops.send(Op::Close(answer)).is_ok() {
            let _ = answered.await;
        }
    }
}

impl Drop for Purges {
    /// Waits for the thread, which writes what is left.
    fn drop(&mut self) {
        let (answer, _) = oneshot::channel();
        let _ = self.ops.send(Op::Close(answer));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
