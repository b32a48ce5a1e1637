//! The lowest priority there is, for threads whose work can wait.

#![allow(unsafe_code, reason = "no safe wrapper of sched_setscheduler is among the dependencies")]

use libc::{SCHED_IDLE, SYS_sched_setscheduler, c_int, syscall};

/// Where there is no class of idle threads.
const NICE: i32 = 19;

/// Has this thread run only where no other one wants to.
///
/// Being nice is not enough: a thread that wakes up to serve may have to wait for a nice one to come to the end of its slice;
/// one of the idle class gives way at once.
pub(super) fn give_way() {
    // On Linux this is the thread's own.
    let _ = rustix::process::nice(NICE);
    // All of the kernel's `sched_param`.
    let priority: c_int = 0;
    // By its number, since musl's function does nothing.
    // SAFETY: the call reads `priority`, which outlives it, and changes nothing but this thread's class.
    let outcome = unsafe { syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &raw const priority) };
    if outcome != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "encoding is only nice, not idle");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_no_other_one_does() {
        /// Niceness and class: fields 19 and 41 of proc(5).
        fn of_this_thread() -> (String, String) {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            (fields[16].to_owned(), fields[38].to_owned())
        }
        let before = of_this_thread();
        let given_way = std::thread::spawn(|| {
            give_way();
            of_this_thread()
        });
        assert_eq!(given_way.join().unwrap(), (NICE.to_string(), SCHED_IDLE.to_string()));
        assert_eq!(of_this_thread(), before);
    }
}
