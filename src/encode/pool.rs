//! The threads that encode at rest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc as std_mpsc};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::dictionary::Dictionary;
use super::encoder::Level;
use super::metrics::EncodeMetrics;
use super::transcoder::{Failure, Transcoder};
use crate::region;
use crate::rules::encoding::Coding;

/// Objects that may wait for their turn.
const WAITING: usize = 4096;
/// Pieces on their way in, and out.
const PIECES: usize = 4;

/// The lowest priority. The class of idle threads brought nothing to hits that could be measured (`benches/README.md`), and
/// can be starved by busy neighbours.
const NICE: i32 = 19;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Work {
    /// What comes in.
    pub from: Coding,
    /// What is to come out.
    pub to: Coding,
    /// How.
    pub level: Level,
    /// Bytes that come in.
    pub length: u64,
    /// Bytes that may come out, at most; more: it is given up.
    pub at_most: u64,
    /// Bytes that a body may unfold to.
    pub most: u64,
    /// What it is encoded against, where `to` needs it.
    pub dictionary: Option<Dictionary>,
}

/// What comes of it.
#[derive(Debug)]
pub enum Event {
    /// The next bytes.
    Piece(Bytes),
    /// That was all.
    Finished(Finished),
    /// It is larger than it may be.
    NotWorth,
    /// It can't be had.
    Failed(Failure),
}

/// What is known of a whole encoding.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The first 32 bits of the BLAKE3 hash of its bytes.
    pub sum: [u8; 4],
    /// Its length in bytes.
    pub length: u64,
    /// That of the content, in no coding.
    pub content_length: u64,
}

/// `None` in the input is its end; an input that is dropped without it is given up.
type Input = mpsc::Receiver<Option<Bytes>>;

struct Job {
    work: Work,
    input: Input,
    output: mpsc::Sender<Event>,
}

type Jobs = std_mpsc::Sender<Job>;

/// See the module.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    jobs: OnceLock<Option<Mutex<Jobs>>>,
    metrics: Arc<EncodeMetrics>,
}

/// A place among those who wait for a turn.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Pool {
    /// A pool of half the cores, rounded down, and at least one; its threads start with the first job.
    pub fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let threads = (cores / 2).max(1);
        Arc::new(Self {
            threads,
            turns: Arc::new(Semaphore::new(threads)),
            waiting: Arc::default(),
            jobs: OnceLock::new(),
            metrics: Arc::default(),
        })
    }

    /// A place in the queue; `None`: it is full.
    pub fn place(&self) -> Option<Place> {
        let place = Place(self.waiting.clone());
        (self.waiting.fetch_add(1, Relaxed) < WAITING).then_some(place)
    }

    /// How many wait or are at it.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Waits for the right to start jobs, one after the other.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }

    /// Starts a job: its input goes into the one end, `None` after the last piece, what comes of it out of the other.
    /// `None`: there are no threads.
    pub fn start(&self, work: Work) -> Option<(mpsc::Sender<Option<Bytes>>, mpsc::Receiver<Event>)> {
        let (feed, input) = mpsc::channel(PIECES);
        let (output, events) = mpsc::channel(PIECES);
        let jobs = self.jobs.get_or_init(|| self.spawn()).as_ref()?;
        jobs.lock().send(Job { work, input, output }).ok()?;
        Some((feed, events))
    }

    /// The counters.
    pub fn metrics(&self) -> &EncodeMetrics {
        &self.metrics
    }

    fn spawn(&self) -> Option<Mutex<Jobs>> {
        let (jobs, queue) = std_mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for thread in 0..self.threads {
            let (queue, metrics) = (queue.clone(), self.metrics.clone());
            let name = format!("larder-encode-{thread}");
            let spawned = std::thread::Builder::new().name(name).spawn(move || serve(&queue, &metrics));
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread to compress on");
                return None;
            }
        }
        Some(Mutex::new(jobs))
    }
}

/// Does jobs until the pool is gone.
fn serve(queue: &Mutex<std_mpsc::Receiver<Job>>, metrics: &EncodeMetrics) {
    // On Linux this is the thread's own.
    let _ = rustix::process::nice(NICE);
    loop {
        let job = queue.lock().recv();
        let Ok(job) = job else { return };
        let began = cpu_time();
        // A codec that panics has failed at this body, and is not to take the thread along.
        if catch_unwind(AssertUnwindSafe(|| run(job))).is_err() {
            tracing::error!("an encoder panicked");
        }
        metrics.worked(cpu_time().saturating_sub(began));
    }
}

