//! Makes system calls of a running process fail, where strace is installed and allowed.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::process::Process;
use super::{PATIENCE, holds_within};

/// The calls fail as long as this lives.
pub struct Failing(Child);

impl Failing {
    /// Has these calls (a list as strace takes it) fail with an error. `None`, with a word on stderr, where that can't be.
    pub fn calls(process: &Process, calls: &str, error: &str) -> Option<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={calls}"));
        strace.arg("-e").arg(format!("inject={calls}:error={error}"));
        strace.arg("-p").arg(process.pid().to_string()).stderr(Stdio::null());
        let Ok(child) = strace.spawn() else {
            eprintln!("skipped: strace is not installed");
            return None;
        };
        let mut failing = Self(child);
        let is_attached = holds_within(PATIENCE, || is_traced(process.pid()) || failing.has_ended());
        if !is_attached || failing.has_ended() {
            eprintln!("skipped: strace may not attach here");
            return None;
        }
        Some(failing)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

/// Whether every thread is traced.
fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    })
}

impl Drop for Failing {
    fn drop(&mut self) {
        // It lets the process go on as it was.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        drop(self.0.wait());
    }
}
