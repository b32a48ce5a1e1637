//! The bytes of HTTP/1.1 between hyper and the socket, or TLS: here goes in what hyper's server can't say.
//!
//! - hyper answers a head that it can't parse by itself, with a bare status. The handler's answer takes its place.
//! - hyper sends no interim responses but 100. The handler's go between its messages.
//! - hyper writes a head field by field. Lines that are ready ([`super::lines`]) go in at the end of a short one.
//!
//! The first two rest on one fact: hyper calls `poll_flush` only when its buffer is empty (`pipeline_flush` is off), so that the
//! next byte it writes begins a message or goes on with a body. When no request was in flight at that time and none has
//! begun since, it can only be an answer of hyper's own.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode, header};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lines::Written;
use super::{ConnInfo, Handler};

/// A connection's byte stream as hyper sees it.
pub(super) struct Http1Io<I, H> {
    inner: I,
    handler: H,
    info: Arc<ConnInfo>,
    /// What goes out before hyper's next byte.
    ahead: Vec<u8>,
    /// Whether hyper's buffer was empty at last and it has written nothing since.
    is_flushed: bool,
}

impl<I: AsyncWrite + Unpin, H: Handler> Http1Io<I, H> {
    pub(super) fn new(inner: I, handler: H, info: Arc<ConnInfo>) -> Self {
        Self { inner, handler, info, ahead: Vec::new(), is_flushed: true }
    }

    /// Whether hyper's bytes can go their way without a closer look, as those of nearly all responses.
    #[inline]
    fn is_plain_write(&self) -> bool {
        let activity = &self.info.activity;
        !activity.is_quiet() && !activity.interim.is_waiting() && self.ahead.is_empty()
    }

    /// What comes before hyper's bytes, or in their place: then with how many bytes were replaced.
    #[cold]
    fn poll_before(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<Option<usize>>> {
        if self.ahead.is_empty() && self.info.activity.is_quiet() {
            let canned: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            if let Some(answer) = self.answer_instead(cx, &canned) {
                self.ahead = answer;
                return Poll::Ready(Ok(Some(canned.len())));
            }
        }
        let interim = self.take_interim();
        // Within hyper's bytes there is no place for them.
        if self.is_flushed {
            self.ahead.extend(interim);
        }
        ready!(self.poll_ahead(cx))?;
        Poll::Ready(Ok(None))
    }

    fn take_interim(&self) -> Vec<u8> {
        let queue = &self.info.activity.interim;
        if queue.is_waiting() { queue.take() } else { Vec::new() }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.ahead.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.ahead))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.ahead.drain(..n);
        }
        self.ahead = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Writes hyper's bytes with the lines that the response has brought along.
    fn poll_with_lines(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let Self { inner, info, .. } = self;
        let write = |bufs: &[IoSlice<'_>]| Pin::new(inner).poll_write_vectored(cx, bufs);
        let Written { taken, left } = ready!(info.activity.lines.write(bufs, write))?;
        self.ahead = left;
        Poll::Ready(Ok(taken))
    }

    /// The handler's answer for hyper's, if these bytes are one.
    fn answer_instead(&self, cx: &mut Context<'_>, canned: &[u8]) -> Option<Vec<u8>> {
        let status = StatusCode::from_bytes(canned.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?;
        if !status.is_client_error() {
            return None;
        }
        let mut response = self.handler.malformed(status, &self.info)?;
        let mut body = Vec::new();
        // Such a body is there or it is not; nobody waits for one.
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(response.body_mut()).poll_frame(cx) {
            if let Ok(data) = frame.into_data() {
                body.extend_from_slice(&data);
            }
        }
        Some(encode(&response, field_line(canned, b"date: "), &body))
    }
}

/// A response that ends its connection.
fn encode<B>(response: &Response<B>, date: Option<&[u8]>, body: &[u8]) -> Vec<u8> {
    let mut out = status_line(response.status());
    for (name, value) in response.headers() {
        if *name != header::CONNECTION && *name != header::CONTENT_LENGTH {
            push_field(&mut out, name.as_str(), value.as_bytes());
        }
    }
    if let Some(date) = date {
        push_field(&mut out, "date", date);
    }
    push_field(&mut out, "content-length", body.len().to_string().as_bytes());
    push_field(&mut out, "connection", b"close");
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

pub(super) fn status_line(status: StatusCode) -> Vec<u8> {
    format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default()).into_bytes()
}

pub(super) fn push_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// The value of a field of hyper's, which writes names in lower case.
fn field_line<'a>(head: &'a [u8], name_and_colon: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name_and_colon)?.strip_suffix(b"\r"))
}

