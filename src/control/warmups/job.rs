//! A warm job: what was asked for, how far it is, and what came of each URL.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::record::{Event, Outcome, Reply, Spec, State};
use crate::rules::time::Millis;
use crate::telemetry::rfc3339;

/// Over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// Between two marks of the window.
const MARK_EVERY: Duration = Duration::from_millis(250);

/// A URL, an encoding, and a set of fields.
pub(super) type Asked<'a> = (&'a str, &'a str, &'a [(String, String)]);

/// Who ended it before its time.
pub(super) type By = Option<(String, Option<IpAddr>)>;

#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: State,
    pub(super) replies: Vec<Option<Reply>>,
    pub(super) requests: usize,
    pub(super) failed_requests: usize,
    /// URLs all of whose requests are answered, by outcome.
    pub(super) urls: [usize; 4],
    pub(super) bytes: u64,
    pub(super) started: Option<Millis>,
    pub(super) ended: Option<Millis>,
    /// Who ended it before its time, or released what it held when it was done.
    pub(super) ended_by: By,
    /// Whether what it held is held no longer.
    is_released: bool,
    /// How long it ran in earlier processes.
    ran: Duration,
    /// Since when it runs.
    runs_since: Option<Instant>,
    marks: VecDeque<(Instant, usize)>,
    /// What is not written down yet.
    unwritten: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Spec,
    pub(super) progress: Mutex<Progress>,
    cancelled: watch::Sender<bool>,
}

impl Job {
    pub(super) fn new(spec: Spec) -> Self {
        let progress = Progress {
            state: State::Queued,
            replies: vec![None; spec.urls.len() * spec.fold()],
            requests: 0,
            failed_requests: 0,
            urls: [0; 4],
            bytes: 0,
            started: None,
            ended: None,
            ended_by: None,
            is_released: false,
            ran: Duration::ZERO,
            runs_since: None,
            marks: VecDeque::new(),
            unwritten: Vec::new(),
        };
        Self { spec, progress: Mutex::new(progress), cancelled: watch::Sender::new(false) }
    }

    /// Takes back what was written down of it.
    pub(super) fn replay(&self, event: Event) {
        let progress = &mut *self.progress.lock();
        match event {
            Event::Started { at } => progress.started = Some(Millis(at)),
            Event::Reply { n, t, reply } => {
                progress.ran = Duration::from_millis(t);
                progress.take(&self.spec, n, reply);
            }
            Event::Ended { at, state, by, from } => {
                progress.state = state;
                progress.ended = Some(Millis(at));
                progress.ended_by = by.map(|by| (by, from));
                progress.is_released = state == State::Cancelled;
            }
            Event::Released { by, from } => {
                progress.ended_by = Some((by, from));
                progress.is_released = true;
            }
        }
    }

    /// Begins, or goes on; false: it was cancelled.
    pub(super) fn start(&self, now: Millis) -> bool {
        let progress = &mut *self.progress.lock();
        if progress.state.is_over() {
            return false;
        }
        progress.state = State::Running;
        progress.runs_since = Some(Instant::now());
        if progress.started.is_none() {
            progress.started = Some(now);
            progress.write(&Event::Started { at: now.0 });
        }
        true
    }

    /// Waits again, for the process that goes on with it; false: it did not run.
    pub(super) fn stop(&self) -> bool {
        let progress = &mut *self.progress.lock();
        if progress.state != State::Running {
            return false;
        }
        progress.ran = progress.ran();
        progress.runs_since = None;
        progress.state = State::Queued;
        true
    }

    /// Notes an answer; gives the URL's outcome, when that was the last of its requests.
    pub(super) fn answered(&self, n: usize, reply: Reply) -> Option<Outcome> {
        let progress = &mut *self.progress.lock();
        if progress.state.is_over() || progress.replies.get(n).is_none_or(Option::is_some) {
            return None;
        }
        let t = progress.ran().as_millis() as u64;
        let event = Event::Reply { n, t, reply };
        progress.write(&event);
        let Event::Reply { reply, .. } = event else { return None };
        let outcome = progress.take(&self.spec, n, reply);
        progress.mark();
        outcome
    }

