//! A new connection to a server: name, TCP, TLS, HTTP.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::OriginError;
use super::{OutBody, ServerConfig};

/// The longest response head taken from an origin, and what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Connections of one name are tried one after another, each for its share of the time.
const MAX_ADDRESSES: usize = 4;

/// Connects within `limit`. `sni` is the name to ask for and to verify, when TLS is spoken.
/// `on_end` is dropped when the connection is gone.
pub(super) async fn connect(
    server: &ServerConfig,
    tls: Option<(&TlsConnector, &str)>,
    limit: Duration,
    on_end: impl Send + 'static,
) -> Result<SendRequest<OutBody>, OriginError> {
    let connecting = async {
        let stream = tcp(server, limit).await?;
        match tls {
            None => handshake(TokioIo::new(stream), on_end).await,
            Some((connector, sni)) => {
                let name = ServerName::try_from(sni.to_owned())
                    .map_err(|_| OriginError::Tls(format!("{sni} is no name for SNI")))?;
                let stream =
                    connector.connect(name, stream).await.map_err(|e| OriginError::Tls(e.to_string()))?;
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

async fn handshake<I>(
    io: TokioIo<I>,
    on_end: impl Send + 'static,
) -> Result<SendRequest<OutBody>, OriginError>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(io)
        .await
        .map_err(OriginError::Closed)?;
    // A named type: the compiler can't prove the inferred one `Send` for every lifetime.
    let connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>> = Box::pin(connection);
    tokio::spawn(async move {
        // Its errors reach whoever waits for a response.
        let _ = connection.await;
        drop(on_end);
    });
    Ok(sender)
}
