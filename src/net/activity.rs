//! When did a connection last get somewhere? The state from which its one deadline is computed.
//!
//! A request only stores a few numbers here; no timer is armed or moved for it. The connection's
//! watchdog (`watchdog.rs`) asks for the earliest deadline after each poll and re-arms its timer only
//! when that comes earlier, or when the timer fires.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Limits;
use super::integrity::Integrity;
use super::interim::InterimQueue;
use super::lines::Lines;

/// How long a closing connection may take to read what the client still sends, so that a reset
/// does not destroy the response on its way (RFC 9112 §9.6).
const LINGER_MS: u64 = 1000;
/// An HTTP/2 client that was told to go away has this long to take its leave.
const GOAWAY_GRACE_MS: u64 = 1000;
/// A stalled HTTP/2 stream costs its connection after this many write timeouts even when other
/// streams progress: hyper offers no way to reset the one stream from outside.
const STALLED_STREAM_FACTOR: u64 = 10;
const NANOS_A_MS: u64 = 1_000_000;

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Header,
    Idle,
    WriteStall,
    Linger,
    Drained,
}

/// Times are milliseconds since `started`, plus one, so that 0 means "not". Only the worker that serves the
/// connection changes it, its streams' tasks included: a load and a store do where others would need a
/// locked addition.
#[derive(Debug)]
pub(super) struct Activity {
    /// Beside the times, because all parts of a connection hold this.
    pub(super) integrity: Integrity,
    started: Instant,
    /// When the connection was polled last, in nanoseconds since `started`.
    polled_at: AtomicU64,
    is_h2: AtomicBool,
    /// Whether the socket gets responses as they are: HTTP/1.1 without TLS.
    is_plain: AtomicBool,
    /// Whether TLS is to keep its records back for now, since more are coming.
    is_corked: AtomicBool,
    is_leaving: AtomicBool,
    /// Whether a request's head was ever complete.
    has_begun: AtomicBool,
    /// Whether bytes came during a response: perhaps the begin of the next request.
    read_while_busy: AtomicBool,
    /// Whether such bytes are the request's own body.
    has_body: AtomicBool,
    /// HTTP/1.1: whether all responses were written to their end, and no request has begun since.
    is_quiet: AtomicBool,
    in_flight: AtomicU32,
    head_since: AtomicU64,
    idle_since: AtomicU64,
    write_blocked_since: AtomicU64,
    last_write: AtomicU64,
    lingering_since: AtomicU64,
    draining_since: AtomicU64,
    /// HTTP/2 only: since when each response has had a chunk taken and not asked for the next;
    /// 0 while it waits for its source.
    streams: Mutex<Vec<StreamSlot>>,
    pub(super) interim: InterimQueue,
    pub(super) lines: Lines,
}

#[derive(Clone, Copy, Debug)]
enum StreamSlot {
    Free,
    Waiting,
    TakenAt(u64),
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            integrity: Integrity::default(),
            started: Instant::now(),
            polled_at: AtomicU64::new(0),
            is_h2: AtomicBool::new(false),
            is_plain: AtomicBool::new(false),
            is_corked: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            read_while_busy: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            is_quiet: AtomicBool::new(true),
            in_flight: AtomicU32::new(0),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            lingering_since: AtomicU64::new(0),
            draining_since: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
            interim: InterimQueue::default(),
            lines: Lines::default(),
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Looks at the clock for all that happens within one poll of the connection.
    pub(super) fn look_at_clock(&self) {
        self.polled_at.store(self.started.elapsed().as_nanos() as u64, Relaxed);
    }

    /// Now. On HTTP/1.1 everything happens while the connection is polled; the streams of HTTP/2 are
    /// tasks of their own.
    pub(super) fn now(&self) -> Instant {
        if self.is_h2.load(Relaxed) {
            return Instant::now();
        }
        self.started + Duration::from_nanos(self.polled_at.load(Relaxed))
    }

