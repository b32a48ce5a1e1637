//! Which worker this thread is: the slot of everything that is kept per worker.

use std::cell::Cell;
use std::fs;

use parking_lot::Mutex;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// The kernel's numbers of the worker threads.
static THREADS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Marks this thread as worker `index` (from 0). Called once, when the thread starts.
pub fn enter(index: usize) {
    SLOT.with(|slot| slot.set(index + 1));
    THREADS.lock().push(rustix::thread::gettid().as_raw_nonzero().get());
}

/// How often a worker has waited for the disk because of a page that was not in memory.
pub fn major_faults() -> u64 {
    THREADS.lock().iter().filter_map(|thread| major_faults_of(*thread)).sum()
}

fn major_faults_of(thread: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // proc(5): what follows the name in parentheses begins with field 3; this is field 12.
    stat.rsplit_once(") ")?.1.split(' ').nth(12 - 3)?.parse().ok()
}

/// 0 for every thread that is not a worker, else the worker's index + 1.
#[inline]
pub fn slot() -> usize {
    SLOT.with(Cell::get)
}