fn run(job: Job) {
    let Job { work, mut input, output } = job;
    let last = match encode(&work, &mut input, &output) {
        Ok(Some(finished)) => Event::Finished(finished),
        Ok(None) => Event::NotWorth,
        Err(Some(failure)) => Event::Failed(failure),
        // Nobody waits for it any more.
        Err(None) => return,
    };
    let _ = output.blocking_send(last);
}

/// `None`: it would be larger than it may be. The error `None`: it was given up.
fn encode(
    work: &Work,
    input: &mut Input,
    output: &mpsc::Sender<Event>,
) -> Result<Option<Finished>, Option<Failure>> {
    let (from, to, length) = (work.from, work.to, Some(work.length));
    let mut transcoder =
        Transcoder::against(work.dictionary.as_ref(), from, to, work.level, length, work.most)?;
    let mut hasher = blake3::Hasher::new();
    let (mut length, mut is_over) = (0, false);
    loop {
        // What is read may be mapped, and its file gone.
        let next = region::guarded(|| transcoder.next_piece()).map_err(|_| None)?;
        if let Some(piece) = next? {
            hasher.update(&piece);
            length += piece.len() as u64;
            if length > work.at_most {
                return Ok(None);
            }
            output.blocking_send(Event::Piece(piece)).map_err(|_| None)?;
        } else if is_over {
            let mut sum = [0; 4];
            sum.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
            return Ok(Some(Finished { sum, length, content_length: transcoder.length() }));
        } else {
            match input.blocking_recv() {
                Some(Some(piece)) => transcoder.feed(piece),
                Some(None) => {
                    transcoder.end();
                    is_over = true;
                }
                None => return Err(None),
            }
        }
    }
}

/// Of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work {
        from: Coding::Identity,
        to: Coding::Zstd,
        level: Level::High,
        length: 3,
        at_most: 1000,
        most: 1000,
        dictionary: None,
    };

    #[tokio::test]
    async fn bytes_in_encoded_bytes_out() {
        let pool = Pool::new();
        let (feed, mut events) = pool.start(WORK).unwrap();
        feed.send(Some(Bytes::from_static(b"abc"))).await.unwrap();
        feed.send(None).await.unwrap();
        let Some(Event::Piece(piece)) = events.recv().await else { panic!("a piece") };
        let Some(Event::Finished(finished)) = events.recv().await else { panic!("the end") };
        assert_eq!(finished.sum, blake3::hash(&piece).as_bytes()[..4]);
        assert_eq!((finished.length, finished.content_length), (piece.len() as u64, 3));
        assert_eq!(zstd::decode_all(&piece[..]).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn an_input_without_an_end_is_given_up_and_the_thread_goes_on() {
        let pool = Pool::new();
        let (feed, mut events) = pool.start(WORK).unwrap();
        feed.send(Some(Bytes::from_static(b"abc"))).await.unwrap();
        drop(feed);
        assert!(events.recv().await.is_none());
        let (feed, mut events) = pool.start(Work { at_most: 1, ..WORK }).unwrap();
        feed.send(Some(Bytes::from_static(b"abc"))).await.unwrap();
        feed.send(None).await.unwrap();
        assert!(matches!(events.recv().await, Some(Event::NotWorth)));
        let (feed, mut events) =
            pool.start(Work { from: Coding::Gzip, to: Coding::Identity, ..WORK }).unwrap();
        feed.send(Some(Bytes::from_static(b"abc"))).await.unwrap();
        assert!(matches!(events.recv().await, Some(Event::Failed(Failure::Malformed))));
    }

    #[test]
    fn the_queue_is_bounded() {
        let pool = Pool::new();
        let places: Vec<_> = (0..WAITING).filter_map(|_| pool.place()).collect();
        assert_eq!((places.len(), pool.waiting()), (WAITING, WAITING));
        assert!(pool.place().is_none());
        drop(places);
        assert!(pool.place().is_some());
    }
}
