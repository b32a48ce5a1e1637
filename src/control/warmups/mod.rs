//! Warming: jobs that have responses stored before clients ask for them.
//!
//! A job is a list of URLs, each asked for in every encoding and with every header set, through the edge's own way of a
//! miss (`edge/warm.rs`), at a rate and a concurrency of its own. It runs on the control thread, yields to live traffic,
//! and is written down (`file.rs`), so that a restarted node goes on where it was. A few run at once, the others wait;
//! a hundred are kept, so that who warmed what, when, and what came of it can be asked.

mod api;
mod file;
mod job;
mod metrics;
mod order;
mod pace;
mod record;
mod run;
mod show;
mod sitemap;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use crate::edge::LiveEdge;
use crate::rules::time::Millis;
use crate::telemetry::Clock;
pub(super) use api::{cancel, create, list, show, urls};
use file::Files;
use job::{By, Job};
use metrics::Counters;
pub use metrics::WarmMetrics;
use record::{Outcome, Spec, State};

/// Jobs that are kept; the oldest that are over are forgotten.
const MAX_JOBS: usize = 100;
/// Jobs that are not over.
const MAX_UNFINISHED: usize = 32;
/// Jobs that run at once.
const MAX_RUNNING: usize = 4;
/// Requests under way, of all jobs.
const MAX_REQUESTS: usize = 64;
/// Memory for all jobs.
const MAX_BYTES: u64 = 96 << 20;

/// Why a job is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Full {
    #[error("{MAX_UNFINISHED} warm jobs wait or run already; wait for one, or cancel one")]
    Jobs,
    #[error("another process takes over; ask again")]
    Leaving,
    #[error("the warm jobs that wait or run are too large together; wait for one, or cancel one")]
    Bytes,
}

/// The warm jobs of a node.
#[derive(Debug)]
pub struct Warmups {
    edge: Arc<LiveEdge>,
    clock: Clock,
    /// The oldest first. Held for a moment.
    jobs: Mutex<Vec<Arc<Job>>>,
    /// Where they outlive the process; `None`: nothing of this node does.
    files: Option<Files>,
    news: Notify,
    /// Turns of the requests of all jobs.
    requests: Arc<Semaphore>,
    /// One sitemap is read at a time.
    sitemaps: Semaphore,
    counters: Counters,
    /// Whether another process may have them.
    is_paused: watch::Sender<bool>,
    /// Held while jobs run.
    running: tokio::sync::Mutex<()>,
}

impl Warmups {
    /// The jobs of a node; those of earlier processes where there is a directory to keep them in.
    pub fn open(edge: Arc<LiveEdge>, clock: Clock, store: Option<&Path>) -> Arc<Self> {
        let files = store.map(Files::new);
        let jobs = files.as_ref().map(Files::load).unwrap_or_default();
        Arc::new(Self {
            edge,
            clock,
            jobs: Mutex::new(jobs.into_iter().map(Arc::new).collect()),
            files,
            news: Notify::new(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            sitemaps: Semaphore::new(1),
            counters: Counters::default(),
            is_paused: watch::Sender::new(false),
            running: tokio::sync::Mutex::default(),
        })
    }

    /// Takes a job on; written down when this is back, if that is possible.
    ///
    /// # Errors
    /// There are too many.
    async fn add(&self, mut spec: Spec) -> Result<Arc<Job>, Full> {
        if *self.is_paused.borrow() {
            return Err(Full::Leaving);
        }
        let forgotten = {
            let mut jobs = self.jobs.lock();
            spec.seq = jobs.last().map_or(0, |job| job.spec.seq) + 1;
            spec.id = format!("{}-{:08x}", spec.seq, random());
            make_room(&mut jobs, spec.weight())?
        };
        for job in forgotten {
            self.on_files(move |files| files.remove(&job.spec.id)).await;
        }
        let kept = spec.clone();
        let is_durable = self.on_files(move |files| files.create(&kept)).await;
        if *self.is_paused.borrow() {
            // If the other process has found it already, the warming is done twice.
            self.on_files(move |files| files.remove(&spec.id)).await;
            return Err(Full::Leaving);
        }
        tracing::info!(
            job = spec.id, who = spec.who, from = ?spec.from, urls = spec.urls.len(), is_durable, "a warm job"
        );
        let job = Arc::new(Job::new(spec));
        let mut jobs = self.jobs.lock();
        jobs.push(job.clone());
        // Another one may have been taken on meanwhile.
        jobs.sort_by_key(|job| job.spec.seq);
        drop(jobs);
        self.news.notify_one();
        Ok(job)
    }

    /// Ends a job; false: it was over.
    async fn end(self: &Arc<Self>, job: &Arc<Job>, by: By) -> bool {
        let is_news = job.end(self.clock.now(), by);
        if is_news && job.state() == State::Cancelled && job.spec.hold_secs.is_some() {
            tokio::spawn(self.clone().end_holds(job.spec.seq));
        }
        if is_news {
            self.write_down(job).await;
            let progress = job.progress.lock();
            let [failed, done] = [progress.count(Outcome::Failed), progress.done()];
            let by = progress.ended_by.as_ref().map(|(by, _)| by);
            tracing::info!(
                job = job.spec.id,
                state = progress.state.as_str(),
                done,
                failed,
                ?by,
                "a warm job ended"
            );
        }
        is_news
    }

    /// Ends what a job holds that is done; false: it is not, or holds nothing.
    async fn release(self: &Arc<Self>, job: &Arc<Job>, by: By) -> bool {
        let is_news = job.release(self.clock.now(), by);
        if is_news {
            tokio::spawn(self.clone().end_holds(job.spec.seq));
            self.write_down(job).await;
            tracing::info!(job = job.spec.id, "what a warm job held is released");
        }
        is_news
    }

    fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.jobs.lock().iter().find(|job| job.spec.id == id).cloned()
    }