    fn now_ms(&self) -> u64 {
        if self.is_h2.load(Relaxed) {
            return self.clock_ms();
        }
        self.polled_at.load(Relaxed) / NANOS_A_MS + 1
    }

    pub(super) fn clock_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    /// TLS is to keep its records back, or not any more.
    #[inline]
    pub(super) fn cork(&self, corked: bool) {
        self.is_corked.store(corked, Relaxed);
    }

    #[inline]
    pub(super) fn is_corked(&self) -> bool {
        self.is_corked.load(Relaxed)
    }

    pub(super) fn set_h2(&self) {
        self.is_h2.store(true, Relaxed);
    }

    pub(super) fn set_plain(&self) {
        self.is_plain.store(true, Relaxed);
    }

    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain.load(Relaxed)
    }

    /// A request's head is complete.
    #[inline]
    pub(super) fn begin(&self, has_body: bool) {
        self.in_flight.store(self.in_flight.load(Relaxed) + 1, Relaxed);
        self.has_begun.store(true, Relaxed);
        self.is_quiet.store(false, Relaxed);
        self.has_body.store(has_body, Relaxed);
        self.read_while_busy.store(false, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    /// A response's body is finished or dropped.
    #[inline]
    pub(super) fn end(&self) {
        let left = self.in_flight.load(Relaxed).saturating_sub(1);
        self.in_flight.store(left, Relaxed);
        if left == 0 {
            let now = self.now_ms();
            self.idle_since.store(now, Relaxed);
            if self.read_while_busy.load(Relaxed) {
                self.head_since.store(now, Relaxed);
            }
        }
    }

    /// Everything that was written is out.
    #[inline]
    pub(super) fn flushed(&self) {
        self.is_quiet.store(self.in_flight.load(Relaxed) == 0, Relaxed);
    }

    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Relaxed)
    }

    /// Bytes came in.
    #[inline]
    pub(super) fn on_read(&self) {
        // On HTTP/2 reads are also pings and window updates; there only the first head is awaited.
        if self.is_h2.load(Relaxed) {
            return;
        }
        if self.in_flight.load(Relaxed) > 0 {
            self.read_while_busy.store(!self.has_body.load(Relaxed), Relaxed);
        } else if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now_ms(), Relaxed);
        }
    }

    /// The socket took bytes, or did not.
    #[inline]
    pub(super) fn on_write(&self, taken: bool) {
        if taken {
            self.write_blocked_since.store(0, Relaxed);
            if self.is_h2.load(Relaxed) {
                self.last_write.store(self.now_ms(), Relaxed);
            }
        } else if self.write_blocked_since.load(Relaxed) == 0 {
            self.write_blocked_since.store(self.now_ms(), Relaxed);
        }
    }

    pub(super) fn linger(&self) {
        if self.lingering_since.load(Relaxed) == 0 {
            self.lingering_since.store(self.now_ms(), Relaxed);
        }
    }

    /// The client is to leave after the next response.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Relaxed);
    }

    #[inline]
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Relaxed)
    }

    pub(super) fn is_h2(&self) -> bool {
        self.is_h2.load(Relaxed)
    }

    /// The node drains: the connection ends once nothing is in flight.
    pub(super) fn drain(&self) {
        self.draining_since.store(self.clock_ms(), Relaxed);
    }

    /// Takes a slot for an HTTP/2 response; `None` on HTTP/1.1, where the socket tells all.
    pub(super) fn open_stream(&self) -> Option<usize> {
        if !self.is_h2.load(Relaxed) {
            return None;
        }
        let mut streams = self.streams.lock();
        let free = streams.iter().position(|slot| matches!(slot, StreamSlot::Free));
        let index = free.unwrap_or_else(|| {
            streams.push(StreamSlot::Free);
            streams.len() - 1
        });
        streams[index] = StreamSlot::Waiting;
        Some(index)
    }

    /// A stream's body gave a chunk (`taken`) or waits for its source.
    pub(super) fn on_stream(&self, index: usize, taken: bool) {
        let slot = if taken { StreamSlot::TakenAt(self.now_ms()) } else { StreamSlot::Waiting };
        self.streams.lock()[index] = slot;
    }

    pub(super) fn close_stream(&self, index: usize) {
        self.streams.lock()[index] = StreamSlot::Free;
    }

    /// The earliest deadline and what it means.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(u64, Expired)> {
        let ms = |d: std::time::Duration| d.as_millis() as u64;
        let lingering = self.lingering_since.load(Relaxed);
        if lingering != 0 {
            return Some((lingering + LINGER_MS, Expired::Linger));
        }
        let blocked = self.write_blocked_since.load(Relaxed);
        if blocked != 0 {
            return Some((blocked + ms(limits.write_timeout), Expired::WriteStall));
        }
        if self.in_flight.load(Relaxed) > 0 {
            return self.stalled_stream(ms(limits.write_timeout));
        }
        let draining = self.draining_since.load(Relaxed);
        if draining != 0 {
            let since = draining.max(self.idle_since.load(Relaxed));
            return Some((since + GOAWAY_GRACE_MS, Expired::Drained));
        }
        let head = self.head_since.load(Relaxed);
        if head != 0 {
            return Some((head + ms(limits.header_timeout), Expired::Header));
        }
        if !self.has_begun.load(Relaxed) {
            return Some((1 + ms(limits.header_timeout), Expired::Header));
        }
        Some((self.idle_since.load(Relaxed) + ms(limits.idle_timeout), Expired::Idle))
    }

    fn stalled_stream(&self, write_timeout_ms: u64) -> Option<(u64, Expired)> {
        if !self.is_h2.load(Relaxed) {
            return None;
        }
        let taken = |slot: &StreamSlot| match slot {
            StreamSlot::TakenAt(at) => Some(*at),
            StreamSlot::Free | StreamSlot::Waiting => None,
        };
        let oldest = self.streams.lock().iter().filter_map(taken).min()?;
        let progress = oldest.max(self.last_write.load(Relaxed)) + write_timeout_ms;
        let deadline = progress.min(oldest + STALLED_STREAM_FACTOR * write_timeout_ms);
        Some((deadline, Expired::WriteStall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            header_bytes: 0,
            header_count: 0,
            uri_bytes: 0,
            request_body_bytes: 0,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            h2_streams: 1,
            connections: 1,
            connections_per_client: 1,
        }
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let activity = Activity::new();
        let what = |a: &Activity| a.deadline(&limits()).map(|(_, what)| what);
        assert_eq!(what(&activity), Some(Expired::Header));
        activity.on_read();
        assert_eq!(what(&activity), Some(Expired::Header));
        activity.begin(false);
        assert_eq!(what(&activity), None);
        activity.on_write(false);
        assert_eq!(what(&activity), Some(Expired::WriteStall));
        activity.on_write(true);
        activity.end();
        assert_eq!(what(&activity), Some(Expired::Idle));
        activity.drain();
        assert_eq!(what(&activity), Some(Expired::Drained));
        activity.linger();
        assert_eq!(what(&activity), Some(Expired::Linger));
    }

    #[test]
    fn a_stream_that_takes_no_more_is_a_stall_and_one_that_waits_for_its_source_is_not() {
        let activity = Activity::new();
        activity.set_h2();
        activity.begin(false);
        let stream = activity.open_stream().unwrap();
        assert!(activity.deadline(&limits()).is_none());
        activity.on_stream(stream, true);
        assert!(matches!(activity.deadline(&limits()), Some((_, Expired::WriteStall))));
        activity.on_stream(stream, false);
        assert!(activity.deadline(&limits()).is_none());
        activity.close_stream(stream);
        assert_eq!(activity.open_stream(), Some(stream));
    }
}
