//! Which worker this thread is: the slot of everything that is kept per worker.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

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

/// The processor time of all workers so far.
pub fn cpu_time() -> Duration {
    THREADS.lock().iter().filter_map(|thread| cpu_time_of(*thread)).sum()
}

/// In nanoseconds by the scheduler where it counts them, else in clock ticks.
fn cpu_time_of(thread: i32) -> Option<Duration> {
    if let Ok(text) = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")) {
        return Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?));
    }
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // proc(5): what follows the name in parentheses begins with field 3; these are fields 14 and 15.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(14 - 3);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
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
