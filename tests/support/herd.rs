//! Thousands of clients at once, on two threads: each asks for one thing and compares every byte as it comes.

use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use super::PATIENCE;
use super::client::find;
use super::node::Node;
use super::request::HOST;

const THREADS: usize = 2;
/// Streams of an HTTP/2 connection.
pub const STREAMS: usize = 100;

/// What the clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A connection each.
    Http1,
    /// A stream each, a hundred a connection.
    Http2,
}

/// What a round took: until the last client had its body, and of the node's CPU time.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub took: Duration,
    pub cpu: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2?} (CPU time {:.2?})", self.took, self.cpu)
    }
}

/// Sends one round of requests for each target, every client once; returns what each round took. Connections are open
/// before the first round. Every client must get 200 and exactly this body.
pub fn rounds(
    protocol: Protocol,
    clients: usize,
    node: &Node,
    targets: &[&str],
    body: &Arc<Vec<u8>>,
) -> Vec<Round> {
    let address = node.http();
    let connections = match protocol {
        Protocol::Http1 => clients,
        Protocol::Http2 => clients.div_ceil(STREAMS),
    };
    // One more to look at the node's clock between two rounds.
    let barrier = Barrier::new(THREADS + 1);
    let shares =
        (0..THREADS).map(|thread| connections / THREADS + usize::from(thread < connections % THREADS));
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .map(|share| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let work = run(protocol, share, address, targets, body, barrier);
                    runtime.expect("a runtime").block_on(LocalSet::new().run_until(work))
                })
            })
            .collect();
        let mut clocks: Vec<Duration> = targets.iter().map(|_| at_barrier(&barrier, node)).collect();
        let took = threads.into_iter().map(|thread| thread.join().expect("every client was served"));
        let took =
            took.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| a.max(b)).collect()).unwrap_or_default();
        clocks.push(node.cpu_time());
        let used = clocks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        took.into_iter().zip(used).map(|(took, cpu)| Round { took, cpu }).collect()
    })
}

fn at_barrier(barrier: &Barrier, node: &Node) -> Duration {
    barrier.wait();
    node.cpu_time()
}

async fn run(
    protocol: Protocol,
    connections: usize,
    address: SocketAddr,
    targets: &[&str],
    body: &Arc<Vec<u8>>,
    barrier: &Barrier,
) -> Vec<Duration> {
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(Connection::open(protocol, address).await);
    }
    let mut took = Vec::new();
    for target in targets {
        barrier.wait();
        let started = Instant::now();
        let mut clients = JoinSet::new();
        let buffer = Rc::new(RefCell::new(vec![0; 256 * 1024]));
        for connection in held.drain(..) {
            clients.spawn_local(connection.ask((*target).to_owned(), body.clone(), buffer.clone()));
        }
        let limit = PATIENCE + Duration::from_millis(20) * u32::try_from(connections).expect("a sane number");
        held = tokio::time::timeout(limit, clients.join_all()).await.expect("all are served in time");
        took.push(started.elapsed());
    }
    took
}

enum Connection {
    Http1(TcpStream),
    Http2(SendRequest<Bytes>),
}

impl Connection {
    async fn open(protocol: Protocol, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        if protocol == Protocol::Http1 {
            return Self::Http1(stream);
        }
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
        let (sender, connection) = builder.handshake(stream).await.expect("an HTTP/2 handshake");
        tokio::task::spawn_local(async move { drop(connection.await) });
        Self::Http2(sender)
    }

    async fn ask(self, target: String, body: Arc<Vec<u8>>, buffer: Rc<RefCell<Vec<u8>>>) -> Self {
        match self {
            Self::Http1(stream) => {
                ask_http1(&stream, &target, &body, &buffer).await;
                Self::Http1(stream)
            }
            Self::Http2(sender) => {
                let mut streams = JoinSet::new();
                for _ in 0..STREAMS {
                    streams.spawn_local(ask_http2(sender.clone(), target.clone(), body.clone()));
                }
                streams.join_all().await;
                Self::Http2(sender)
            }
        }
    }
}

async fn ask_http1(stream: &TcpStream, target: &str, body: &[u8], buffer: &RefCell<Vec<u8>>) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert_eq!(stream.try_write(request.as_bytes()).expect("the request is taken"), request.len());
    let mut head = Some(Vec::new());
    let mut at = 0;
    while head.is_some() || at < body.len() {
        stream.readable().await.expect("a socket");
        // One buffer for all: it is not held while this client waits.
        let mut buffer = buffer.borrow_mut();
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => panic!("the connection ended after {at} bytes of the body"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => panic!("after {at} bytes of the body: {error}"),
        };
        let mut data = &buffer[..count];
        let mut rest = Vec::new();
        if let Some(mut begun) = head.take() {
            begun.extend_from_slice(data);
            let Some(end) = find(&begun, b"\r\n\r\n") else {
                head = Some(begun);
                continue;
            };
            check_head(&begun[..end], body.len());
            rest.extend_from_slice(&begun[end + 4..]);
            data = &rest;
        }
        check(data, body, at);
        at += data.len();
    }
}

fn check_head(head: &[u8], length: usize) {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 200 "), "{text}");
    assert!(text.contains(&format!("content-length: {length}")), "{text}");
}

#[track_caller]
fn check(data: &[u8], body: &[u8], at: usize) {
    assert!(body[at..].starts_with(data), "other bytes than the body's at {at}");
}

async fn ask_http2(sender: SendRequest<Bytes>, target: String, body: Arc<Vec<u8>>) {
    let mut sender = sender.ready().await.expect("room for a stream");
    let request = http::Request::get(format!("http://{HOST}{target}")).body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("the request is taken");
    let answer = answer.await.expect("a head");
    assert_eq!(answer.status(), 200);
    let mut stream = answer.into_body();
    let mut at = 0;
    while let Some(data) = stream.data().await {
        let data = data.expect("data");
        stream.flow_control().release_capacity(data.len()).expect("room");
        check(&data, &body, at);
        at += data.len();
    }
    assert_eq!(at, body.len(), "bytes of the body");
}
