//! What the behaviour tests stand on: a scripted origin, strict clients, and the real program in a temp folder.
//!
//! Nothing here knows how the program works inside; it speaks to it by sockets, files, signals and its log.

pub mod client;
pub mod codec;
pub mod date;
pub mod herd;
pub mod http2;
pub mod inject;
pub mod lean;
pub mod mount;
pub mod node;
pub mod openmetrics;
pub mod origin;
pub mod process;
pub mod random;
pub mod request;
pub mod response;
pub mod revisions;
pub mod temp;
pub mod tls;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `condition` holds; fails the test, naming what was awaited, when it never does.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, &mut condition), "never happened within {PATIENCE:?}: {what}");
}

/// Whether `condition` becomes true before `limit` is over.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A latch that starts closed and is opened once.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open, or for three times the patience of a test, so that no thread stays for ever.
    pub fn wait(&self) {
        let open = lock(&self.0.0);
        drop(self.0.1.wait_timeout_while(open, PATIENCE * 3, |open| !*open));
    }
}

/// Opens its gate when it goes, so that a failed test leaves no origin waiting.
pub struct OpenOnDrop(pub Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Tests that load the whole machine hold this, one at a time.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    lock(&HEAVY)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that differ at every offset that matters, so that a shifted or mixed-up body is noticed.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Compares bodies without printing megabytes when they differ.
#[track_caller]
pub fn assert_same_bytes(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "length of the body");
    let first_difference = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(first_difference, None, "offset of the first byte that differs");
}
