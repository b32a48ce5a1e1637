//! One connection: handshake, protocol, requests, deadlines, end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::activity::{Activity, Expired};
use super::body::{Answering, Ending, RequestBody};
use super::cork::{Cork, Corked};
use super::executor::AtOnce;
use super::http1_io::Http1Io;
use super::io::{CORKED_BYTES, TrackedIo};
use super::limits::Permit;
use super::listener::Server;
use super::metrics::End;
use super::phase::close_of;
use super::proxy_protocol::{self, Addresses};
use super::watchdog::Watchdog;
use super::{ConnInfo, Handler, Limits, Phase};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between the first two looks at a preface that comes in pieces; then twice as long each time.
const PREFACE_RETRY: Duration = Duration::from_millis(10);
const PREFACE_RETRY_MAX: Duration = Duration::from_secs(1);
/// What an HTTP/2 stream may have buffered between the body and the connection's window.
const H2_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// hyper's own limit; any other makes it set up its table of fields for each request.
const HYPER_MAX_HEADERS: usize = 100;
/// What hyper may buffer of a connection in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// So much is encrypted before it is written: with its records' heads it fits one segment as the kernel hands it to a
/// network card, 64 KiB with TCP's and IP's heads. rustls's own 64 KiB leave a few bytes for a second one, each time.
const TLS_BUFFER_BYTES: usize = 60 * 1024;
/// After GOAWAY an idle HTTP/2 client has this long to close.
const GOAWAY_GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// As [`serve`], on a port where a trusted proxy first tells whom it connects for.
pub(super) async fn serve_proxied<H: Handler>(
    server: Arc<Server<H>>,
    mut stream: TcpStream,
    permit: &mut Permit,
    tls: Option<tokio_rustls::TlsAcceptor>,
    phase: watch::Receiver<Phase>,
) {
    let Some(mut info) = ends_of(&stream) else { return };
    let mut closes = phase.clone();
    let header = async {
        tokio::select! {
            header = proxy_protocol::read(&mut stream) => Some(header),
            () = close_of(&mut closes) => None,
        }
    };
    match timeout(server.limits().header_timeout, header).await {
        Ok(Some(Ok(Some(Addresses { source, destination })))) => {
            (info.peer, info.local) = (source, destination);
        }
        Ok(Some(Ok(None))) => info.is_anonymous = true,
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, "a connection without a PROXY protocol header");
            return server.metrics.ended(End::Proxy);
        }
        Ok(None) => return,
        Err(_) => return server.metrics.ended(End::Expired(Expired::Header)),
    }
    if let Err(refused) = permit.assign(info.peer.ip()) {
        return server.metrics.ended(End::Refused(refused));
    }
    serve(server, stream, info, tls, phase).await;
}

