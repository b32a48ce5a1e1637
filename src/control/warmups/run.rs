//! Running jobs: their requests, evenly paced, a few at a time, each tried again when the origin fails.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::job::Job;
use super::pace::Pace;
use super::record::{Outcome, Reply, State};
use super::{MAX_RUNNING, Warmups};
use crate::edge::{Hold, Warm, Warmed};

/// How often a request is tried.
const ATTEMPTS: u8 = 4;
/// Before the second attempt; then twice as long each time.
const BACKOFF: Duration = Duration::from_millis(500);
/// Longer than any wait within a request together; what takes this long hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// Between two writes of what happened.
const WRITE_EVERY: Duration = Duration::from_millis(250);
/// Between two looks at what is held.
const HOLDS_EVERY: Duration = Duration::from_secs(5);
/// And of the time that a look took, so many times as much.
const HOLDS_REST: u32 = 20;
const USER_AGENT: &str = concat!("larder-warm/", env!("CARGO_PKG_VERSION"));

impl Warmups {
    /// Runs the jobs, for as long as the node runs. What an earlier process held is held again first.
    pub async fn run(self: Arc<Self>) {
        tokio::spawn(self.clone().look_after_holds());
        let mut paused = self.is_paused.subscribe();
        loop {
            if paused.wait_for(|is_paused| !is_paused).await.is_err() {
                return;
            }
            let _running = self.running.lock().await;
            let mut jobs = JoinSet::new();
            tokio::select! {
                biased;
                _ = paused.wait_for(|is_paused| *is_paused) => {}
                () = self.run_jobs(&mut jobs) => {}
            }
            jobs.shutdown().await;
            let stopped: Vec<_> = self.jobs.lock().iter().filter(|job| job.stop()).cloned().collect();
            for job in stopped {
                self.write_down(&job).await;
            }
        }
    }

    /// Stops the jobs, and writes down how far they are: another process goes on with them.
    pub async fn pause(&self) {
        self.is_paused.send_replace(true);
        drop(self.running.lock().await);
    }

    /// Goes on with the jobs.
    pub fn resume(&self) {
        self.is_paused.send_replace(false);
    }

    async fn run_jobs(self: &Arc<Self>, running: &mut JoinSet<()>) {
        loop {
            while running.len() < MAX_RUNNING
                && let Some(job) = self.next()
            {
                running.spawn(self.clone().work(job));
            }
            tokio::select! {
                () = self.news.notified() => {}
                Some(_) = running.join_next() => {}
            }
        }
    }

    /// Begins the job that waits longest.
    fn next(&self) -> Option<Arc<Job>> {
        let jobs = self.jobs.lock();
        let mut queued = jobs.iter().filter(|job| job.state() == State::Queued);
        queued.find(|job| job.start(self.now())).cloned()
    }

    async fn work(self: Arc<Self>, job: Arc<Job>) {
        let all = self.request_all(&job);
        let mut ticks = interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let written = async {
            loop {
                ticks.tick().await;
                self.write_down(&job).await;
            }
        };
        tokio::select! {
            () = all => {
                // None is left, unless its task died.
                for n in job.todo() {
                    self.count(job.answered(n, Reply::new(Warmed::failed("the node failed at it", None), 1)));
                }
            }
            () = written => {}
            () = job.over() => {}
        }
        self.end(&job, None).await;
    }

