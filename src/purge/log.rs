//! The durable order: appends frames to the file, and opens it again.
//!
//! What could not be written or synced stays in memory and is written again, at the same place, before anything else is:
//! after a sync that failed the kernel takes the pages for clean, and the next sync would succeed without them. So the
//! file never has a hole, and a purge that was not durable becomes so with the next one that is.
//!
//! **Numbers.** A process numbers its purges one by one, from the time of its start in microseconds (or a little above the
//! log's last number, if that is later; a random part keeps apart two that begin with the same log). It can't have made
//! more purges than microseconds passed. The numbers between are a gap, and the gap is written down: whatever of an
//! earlier process did not reach the log, an object that noted it is in the gap. A log that is new begins at the time
//! too, above every number of one that was lost, and the gap before it goes down to 0.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::OpenError;
use super::file::{Disk, LogFile};
use super::format::{self, Bad, HEADER_BYTES, Record, Sum, is_purge, put_frame, read_header};
use super::matcher::Gap;
use super::metrics::Counters;
use super::reader::{Ending, Reader};
use super::selector::Request;

/// The log.
pub(super) const NAME: &str = "purge.log";
/// One that is being written and will replace it.
pub(super) const NEW_NAME: &str = "purge.log.new";

/// So much is allocated ahead at least, so that a full disk can't block a purge.
const AHEAD: u64 = 1 << 20;
/// Allocated at once.
const STEP: u64 = 4 << 20;
/// What waits to be written again. If it were more, it is replaced by a gap: everything older counts as purged then.
const MAX_PENDING: usize = 64 << 20;
/// Above the log's last number, where the clock is not: before it was set back, the process before can hardly have lost
/// more purges than that.
const STRIDE: u64 = 10_000;

/// See the module. One thread has it.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    file: Arc<dyn LogFile>,
    number: u64,
    /// All before is on the medium.
    end: u64,
    /// Of the last frame there.
    sum: Sum,
    /// Frames that are not.
    pending: Vec<u8>,
    pending_sum: Sum,
    pending_records: u64,
    /// There may be something between what is pending and here that has to be zeros.
    scratched_until: u64,
    allocated: u64,
    names_are_synced: bool,
    counters: Arc<Counters>,
}

/// Where a part of the log ends, for who reads it beside the one thread.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) number: u64,
    pub(super) end: u64,
    pub(super) sum: Sum,
}

/// What opening found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) log: Log,
    /// Purges are numbered after its end.
    pub(super) gap: Gap,
    /// Where what could not be read was set aside.
    pub(super) damaged: Option<String>,
}

/// Opens the log of a directory, or makes one. All that can be read is given to `visit`, which says whether it understood;
/// `last` is the largest number it has seen.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    path: &Path,
    now_us: u64,
    counters: Arc<Counters>,
    mut visit: impl FnMut(&[u8]) -> Option<u64>,
) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    disk.remove(NEW_NAME).map_err(failed)?;
    let mut last = 0;
    let mut read = |record: &[u8]| visit(record).map(|seq| last = last.max(seq)).is_some();
    let found = match disk.open(NAME).map_err(failed)? {
        None => Found::Nothing,
        Some(file) => match recover(&disk, file, &counters, &mut read) {
            Ok(found) => found,
            Err(Recovery::Format(found)) => {
                return Err(OpenError::OtherFormat { path: path.to_owned(), found });
            }
            Err(Recovery::Io(source)) => return Err(failed(source)),
        },
    };
    let from = if last == 0 { 0 } else { last + 1 };
    let random = u64::from(getrandom::u32().unwrap_or_default());
    let until = now_us.max(last + STRIDE + random % STRIDE);
    match found {
        Found::Log(mut log) => {
            let gap = Gap { from, until };
            // If it can't be written it is the first of what waits to be written again.
            let _ = log.append(&[encode_gap(gap)], until);
            log.allocate_ahead();
            Ok(Opened { log: *log, gap, damaged: None })
        }
        Found::Nothing | Found::Damaged => {
            let damaged = matches!(found, Found::Damaged).then(|| format!("{NAME}.damaged-{until}"));
            if let Some(aside) = &damaged {
                disk.rename(NAME, aside).map_err(failed)?;
            }
            let gap = Gap { from: 0, until };
            let log = begin(disk, gap, counters).map_err(failed)?;
            Ok(Opened { log, gap, damaged })
        }
    }
}

