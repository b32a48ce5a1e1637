//! Interim responses (RFC 9110 §15.2) towards HTTP/1.1 clients, which hyper's server can't send.
//!
//! A handler queues them while it works; [`super::http1_io`] lets them out where they belong. HTTP/1.0 knows none,
//! and on HTTP/2 hyper offers no way to send one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::activity::Activity;

/// Interim responses to one request; what comes after is dropped.
const MAX_HEADS: usize = 8;
/// Bytes of the interim responses to one request.
const MAX_BYTES: usize = 16 * 1024;

/// A connection's interim responses that wait for a place between hyper's bytes.
#[derive(Debug, Default)]
pub(super) struct InterimQueue {
    /// So that a look costs no lock.
    is_waiting: AtomicBool,
    queued: Mutex<Queued>,
}

#[derive(Debug, Default)]
struct Queued {
    heads: Vec<u8>,
    heads_left: usize,
    bytes_left: usize,
}

impl InterimQueue {
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Relaxed)
    }

    /// Takes what waits.
    pub(super) fn take(&self) -> Vec<u8> {
        self.is_waiting.store(false, Relaxed);
        std::mem::take(&mut self.queued.lock().heads)
    }

    fn open(&self) {
        self.is_waiting.store(false, Relaxed);
        let heads = Vec::new();
        *self.queued.lock() = Queued { heads, heads_left: MAX_HEADS, bytes_left: MAX_BYTES };
    }

    fn push(&self, head: &[u8]) {
        let mut queued = self.queued.lock();
        if queued.heads_left == 0 || queued.bytes_left < head.len() {
            return;
        }
        queued.heads_left -= 1;
        queued.bytes_left -= head.len();
        queued.heads.extend_from_slice(head);
        self.is_waiting.store(true, Relaxed);
    }
}

/// Sends interim responses to one request. It is for the handler's own future: only while that is polled is the
/// connection between two messages, and when it has ended the final response is on its way.
#[derive(Clone, Debug)]
pub struct Interim {
    activity: Arc<Activity>,
}

impl Interim {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.interim.open();
        Self { activity }
    }

    /// Sends one at once, or drops it: at most 8 go out for a request, and 16 KiB. 101 and 100 are not
    /// for a handler to send: hyper asks for a body when it is read.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if is_sent(status) {
            self.activity.interim.push(&encode(status, headers));
        }
    }
}

fn is_sent(status: StatusCode) -> bool {
    status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
}

fn encode(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = super::http1_io::status_line(status);
    for (name, value) in headers {
        super::http1_io::push_field(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn interim() -> Interim {
        Interim::new(Arc::new(Activity::new()))
    }

    #[test]
    fn a_head_is_written_whole_and_only_interim_ones_are() {
        let interim = interim();
        let mut headers = HeaderMap::new();
        headers.append("link", HeaderValue::from_static("</a>; rel=preload"));
        headers.append("link", HeaderValue::from_static("</b>; rel=preload"));
        for status in [100, 101, 200, 103] {
            interim.send(StatusCode::from_u16(status).unwrap(), &headers);
        }
        let expected =
            "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>; rel=preload\r\n\r\n";
        assert_eq!(interim.activity.interim.take(), expected.as_bytes());
        assert!(!interim.activity.interim.is_waiting());
    }

    #[test]
    fn a_storm_is_bounded_in_heads_and_in_bytes() {
        let few = interim();
        let mut large = HeaderMap::new();
        large.insert("x", HeaderValue::try_from("x".repeat(5000)).unwrap());
        for _ in 0..1000 {
            few.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        }
        let sent = few.activity.interim.take();
        assert_eq!(sent, b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(MAX_HEADS));
        let large_ones = interim();
        for _ in 0..MAX_HEADS {
            large_ones.send(StatusCode::EARLY_HINTS, &large);
        }
        let sent = large_ones.activity.interim.take().len();
        assert!((15_000..=MAX_BYTES).contains(&sent), "{sent}");
    }
}
