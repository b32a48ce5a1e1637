//! What the kernel says of a process.

use std::fs;

/// A field of `/proc/PID/status` in KiB.
pub fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Bytes that the process has asked to read so far, from the page cache or the disk.
pub fn read_bytes() -> u64 {
    count("/proc/self/io", "rchar: ")
}

/// Major faults so far of the threads whose name begins with `name`.
pub fn major_faults(pid: u32, name: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let of = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (thread, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        thread.starts_with(name).then(|| rest.split(' ').nth(9)?.parse::<u64>().ok()).flatten()
    };
    tasks.flatten().filter_map(of).sum()
}

/// Takes a file's pages out of the page cache, those that no process has mapped; the disk has them first.
pub fn drop_pages(path: &std::path::Path) {
    let file = fs::File::open(path).expect("a segment");
    file.sync_all().expect("synced");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("dropped");
}

/// Bytes that the process has had read from the disk so far.
pub fn disk_read_bytes(pid: u32) -> u64 {
    count(&format!("/proc/{pid}/io"), "read_bytes: ")
}

fn count(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).expect("its counts");
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|n| n.parse().ok()).expect("a count")
}
