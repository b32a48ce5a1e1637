//! A scripted origin: each path answers with steps, and everything that was asked is kept.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::find;
use super::date::http_date;
use super::{Gate, lock};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The raw head, with its final empty line.
    pub head: Vec<u8>,
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Connections count from 0 in the order in which they were accepted.
    pub connection: usize,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn joined(&self, name: &str) -> String {
        let lines: Vec<&str> = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect();
        lines.join(", ")
    }

    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// One step of an answer.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// As `Send`, but left out in the answer to HEAD.
    Body(Vec<u8>),
    Sleep(Duration),
    Wait(Gate),
    Close,
    /// Ends the connection with RST.
    Reset,
}

pub type Reply = Vec<Step>;
type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A well-formed answer with Date and Content-Length, unless the fields have their own.
pub fn respond(status: u16, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let has = |name: &str| fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    if !has("date") {
        let _ = write!(head, "Date: {}\r\n", http_date(0));
    }
    let bodiless = status == 204 || status == 304;
    if !bodiless && !has("content-length") && !has("transfer-encoding") {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    vec![Step::Send(head.into_bytes()), Step::Body(body.to_vec())]
}

/// Fields of a response that stays fresh for longer than any test runs.
pub const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=600")];

/// Exactly these bytes.
pub fn raw(bytes: impl AsRef<[u8]>) -> Reply {
    vec![Step::Send(bytes.as_ref().to_vec())]
}

#[derive(Default)]
struct Inner {
    routes: Mutex<Vec<(String, Handler)>>,
    seen: Mutex<Vec<Seen>>,
    /// Targets whose head has arrived; the body may still be under way.
    begun: Mutex<Vec<String>>,
    open: Mutex<HashMap<usize, TcpStream>>,
    accepted: AtomicUsize,
    stopping: AtomicBool,
}

pub struct Origin {
    address: SocketAddr,
    inner: Arc<Inner>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Origin {
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where another one was before.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a port for the origin");
        let address = listener.local_addr().expect("its address");
        let inner = Arc::new(Inner::default());
        let shared = Arc::clone(&inner);
        let acceptor = thread::spawn(move || accept(&listener, &shared));
        Self { address, inner, acceptor: Mutex::new(Some(acceptor)) }
    }

    /// An origin whose one path always answers 200 with these fields and this body.
    pub fn with(path: &str, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let origin = Self::start();
        origin.fixed(path, 200, fields, body);
        origin
    }

    /// Sets how a path is answered; the newest match wins. A final `*` matches any rest; the query never counts.
    pub fn on(&self, path: &str, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        lock(&self.inner.routes).push((path.to_owned(), Arc::new(handler)));
    }

    /// The same answer every time.
    pub fn fixed(&self, path: &str, status: u16, fields: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let fields: Vec<(String, String)> =
            fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let body = body.as_ref().to_vec();
        self.on(path, move |_| {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            respond(status, &fields, &body)
        });
    }

    /// The first request gets the first answer and so on; the last one repeats.
    pub fn sequence(&self, path: &str, replies: Vec<Reply>) {
        let next = AtomicUsize::new(0);
        self.on(path, move |_| replies[next.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1)].clone());
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whole requests for a path (without query) so far.
    pub fn count(&self, path: &str) -> usize {
        lock(&self.inner.seen).iter().filter(|seen| seen.path() == path).count()
    }

    pub fn total(&self) -> usize {
        lock(&self.inner.seen).len()
    }

    /// Requests of which at least the head has arrived.
    pub fn begun(&self, path: &str) -> usize {
        lock(&self.inner.begun).iter().filter(|target| target.split('?').next() == Some(path)).count()
    }

    pub fn seen(&self, path: &str) -> Vec<Seen> {
        lock(&self.inner.seen).iter().filter(|seen| seen.path() == path).cloned().collect()
    }

    #[track_caller]
    pub fn last(&self, path: &str) -> Seen {
        self.seen(path).pop().unwrap_or_else(|| panic!("the origin was never asked for {path}"))
    }

    pub fn connections_open(&self) -> usize {
        lock(&self.inner.open).len()
    }

    pub fn connections_accepted(&self) -> usize {
        self.inner.accepted.load(Ordering::SeqCst)
    }

    /// Ends all connections; new ones are still accepted.
    pub fn hang_up(&self) {
        for stream in lock(&self.inner.open).values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// From now on a connect is refused.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = lock(&self.acceptor).take() {
            drop(acceptor.join());
        }
        self.hang_up();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept() {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        let id = inner.accepted.fetch_add(1, Ordering::SeqCst);
        let Ok(clone) = stream.try_clone() else { continue };
        lock(&inner.open).insert(id, clone);
        let inner = Arc::clone(inner);
        thread::spawn(move || {
            drop(serve(stream, id, &inner));
            lock(&inner.open).remove(&id);
        });
    }
}

fn serve(mut stream: TcpStream, id: usize, inner: &Inner) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut unread, id, inner)? {
        lock(&inner.seen).push(seen.clone());
        for step in reply_to(&seen, inner) {
            match step {
                Step::Send(bytes) => stream.write_all(&bytes)?,
                Step::Body(bytes) if seen.method != "HEAD" => stream.write_all(&bytes)?,
                Step::Body(_) => {}
                Step::Sleep(time) => thread::sleep(time),
                Step::Wait(gate) => gate.wait(),
                Step::Close => {
                    stream.shutdown(Shutdown::Write)?;
                    return Ok(());
                }
                Step::Reset => {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                    // Both descriptors of the socket must go before the kernel sends the reset.
                    lock(&inner.open).remove(&id);
                    return Ok(());
                }
            }
        }
        if seen.joined("connection").to_ascii_lowercase().contains("close") {
            stream.shutdown(Shutdown::Write)?;
            return Ok(());
        }
    }
    Ok(())
}

