//! Starts it all: reads the log into the matcher and the history, and starts the thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::file::{Directory, Disk};
use super::format::Record;
use super::history::{History, Tail};
use super::log::{self, Log};
use super::matcher::{Gap, Matcher};
use super::metrics::{Counters, Metrics};
use super::selector::Request;
use super::writer::{Reopen, Writer, show_id};
use super::{Config, OpenError, Purge, Purges, QUEUE_UNITS, Shared};
use crate::rules::time::Millis;
use crate::telemetry::Clock;

impl Purges {
    /// Opens the log of a directory, or makes one. A torn tail is cut; a damaged log is set aside, and everything counts as
    /// purged then ([`super::Stats::damaged`]).
    pub fn open(config: Config, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let path = config.path.as_ref().map(|path| path.join(log::NAME)).unwrap_or_default();
        let disk: Option<Arc<dyn Disk>> = match &config.path {
            None => None,
            Some(directory) => {
                let directory = Directory::new(directory)
                    .map_err(|source| OpenError::Io { path: directory.clone(), source })?;
                Some(Arc::new(directory))
            }
        };
        Self::on(disk, path, config.history, clock)
    }

    pub(super) fn on(
        disk: Option<Arc<dyn Disk>>,
        path: PathBuf,
        history: usize,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenError> {
        let now_us = clock.now().0.max(0) as u64 * 1000;
        let counters: Arc<Counters> = Arc::default();
        let mut loaded = Loaded { matcher: Matcher::new(), tail: Tail::new(history) };
        let (mut log, mut damaged) = (None, None);
        match &disk {
            None => loaded.matcher.add_gap(Gap { from: 0, until: now_us }),
            Some(disk) => {
                (log, damaged) = loaded.read(disk, &path, now_us, &counters)?;
            }
        }
        let shared = Arc::new(Shared {
            history: loaded.tail.into_history(history),
            matcher: loaded.matcher,
            metrics: Metrics::new(),
            counters,
            pending_bytes: AtomicU64::new(log.as_ref().map_or(0, |log| log.pending_bytes() as u64)),
        });
        let reopen = reopen(disk.clone(), path.clone(), shared.clone(), clock);
        let failed = |source: io::Error| OpenError::Io { path, source };
        let (ops, queue) = mpsc::channel();
        let writer = match Writer::new(shared.clone(), log, clock) {
            Ok(writer) => writer,
            Err(error) => return Err(failed(error)),
        };
        let thread = thread::Builder::new().name("larder-purge".into());
        let thread = thread.spawn(move || writer.run(&queue, &reopen));
        Ok(Arc::new(Self {
            shared,
            disk,
            damaged,
            ops,
            room: Arc::new(Semaphore::new(QUEUE_UNITS)),
            compacting: Mutex::new(()),
            thread: Some(thread.map_err(failed)?),
        }))
    }
}

/// For a log that another process may have had. It made no purges: nobody was told of it. All that it can have
/// written is the gap of its start, behind which numbers go on.
fn reopen(disk: Option<Arc<dyn Disk>>, path: PathBuf, shared: Arc<Shared>, clock: Clock) -> Reopen {
    Box::new(move || {
        let Some(disk) = &disk else { return Ok(None) };
        let now_us = clock.now().0.max(0) as u64 * 1000;
        let counters = shared.counters.clone();
        let opened = log::open(disk.clone(), &path, now_us, counters, number_of).map_err(io::Error::other)?;
        Ok(Some((opened.log, opened.gap.until)))
    })
}

fn number_of(record: &[u8]) -> Option<u64> {
    match Record::<Request<&str>>::decode(record).ok()? {
        Record::Purge { seq, .. } => Some(seq),
        Record::Gap { until, .. } => Some(until),
    }
}

/// What the log said.
struct Loaded {
    matcher: Matcher,
    tail: Tail,
}

impl Loaded {
    fn read(
        &mut self,
        disk: &Arc<dyn Disk>,
        path: &Path,
        now_us: u64,
        counters: &Arc<Counters>,
    ) -> Result<(Option<Log>, Option<String>), OpenError> {
        let visit = |record: &[u8]| self.visit(record);
        let opened = log::open(disk.clone(), path, now_us, counters.clone(), visit)?;
        self.matcher.add_gap(opened.gap);
        if let Some(aside) = &opened.damaged {
            let path = path.display();
            tracing::error!(%path, aside, "the log of purges is damaged and was set aside: everything is purged");
        }
        Ok((Some(opened.log), opened.damaged))
    }

    fn visit(&mut self, record: &[u8]) -> Option<u64> {
        match Record::<Request<&str>>::decode(record).ok()? {
            Record::Purge { seq, at, request, .. } => {
                if seq > self.matcher.floor() {
                    self.matcher.apply((seq, Millis(at)), &request.selectors, request.site, request.soft);
                }
                self.matcher.set_applied(seq);
                self.tail.push(record);
                Some(seq)
            }
            Record::Gap { from, until } => {
                self.matcher.add_gap(Gap { from, until });
                Some(until)
            }
        }
    }
}

impl Tail {
    fn into_history(self, max: usize) -> History {
        let history = History::new(max);
        for record in self.into_records() {
            if let Ok(Record::Purge { seq, id, at, request }) = Record::<Request>::decode(&record) {
                let (id, at) = (show_id(id), Millis(at));
                history.push(Arc::new(Purge { seq, id, at, request, applied_in_us: None }));
            }
        }
        history
    }
}