/// Both ends of a connection on which nothing was said yet.
pub(super) fn ends_of(stream: &TcpStream) -> Option<ConnInfo> {
    let (peer, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    Some(ConnInfo::new(peer, local, ""))
}

/// Serves a connection to its end. What is large is boxed where it begins: an `async fn` keeps room
/// for all its branches and for every move, and an idle connection would carry that.
pub(super) async fn serve<H: Handler>(
    server: Arc<Server<H>>,
    stream: TcpStream,
    info: ConnInfo,
    tls: Option<tokio_rustls::TlsAcceptor>,
    phase: watch::Receiver<Phase>,
) {
    let header_timeout = server.limits().header_timeout;
    let activity = info.activity.clone();
    let Some(acceptor) = tls else {
        let mut closes = phase.clone();
        let detected = async {
            tokio::select! {
                protocol = detect(&stream) => protocol,
                // Opened ahead of time, as browsers do, and still unused: nobody misses it.
                () = close_of(&mut closes) => None,
            }
        };
        let protocol = match timeout(header_timeout, detected).await {
            Ok(Some(protocol)) => protocol,
            Ok(None) => return,
            Err(_) => return server.metrics.ended(End::Expired(Expired::Header)),
        };
        let io = TrackedIo::new(stream, activity.clone());
        return Box::pin(speak(server, io, protocol, info, activity, phase)).await;
    };
    Box::pin(serve_tls(server, stream, acceptor, info, activity, phase)).await;
}

async fn serve_tls<H: Handler>(
    server: Arc<Server<H>>,
    stream: TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    mut info: ConnInfo,
    activity: Arc<Activity>,
    phase: watch::Receiver<Phase>,
) {
    let (peer, header_timeout) = (info.peer, server.limits().header_timeout);
    let io = TrackedIo::new(stream, activity.clone());
    // Boxed, so that the handshake's state is gone when the connection idles.
    let mut closes = phase.clone();
    let handshake = async {
        tokio::select! {
            accepted = acceptor.accept(io) => accepted,
            () = close_of(&mut closes) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    };
    match Box::pin(timeout(header_timeout, handshake)).await {
        Ok(Ok(mut io)) => {
            let session = io.get_ref().1;
            let is_tls13 = session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
            let is_resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            server.metrics.handshake(is_tls13, is_resumed);
            info.tls = if is_tls13 { "TLSv1.3" } else { "TLSv1.2" };
            let is_h2 = session.alpn_protocol() == Some(b"h2");
            let (protocol, buffer_bytes) =
                if is_h2 { (Protocol::Http2, CORKED_BYTES) } else { (Protocol::Http1, TLS_BUFFER_BYTES) };
            io.get_mut().1.set_buffer_limit(Some(buffer_bytes));
            Box::pin(speak(server, io, protocol, info, activity, phase)).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            server.metrics.ended(End::Tls);
        }
        Err(_) => server.metrics.ended(End::Expired(Expired::Header)),
    }
}

/// Tells HTTP/2 with prior knowledge from HTTP/1.1 without taking a byte; `None`: the client left.
async fn detect(stream: &TcpStream) -> Option<Protocol> {
    let mut head = [0; PREFACE.len()];
    let mut pause = PREFACE_RETRY;
    loop {
        let n = stream.peek(&mut head).await.ok()?;
        match n {
            0 => return None,
            n if !PREFACE.starts_with(&head[..n]) => return Some(Protocol::Http1),
            n if n == PREFACE.len() => return Some(Protocol::Http2),
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(PREFACE_RETRY_MAX);
    }
}

async fn speak<H: Handler, I>(
    server: Arc<Server<H>>,
    io: I,
    protocol: Protocol,
    info: ConnInfo,
    activity: Arc<Activity>,
    phase: watch::Receiver<Phase>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H::Body: Unpin,
{
    let (peer, is_secure) = (info.peer, info.is_secure());
    let info = Arc::new(info);
    let limits = server.limits();
    let service = {
        let info = info.clone();
        let (handler, activity) = (server.handler.clone(), activity.clone());
        let (body_limit, body_timeout) = (limits.request_body_bytes, limits.body_timeout);
        service_fn(move |request: Request<Incoming>| {
            activity.begin(!http_body::Body::is_end_stream(request.body()));
            let request = request.map(|body| RequestBody::new(body, body_limit, body_timeout));
            // Made before the handler runs: when the client leaves and hyper drops this future,
            // the request still ends for the connection's deadlines.
            let ending = Ending::new(activity.clone());
            Answering::new(handler.handle(request, &info, activity.now()), ending)
        })
    };
    let result = match protocol {
        Protocol::Http1 => {
            if !is_secure {
                activity.set_plain();
            }
            let io = TokioIo::new(Http1Io::new(io, server.handler.clone(), info));
            let mut builder = http1::Builder::new();
            if limits.header_count != HYPER_MAX_HEADERS {
                builder.max_headers(limits.header_count);
            }
            let conn = builder
                .max_header_size(limits.header_bytes)
                .max_buf_size(limits.header_bytes.max(BUFFER_BYTES))
                .header_read_timeout(None)
                .serve_connection(io, service);
            drive(Box::pin(conn), &activity, &limits, phase).await
        }
        Protocol::Http2 => {
            activity.set_h2();
            let cork = Cork::new(io, is_secure.then(|| activity.clone()));
            let conn = http2::Builder::new(AtOnce)
                .max_concurrent_streams(limits.h2_streams)
                .max_header_list_size(limits.header_bytes as u32)
                .max_send_buf_size(H2_SEND_BUFFER_BYTES)
                .serve_connection(TokioIo::new(cork.clone()), service);
            drive(Box::pin(Corked { conn: Box::pin(conn), cork }), &activity, &limits, phase).await
        }
    };
    if let Err(end) = result {
        tracing::debug!(%peer, ?end, "connection ended");
        server.metrics.ended(end);
    }
}

/// What `drive` needs of both protocols' connections.
trait Drain: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, B, S> Drain for http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<C: Drain, I: AsyncWrite + Unpin> Drain for Corked<C, I> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.conn.as_mut().graceful_shutdown();
    }
}

impl<I, B, S, E> Drain for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

enum Event {
    Done(hyper::Result<()>),
    Expired(Expired),
    Fault,
    Phase,
}

/// Polls the connection. A page of a mapped file that was missing meanwhile ends this connection, and no
/// other that the thread serves.
fn poll_conn(conn: Pin<&mut impl Drain>, activity: &Activity, cx: &mut Context<'_>) -> Poll<Event> {
    let polled = conn.poll(cx);
    activity.integrity.take_poison();
    if activity.integrity.is_lost() { Poll::Ready(Event::Fault) } else { polled.map(Event::Done) }
}

/// Runs a connection until it ends, its deadline passes or the node stops.
async fn drive(
    mut conn: Pin<Box<impl Drain>>,
    activity: &Activity,
    limits: &Limits,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), End> {
    let mut watchdog = pin!(Watchdog::new(activity, limits));
    let mut is_draining = false;
    loop {
        let now = *phase.borrow_and_update();
        if matches!(now, Phase::Leave | Phase::Drain) && !is_draining && !activity.is_h2() {
            // A request may be on its way: it is answered, and its client told to come no more.
            activity.leave();
        } else if now != Phase::Run && !is_draining {
            is_draining = true;
            activity.drain();
            conn.as_mut().graceful_shutdown();
        }
        let event = {
            let watched = phase.clone();
            let mut changed = pin!(phase.changed());
            let mut is_watching = false;
            poll_fn(|cx| {
                activity.look_at_clock();
                if let Poll::Ready(event) = poll_conn(conn.as_mut(), activity, cx) {
                    return Poll::Ready(event);
                }
                if let Poll::Ready(expired) = watchdog.as_mut().poll_expired(cx) {
                    return Poll::Ready(Event::Expired(expired));
                }
                // Polled once, to be woken; then a look at the version is enough, and costs no lock.
                if !std::mem::replace(&mut is_watching, true) {
                    return changed.as_mut().poll(cx).map(|_| Event::Phase);
                }
                match watched.has_changed() {
                    Ok(false) => Poll::Pending,
                    Ok(true) | Err(_) => Poll::Ready(Event::Phase),
                }
            })
            .await
        };
        match event {
            // A client that goes away in the middle is not the node's to count.
            Event::Done(Err(error)) if error.is_parse() || error.is_body_write_aborted() => {
                return Err(End::Protocol);
            }
            Event::Done(_) | Event::Expired(Expired::Linger | Expired::Drained) => return Ok(()),
            Event::Expired(Expired::Idle) => {
                conn.as_mut().graceful_shutdown();
                let goodbye = poll_fn(|cx| poll_conn(conn.as_mut(), activity, cx));
                let _ = timeout(GOAWAY_GRACE, goodbye).await;
                return Err(End::Expired(Expired::Idle));
            }
            Event::Expired(expired) => return Err(End::Expired(expired)),
            Event::Fault => return Err(End::Fault),
            Event::Phase => {
                if *phase.borrow() == Phase::Stop || phase.has_changed().is_err() {
                    return Ok(());
                }
            }
        }
    }
}