    async fn request_all(self: &Arc<Self>, job: &Arc<Job>) {
        let pace = Arc::new(Pace::new(job.spec.rate));
        let mut todo = job.todo().into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < job.spec.concurrency
                && let Some(n) = todo.next()
            {
                let Ok(turn) = self.requests.clone().acquire_owned().await else { return };
                pace.turn().await;
                let (warmups, job, pace) = (self.clone(), job.clone(), pace.clone());
                running.spawn(async move {
                    let reply = warmups.request(&job, n, &pace).await;
                    warmups.count(job.answered(n, reply));
                    drop(turn);
                });
                while running.try_join_next().is_some() {}
            }
            if running.join_next().await.is_none() {
                return;
            }
        }
    }

    fn count(&self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.counters.count(outcome);
        }
    }

    async fn request(&self, job: &Job, n: usize, pace: &Pace) -> Reply {
        let mut backoff = BACKOFF;
        for attempt in 1.. {
            let as_of = self.edge.current().last_purge();
            let limited = tokio::time::timeout(REQUEST_TIMEOUT, self.request_once(job, n, as_of));
            let warmed =
                limited.await.unwrap_or_else(|_| Warmed::failed("it took longer than an hour", None));
            match warmed.retry_after {
                Some(after) if attempt < ATTEMPTS => {
                    sleep(backoff.max(after)).await;
                    backoff *= 2;
                    pace.turn().await;
                }
                _ => {
                    let held_as_of = job.spec.hold_secs.map(|_| as_of);
                    return Reply { held_as_of, ..Reply::new(warmed, attempt) };
                }
            }
        }
        Reply::new(Warmed::failed("it was not tried", None), 0)
    }

    async fn request_once(&self, job: &Job, n: usize, as_of: u64) -> Warmed {
        let Some((url, encoding, fields)) = job.request(n) else {
            return Warmed::failed("there is no such request", None);
        };
        let warming = match self.edge.current().warming(url, fields_of(encoding, fields)) {
            Ok(warming) => warming,
            Err(error) => return Warmed::failed(error.to_string(), None),
        };
        // Held before it is there, so that it is not evicted on its arrival.
        let until = job.held_until();
        let hold = |until| Hold { until, job: job.spec.seq, as_of };
        let has_hold = until.is_none_or(|until| self.edge.current().hold(warming.key(), hold(until)));
        let mut warmed = self.edge.current().warm(&warming, job.spec.seq, job.spec.refresh).await;
        if until.is_some() && matches!(warmed.outcome, Warm::Stored | Warm::Fresh) {
            let looked = self.edge.current().look_at_hold(warming.key()).await;
            warmed.reason = match looked {
                _ if !has_hold => Some("not held: there are too many holds".into()),
                Ok(()) => None,
                Err(why) => Some(format!("not held: {why}").into()),
            };
        }
        warmed
    }

    /// Holds what was held before the process started; and looks at all that is held when there were purges, since what
    /// they hit is to be held no longer, and nobody else may come upon it.
    async fn look_after_holds(self: Arc<Self>) {
        let mut looked_at = None;
        loop {
            let (last, began) = (Some(self.edge.current().last_purge()), Instant::now());
            if looked_at != last {
                self.hold_again(true).await;
                looked_at = last;
            }
            // However much is held and however often something is purged, most of the time nothing is looked at.
            sleep(HOLDS_EVERY.max(began.elapsed() * HOLDS_REST)).await;
        }
    }

    /// Ends what a job holds, and no other one does.
    pub(super) async fn end_holds(self: Arc<Self>, job: u64) {
        self.edge.current().disown(job);
        self.hold_again(false).await;
        self.edge.current().release_disowned();
    }

    /// Holds what jobs hold, each URL as when it was held first; and has the store look at it, which charges the hold.
    async fn hold_again(&self, is_looked_at: bool) {
        for job in self.list(None) {
            let Some(until) = job.held_until().filter(|until| self.now() < *until) else { continue };
            for index in 0..job.spec.urls.len() {
                let Some((url, encoding, fields)) = job.request(index * job.spec.fold()) else { continue };
                let as_of = job.held_as_of(index).unwrap_or_else(|| self.edge.current().last_purge());
                let hold = Hold { until, job: job.spec.seq, as_of };
                if let Ok(warming) = self.edge.current().warming(url, fields_of(encoding, fields))
                    && self.edge.current().hold(warming.key(), hold)
                    && is_looked_at
                {
                    let _ = self.edge.current().look_at_hold(warming.key()).await;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The fields of a request: what a client would send that takes this encoding.
pub(super) fn fields_of(encoding: &str, fields: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if let Ok(encoding) = HeaderValue::try_from(encoding) {
        headers.insert(header::ACCEPT_ENCODING, encoding);
    }
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}
