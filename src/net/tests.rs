//! Connections whose mapped file is cut short below them, over real sockets.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::sync::watch;

use super::*;
use crate::region::{self, Arena, Mapping};

const CHUNK: usize = 1 << 20;
/// More than the socket's buffers take.
const LARGE: usize = 32 * CHUNK;

/// Answers `/mapped/N` with `N` mapped bytes and `/task/N` with as many copied from there by the handler;
/// all other paths with a few bytes of the heap.
#[derive(Clone)]
struct Files(Arc<Mapping>);

struct Slice(Arc<Mapping>, usize);

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &(*self.0).as_ref()[..self.1]
    }
}

impl Handler for Files {
    type Body = Full<Bytes>;

    type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

    fn handle(&self, request: Request<RequestBody>, _: &Arc<ConnInfo>, _: Instant) -> Self::Answer {
        let mapping = self.0.clone();
        Box::pin(async move {
            let mut path = request.uri().path().split('/').skip(1);
            let (kind, len) = (path.next(), path.next().and_then(|len| len.parse().ok()).unwrap_or_default());
            let slice = Slice(mapping, len);
            Response::new(Full::new(match kind {
                Some("mapped") => Bytes::from_owner(slice),
                Some("task") => Bytes::copy_from_slice(slice.as_ref()),
                _ => Bytes::from_static(b"fine"),
            }))
        })
    }
}

/// A server with one worker, and the file that it answers from.
struct Node {
    file: File,
    mapping: Arc<Mapping>,
    address: SocketAddr,
    metrics: Arc<NetMetrics>,
    client_config: Arc<rustls::ClientConfig>,
    phase: watch::Sender<Phase>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Node {
    fn start(tls: bool) -> Self {
        let path = std::env::temp_dir().join(format!(
            "larder-net-{}-{:?}",
            std::process::id(),
            thread::current().id()
        ));
        std::fs::write(&path, vec![b'x'; LARGE]).unwrap();
        let file = OpenOptions::new().write(true).read(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let arena = Arena::reserve(1, LARGE as u64).unwrap();
        let mapping = Arc::new(arena.map(file.try_clone().unwrap(), LARGE as u64).unwrap());

        let limits = Limits {
            header_bytes: 16 * 1024,
            header_count: 100,
            uri_bytes: 8 * 1024,
            request_body_bytes: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            h2_streams: 10,
            connections: 100,
            connections_per_client: 100,
        };
        let listen = ListenConfig { tls, ..ListenConfig::plain("127.0.0.1:0".parse().unwrap()) };
        let bound = bind(&[listen], 1).unwrap();
        let address = bound[0].address;
        let connections = Connections::new(100, 100, Vec::new());
        let metrics = NetMetrics::new(1, &bound);
        let (server_config, client_config) = tls_configs();
        let (handler, counters) = (Files(mapping.clone()), metrics.clone());
        let server = Server::new(handler, limits, bound, Some(server_config), connections, counters, 1);
        let (phase, phases) = watch::channel(Phase::Run);
        let worker = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.run(0, phases)).unwrap();
            assert!(!region::is_poisoned(), "poison is left over");
        });
        Self { file, mapping, address, metrics, client_config, phase, worker: Some(worker) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn connect_tls(&self) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(self.client_config.clone(), name).unwrap();
        rustls::StreamOwned::new(session, self.connect())
    }