fn reply_to(seen: &Seen, inner: &Inner) -> Reply {
    let handler = lock(&inner.routes)
        .iter()
        .rev()
        .find(|(path, _)| match path.strip_suffix('*') {
            Some(prefix) => seen.target.starts_with(prefix),
            None => seen.path() == path,
        })
        .map(|(_, handler)| Arc::clone(handler));
    match handler {
        Some(handler) => handler(seen),
        None => respond(404, &[("Cache-Control", "no-store")], "no script for this path"),
    }
}

fn read_request(
    stream: &mut TcpStream,
    unread: &mut Vec<u8>,
    connection: usize,
    inner: &Inner,
) -> io::Result<Option<Seen>> {
    let end = loop {
        if let Some(at) = find(unread, b"\r\n\r\n") {
            break at + 4;
        }
        if read_more(stream, unread)? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = unread.drain(..end).collect();
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let fields = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen { head, method, target, fields, body: Vec::new(), connection };
    lock(&inner.begun).push(seen.target.clone());
    read_body(stream, unread, &mut seen)?;
    Ok(Some(seen))
}

fn read_body(stream: &mut TcpStream, unread: &mut Vec<u8>, seen: &mut Seen) -> io::Result<()> {
    if seen.joined("transfer-encoding").eq_ignore_ascii_case("chunked") {
        loop {
            let line = read_line(stream, unread)?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| io::Error::other("a chunk without a size"))?;
            seen.body.extend(read_exactly(stream, unread, size)?);
            // Trailers are not looked at.
            while !read_line(stream, unread)?.is_empty() {}
            if size == 0 {
                return Ok(());
            }
        }
    }
    let length = seen.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    seen.body = read_exactly(stream, unread, length)?;
    Ok(())
}

fn read_line(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(at) = find(unread, b"\r\n") {
            let line: Vec<u8> = unread.drain(..at + 2).take(at).collect();
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        if read_more(stream, unread)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn read_exactly(stream: &mut TcpStream, unread: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while unread.len() < length {
        if read_more(stream, unread)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(unread.drain(..length).collect())
}

fn read_more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let count = stream.read(&mut chunk)?;
    unread.extend_from_slice(&chunk[..count]);
    Ok(count)
}
