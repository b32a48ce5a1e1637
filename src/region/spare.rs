//! The next memory file in huge pages, ready before it is needed.
//!
//! A hit that `sendfile` answers from them takes a sixth to a fifth less CPU time (`benches/README.md`). The kernel takes
//! milliseconds to put one together, which nobody who serves or fills should wait for, and can't do so any more when somebody
//! reads from it. So a thread makes a file ready, and when that is taken the next one. Who finds none ready does without.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Arena, HUGE_PAGE_BYTES};

/// See the module. `C` is what the file that is ready takes of a budget; nothing is charged where none can be made.
#[derive(Debug)]
pub struct Spare<C>(Arc<Mutex<Inner<C>>>);

#[derive(Debug)]
struct Inner<C> {
    state: State,
    charge: Option<C>,
    name: &'static str,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Underway,
    Ready(File),
}

impl<C> Spare<C> {
    /// Files of this name; none until they are to be [kept ready](Spare::keep).
    pub fn new(name: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Inner { state: State::Nothing, charge: None, name })))
    }
}

impl<C: Send + 'static> Spare<C> {
    /// Begins to keep a file of `len` bytes ready, and each time that it is taken another. No huge page fits into a smaller one.
    pub fn keep(&self, len: u64, charge: C) {
        if len >= HUGE_PAGE_BYTES {
            self.0.lock().charge = Some(charge);
            self.prepare(len);
        }
    }

    /// The file of `len` zeros, if it is ready; then the next one is begun.
    pub fn take(&self, len: u64) -> Option<File> {
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

    /// Whether one is ready; else it is begun, where one can be made.
    pub fn is_ready(&self, len: u64) -> bool {
        self.prepare(len);
        matches!(self.0.lock().state, State::Ready(_))
    }

    fn prepare(&self, len: u64) {
        let mut inner = self.0.lock();
        if inner.charge.is_none() || !matches!(inner.state, State::Nothing) {
            return;
        }
        let (shared, name) = (self.0.clone(), inner.name);
        let make = move || {
            let made = ready_file(name, len);
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

/// A file of `len` zeros that is nowhere but in memory. The name is for who looks at the process's mappings.
pub fn memory_file(name: &str, len: u64) -> io::Result<File> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.set_len(len)?;
    Ok(file)
}

/// A memory file in huge pages. It fails with `InvalidInput` where there are none.
fn ready_file(name: &str, len: u64) -> io::Result<File> {
    let file = memory_file(name, len)?;
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

    /// How many clones of the charge there are tells whether it is kept.
    fn kept(len: u64) -> (Spare<Arc<()>>, Arc<()>) {
        let (spare, charge) = (Spare::new("test"), Arc::default());
        spare.keep(len, Arc::clone(&charge));
        (spare, charge)
    }

    fn take(spare: &Spare<Arc<()>>, len: u64) -> Option<File> {
        let until = Instant::now() + Duration::from_secs(30);
        while matches!(spare.0.lock().state, State::Underway) {
            assert!(Instant::now() < until, "it is never ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        spare.take(len)
    }

    #[test]
    fn one_file_after_the_other_is_ready_and_reads_as_zeros() {
        let (spare, charge) = kept(LENGTH);
        let Some(first) = take(&spare, LENGTH) else {
            // Without huge pages none is made, and nothing charged for it.
            assert_eq!(Arc::strong_count(&charge) == 1, spare.0.lock().charge.is_none());
            return;
        };
        first.write_all_at(b"x", 5).unwrap();
        if let Some(second) = take(&spare, LENGTH) {
            let mut bytes = vec![1; LENGTH as usize];
            second.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
            assert_eq!(second.metadata().unwrap().len(), LENGTH);
        }
        assert_eq!(Arc::strong_count(&charge), 2, "for the one that is ready, not those that were taken");
    }

    #[test]
    fn a_file_of_another_length_is_never_given() {
        let (spare, _) = kept(LENGTH);
        assert!(take(&spare, 2 * LENGTH).is_none());
        let (spare, charge) = kept(HUGE_PAGE_BYTES - 1);
        assert!(
            spare.take(HUGE_PAGE_BYTES - 1).is_none() && Arc::strong_count(&charge) == 1,
            "nothing to gain"
        );
        assert!(Spare::<()>::new("test").take(LENGTH).is_none(), "none was asked for");
    }
}
