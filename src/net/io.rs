//! The socket below TLS and HTTP: passes bytes on and notes progress.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Activity;
use crate::region;

/// A head and a body up to here go out by one `send`: copying them costs less than a `writev` does
/// beyond it.
const SMALL_BYTES: usize = 2048;

/// A head and a mapped body up to here go out together: they fit one segment as the kernel hands it to a network card, 64 KiB
/// with TCP's and IP's heads.
const TOGETHER_BYTES: usize = 62 * 1024;

/// So many bytes of TLS's records are kept back while more are coming, of which rustls then takes no more: what fits two segments
/// as the kernel hands them to a network card, each 64 KiB with TCP's and IP's heads. An answer of 100 KiB leaves by one write.
pub(super) const CORKED_BYTES: usize = 2 * 65_400;

thread_local! {
    /// Where they are put together.
    static SMALL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A TCP stream whose reads and writes are noted in an [`Activity`], and which lingers when it is
/// shut down.
#[derive(Debug)]
pub(super) struct TrackedIo {
    stream: TcpStream,
    activity: Arc<Activity>,
    write_closed: bool,
}

impl TrackedIo {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, write_closed: false }
    }

    /// Nothing goes out when what was read of mapped files may be wrong. Called when all has been read
    /// that is about to be written.
    #[inline]
    fn check(&self) -> Result<()> {
        if self.activity.integrity.is_lost() { Err(Error::other(region::Poisoned)) } else { Ok(()) }
    }

    /// Whether TLS is to keep its records. Who corks flushes afterwards, so nobody has to be woken.
    #[inline]
    fn is_kept_back(&self, bytes: usize) -> bool {
        self.activity.is_corked() && bytes < CORKED_BYTES
    }

    /// Not through the C library: its `send` is a point of cancellation, which costs more than what it does.
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_with(cx, |stream| Ok(send(stream, bytes, SendFlags::NOSIGNAL)?))
    }

    /// Mapped bytes, by the kernel alone.
    fn poll_send_file(&self, cx: &mut Context<'_>, mapped: &[u8]) -> Poll<Result<usize>> {
        let not_mapped = || Err(ErrorKind::InvalidInput.into());
        self.poll_with(cx, |stream| region::send(stream, mapped).unwrap_or_else(not_mapped))
    }

    /// What comes before mapped bytes: held back to go out with them (`MSG_MORE`) where both fit into one segment, else at
    /// once. 16 KiB take a sixth less CPU time for it than without, and 100 KiB half as much again and more, on loopback.
    fn poll_send_ahead(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        total: usize,
    ) -> Poll<Result<usize>> {
        let more = if total <= TOGETHER_BYTES { SendFlags::MORE } else { SendFlags::empty() };
        self.poll_with(cx, |stream| {
            let mut none = SendAncillaryBuffer::default();
            Ok(sendmsg(stream, bufs, &mut none, SendFlags::NOSIGNAL | more)?)
        })
    }

    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> Result<usize>,
    ) -> Poll<Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || write(&self.stream)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn noted(&self, result: Poll<Result<usize>>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        match &result {
            Poll::Ready(Ok(_)) => self.activity.on_write(true),
            Poll::Pending => self.activity.on_write(false),
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EFAULT) => {
                region::note_efault();
                // The kernel does not say which: reading them marks the mapping.
                for buf in bufs {
                    let _ = region::probe(buf);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

#[inline]
fn is_sent_by_file(buf: &IoSlice<'_>) -> bool {
    buf.len() >= region::SENT_BYTES && region::locate(buf).is_some()
}

impl AsyncRead for TrackedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.on_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TrackedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.check()?;
        if self.is_kept_back(buf.len()) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(result, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_kept_back(total) {
            return Poll::Pending;
        }
        if total > SMALL_BYTES {
            self.check()?;
            // TLS's records are on the heap, and HTTP/2's frames too small to pay, of what `cork.rs` passes on.
            let mapped = self.activity.is_plain().then(|| bufs.iter().position(|buf| is_sent_by_file(buf)));
            if let Some(mapped) = mapped.flatten() {
                let result = match mapped {
                    0 => self.poll_send_file(cx, &bufs[0]),
                    _ => self.poll_send_ahead(cx, &bufs[..mapped], total),
                };
                return self.noted(result, bufs);
            }
            let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
            return self.noted(result, bufs);
        }
        let result = if let [one] = bufs {
            self.check()?;
            self.poll_send(cx, one)
        } else {
            SMALL.with_borrow_mut(|small| {
                small.clear();
                for buf in bufs {
                    small.extend_from_slice(buf);
                }
                self.check()?;
                self.poll_send(cx, small)
            })
        };
        self.noted(result, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes our half, then reads on until the client closes its own: closing a socket with unread
    /// bytes would reset the connection and take the last response with it. The watchdog bounds it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.write_closed {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.write_closed = true;
        }
        self.activity.linger();
        let mut discarded = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => return Poll::Ready(Ok(())),
                Ok(()) => {}
                Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
