//! HTTP/2's frames, put together before they are encrypted and sent.
//!
//! h2 writes frame by frame and flushes after each one with data, and every such write would be a TLS record and a
//! system call of its own. What it writes while its connection is polled is held here instead, up to a record's length,
//! and goes out when the poll is over: the answers to all requests that came together leave together. Longer data is cut
//! where a record ends, which a frame of 16 KiB and its header would overrun by a few bytes; and the records that are
//! made of it are kept by TLS meanwhile (`io.rs`), so that several leave by one system call.

use std::future::Future;
use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// The longest plaintext of a TLS record (RFC 8446 §5.1). What is longer goes out at once, and not copied.
const RECORD_BYTES: usize = 16 * 1024;
/// Slices that are written at once; h2 has two.
const SLICES: usize = 8;

/// The slices up to where a record begins that they do not fill; all of them, if that is the first.
fn whole_records<'a>(slices: impl Iterator<Item = &'a [u8]> + Clone) -> [IoSlice<'a>; SLICES] {
    let total: usize = slices.clone().take(SLICES).map(<[u8]>::len).sum();
    let whole = total / RECORD_BYTES * RECORD_BYTES;
    let mut left = if whole > 0 { whole } else { total };
    let mut cut = [IoSlice::new(&[]); SLICES];
    for (slot, slice) in cut.iter_mut().zip(slices) {
        let kept = slice.len().min(left);
        *slot = IoSlice::new(&slice[..kept]);
        left -= kept;
    }
    cut
}

/// A byte stream that flushes only when it is [uncorked](Corked).
#[derive(Debug)]
pub(super) struct Cork<I>(Arc<Shared<I>>);

#[derive(Debug)]
struct Shared<I> {
    held: Mutex<Held<I>>,
    /// Writing failed when h2 was not there to be told. Changed and asked by the worker that serves the connection.
    is_broken: AtomicBool,
    /// What keeps TLS's records back, where there is TLS.
    records: Option<Arc<Activity>>,
}

#[derive(Debug)]
struct Held<I> {
    io: I,
    /// Written by h2, and not yet to `io`.
    bytes: Vec<u8>,
    /// How many of them `io` has taken.
    taken: usize,
}

impl<I> Clone for Cork<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: AsyncWrite + Unpin> Cork<I> {
    /// Over TLS, `records` keeps its records back.
    pub(super) fn new(io: I, records: Option<Arc<Activity>>) -> Self {
        let held = Mutex::new(Held { io, bytes: Vec::new(), taken: 0 });
        Self(Arc::new(Shared { held, is_broken: AtomicBool::new(false), records }))
    }
}

impl<I> Shared<I> {
    fn keep_records(&self, are_kept: bool) {
        if let Some(records) = &self.records {
            records.cork(are_kept);
        }
    }

