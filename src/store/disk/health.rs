//! Is the disk tier well? What fails is counted, said once, and has a defined effect.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;

/// So many errors in a row, and the tier is no longer written to, or read from.
const ERRORS_IN_A_ROW: u32 = 5;
/// How long a tier that could not be written to is left alone before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No space left on the device.
    Full,
    /// Another error of a write.
    Write,
    /// An error of a read.
    Read,
    /// Bytes that are not what was written.
    Checksum,
    /// A file that is shorter than it was.
    Truncated,
    /// A segment, or a part of one, that was given up at the start.
    Damaged,
}

impl Fault {
    pub(super) const ALL: [Self; 6] =
        [Self::Full, Self::Write, Self::Read, Self::Checksum, Self::Truncated, Self::Damaged];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Write => "write",
            Self::Read => "read",
            Self::Checksum => "checksum",
            Self::Truncated => "truncated",
            Self::Damaged => "damaged",
        }
    }
}

/// What the tier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Ok,
    /// It answers and takes nothing in.
    ReadOnly,
    /// Nothing.
    Off,
}

impl Mode {
    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ReadOnly => "read-only",
            Self::Off => "off",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Health {
    mode: AtomicU8,
    failed_writes: AtomicU32,
    failed_reads: AtomicU32,
    faults: [AtomicU64; Fault::ALL.len()],
    /// Why, and since when, it is not written to.
    trouble: Mutex<Option<(String, Instant)>>,
    /// Whether it is not written to because there is no space.
    is_full: AtomicBool,
}

impl Health {
    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Relaxed) {
            0 => Mode::Ok,
            1 => Mode::ReadOnly,
            _ => Mode::Off,
        }
    }

    /// Why it is not well.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().as_ref().map(|(why, _)| why.clone())
    }

    /// How often something failed.
    pub(super) fn count(&self, fault: Fault) -> u64 {
        self.faults[fault as usize].load(Relaxed)
    }

    /// Counts a fault that has been dealt with.
    pub(super) fn note(&self, fault: Fault) {
        self.faults[fault as usize].fetch_add(1, Relaxed);
    }

    /// A write, a sync, or the making of a segment.
    pub(super) fn wrote(&self, result: &io::Result<()>) {
        let Err(error) = result else {
            self.failed_writes.store(0, Relaxed);
            return;
        };
        let is_full = is_full(error);
        self.note(if is_full { Fault::Full } else { Fault::Write });
        let failed = self.failed_writes.fetch_add(1, Relaxed) + 1;
        if is_full || is_read_only(error) || failed >= ERRORS_IN_A_ROW {
            self.is_full.store(is_full, Relaxed);
            self.degrade(Mode::ReadOnly, &format!("can't be written to: {error}"));
        } else {
            tracing::warn!(%error, "a write to the disk tier failed; the response is not stored");
        }
    }

    /// A read.
    pub(super) fn read(&self, result: &io::Result<()>) {
        let Err(error) = result else {
            self.failed_reads.store(0, Relaxed);
            return;
        };
        if error.kind() == io::ErrorKind::UnexpectedEof {
            // That is one file's fault, not the disk's.
            self.note(Fault::Truncated);
            tracing::warn!(
                "a stored response lies behind the end of its segment's file; it is fetched again"
            );
            return;
        }
        self.note(Fault::Read);
        tracing::warn!(%error, "a read from the disk tier failed; the response is fetched again");
        if self.failed_reads.fetch_add(1, Relaxed) + 1 >= ERRORS_IN_A_ROW {
            self.degrade(Mode::Off, &format!("can't be read: {error}"));
        }
    }

    /// Turns the tier down; it is said once.
    pub(super) fn degrade(&self, mode: Mode, why: &str) {
        *self.trouble.lock() = Some((why.to_owned(), Instant::now()));
        if self.mode.fetch_max(mode as u8, Relaxed) < mode as u8 {
            let mode = mode.as_str();
            tracing::error!("the disk tier is {mode}: it {why}; the node goes on without it");
        }
    }

    /// Whether writing is to be tried again.
    pub(super) fn is_retry_due(&self) -> bool {
        self.mode() == Mode::ReadOnly
            && self.trouble.lock().as_ref().is_none_or(|(_, since)| since.elapsed() >= RETRY_AFTER)
    }

    /// Whether it is read-only for want of space.
    pub(super) fn is_full(&self) -> bool {
        self.mode() == Mode::ReadOnly && self.is_full.load(Relaxed)
    }

    /// A tier that is written to again.
    pub(super) fn recover(&self) {
        let read_only = Mode::ReadOnly as u8;
        if self.mode.compare_exchange(read_only, Mode::Ok as u8, Relaxed, Relaxed).is_ok() {
            *self.trouble.lock() = None;
            self.failed_writes.store(0, Relaxed);
            tracing::info!("the disk tier is written to again");
        }
    }
}

/// Whether an error says that there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(errno: Errno) -> io::Result<()> {
        Err(errno.into())
    }

    #[test]
    fn five_failed_writes_in_a_row_make_it_read_only() {
        let health = Health::default();
        for _ in 0..4 {
            health.wrote(&failure(Errno::IO));
        }
        health.wrote(&Ok(()));
        health.wrote(&failure(Errno::IO));
        assert_eq!(health.mode(), Mode::Ok);
        for _ in 0..4 {
            health.wrote(&failure(Errno::IO));
        }
        assert_eq!((health.mode(), health.count(Fault::Write)), (Mode::ReadOnly, 9));
        health.recover();
        assert_eq!((health.mode(), health.trouble()), (Mode::Ok, None));
    }

    #[test]
    fn a_full_disk_and_a_read_only_mount_need_no_second_try() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
            let health = Health::default();
            health.wrote(&failure(errno));
            assert_eq!(health.mode(), Mode::ReadOnly);
            assert!(!health.is_retry_due(), "not at once");
        }
    }

    #[test]
    fn five_failed_reads_in_a_row_turn_it_off_for_good() {
        let health = Health::default();
        for _ in 0..5 {
            health.read(&failure(Errno::IO));
        }
        health.recover();
        assert_eq!(health.mode(), Mode::Off);
        assert!(health.trouble().unwrap().starts_with("can't be read"));
    }
}