    /// The newest first, older than `after`.
    fn list(&self, after: Option<u64>) -> Vec<Arc<Job>> {
        let jobs = self.jobs.lock();
        let is_after = |job: &&Arc<Job>| after.is_none_or(|after| job.spec.seq < after);
        jobs.iter().rev().filter(is_after).cloned().collect()
    }

    /// How many wait and run.
    pub(super) fn unfinished(&self) -> (usize, usize) {
        let jobs = self.jobs.lock();
        let count = |state| jobs.iter().filter(|job| job.state() == state).count();
        (count(State::Queued), count(State::Running))
    }

    async fn write_down(&self, job: &Arc<Job>) {
        let lines = job.take_unwritten();
        if lines.is_empty() {
            return;
        }
        let (id, is_last) = (job.spec.id.clone(), job.state().is_over());
        self.on_files(move |files| files.append(&id, &lines, is_last)).await;
    }

    /// Works on the files, on a thread that may wait for them; whether that succeeded.
    async fn on_files(&self, work: impl FnOnce(&Files) -> std::io::Result<()> + Send + 'static) -> bool {
        let Some(files) = self.files.clone() else { return false };
        let worked = tokio::task::spawn_blocking(move || work(&files)).await;
        match worked {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a warm job can't be written down: it is forgotten by a restart");
                false
            }
            Err(_) => false,
        }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}

/// Forgets the oldest jobs that are over until one more has room.
fn make_room(jobs: &mut Vec<Arc<Job>>, bytes: u64) -> Result<Vec<Arc<Job>>, Full> {
    let weight = |jobs: &[Arc<Job>]| jobs.iter().map(|job| job.spec.weight()).sum::<u64>();
    let unfinished: Vec<_> = jobs.iter().filter(|job| !job.state().is_over()).cloned().collect();
    if unfinished.len() >= MAX_UNFINISHED {
        return Err(Full::Jobs);
    }
    if weight(&unfinished) + bytes > MAX_BYTES {
        return Err(Full::Bytes);
    }
    let mut forgotten = Vec::new();
    while jobs.len() >= MAX_JOBS || weight(jobs) + bytes > MAX_BYTES {
        match jobs.iter().position(|job| job.state().is_over()) {
            Some(index) => forgotten.push(jobs.remove(index)),
            None => break,
        }
    }
    Ok(forgotten)
}

/// So that an id says nothing of others.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::job::tests::spec;
    use super::*;

    fn job(seq: u64, is_over: bool) -> Arc<Job> {
        let job = Job::new(Spec { seq, ..spec(1, &["br"]) });
        if is_over {
            job.end(Millis(0), None);
        }
        Arc::new(job)
    }

    #[test]
    fn the_oldest_that_are_over_are_forgotten() {
        let mut jobs: Vec<_> = (0..MAX_JOBS as u64).map(|seq| job(seq, seq > 2)).collect();
        let forgotten = make_room(&mut jobs, 1).unwrap();
        assert_eq!(forgotten.iter().map(|job| job.spec.seq).collect::<Vec<_>>(), [3]);
        let mut jobs: Vec<_> = (0..MAX_UNFINISHED as u64).map(|seq| job(seq, false)).collect();
        assert!(matches!(make_room(&mut jobs, 1), Err(Full::Jobs)));
        jobs.pop();
        assert!(matches!(make_room(&mut jobs, MAX_BYTES), Err(Full::Bytes)));
        assert!(make_room(&mut jobs, 1).unwrap().is_empty());
    }

    #[test]
    fn what_a_job_holds_is_released_once_when_it_is_done_and_for_good() {
        let by = || Some(("somebody".to_owned(), None));
        let job = Job::new(Spec { hold_secs: Some(60), ..spec(1, &["br"]) });
        assert!(job.start(Millis(7)) && !job.release(Millis(8), by()), "it is not done");
        assert!(job.end(Millis(9), None));
        assert_eq!(job.held_until(), Some(Millis(60_007)));
        assert!(!job.release(Millis(60_007), by()), "its time is over");
        assert!(job.release(Millis(10), by()) && !job.release(Millis(10), by()));
        let again = Job::new(job.spec.clone());
        for line in job.take_unwritten().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            again.replay(serde_json::from_slice(line).unwrap());
        }
        for job in [job, again] {
            assert_eq!((job.state(), job.held_until()), (State::Done, None));
            assert_eq!(job.progress.lock().ended_by, by());
        }
        let none = Job::new(spec(1, &["br"]));
        assert!(none.start(Millis(7)) && none.end(Millis(9), None) && !none.release(Millis(10), by()));
    }
}