    /// Connections that were ended because bytes were gone.
    fn faults(&self) -> u64 {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(self.metrics.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find(|line| line.contains("reason=\"fault\"")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn truncate(&self, len: usize) {
        self.file.set_len(len as u64).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stop);
        let ended = self.worker.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

fn tls_configs() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let provider = rustls::crypto::aws_lc_rs::default_provider;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![made.cert.der().clone()];
    let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let by_sni = super::tls::BySni::new(&[Arc::new(certified)]);
    (server_config(Arc::new(by_sni), None).unwrap(), Arc::new(client))
}

fn send(stream: &mut impl Write, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
}

/// What comes until the connection ends, of the body.
fn body(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    // How it ends is not the question: by a reset, or without a goodbye of TLS.
    let _ = stream.read_to_end(&mut all);
    let head = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    all.split_off(head)
}

/// The worker still serves others: the fault is not theirs.
fn assert_serves(node: &Node, stream: &mut (impl Read + Write)) {
    send(stream, "/");
    let mut answer = [0; 1024];
    let mut len = 0;
    while !answer[..len].ends_with(b"fine") {
        let n = stream.read(&mut answer[len..]).unwrap();
        assert!(n > 0, "the connection ended: {:?}", answer[..len].escape_ascii());
        len += n;
    }
    assert_eq!(node.faults(), 1);
}

fn assert_cut(body: &[u8], of: usize) {
    assert!(body.len() < of, "{} bytes", body.len());
    assert!(body.iter().all(|byte| *byte == b'x'), "zeroes were sent");
}

#[test]
fn a_large_plain_response_ends_where_its_file_does() {
    let node = Node::start(false);
    let (mut victim, mut other) = (node.connect(), node.connect());
    node.truncate(CHUNK);
    send(&mut victim, &format!("/mapped/{}", 2 * CHUNK));
    assert_cut(&body(&mut victim), 2 * CHUNK);
    assert!(node.mapping.is_bad(), "found out by EFAULT");
    assert_serves(&node, &mut other);
    assert_serves(&node, &mut node.connect());
}

#[test]
fn a_small_plain_response_of_which_nothing_is_there_is_not_sent() {
    let node = Node::start(false);
    let (mut victim, mut other) = (node.connect(), node.connect());
    node.truncate(0);
    send(&mut victim, "/mapped/1000");
    assert_eq!(body(&mut victim), b"");
    assert!(node.mapping.is_bad());
    assert_serves(&node, &mut other);
}

#[test]
fn over_tls_no_zero_is_encrypted_and_sent() {
    let node = Node::start(true);
    let (mut victim, mut other) = (node.connect_tls(), node.connect_tls());
    node.truncate(CHUNK);
    send(&mut victim, &format!("/mapped/{}", 2 * CHUNK));
    assert_cut(&body(&mut victim), 2 * CHUNK);
    assert!(node.mapping.is_bad());
    assert_serves(&node, &mut other);
}

#[test]
fn a_handler_that_hits_a_missing_page_costs_its_own_connection() {
    let node = Node::start(false);
    let (mut victim, mut other) = (node.connect(), node.connect());
    node.truncate(0);
    send(&mut victim, "/task/1000");
    assert_eq!(body(&mut victim), b"");
    assert_serves(&node, &mut other);
}

/// How much of what is mapped there this process has ever touched, in KiB.
fn touched_kib(mapping: &Mapping) -> u64 {
    let start = format!("{:x}-", mapping.as_ref().as_ptr().addr());
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_mapping = maps.lines().skip_while(|line| !line.starts_with(&start));
    let resident = of_mapping.skip(1).find(|line| line.starts_with("Rss:")).expect("the mapping");
    resident.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A copy would read the pages, which brings them into this process: none comes. TLS has to, which shows that it is seen.
#[test]
fn no_mapped_byte_is_copied_over_plain_http1() {
    let node = Node::start(false);
    let mut client = node.connect();
    for _ in 0..2 {
        send(&mut client, &format!("/mapped/{}", 4 * CHUNK));
        let mut left = 4 * CHUNK;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut piece = vec![0; CHUNK];
        while left > 0 {
            let n = client.read(&mut piece).unwrap();
            assert!(n > 0 && piece[..n].iter().all(|byte| *byte == b'x'));
            left -= n;
        }
    }
    assert_eq!(touched_kib(&node.mapping), 0);

    let node = Node::start(true);
    let mut client = node.connect_tls();
    send(&mut client, &format!("/mapped/{CHUNK}"));
    client.read_exact(&mut vec![0; CHUNK]).unwrap();
    assert!(touched_kib(&node.mapping) > 0);
}

/// Waits until the server's writes are blocked, as far as that shows from here.
fn await_full_buffers(stream: &TcpStream) {
    let waiting = || rustix::io::ioctl_fionread(stream).unwrap();
    let mut before = 0;
    while before == 0 || waiting() != before {
        before = waiting();
        thread::sleep(Duration::from_millis(100));
    }
}

/// The pages are replaced by another thread's fault: the connection's own reads never fail.
fn replace_pages_for_another_reader<S: Read + Write>(node: &Node, mut victim: S, socket: &TcpStream) {
    send(&mut victim, &format!("/mapped/{LARGE}"));
    await_full_buffers(socket);
    node.truncate(0);
    region::probe((*node.mapping).as_ref()).unwrap_err();
    assert_cut(&body(&mut victim), LARGE);
}

#[test]
fn zeroes_that_another_reader_left_are_not_sent() {
    let node = Node::start(false);
    let (victim, mut other) = (node.connect(), node.connect());
    replace_pages_for_another_reader(&node, &victim, &victim);
    assert_serves(&node, &mut other);
}

#[test]
fn zeroes_that_another_reader_left_are_not_encrypted() {
    let node = Node::start(true);
    let (victim, mut other) = (node.connect_tls(), node.connect_tls());
    let socket = victim.sock.try_clone().unwrap();
    replace_pages_for_another_reader(&node, victim, &socket);
    assert_serves(&node, &mut other);
}

/// What comes of one HTTP/2 response.
fn h2_body(stream: TcpStream, path: &str) -> Result<Vec<u8>, h2::Error> {
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(LARGE as u32).initial_connection_window_size(LARGE as u32);
        let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await?;
        tokio::spawn(connection);
        let request = Request::get(format!("http://localhost{path}")).body(()).unwrap();
        let mut body = sender.send_request(request, true)?.0.await?.into_body();
        let mut all = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            assert!(chunk.iter().all(|byte| *byte == b'x'), "zeroes were sent");
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    })
}

#[test]
fn http2_connections_end_likewise() {
    // Handed on by reference, copied by h2, and read in the task of the stream.
    for path in [format!("/mapped/{}", 2 * CHUNK), "/mapped/100".to_owned(), "/task/100".to_owned()] {
        let node = Node::start(false);
        let mut other = node.connect();
        assert_eq!(
            h2_body(node.connect(), &path).unwrap().len().to_string(),
            path.rsplit('/').next().unwrap()
        );
        node.truncate(0);
        assert!(h2_body(node.connect(), &path).is_err(), "{path}");
        assert_serves(&node, &mut other);
    }
}
