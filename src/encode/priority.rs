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
