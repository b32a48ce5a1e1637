//! The next segment in memory, ready before it is needed.
//!
//! In huge pages: a hit that `sendfile` answers from them takes a sixth to a fifth less CPU time (`benches/README.md`). The
//! kernel takes milliseconds to put one together, which no fill should wait for, and can't do so any more when somebody reads
//! from it. So a thread makes a file ready, and when that is taken the next one. One that is not ready in time is missed by
//! nobody: the file that is made instead has small pages.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::io::memory_file;
use crate::object::Charge;
use crate::region::{Arena, HUGE_PAGE_BYTES};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spare(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// What a file that is ready takes of the memory budget.
    charge: Option<Charge>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Underway,
    Ready(File),
}

impl Spare {
    /// Begins to keep a file of `len` bytes ready, and each time that it is taken another. No huge page fits into a smaller one.
    pub(super) fn keep(&self, len: u64, charge: Charge) {
        if len >= HUGE_PAGE_BYTES {
            self.0.lock().charge = Some(charge);
            self.prepare(len);
        }
    }

    /// The file of `len` zeros, if it is ready; then the next one is begun.
    pub(super) fn take(&self, len: u64) -> Option<File> {
        let mut inner = self.0.lock();
        if matches!(inner.state, State::Underway) {
            return None;
        }
        let ready = match std::mem::take(&mut inner.state) {
            State::Ready(file) => Some(file),
            State::Nothing | State::Underway => None,
        };
        drop(inner);
        self.prepare(len);
        ready.filter(|file| file.metadata().is_ok_and(|found| found.len() == len))
    }

    fn prepare(&self, len: u64) {
        let mut inner = self.0.lock();
        if inner.charge.is_none() || !matches!(inner.state, State::Nothing) {
            return;
        }
        let shared = self.0.clone();
        let make = move || {
            let made = ready_file(len);
            let mut inner = shared.lock();
            inner.state = State::Nothing;
            match made {
                Ok(file) => inner.state = State::Ready(file),
                // There are none, and never will be.
                Err(error) if error.kind() == ErrorKind::InvalidInput => inner.charge = None,
                Err(_) => {}
            }
        };
        if std::thread::Builder::new().name("larder-spare".into()).spawn(make).is_ok() {
            inner.state = State::Underway;
        }
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
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use super::*;

    const LENGTH: u64 = 3 * HUGE_PAGE_BYTES / 2;

    fn kept(len: u64) -> (Spare, Arc<AtomicU64>) {
        let (spare, gauge) = (Spare::default(), Arc::default());
        spare.keep(len, Charge::new(&gauge, len));
        (spare, gauge)
    }

    fn take(spare: &Spare, len: u64) -> Option<File> {
        let until = Instant::now() + Duration::from_secs(30);
        while matches!(spare.0.lock().state, State::Underway) {
            assert!(Instant::now() < until, "it is never ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        spare.take(len)
    }

    #[test]
    fn one_file_after_the_other_is_ready_and_reads_as_zeros() {
        let (spare, gauge) = kept(LENGTH);
        let Some(first) = take(&spare, LENGTH) else {
            // Without huge pages none is made, and nothing charged for it.
            assert_eq!(gauge.load(Relaxed) == 0, spare.0.lock().charge.is_none());
            return;
        };
        first.write_all_at(b"x", 5).unwrap();
        if let Some(second) = take(&spare, LENGTH) {
            let mut bytes = vec![1; LENGTH as usize];
            second.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
            assert_eq!(second.metadata().unwrap().len(), LENGTH);
        }
        assert_eq!(gauge.load(Relaxed), LENGTH, "for the one that is ready, not those that were taken");
    }

    #[test]
    fn a_file_of_another_length_is_never_given() {
        let (spare, _) = kept(LENGTH);
        assert!(take(&spare, 2 * LENGTH).is_none());
        let (spare, gauge) = kept(HUGE_PAGE_BYTES - 1);
        assert!(spare.take(HUGE_PAGE_BYTES - 1).is_none() && gauge.load(Relaxed) == 0, "nothing to gain");
        assert!(Spare::default().take(LENGTH).is_none(), "none was asked for");
    }
}
