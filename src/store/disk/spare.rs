//! The next segment in memory, ready before it is needed.
//!
//! In huge pages: a hit that `sendfile` answers from them takes a fifth less CPU time at 100 KiB, and as much at 1 MiB. The
//! kernel takes milliseconds to put one together, which no fill should wait for, and can't do so any more when somebody reads
//! from it. So a thread makes a file ready, and when that is taken the next one. One that is not ready in time is missed by
//! nobody: the file that is made instead has small pages.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::io::memory_file;
use crate::region::{Arena, HUGE_PAGE_BYTES};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spare(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Underway,
    Ready(File),
    /// The kernel has no huge pages for us.
    Never,
}

impl Spare {
    /// Begins to make a file of `len` bytes ready; whether there will be one. No huge page fits into a smaller one.
    pub(super) fn prepare(&self, len: u64) -> bool {
        if len < HUGE_PAGE_BYTES {
            return false;
        }
        let mut state = self.0.lock();
        if !matches!(*state, State::Nothing) {
            return !matches!(*state, State::Never);
        }
        let shared = self.0.clone();
        let make = move || {
            let made = ready_file(len);
            *shared.lock() = match made {
                Ok(file) => State::Ready(file),
                Err(error) if error.kind() == ErrorKind::InvalidInput => State::Never,
                Err(_) => State::Nothing,
            };
        };
        let is_underway = std::thread::Builder::new().name("larder-spare".into()).spawn(make).is_ok();
        if is_underway {
            *state = State::Underway;
        }
        is_underway
    }

    /// The file of `len` zeros, if it is ready; then the next one is begun.
    pub(super) fn take(&self, len: u64) -> Option<File> {
        let is_that = |file: &File| file.metadata().is_ok_and(|found| found.len() == len);
        let file = match &mut *self.0.lock() {
            state @ State::Ready(_) => match std::mem::take(state) {
                State::Ready(file) => Some(file).filter(is_that),
                _ => None,
            },
            _ => None,
        };
        self.prepare(len);
        file
    }
}

/// A memory file in huge pages. It fails with `InvalidInput` where there are none.
fn ready_file(len: u64) -> io::Result<File> {
    let file = memory_file(len)?;
    for begin in (0..len).step_by(HUGE_PAGE_BYTES as usize) {
        file.write_all_at(&[0], begin)?;
    }
    Arena::reserve(1, len)?.map(file.try_clone()?, len)?.collapse()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const LENGTH: u64 = 3 * HUGE_PAGE_BYTES / 2;

    fn take(spare: &Spare) -> Option<File> {
        let until = Instant::now() + Duration::from_secs(30);
        while matches!(*spare.0.lock(), State::Underway) {
            assert!(Instant::now() < until, "it is never ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        spare.take(LENGTH)
    }

    #[test]
    fn one_file_after_the_other_is_ready_and_reads_as_zeros() {
        let spare = Spare::default();
        assert!(spare.take(LENGTH).is_none(), "nobody waits for it");
        let Some(first) = take(&spare) else {
            assert!(!spare.prepare(LENGTH), "without huge pages none is promised");
            return;
        };
        first.write_all_at(b"x", 5).unwrap();
        let second = take(&spare).unwrap();
        let mut bytes = vec![1; LENGTH as usize];
        second.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(second.metadata().unwrap().len(), LENGTH);
    }

    #[test]
    fn a_file_of_another_length_is_never_given() {
        let spare = Spare::default();
        spare.prepare(LENGTH);
        while matches!(*spare.0.lock(), State::Underway) {
            std::thread::yield_now();
        }
        assert!(spare.take(2 * LENGTH).is_none());
        assert!(!Spare::default().prepare(HUGE_PAGE_BYTES - 1), "nothing to gain");
    }
}
