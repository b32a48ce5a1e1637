//! The one thread that orders purges: it numbers what waits, makes it durable with one sync, applies it, and answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::format::{ID_BYTES, Record};
use super::log::{Log, Mark, encode_gap};
use super::matcher::Gap;
use super::selector::Request;
use super::{Purge, PurgeError, Shared};
use crate::rules::time::Millis;
use crate::telemetry::Clock;

/// What could not be written is tried again so often when no purge comes.
const RETRY: Duration = Duration::from_secs(1);
/// A group takes no more requests from here on.
const GROUP_BYTES: usize = 16 << 20;

/// Opens the log again, unless nothing outlives the process; gives the last number in it.
pub(super) type Reopen = Box<dyn Fn() -> io::Result<Option<(Log, u64)>> + Send>;

/// A purge that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) since: Instant,
    pub(super) bytes: usize,
    /// Its place in the queue; given back when it is answered.
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) answer: oneshot::Sender<Result<Arc<Purge>, PurgeError>>,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Op {
    Purge(Box<Job>),
    /// Say what is durable so far.
    Mark(SyncSender<Option<Mark>>),
    /// Go on in a new log, and drop what is below the floor.
    Adopt {
        new: Option<(Box<Log>, Mark)>,
        floor: u64,
        answer: SyncSender<io::Result<()>>,
    },
    Close(oneshot::Sender<()>),
    /// Close the log and hold purges back until the other.
    Pause(oneshot::Sender<()>),
    /// Open it again.
    Resume(oneshot::Sender<io::Result<()>>),
}

/// See the module.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// `None`: nothing outlives the process.
    log: Option<Log>,
    clock: Clock,
    /// The last number given.
    seq: u64,
    /// What ids are made from.
    secret: [u8; 32],
    /// Another process may have the log: what came since.
    held: Option<Vec<Job>>,
    /// It has not any more, and the log could not be opened yet.
    is_taking_back: bool,
}

