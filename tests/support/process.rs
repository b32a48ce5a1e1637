//! The program under test as a process: where it is, how it is started, signalled and measured.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use super::lock;

/// `LARDER_BIN`, else the binary that cargo built beside the tests.
pub fn binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_larder").map(PathBuf::from);
    std::env::var_os("LARDER_BIN")
        .map(PathBuf::from)
        .or(built)
        .expect("LARDER_BIN, or a binary built by cargo")
}

/// Puts a copy of a file where it can be run. Another process writes it: a descriptor that this one writes to goes along
/// with whatever a test beside this one starts at that moment, and while one is open nobody can run the file (ETXTBSY).
pub fn install(source: &Path, program: &Path) {
    let status = Command::new("install").arg("-m755").args([source, program]).status();
    assert!(status.expect("install starts").success(), "{} is not installed", program.display());
}

/// The same with a text: a script.
pub fn install_script(script: &str, program: &Path) {
    let source = program.with_extension("text");
    fs::write(&source, script).expect("a script");
    install(&source, program);
}

/// Runs a command of the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    // Settings of the person who runs the tests must not change them.
    command.args(arguments).env_remove("LARDER_NODE").env_remove("LARDER_TOKEN").stdin(Stdio::null());
    command.output().expect("the program starts")
}

/// A running child whose stderr is read and kept; it is killed when this goes.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    pub started: Instant,
    exit: Option<ExitStatus>,
}

impl Process {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_preloaded(arguments, None)
    }

    /// With a library that stands in for calls of the system's.
    pub fn start_preloaded(arguments: &[&str], library: Option<&Path>) -> Self {
        let mut command = Command::new(binary());
        command.envs(library.map(|library| ("LD_PRELOAD", library)));
        Self::start_with(command, arguments)
    }

    /// The same, by a command of the test's own.
    pub fn start_with(mut command: Command, arguments: &[&str]) -> Self {
        raise_descriptor_limit();
        let started = Instant::now();
        let mut child = command
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("its stderr");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                lock(&kept).push(without_colours(&String::from_utf8_lossy(&line)));
            }
        });
        Self { child, lines, reader: Some(reader), started, exit: None }
    }

    /// What it has written to stderr so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// Of the process that serves: the one that was started, or the last that took over from it.
    pub fn pid(&self) -> u32 {
        let lines = self.lines();
        let ready = lines.iter().rev().find_map(|line| line.split_once("ready pid="));
        let pid = ready.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        pid.unwrap_or_else(|| self.child.id())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process");
        kill_process(pid, signal).expect("the signal is sent");
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("its state");
        }
        self.exit
    }

    /// Its exit status, or None when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while self.exited().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.exit
    }

    /// Anonymous and shared memory in KiB; mapped file pages are the page cache's.
    pub fn rss_anon_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a memory line");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        };
        kib("RssAnon:") + kib("RssShmem:")
    }

    /// What its descriptors lead to, each with how often, without numbers.
    pub fn open_files(&self) -> std::collections::BTreeMap<String, usize> {
        let mut files = std::collections::BTreeMap::new();
        let folder = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("its descriptors");
        for link in folder.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let name = link.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "");
            *files.entry(name).or_insert(0) += 1;
        }
        files
    }

    /// User and system time of all its threads so far.
    #[track_caller]
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("its state");
        // Behind the name, which may hold spaces: fields 14 and 15, in ticks of 10 ms (`man 5 proc_pid_stat`).
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn open_fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("its descriptors").count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let last = self.pid();
        if self.exited().is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if last != self.child.id() {
            // One that took over; whose child it is now depends on the machine.
            let _ = Pid::from_raw(last as i32).map(|pid| kill_process(pid, Signal::KILL));
        }
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of the program ---\n{}\n---", self.lines().join("\n"));
        }
    }
}

/// Descriptors that this process may have open, and each program that it starts.
pub fn open_files_limit() -> usize {
    raise_descriptor_limit();
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Thousands of sockets need more than the usual soft limit; the child inherits it.
pub fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(limit.maximum.unwrap_or(65_536).min(65_536));
        // Where it is not allowed, the tests that need many sockets say so themselves.
        let _ = setrlimit(Resource::Nofile, limit);
    });
}

/// Whether the server's end of a connection is still established, as the kernel sees it.
pub fn is_established(server: SocketAddr, client: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_le_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => panic!("IPv4 only"),
    };
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let row = [hex(server), hex(client), ESTABLISHED.to_owned()];
    table.lines().any(|line| line.split_whitespace().skip(1).take(3).eq(row.iter().map(String::as_str)))
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, tail)| tail);
    }
    plain + rest
}