    fn check(&self) -> Result<()> {
        if self.is_broken.load(Relaxed) { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl<I: AsyncWrite + Unpin> Held<I> {
    /// Writes what is held.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.taken < self.bytes.len() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes[self.taken..]))?;
            self.took(n)?;
        }
        Poll::Ready(Ok(()))
    }

    /// How many of `n` bytes that were taken came after those that are held.
    fn took(&mut self, n: usize) -> Result<usize> {
        if n == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        let of_held = n.min(self.bytes.len() - self.taken);
        self.taken += of_held;
        if self.taken == self.bytes.len() {
            // Idle connections keep no buffer.
            (self.bytes, self.taken) = (Vec::new(), 0);
        }
        Ok(n - of_held)
    }

    /// Writes what is held and what comes behind it; how many bytes of the latter were taken.
    fn poll_with(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        while self.taken < self.bytes.len() {
            let held = std::iter::once(&self.bytes[self.taken..]);
            let slices = whole_records(held.chain(bufs.iter().map(|buf| &**buf)));
            let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?;
            let behind = self.took(n)?;
            if behind > 0 {
                return Poll::Ready(Ok(behind));
            }
        }
        let slices = whole_records(bufs.iter().map(|buf| &**buf));
        Pin::new(&mut self.io).poll_write_vectored(cx, &slices)
    }

    /// Holds what comes behind the first `skipped` bytes.
    fn hold(&mut self, bufs: &[IoSlice<'_>], mut skipped: usize) {
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(RECORD_BYTES);
        }
        for buf in bufs {
            let begin = skipped.min(buf.len());
            self.bytes.extend_from_slice(&buf[begin..]);
            skipped -= begin;
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Cork<I> {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.0.check()?;
        Pin::new(&mut self.0.held.lock().io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Cork<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.check()?;
        let mut held = self.0.held.lock();
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut written = 0;
        if held.bytes.len() + total > RECORD_BYTES {
            written = ready!(held.poll_with(cx, bufs))?;
            if total - written > RECORD_BYTES || written == total {
                return Poll::Ready(Ok(written));
            }
        }
        held.hold(bufs, written);
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: see [`Corked`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.0.check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.check()?;
        // Nothing comes behind it, and who waits for records that are kept back is not woken.
        self.0.keep_records(false);
        let mut held = self.0.held.lock();
        ready!(held.poll_held(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

/// A connection over a [`Cork`], which lets out what it wrote after each of its polls.
#[derive(Debug)]
pub(super) struct Corked<C, I> {
    pub(super) conn: Pin<Box<C>>,
    pub(super) cork: Cork<I>,
}

impl<C: Future, I: AsyncWrite + Unpin> Future for Corked<C, I> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.cork.0.keep_records(true);
        let polled = self.conn.as_mut().poll(cx);
        let shared = &*self.cork.0;
        shared.keep_records(false);
        let mut held = shared.held.lock();
        let flushed = match held.poll_held(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut held.io).poll_flush(cx),
            other => other,
        };
        if let Poll::Ready(Err(_)) = flushed
            && !shared.is_broken.swap(true, Relaxed)
        {
            // The connection learns of it when it is polled again.
            cx.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes so many bytes at a time, and notes each write; every second one it refuses for now.
    #[derive(Debug, Default)]
    struct Writes {
        at_most: usize,
        refuses: bool,
        fails: bool,
        all: Vec<Vec<u8>>,
        /// As TLS over a socket: what is to go out at the end does not while this is corked, and nobody is woken.
        records: Option<Arc<Activity>>,
    }

    impl AsyncWrite for Writes {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
            if self.fails {
                return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
            }
            self.refuses = !self.refuses;
            if self.refuses {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = buf.len().min(self.at_most);
            self.all.push(buf[..n].to_vec());
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            match &self.records {
                Some(records) if records.is_corked() => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        }
    }

    fn cork(at_most: usize) -> Cork<Writes> {
        Cork::new(Writes { at_most, ..Writes::default() }, None)
    }

    /// One poll of a connection that writes these pieces, each of them flushed.
    async fn write(cork: &Cork<Writes>, pieces: &[&[u8]]) -> Result<()> {
        let mut io = cork.clone();
        let conn = Box::pin(async move {
            for piece in pieces {
                io.write_all(piece).await?;
                io.flush().await?;
            }
            Ok(())
        });
        Corked { conn, cork: cork.clone() }.await
    }

    async fn written(cork: Cork<Writes>) -> Vec<Vec<u8>> {
        let _ = cork.clone().shutdown().await;
        std::mem::take(&mut cork.0.held.lock().io.all)
    }

    #[tokio::test]
    async fn what_is_flushed_bit_by_bit_goes_out_as_one() {
        let cork = cork(usize::MAX);
        write(&cork, &[b"head", b"data", b"head", b"data"]).await.unwrap();
        assert_eq!(written(cork).await, [b"headdataheaddata"]);
    }

    #[tokio::test]
    async fn every_byte_goes_out_in_order_however_little_is_taken() {
        let pieces: Vec<Vec<u8>> =
            [1, 100, RECORD_BYTES - 101, 1, RECORD_BYTES, 3 * RECORD_BYTES, 7, 0, RECORD_BYTES - 6]
                .into_iter()
                .enumerate()
                .map(|(n, length)| (0..length).map(|at| (at * 31 + n * 7) as u8).collect())
                .collect();
        for at_most in [1000, 4099, RECORD_BYTES, usize::MAX] {
            let cork = cork(at_most);
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            write(&cork, &slices).await.unwrap();
            assert_eq!(written(cork).await.concat(), pieces.concat(), "{at_most}");
        }
    }

    #[tokio::test]
    async fn a_frame_is_taken_whole_and_what_fills_no_record_is_held() {
        let cork = cork(usize::MAX);
        let mut io = cork.clone();
        let frame = [vec![1; 256], vec![2; RECORD_BYTES]];
        let bufs = [IoSlice::new(&frame[0]), IoSlice::new(&frame[1])];
        let taken = poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &bufs)).await.unwrap();
        assert_eq!(taken, 256 + RECORD_BYTES);
        assert_eq!(cork.0.held.lock().io.all.concat().len(), RECORD_BYTES);
        assert_eq!(written(cork).await.concat(), frame.concat());
    }

    #[tokio::test]
    async fn an_idle_connection_keeps_no_buffer() {
        let cork = cork(usize::MAX);
        write(&cork, &[b"abc"]).await.unwrap();
        poll_fn(|cx| cork.0.held.lock().poll_held(cx)).await.unwrap();
        assert_eq!(cork.0.held.lock().bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn the_end_is_not_kept_back() {
        let records = Some(Arc::new(Activity::new()));
        let io = Writes { at_most: usize::MAX, records: records.clone(), ..Writes::default() };
        let cork = Cork::new(io, records);
        let mut io = cork.clone();
        let conn = Box::pin(async move {
            io.write_all(b"goodbye").await?;
            io.shutdown().await
        });
        let ended =
            tokio::time::timeout(std::time::Duration::from_secs(30), Corked { conn, cork: cork.clone() });
        ended.await.expect("it ends by itself").unwrap();
        assert_eq!(written(cork).await, [b"goodbye"]);
    }

    #[tokio::test]
    async fn who_was_not_there_learns_of_an_error_later() {
        let cork = cork(usize::MAX);
        cork.0.held.lock().io.fails = true;
        write(&cork, &[b"abc"]).await.unwrap();
        assert_eq!(write(&cork, &[b"d"]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