impl<I: AsyncRead + Unpin, H: Unpin> AsyncRead for Http1Io<I, H> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin, H: Handler> AsyncWrite for Http1Io<I, H> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        if !self.is_plain_write()
            && let Some(replaced) = ready!(self.poll_before(cx, &[IoSlice::new(buf)]))?
        {
            return Poll::Ready(Ok(replaced));
        }
        self.is_flushed = false;
        if self.info.activity.lines.is_waiting() {
            return self.poll_with_lines(cx, &[IoSlice::new(buf)]);
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        if !self.is_plain_write()
            && let Some(replaced) = ready!(self.poll_before(cx, bufs))?
        {
            return Poll::Ready(Ok(replaced));
        }
        self.is_flushed = false;
        if self.info.activity.lines.is_waiting() {
            return self.poll_with_lines(cx, bufs);
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.is_flushed = true;
        let activity = &self.info.activity;
        activity.flushed();
        if activity.interim.is_waiting() {
            let interim = self.take_interim();
            self.ahead.extend(interim);
        }
        if !self.ahead.is_empty() {
            ready!(self.poll_ahead(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_ahead(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request, Version};
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::net::RequestBody;

    const CANNED: &[u8] = b"HTTP/1.1 431 \r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n";

    #[derive(Clone)]
    struct Echo;

    impl Handler for Echo {
        type Body = Full<bytes::Bytes>;

        type Answer = std::future::Ready<Response<Self::Body>>;

        fn handle(&self, _: Request<RequestBody>, _: &Arc<ConnInfo>, _: std::time::Instant) -> Self::Answer {
            std::future::ready(Response::default())
        }

        fn malformed(&self, status: StatusCode, _: &ConnInfo) -> Option<Response<Self::Body>> {
            let mut response = Response::new(Full::from("why"));
            *response.status_mut() = status;
            response.headers_mut().insert("x", http::HeaderValue::from_static("y"));
            Some(response)
        }
    }

    /// A pipe that takes few bytes at a time, and what comes out of it in the end.
    fn pipe() -> (Http1Io<DuplexStream, Echo>, Arc<ConnInfo>, tokio::task::JoinHandle<String>) {
        let (ours, mut theirs) = duplex(7);
        let address = "127.0.0.1:1".parse().unwrap();
        let info = Arc::new(ConnInfo::new(address, address, ""));
        let reading = tokio::spawn(async move {
            let mut all = String::new();
            theirs.read_to_string(&mut all).await.unwrap();
            all
        });
        (Http1Io::new(ours, Echo, info.clone()), info, reading)
    }

    async fn all(mut io: Http1Io<DuplexStream, Echo>, reading: tokio::task::JoinHandle<String>) -> String {
        io.shutdown().await.unwrap();
        reading.await.unwrap()
    }

    const REPLACED: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nx: y\r\ndate: today\r\n\
                            content-length: 3\r\nconnection: close\r\n\r\nwhy";

    #[tokio::test]
    async fn an_answer_of_hypers_own_is_replaced() {
        let (mut io, _, reading) = pipe();
        io.write_all(CANNED).await.unwrap();
        io.flush().await.unwrap();
        assert_eq!(all(io, reading).await, REPLACED);
    }

    #[tokio::test]
    async fn the_same_bytes_within_or_behind_a_response_are_not_until_that_is_out() {
        let (mut io, info, reading) = pipe();
        info.activity.begin(false);
        io.write_all(CANNED).await.unwrap();
        io.flush().await.unwrap();
        io.write_all(CANNED).await.unwrap();
        info.activity.end();
        io.write_all(CANNED).await.unwrap();
        io.flush().await.unwrap();
        io.write_all(CANNED).await.unwrap();
        let as_it_is = String::from_utf8_lossy(CANNED).repeat(3);
        assert_eq!(all(io, reading).await, as_it_is + REPLACED);
    }

    #[tokio::test]
    async fn interim_responses_go_between_messages_and_never_within() {
        let (mut io, info, reading) = pipe();
        info.activity.begin(false);
        let interim = info.interim(Version::HTTP_11).unwrap();
        let send = |status| interim.send(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        send(102);
        io.flush().await.unwrap();
        send(103);
        // hyper has begun to say 100, and the client is slow.
        io.write_all(b"HTTP/1.1 100 Con").await.unwrap();
        send(110);
        io.write_all(b"tinue\r\n\r\n").await.unwrap();
        io.flush().await.unwrap();
        send(111);
        io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let expected = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
                        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 111 \r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(all(io, reading).await, expected);
    }
}