    /// Ends it; false: it was over.
    pub(super) fn end(&self, now: Millis, by: By) -> bool {
        let progress = &mut *self.progress.lock();
        if progress.state.is_over() {
            return false;
        }
        progress.state = if by.is_some() { State::Cancelled } else { State::Done };
        progress.ran = progress.ran();
        progress.runs_since = None;
        progress.ended = Some(now);
        let (name, from) = by.clone().map_or((None, None), |(name, from)| (Some(name), from));
        progress.write(&Event::Ended { at: now.0, state: progress.state, by: name, from });
        progress.ended_by = by;
        progress.is_released = progress.state == State::Cancelled;
        self.cancelled.send_replace(true);
        true
    }

    /// Of a job that is done: what it holds is held no longer; false: it holds nothing.
    pub(super) fn release(&self, now: Millis, by: By) -> bool {
        let holds = self.held_until().is_some_and(|until| now < until);
        let progress = &mut *self.progress.lock();
        if !holds || progress.is_released || progress.state != State::Done {
            return false;
        }
        progress.is_released = true;
        if let Some((by, from)) = by.clone() {
            progress.write(&Event::Released { by, from });
        }
        progress.ended_by = by;
        true
    }

    /// Ends when the job is over.
    pub(super) async fn over(&self) {
        // The sender lives as long as the job.
        let _ = self.cancelled.subscribe().wait_for(|is_over| *is_over).await;
    }

    pub(super) fn state(&self) -> State {
        self.progress.lock().state
    }

    /// Requests that have no answer yet.
    pub(super) fn todo(&self) -> Vec<usize> {
        let progress = self.progress.lock();
        (0..progress.replies.len()).filter(|n| progress.replies[*n].is_none()).collect()
    }

    /// What request `n` asks for: the URL, the encoding, the header set.
    pub(super) fn request(&self, n: usize) -> Option<Asked<'_>> {
        let spec = &self.spec;
        let (url, rest) = (n / spec.fold(), n % spec.fold());
        let (encoding, headers) = (rest / spec.headers.len(), rest % spec.headers.len());
        Some((spec.urls.get(url)?, spec.encodings.get(encoding)?, spec.headers.get(headers)?))
    }

    /// Until when what it stores is held; `None`: it is not, or not any more, since it was cancelled.
    pub(super) fn held_until(&self) -> Option<Millis> {
        let progress = self.progress.lock();
        let started = progress.started.filter(|_| !progress.is_released)?;
        drop(progress);
        let secs = self.spec.hold_secs?;
        Some(started.saturating_add(secs.saturating_mul(1000) as i64))
    }

    /// The last purge that was applied when a URL was held; `None`: it is not held yet.
    pub(super) fn held_as_of(&self, url: usize) -> Option<u64> {
        let (fold, progress) = (self.spec.fold(), self.progress.lock());
        let replies = progress.replies.get(url * fold..(url + 1) * fold)?;
        replies.iter().flatten().filter_map(|reply| reply.held_as_of).max()
    }

    /// Takes what is to be written down.
    pub(super) fn take_unwritten(&self) -> Vec<u8> {
        std::mem::take(&mut self.progress.lock().unwritten)
    }
}

impl Progress {
    /// Outcome of a URL; `None`: some of its requests are not answered.
    pub(super) fn outcome(&self, spec: &Spec, url: usize) -> Option<Outcome> {
        let replies = &self.replies[url * spec.fold()..(url + 1) * spec.fold()];
        let mut worst = Outcome::Fresh;
        for reply in replies {
            worst = worst.max(reply.as_ref()?.outcome);
        }
        Some(worst)
    }

    /// URLs that are answered.
    pub(super) fn done(&self) -> usize {
        self.urls.iter().sum()
    }

    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.urls[outcome as usize]
    }

    /// How long it ran.
    pub(super) fn ran(&self) -> Duration {
        self.ran + self.runs_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Requests a second: lately, or of the whole when it is over.
    pub(super) fn rate(&self) -> f64 {
        let since = match self.marks.front() {
            Some((at, before)) if !self.state.is_over() => (at.elapsed(), self.requests - before),
            _ => (self.ran(), self.requests),
        };
        let (time, requests) = since;
        if time.is_zero() { 0.0 } else { requests as f64 / time.as_secs_f64() }
    }

    /// Until it is done, at the rate of late.
    pub(super) fn seconds_left(&self, limit: f64) -> u64 {
        if self.state.is_over() {
            return 0;
        }
        let left = (self.replies.len() - self.requests) as f64;
        let measured = self.rate();
        let is_known = self.marks.front().is_some_and(|(at, _)| at.elapsed() > Duration::from_secs(1));
        let rate = if is_known && measured > 0.0 { measured.min(limit) } else { limit };
        (left / rate).ceil() as u64
    }

    fn take(&mut self, spec: &Spec, n: usize, reply: Reply) -> Option<Outcome> {
        let place = self.replies.get_mut(n).filter(|place| place.is_none())?;
        self.requests += 1;
        self.failed_requests += usize::from(reply.outcome == Outcome::Failed);
        self.bytes += reply.bytes;
        *place = Some(reply);
        let outcome = self.outcome(spec, n / spec.fold())?;
        self.urls[outcome as usize] += 1;
        Some(outcome)
    }

    fn mark(&mut self) {
        let now = Instant::now();
        if self.marks.back().is_none_or(|(at, _)| now - *at >= MARK_EVERY) {
            self.marks.push_back((now, self.requests));
        }
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.marks.pop_front();
        }
    }

    fn write(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_vec(event) {
            self.unwritten.extend_from_slice(&line);
            self.unwritten.push(b'\n');
        }
    }
}

