//! Header lines that a response brings along ready to be sent, so that nobody writes them field by field.
//!
//! hyper's server writes a head from a map, and knows no other way. Here it writes a short one, of what depends on the
//! connection, and [`super::http1_io`] puts the lines before its end. That head is the last in hyper's buffer when it is
//! first written: the body behind it is not empty, and hyper writes no head behind a body that waits.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;

/// Slices that are written at once, those of the head among them.
const SLICES: usize = 16;
const CRLF: &[u8] = b"\r\n";

/// The body of a handler's answer.
pub trait Outgoing:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static
{
    /// Lines of an HTTP/1.1 response's head beside the fields in its map, each with its CRLF. Only a body that is not
    /// empty, for a client that speaks no HTTP/2, may have any.
    fn take_lines(&mut self) -> Option<Bytes> {
        None
    }

    /// Whether what comes next is the one chunk of a stored body that is on the heap, and so perhaps sent again soon:
    /// see `copies.rs`.
    fn is_stored_chunk(&self) -> bool {
        false
    }
}

/// The lines of the response whose head hyper is about to write.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// So that a look costs no lock.
    is_waiting: AtomicBool,
    lines: Mutex<Bytes>,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// How many of hyper's bytes are out, or need not be written by it any more.
    pub(super) taken: usize,
    /// What has to go out before hyper's next byte.
    pub(super) left: Vec<u8>,
}

impl Lines {
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Relaxed)
    }

    #[inline]
    pub(super) fn put(&self, lines: Bytes) {
        *self.lines.lock() = lines;
        self.is_waiting.store(true, Relaxed);
    }

    /// Writes hyper's bytes, of which the first slice is the head, with the lines in their place.
    pub(super) fn write(
        &self,
        bufs: &[IoSlice<'_>],
        write: impl FnOnce(&[IoSlice<'_>]) -> Poll<Result<usize>>,
    ) -> Poll<Result<Written>> {
        let mut waiting = self.lines.lock();
        let Some((fields, CRLF)) =
            bufs.first().and_then(|head| head.split_at_checked(head.len().wrapping_sub(2)))
        else {
            // Better no answer than one without its fields.
            return Poll::Ready(Err(Error::from(ErrorKind::InvalidData)));
        };
        let mut slices = [IoSlice::new(&[]); SLICES];
        (slices[0], slices[1], slices[2]) =
            (IoSlice::new(fields), IoSlice::new(&waiting), IoSlice::new(CRLF));
        let count = bufs.len().min(SLICES - 2) + 2;
        for (slot, buf) in slices[3..].iter_mut().zip(&bufs[1..]) {
            *slot = IoSlice::new(buf);
        }
        let n = ready!(write(&slices[..count]))?;
        let end = fields.len() + waiting.len() + CRLF.len();
        if n <= fields.len() {
            return Poll::Ready(Ok(Written { taken: n, left: Vec::new() }));
        }
        self.is_waiting.store(false, Relaxed);
        let lines = std::mem::take(&mut *waiting);
        let head = fields.len() + CRLF.len();
        let written = if n >= end {
            Written { taken: head + n - end, left: Vec::new() }
        } else {
            let left = [&lines, CRLF].concat().split_off(n - fields.len());
            Written { taken: head, left }
        };
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
impl Outgoing for http_body_util::Full<Bytes> {}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
    const LINES: &[u8] = b"etag: \"a\"\r\nage: 1\r\n";

    /// All that goes out when each write takes `at_most` bytes.
    fn sent(at_most: usize) -> Vec<u8> {
        let lines = Lines::default();
        lines.put(Bytes::from_static(LINES));
        let (mut head, mut body, mut out) = (HEAD, b"body".as_slice(), Vec::new());
        let mut take = |bufs: &[IoSlice<'_>]| {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let n = all.len().min(at_most);
            out.extend_from_slice(&all[..n]);
            n
        };
        while !head.is_empty() || !body.is_empty() {
            let mut bufs = vec![IoSlice::new(head), IoSlice::new(body)];
            bufs.retain(|buf| !buf.is_empty());
            let Written { taken, mut left } = if lines.is_waiting() {
                match lines.write(&bufs, |bufs| Poll::Ready(Ok(take(bufs)))) {
                    Poll::Ready(Ok(written)) => written,
                    other => panic!("{other:?}"),
                }
            } else {
                Written { taken: take(&bufs), left: Vec::new() }
            };
            while !left.is_empty() {
                let n = take(&[IoSlice::new(&left)]);
                left.drain(..n);
            }
            let of_head = taken.min(head.len());
            (head, body) = (&head[of_head..], &body[taken - of_head..]);
        }
        assert!(!lines.is_waiting());
        out
    }

    #[test]
    fn lines_stand_at_the_end_of_the_head_however_little_is_taken() {
        let expected = [&HEAD[..HEAD.len() - 2], LINES, b"\r\nbody"].concat();
        for at_most in 1..=expected.len() {
            assert_eq!(
                String::from_utf8_lossy(&sent(at_most)),
                String::from_utf8_lossy(&expected),
                "{at_most}"
            );
        }
    }

    #[test]
    fn what_is_no_head_gets_no_lines_and_does_not_go_out() {
        for other in [b"".as_slice(), b"x", b"body", b"\n"] {
            let lines = Lines::default();
            lines.put(Bytes::from_static(LINES));
            let written = lines.write(&[IoSlice::new(other)], |_| panic!("written"));
            assert!(matches!(written, Poll::Ready(Err(_))), "{other:?}");
        }
    }
}
