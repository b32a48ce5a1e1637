//! An HTTP/2 client on a small runtime of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::request::Request;
use super::response::Response;

pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    scheme: &'static str,
}

impl Http2 {
    /// By prior knowledge on a plain port.
    #[track_caller]
    pub fn plain(address: SocketAddr) -> Self {
        let runtime = runtime();
        let (sender, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("a connection");
            handshake(stream).await
        });
        Self { runtime, sender, connection, scheme: "http" }
    }

    /// Over TLS; the server must choose `h2` by ALPN.
    #[track_caller]
    pub fn tls(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Self {
        let runtime = runtime();
        let (sender, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("a connection");
            let name = ServerName::try_from(name.to_owned()).expect("a server name");
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
            let greeting = tokio::time::timeout(PATIENCE, connector.connect(name, stream));
            let stream = greeting.await.expect("an end of the handshake").expect("a TLS handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()), "ALPN");
            handshake(stream).await
        });
        Self { runtime, sender, connection, scheme: "https" }
    }

    #[track_caller]
    pub fn exchange(&self, request: &Request) -> Response {
        self.try_exchange(request).unwrap_or_else(|error| panic!("no whole response over HTTP/2: {error}"))
    }

    pub fn try_exchange(&self, request: &Request) -> Result<Response, h2::Error> {
        self.runtime.block_on(bounded(exchange(self.sender.clone(), self.scheme, request.clone())))
    }

    /// All at once, on streams of one connection; in the order of the requests.
    #[track_caller]
    pub fn exchange_all(&self, requests: &[Request]) -> Vec<Response> {
        let local = requests.iter().map(|request| {
            let exchange = exchange(self.sender.clone(), self.scheme, request.clone());
            self.runtime.spawn(bounded(exchange))
        });
        let tasks: Vec<_> = local.collect();
        self.runtime.block_on(async {
            let mut responses = Vec::new();
            for task in tasks {
                responses.push(task.await.expect("a task").expect("a whole response over HTTP/2"));
            }
            responses
        })
    }

    /// Sends a request and takes the head of its answer, which must be 200.
    #[track_caller]
    pub fn begin(&self, request: &Request) -> RecvStream {
        let uri = format!("{}://{}{}", self.scheme, request.host, request.target);
        let message = http::Request::get(uri).body(()).expect("a request");
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await.expect("room for a stream");
            let (answer, _) = sender.send_request(message, true).expect("the request is taken");
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("a head");
            assert_eq!(answer.status(), 200);
            answer.into_body()
        })
    }

    /// Reads this much of a body, neither more nor less.
    #[track_caller]
    pub fn read(&self, stream: &mut RecvStream, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        self.runtime.block_on(async {
            while read.len() < length {
                let data = tokio::time::timeout(PATIENCE, stream.data()).await.expect("in time");
                let data = data.expect("more of the body").expect("data");
                stream.flow_control().release_capacity(data.len()).expect("room");
                read.extend_from_slice(&data);
            }
        });
        assert_eq!(read.len(), length);
        read
    }

    /// Lets the connection run until the server ends it; true when that happens in time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let connection = &mut self.connection;
        self.runtime.block_on(async { tokio::time::timeout(limit, connection).await.is_ok() })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn handshake<T>(stream: T) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    // More only once the server's SETTINGS allow it, as RFC 9113 §5.1.2 has it in the end.
    builder.initial_max_send_streams(1);
    let (sender, connection) = builder.handshake(stream).await.expect("an HTTP/2 handshake");
    (sender, tokio::spawn(connection))
}

async fn bounded(exchange: impl Future<Output = Result<Response, h2::Error>>) -> Result<Response, h2::Error> {
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(result) => result,
        Err(_) => Err(h2::Error::from(h2::Reason::CANCEL)),
    }
}

async fn exchange(
    sender: SendRequest<Bytes>,
    scheme: &'static str,
    request: Request,
) -> Result<Response, h2::Error> {
    let mut sender = sender.ready().await?;
    let uri = format!("{scheme}://{}{}", request.host, request.target);
    let mut message =
        http::Request::builder().method(request.method.as_str()).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in &request.fields {
        message = message.header(name.as_str(), value.as_str());
    }
    let message = message.body(()).expect("a request");
    let (answer, mut stream) = sender.send_request(message, request.body.is_empty())?;
    if !request.body.is_empty() {
        stream.send_data(Bytes::from(request.body), true)?;
    }
    let (head, mut body) = answer.await?.into_parts();
    let mut response = Response { status: head.status.as_u16(), ..Response::default() };
    for (name, value) in &head.headers {
        let value = value.as_bytes().iter().copied().map(char::from).collect();
        response.fields.push((name.as_str().to_owned(), value));
    }
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        response.body.extend_from_slice(&data);
    }
    if let Some(length) = response.field("content-length") {
        let whole =
            request.method == "HEAD" || response.status == 304 || length == response.body.len().to_string();
        assert!(whole, "a body of {} bytes for Content-Length {length}", response.body.len());
    }
    Ok(response)
}

/// The frames of a connection, for what an ordinary client does not show.
pub mod frames {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::{PATIENCE, SocketAddr, io};

    pub const SETTINGS: u8 = 4;
    pub const GOAWAY: u8 = 7;

    pub struct Frame {
        pub kind: u8,
        pub payload: Vec<u8>,
    }

    /// Opens a connection by prior knowledge with empty settings.
    pub fn open(address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        Ok(stream)
    }

    /// The next frame; None at the end of the connection.
    pub fn next(stream: &mut TcpStream) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match stream.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => stream.read_exact(&mut head[1..])?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        if head[3] == SETTINGS && head[4] == 0 {
            stream.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0])?;
        }
        Ok(Some(Frame { kind: head[3], payload }))
    }
}