/// For the log.
pub(super) fn shown(time: Option<Millis>) -> Option<String> {
    time.map(rfc3339)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn spec(urls: usize, encodings: &[&str]) -> Spec {
        Spec {
            seq: 1,
            id: "1".into(),
            site: None,
            sites: vec!["shop".into()],
            sitemap: None,
            encodings: encodings.iter().map(ToString::to_string).collect(),
            headers: vec![Vec::new()],
            rate: 10.0,
            concurrency: 2,
            refresh: false,
            hold_secs: None,
            who: "test".into(),
            from: None,
            source: "api".into(),
            created_ms: 5,
            urls: (0..urls).map(|n| format!("http://a.example/{n}").into()).collect(),
        }
    }

    pub(in super::super) fn reply(outcome: Outcome) -> Reply {
        Reply { outcome, status: 200, attempts: 1, coding: None, bytes: 10, reason: None, held_as_of: None }
    }

    #[test]
    fn a_urls_outcome_is_its_worst_requests() {
        let job = Job::new(spec(2, &["br", "gzip", "identity"]));
        assert!(job.start(Millis(1)));
        assert_eq!(job.answered(0, reply(Outcome::Stored)), None);
        assert_eq!(job.answered(2, reply(Outcome::Fresh)), None);
        assert_eq!(job.progress.lock().done(), 0);
        assert_eq!(job.answered(1, reply(Outcome::Fresh)), Some(Outcome::Stored));
        assert_eq!(job.answered(1, reply(Outcome::Failed)), None, "an answer is taken once");
        for n in [3, 4] {
            job.answered(n, reply(Outcome::Stored));
        }
        assert_eq!(job.answered(5, reply(Outcome::Failed)), Some(Outcome::Failed));
        let progress = job.progress.lock();
        assert_eq!((progress.done(), progress.requests, progress.failed_requests), (2, 6, 1));
        assert_eq!((progress.count(Outcome::Stored), progress.count(Outcome::Failed)), (1, 1));
        assert_eq!(progress.bytes, 60);
    }

    #[test]
    fn what_was_written_down_makes_the_same_job() {
        let job = Job::new(spec(3, &["br"]));
        job.start(Millis(7));
        job.answered(0, reply(Outcome::Stored));
        job.answered(2, reply(Outcome::Uncacheable));
        let again = Job::new(job.spec.clone());
        for line in job.take_unwritten().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            again.replay(serde_json::from_slice(line).unwrap());
        }
        assert_eq!(again.todo(), [1]);
        assert_eq!(again.state(), State::Queued);
        assert_eq!(again.progress.lock().started, Some(Millis(7)));
        assert!(job.end(Millis(9), None) && !job.end(Millis(9), None));
        for line in job.take_unwritten().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            again.replay(serde_json::from_slice(line).unwrap());
        }
        assert_eq!(again.state(), State::Done);
        assert!(!again.start(Millis(10)), "what is over stays so");
    }

    #[test]
    fn requests_are_numbered_by_url_then_encoding_then_headers() {
        let mut spec = spec(2, &["br", "gzip"]);
        spec.headers = vec![Vec::new(), vec![("accept".into(), "image/avif".into())]];
        let job = Job::new(spec);
        let (url, encoding, headers) = job.request(6).unwrap();
        assert_eq!((url, encoding, headers.len()), ("http://a.example/1", "gzip", 0));
        assert_eq!(job.request(7).unwrap().2.len(), 1);
        assert!(job.request(8).is_none());
    }
}
