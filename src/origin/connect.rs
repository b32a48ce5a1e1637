//! A new connection to a server: name, TCP, TLS, HTTP.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::ServerConfig;
use super::error::OriginError;
use super::sender::Sender;

/// The longest response head taken from an origin, and what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What a response of HTTP/2 may be ahead of its reader, and all of a connection together.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Named types: the compiler can't prove the inferred ones `Send` for every lifetime.
type Handshake = Pin<Box<dyn Future<Output = Result<Sender, OriginError>> + Send>>;
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Connections of one name are tried one after another, each for its share of the time.
const MAX_ADDRESSES: usize = 4;

/// Connects within `limit`. `sni` is the name to ask for and to verify, when TLS is spoken.
/// With `http2` that is spoken where TLS agrees on it, and without TLS at once. `on_end` is dropped when the connection is
/// gone.
pub(super) async fn connect(
    server: &ServerConfig,
    tls: Option<(&TlsConnector, &str)>,
    http2: bool,
    limit: Duration,
    on_end: impl Send + 'static,
) -> Result<Sender, OriginError> {
    let connecting = async {
        let stream = tcp(server, limit).await?;
        match tls {
            None if http2 => handshake_http2(TokioIo::new(stream), on_end).await,
            None => handshake(TokioIo::new(stream), on_end).await,
            Some((connector, sni)) => {
                let name = ServerName::try_from(sni.to_owned())
                    .map_err(|_| OriginError::Tls(format!("{sni} is no name for SNI")))?;
                let stream =
                    connector.connect(name, stream).await.map_err(|e| OriginError::Tls(e.to_string()))?;
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    return handshake_http2(TokioIo::new(stream), on_end).await;
                }
                handshake(TokioIo::new(stream), on_end).await
            }
        }
    };
    timeout(limit, connecting).await.unwrap_or(Err(OriginError::ConnectTimeout))
}

async fn tcp(server: &ServerConfig, limit: Duration) -> Result<TcpStream, OriginError> {
    let addresses: Vec<_> = tokio::net::lookup_host((server.host.as_str(), server.port))
        .await
        .map_err(OriginError::Dns)?
        .take(MAX_ADDRESSES)
        .collect();
    let share = limit / addresses.len().max(1) as u32;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    if last.kind() == io::ErrorKind::TimedOut {
        return Err(OriginError::ConnectTimeout);
    }
    Err(OriginError::Connect(last))
}

async fn handshake<I>(io: TokioIo<I>, on_end: impl Send + 'static) -> Result<Sender, OriginError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(io)
        .await
        .map_err(OriginError::Closed)?;
    drive(Box::pin(connection), on_end);
    Ok(Sender::Http1(sender))
}

fn handshake_http2<I>(io: TokioIo<I>, on_end: impl Send + 'static) -> Handshake
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(io)
            .await
            .map_err(OriginError::Closed)?;
        drive(Box::pin(connection), on_end);
        Ok(Sender::Http2(sender))
    })
}

fn drive(connection: Driver, on_end: impl Send + 'static) {
    tokio::spawn(async move {
        // Its errors reach whoever waits for a response.
        let _ = connection.await;
        drop(on_end);
    });
}