struct Numbered {
    seq: u64,
    id: [u8; ID_BYTES],
    at: Millis,
    job: Job,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Option<Log>, clock: Clock) -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Self {
            seq: shared.matcher.applied(),
            shared,
            log,
            clock,
            secret,
            held: None,
            is_taking_back: false,
        })
    }

    /// Works until it is told to close. `reopen` opens the log again, and gives its last number.
    pub(super) fn run(mut self, ops: &Receiver<Op>, reopen: &Reopen) {
        let mut next = None;
        loop {
            let op = match next.take() {
                Some(op) => Ok(op),
                None => ops.recv_timeout(RETRY),
            };
            match op {
                Ok(Op::Purge(job)) if self.held.is_some() => self.hold(*job),
                Ok(Op::Purge(job)) => {
                    let group;
                    (group, next) = gather(*job, ops);
                    self.commit(group);
                }
                Ok(Op::Mark(answer)) => {
                    let _ = answer.send(self.log.as_ref().map(Log::mark));
                }
                Ok(Op::Adopt { new, floor, answer }) => {
                    let _ = answer.send(self.adopt(new, floor));
                }
                Ok(Op::Pause(answer)) => {
                    self.pause();
                    let _ = answer.send(());
                }
                Ok(Op::Resume(answer)) => {
                    let _ = answer.send(self.resume(reopen));
                }
                Ok(Op::Close(answer)) => {
                    self.close();
                    let _ = answer.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) if self.is_taking_back => {
                    let _ = self.resume(reopen);
                }
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                Err(RecvTimeoutError::Disconnected) => return self.close(),
            }
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let at = self.clock.now();
        let numbered: Vec<Numbered> = group.into_iter().map(|job| self.number(job, at)).collect();
        let records: Vec<Vec<u8>> = numbered.iter().map(Numbered::encode).collect();
        let is_durable = self.append(&records);
        let mut answers = Vec::with_capacity(numbered.len());
        for Numbered { seq, id, at, job } in numbered {
            let Job { request, since, permit, answer, .. } = job;
            let matcher = &self.shared.matcher;
            matcher.apply((seq, at), &request.selectors, request.site.as_deref(), request.soft);
            matcher.set_applied(seq);
            let us = since.elapsed().as_micros() as u64;
            self.shared.metrics.applied(&request, us);
            let purge = Arc::new(Purge { seq, id: show_id(id), at, request, applied_in_us: Some(us) });
            self.shared.history.push(purge.clone());
            answers.push((purge, answer, permit));
        }
        for (purge, answer, permit) in answers {
            drop(permit);
            // Who asked may be gone; the purge stands.
            let _ = answer.send(if is_durable { Ok(purge) } else { Err(PurgeError::NotDurable(purge)) });
        }
        if let Some(log) = &mut self.log {
            log.allocate_ahead();
        }
    }

    fn number(&mut self, job: Job, at: Millis) -> Numbered {
        self.seq += 1;
        let mut id = [0; ID_BYTES];
        let hash = blake3::keyed_hash(&self.secret, &self.seq.to_le_bytes());
        id.copy_from_slice(&hash.as_bytes()[..ID_BYTES]);
        Numbered { seq: self.seq, id, at, job }
    }

    fn append(&mut self, records: &[Vec<u8>]) -> bool {
        self.note_loss();
        let Some(log) = &mut self.log else { return true };
        let was_behind = log.is_behind();
        let result = log.append(records, self.seq);
        self.shared.pending_bytes.store(log.pending_bytes() as u64, Relaxed);
        match &result {
            Ok(()) if was_behind => tracing::info!("purges are durable again"),
            Ok(()) => {}
            Err(error) => {
                let seq = self.seq;
                tracing::error!(%error, seq, "a purge is in effect, but would not survive a restart");
            }
        }
        result.is_ok()
    }

    /// What a check found out is written down, for the next process.
    fn note_loss(&mut self) {
        let Some(floor) = self.shared.matcher.take_loss() else { return };
        tracing::error!("an object is newer than the log of purges, which was lost: everything is purged");
        if let Some(log) = &mut self.log {
            log.push(&[encode_gap(Gap { from: 0, until: floor })]);
        }
    }

    fn look_after(&mut self) {
        self.note_loss();
        let Some(log) = self.log.as_mut().filter(|log| log.is_behind()) else { return };
        match log.flush() {
            Ok(()) => tracing::info!("purges are durable again"),
            Err(error) => tracing::debug!(%error, "the log of purges still can't be written"),
        }
        self.shared.pending_bytes.store(log.pending_bytes() as u64, Relaxed);
    }

    fn pause(&mut self) {
        self.close();
        self.log = None;
        self.held = Some(Vec::new());
    }

    /// The room in the queue bounds how many these are.
    fn hold(&mut self, job: Job) {
        self.held.get_or_insert_default().push(job);
    }

    fn resume(&mut self, reopen: &Reopen) -> io::Result<()> {
        self.is_taking_back = true;
        let reopened = reopen()?;
        self.is_taking_back = false;
        if let Some((log, last)) = reopened {
            self.log = Some(log);
            self.seq = self.seq.max(last);
        }
        if let Some(held) = self.held.take().filter(|held| !held.is_empty()) {
            self.commit(held);
        }
        Ok(())
    }

    fn adopt(&mut self, new: Option<(Box<Log>, Mark)>, floor: u64) -> io::Result<()> {
        if let (Some(log), Some((new, mark))) = (&mut self.log, new) {
            log.adopt(*new, &mark)?;
        }
        self.shared.matcher.drop_below(floor);
        Ok(())
    }

    fn close(&mut self) {
        self.note_loss();
        if let Some(log) = &mut self.log {
            log.close();
        }
    }
}

impl Numbered {
    fn encode(&self) -> Vec<u8> {
        let Self { seq, id, at, job } = self;
        let record = Record::Purge { seq: *seq, id: *id, at: at.0, request: &job.request };
        // What can't be written down counts as a purge of everything.
        record.encode().unwrap_or_else(|_| encode_gap(Gap { from: 0, until: *seq }))
    }
}

/// All that waits, up to a size; and what came after it, if that is no purge.
fn gather(first: Job, ops: &Receiver<Op>) -> (Vec<Job>, Option<Op>) {
    let mut bytes = first.bytes;
    let mut group = vec![first];
    while bytes < GROUP_BYTES {
        match ops.try_recv() {
            Ok(Op::Purge(job)) => {
                bytes += job.bytes;
                group.push(*job);
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

/// Of a number of the log.
pub(super) fn show_id(id: [u8; ID_BYTES]) -> Box<str> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * ID_BYTES);
    for byte in id {
        let _ = write!(text, "{byte:02x}");
    }
    text.into_boxed_str()
}
