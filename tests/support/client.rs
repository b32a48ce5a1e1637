//! A strict HTTP/1.1 client: it takes nothing for a response that is not exactly one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;
use super::request::Request;
use super::response::Response;

/// Why there is no whole response.
#[expect(dead_code, reason = "the texts are for the message of a failed test")]
#[derive(Debug)]
pub enum Broken {
    /// The connection ended before the first byte.
    Closed,
    /// It ended in the middle; with what had arrived of the body.
    Truncated(Response),
    /// It was reset, before or within a response.
    Reset,
    /// Nothing came for the time that the client waits.
    TimedOut,
    /// These bytes are no HTTP.
    Malformed(String),
}

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

/// One descriptor each, so that a test can hold many thousands.
pub struct Client {
    stream: Stream,
    unread: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        Self::on(socket)
    }

    /// Speaks on a socket that the test made, for example with a small receive buffer.
    pub fn on(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Plain(socket), unread: Vec::new() })
    }

    /// Connects, and completes the TLS handshake.
    pub fn connect_tls(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::try_connect(address)?.secure(name, config)
    }

    /// Completes a TLS handshake on a plain connection.
    pub fn secure(self, name: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let Stream::Plain(mut socket) = self.stream else { return Err(ErrorKind::Unsupported.into()) };
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(session, socket)));
        Ok(Self { stream, unread: Vec::new() })
    }

    pub(super) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The TLS session of a connection that has one.
    #[track_caller]
    pub fn session(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(stream) => &stream.conn,
            Stream::Plain(_) => panic!("a plain connection has no TLS session"),
        }
    }

    pub fn read_timeout(&self, limit: Duration) {
        self.stream.socket().set_read_timeout(Some(limit)).expect("a timeout");
    }

    /// Ends the sending side only.
    pub fn finish(&self) {
        drop(self.stream.socket().shutdown(Shutdown::Write));
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the request is taken");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// One request and its whole response.
    #[track_caller]
    pub fn exchange(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        self.response(&request.method)
    }

    /// The next response, which must be whole.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|broken| panic!("no whole response to {method}: {broken:?}"))
    }

    /// The next final response; the method decides whether a body can follow.
    pub fn try_response(&mut self, method: &str) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.try_head()?;
            if (100..200).contains(&response.status) {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            return self.try_body(method, response);
        }
    }

    /// The next head, interim or final.
    pub fn try_head(&mut self) -> Result<Response, Broken> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            match self.fill()? {
                0 if self.unread.is_empty() => return Err(Broken::Closed),
                0 => return Err(Broken::Truncated(Response::default())),
                _ => {}
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        parse_head(&head)
    }

    /// The body that belongs to a head from [`Client::try_head`].
    pub fn try_body(&mut self, method: &str, mut response: Response) -> Result<Response, Broken> {
        let bodiless = method == "HEAD" || response.status == 204 || response.status == 304;
        let length = content_length(&response)?;
        let coding = response.joined("transfer-encoding").to_ascii_lowercase();
        if bodiless {
            return Ok(response);
        }
        match (coding.as_str(), length) {
            ("chunked", None) => self.chunked(response),
            ("", Some(length)) => {
                let whole = self.take(length, &mut response.body)?;
                if whole { Ok(response) } else { Err(Broken::Truncated(response)) }
            }
            ("", None) => {
                while self.fill()? > 0 {}
                response.body.append(&mut self.unread);
                Ok(response)
            }
            _ => Err(Broken::Malformed(format!("framing: {:?}", response.fields))),
        }
    }

    fn chunked(&mut self, mut response: Response) -> Result<Response, Broken> {
        loop {
            let Some(line) = self.line()? else { return Err(Broken::Truncated(response)) };
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16)
                .map_err(|_| Broken::Malformed(format!("chunk {line:?}")))?;
            if size == 0 {
                break;
            }
            if !self.take(size, &mut response.body)? {
                return Err(Broken::Truncated(response));
            }
            match self.line()? {
                None => return Err(Broken::Truncated(response)),
                Some(line) if line.is_empty() => {}
                Some(line) => return Err(Broken::Malformed(format!("after a chunk: {line:?}"))),
            }
        }
        loop {
            match self.line()? {
                None => return Err(Broken::Truncated(response)),
                Some(line) if line.is_empty() => return Ok(response),
                Some(line) => response.trailers.push(parse_field(&line)?),
            }
        }
    }

    /// Moves exactly `length` bytes to `body`; false when the connection ended first.
    pub fn take(&mut self, length: usize, body: &mut Vec<u8>) -> Result<bool, Broken> {
        let mut missing = length;
        loop {
            let here = missing.min(self.unread.len());
            body.extend(self.unread.drain(..here));
            missing -= here;
            if missing == 0 {
                return Ok(true);
            }
            if self.fill()? == 0 {
                return Ok(false);
            }
        }
    }

    fn line(&mut self) -> Result<Option<String>, Broken> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line = self.unread.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map(Some).map_err(|_| Broken::Malformed("a line".to_owned()));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Bytes that arrived and belong to no response that was read.
    pub fn surplus(&self) -> &[u8] {
        &self.unread
    }

    /// Waits for the other side to end the connection without another byte, and says how long that took.
    #[track_caller]
    pub fn expect_close(&mut self) -> Duration {
        let start = Instant::now();
        match self.fill() {
            Ok(0) | Err(Broken::Reset) => {}
            other => panic!("no end of the connection: {other:?}"),
        }
        assert!(self.unread.is_empty(), "bytes before the end: {:?}", String::from_utf8_lossy(&self.unread));
        start.elapsed()
    }

    /// True once the other side has closed; never waits.
    pub fn is_closed(&mut self) -> bool {
        self.stream.socket().set_nonblocking(true).expect("a mode");
        let mut byte = [0; 1];
        let closed = match self.stream.socket().peek(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.stream.socket().set_nonblocking(false).expect("a mode");
        closed
    }

    fn fill(&mut self) -> Result<usize, Broken> {
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut chunk),
            Stream::Tls(stream) => stream.read(&mut chunk),
        };
        match read {
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                Ok(count)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::TimedOut)
            }
            Err(_) => Err(Broken::Reset),
        }
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> Result<Response, Broken> {
    let malformed = || Broken::Malformed(String::from_utf8_lossy(head).into_owned());
    // Field values may carry obs-text; each byte is kept as one character.
    let text: String = head.iter().copied().map(char::from).collect();
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().ok_or_else(malformed)?;
    let rest = status_line.strip_prefix("HTTP/1.1 ").or_else(|| status_line.strip_prefix("HTTP/1.0 "));
    let status = rest.and_then(|rest| rest.get(..3)).ok_or_else(malformed)?;
    let status = status.parse().map_err(|_| malformed())?;
    let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
    Ok(Response { status, fields, ..Response::default() })
}

fn parse_field(line: &str) -> Result<(String, String), Broken> {
    let (name, value) = line.split_once(':').ok_or_else(|| Broken::Malformed(line.to_owned()))?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Broken::Malformed(line.to_owned()));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn content_length(response: &Response) -> Result<Option<usize>, Broken> {
    let lines: Vec<_> =
        response.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("content-length")).collect();
    match lines.as_slice() {
        [] => Ok(None),
        [(_, value)] if value.bytes().all(|b| b.is_ascii_digit()) => {
            value.parse().map(Some).map_err(|_| Broken::Malformed(format!("Content-Length: {value}")))
        }
        _ => Err(Broken::Malformed(format!("Content-Length: {lines:?}"))),
    }
}
