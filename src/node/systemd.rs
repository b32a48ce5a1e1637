//! What systemd is told (`sd_notify(3)`); nothing where nobody listens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(200);

/// Sends a state, such as `READY=1`. A failure is nobody's business but the log's.
pub(super) fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop the node.
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, state, "systemd can't be told");
    }
}

/// Before a reload, as `Type=notify-reload` wants it.
pub(super) fn notify_reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Between two signs of life that systemd expects of this process; `None`: it expects none.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    // A process that took over from another has inherited the other's number.
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()))
        || super::upgrade::is_successor();
    number("WATCHDOG_USEC").filter(|us| is_ours && *us > 0).map(Duration::from_micros)
}

/// Signs of life of the workers. Each counts its own up; the control thread tells systemd of them only
/// while all do, so that one that hangs is found as well as a hanging process.
#[derive(Debug)]
pub(super) struct Pulse {
    beats: Box<[AtomicU64]>,
    every: Duration,
    /// Workers end one by one, as they should.
    is_ending: AtomicBool,
}

impl Pulse {
    /// `None` where nobody watches.
    pub(super) fn new(workers: usize) -> Option<Arc<Self>> {
        // Twice in the time, as the manual advises, and each worker twice in that.
        let every = watchdog()? / 4;
        let beats = (0..workers).map(|_| AtomicU64::new(0)).collect();
        Some(Arc::new(Self { beats, every, is_ending: AtomicBool::new(false) }))
    }

    /// The workers need not answer any more.
    pub(super) fn end(&self) {
        self.is_ending.store(true, Relaxed);
    }

    /// A worker's share.
    pub(super) async fn beat(self: Arc<Self>, worker: usize) {
        loop {
            self.beats[worker].fetch_add(1, Relaxed);
            tokio::time::sleep(self.every / 2).await;
        }
    }

    /// The control thread's.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut before: Vec<u64> = Vec::new();
        loop {
            let now: Vec<u64> = self.beats.iter().map(|beat| beat.load(Relaxed)).collect();
            let is_well = now.iter().zip(&before).all(|(now, before)| now > before);
            if is_well || self.is_ending.load(Relaxed) {
                notify("WATCHDOG=1");
            } else {
                tracing::error!("a worker does not answer; systemd is not told that all is well");
            }
            before = now;
            tokio::time::sleep(self.every).await;
        }
    }
}