enum Found {
    Nothing,
    Damaged,
    Log(Box<Log>),
}

enum Recovery {
    Format(u32),
    Io(io::Error),
}

fn recover(
    disk: &Arc<dyn Disk>,
    file: Arc<dyn LogFile>,
    counters: &Arc<Counters>,
    read: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Found, Recovery> {
    let len = file.len().map_err(Recovery::Io)?;
    let mut header = [0; HEADER_BYTES];
    if len < HEADER_BYTES as u64 || file.read_at(&mut header, 0).is_err() {
        return Ok(Found::Damaged);
    }
    let (number, sum) = match read_header(&header) {
        Ok(found) => found,
        Err(Bad::Format(found)) => return Err(Recovery::Format(found)),
        Err(_) => return Ok(Found::Damaged),
    };
    let mut records = 0;
    let mut counted = |record: &[u8]| {
        records += u64::from(is_purge(record));
        read(record)
    };
    let walk = Reader::new(&*file, number, len).walk((HEADER_BYTES as u64, sum), &mut counted);
    // What the medium does not give back is damage, too.
    let Ok(walk) = walk else { return Ok(Found::Damaged) };
    if walk.ending == Ending::Damaged {
        return Ok(Found::Damaged);
    }
    let mut log = Log::at(disk.clone(), file, (number, walk.sum), counters.clone());
    (log.end, log.allocated) = (walk.end, len);
    counters.entries.store(records, Relaxed);
    if walk.ending == Ending::Torn {
        log.scratched_until = len;
        log.flush().map_err(Recovery::Io)?;
    }
    Ok(Found::Log(Box::new(log)))
}

/// A log with a gap in the place of one that is lost or was never there.
fn begin(disk: Arc<dyn Disk>, gap: Gap, counters: Arc<Counters>) -> io::Result<Log> {
    let mut log = Log::create(disk, counters)?;
    log.append(&[encode_gap(gap)], gap.until)?;
    log.take_over()?;
    if log.names_are_synced { Ok(log) } else { Err(io::Error::other("the directory can't be synced")) }
}

/// As a record.
pub(super) fn encode_gap(Gap { from, until }: Gap) -> Vec<u8> {
    // Two numbers can be encoded.
    Record::<&Request>::Gap { from, until }.encode().unwrap_or_default()
}

impl Log {
    fn at(
        disk: Arc<dyn Disk>,
        file: Arc<dyn LogFile>,
        (number, sum): (u64, Sum),
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            disk,
            file,
            number,
            end: HEADER_BYTES as u64,
            sum,
            pending: Vec::new(),
            pending_sum: sum,
            pending_records: 0,
            scratched_until: 0,
            allocated: 0,
            names_are_synced: true,
            counters,
        }
    }

    /// An empty one beside the one there is; see [`Self::take_over`].
    pub(super) fn create(disk: Arc<dyn Disk>, counters: Arc<Counters>) -> io::Result<Self> {
        let number = getrandom::u64().map_err(io::Error::other)?;
        let file = disk.create(NEW_NAME)?;
        file.allocate(STEP)?;
        let (header, sum) = format::header(number);
        file.write_at(&header, 0)?;
        file.sync()?;
        let mut log = Self::at(disk, file, (number, sum), counters);
        log.allocated = STEP;
        Ok(log)
    }

    /// Puts this log in the place of the one there is.
    pub(super) fn take_over(&mut self) -> io::Result<()> {
        self.disk.rename(NEW_NAME, NAME)?;
        // After a failure it is unknown which of the two a loss of power would leave.
        self.names_are_synced = self.disk.sync().is_ok();
        Ok(())
    }

    /// Makes records durable as one frame. On an error they stay to be written again; the last of them has number `last`.
    pub(super) fn append(&mut self, records: &[Vec<u8>], last: u64) -> io::Result<()> {
        self.push(records);
        if self.pending.len() > MAX_PENDING {
            self.give_up(last);
        }
        self.flush()
    }

    /// As [`Self::append`], but not yet.
    pub(super) fn push(&mut self, records: &[Vec<u8>]) {
        let place = (self.number, self.end + self.pending.len() as u64);
        self.pending_sum = put_frame(&mut self.pending, records, place, &self.pending_sum);
        self.pending_records += records.iter().filter(|record| is_purge(record)).count() as u64;
    }

    /// Nothing could be written for long: what waits is replaced by a gap that goes down to 0.
    fn give_up(&mut self, last: u64) {
        self.pending = Vec::new();
        (self.pending_sum, self.pending_records) = (self.sum, 0);
        self.push(&[encode_gap(Gap { from: 0, until: last })]);
    }

    /// Whether something waits to be written again.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty() || !self.names_are_synced
    }

    /// Bytes that wait to be written.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Makes durable what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let started = Instant::now();
        let result = self.try_flush();
        self.counters.synced(started.elapsed(), result.is_ok());
        self.counters.bytes.store(self.end, Relaxed);
        result
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let until = self.end + self.pending.len() as u64;
        if until > self.allocated {
            self.allocate(until);
        }
        let scratched = self.scratched_until;
        self.scratched_until = scratched.max(until);
        self.file.write_at(&self.pending, self.end)?;
        if scratched > until {
            self.file.write_at(&vec![0; (scratched - until) as usize], until)?;
        }
        self.file.sync()?;
        self.end = until;
        self.sum = self.pending_sum;
        self.scratched_until = 0;
        self.counters.entries.fetch_add(self.pending_records, Relaxed);
        self.pending_records = 0;
        self.pending.clear();
        // One long frame need not be paid for ever after.
        self.pending.shrink_to(AHEAD as usize);
        if !self.names_are_synced {
            self.disk.sync()?;
            self.names_are_synced = true;
        }
        Ok(())
    }

    /// Room for what comes, while nobody waits for it.
    pub(super) fn allocate_ahead(&mut self) {
        let until = self.end + self.pending.len() as u64;
        if until + AHEAD > self.allocated {
            self.allocate(until + AHEAD);
        }
    }

    /// A failure shows, if it matters, when the file is written.
    fn allocate(&mut self, until: u64) {
        let wanted = until.next_multiple_of(STEP);
        match self.file.allocate(wanted) {
            Ok(()) => self.allocated = wanted,
            Err(error) => {
                self.counters.failed_allocations.fetch_add(1, Relaxed);
                tracing::warn!(%error, "no room is left for the log of purges");
            }
        }
    }

    /// For [`Self::adopt`]: what is durable so far.
    pub(super) fn mark(&self) -> Mark {
        Mark { file: self.file.clone(), number: self.number, end: self.end, sum: self.sum }
    }

    /// Goes on in another log, made of what was before `mark`, after what was written since.
    pub(super) fn adopt(&mut self, mut new: Self, mark: &Mark) -> io::Result<()> {
        if self.is_behind() || self.number != mark.number {
            return Err(io::Error::other("the log of purges can't be written"));
        }
        let mut records = Vec::new();
        let mut keep = |record: &[u8]| {
            records.push(record.to_vec());
            true
        };
        let walk = Reader::new(&*self.file, self.number, self.end).walk((mark.end, mark.sum), &mut keep)?;
        if walk.end != self.end {
            return Err(io::Error::other("the log of purges can't be read"));
        }
        if !records.is_empty() {
            new.push(&records);
            new.flush()?;
        }
        new.allocate_ahead();
        new.take_over()?;
        let counted = std::mem::replace(&mut new.counters, self.counters.clone());
        *self = new;
        self.counters.entries.store(counted.entries.load(Relaxed), Relaxed);
        self.counters.bytes.store(self.end, Relaxed);
        Ok(())
    }

    /// Says that nothing was lost at the end: damage to the last frame can then be told from a torn one.
    pub(super) fn close(&mut self) {
        self.push(&[]);
        let _ = self.flush();
    }
}
