//! Sockets: listeners, TLS, HTTP/1.1 and HTTP/2, timeouts and limits of connections.
//!
//! Everything that concerns a connection rather than a request lives here, behind one generic
//! [`Handler`]: this module does not know what is served. N workers each run [`Server::run`] on a
//! current-thread runtime with `SO_REUSEPORT` sockets of their own.
//!
//! Not here: what a request means (`edge`, `control`).

mod activity;
mod body;
mod certificates;
mod conn;
mod copies;
mod cork;
mod executor;
mod http1_io;
pub mod inherited;
mod integrity;
mod interim;
mod io;
mod limits;
mod lines;
mod listener;
mod metrics;
mod phase;
pub mod proxy_protocol;
mod sealing;
mod tls;
mod validity;
mod watchdog;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Version};

use activity::Activity;
pub use body::{RequestBody, RequestBodyError};
pub use certificates::{CertificateMetrics, Certificates, Prepared};
pub use copies::Room;
pub use inherited::{Inherited, bind_or_inherit};
pub use interim::Interim;
pub use limits::{Connections, client_of};
pub use lines::Outgoing;
pub use listener::{BindError, Bound, ListenConfig, Server, bind};
pub use metrics::NetMetrics;
pub use phase::Phase;
pub use tls::{CertificateFiles, TlsError, client_ca, load_certificates, server_config};

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Fields of a request's head.
    pub header_count: usize,
    /// Bytes of a request's target; enforced by the handler.
    pub uri_bytes: usize,
    /// Bytes of a request's body.
    pub request_body_bytes: u64,
    /// From the accept, or the first byte of a request, to the end of its head.
    pub header_timeout: Duration,
    /// Between two reads of a request's body.
    pub body_timeout: Duration,
    /// Without progress of a response.
    pub write_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Concurrent streams of an HTTP/2 connection.
    pub h2_streams: u32,
    /// Open connections.
    pub connections: usize,
    /// Open connections of one client: an IPv4 address or an IPv6 /64.
    pub connections_per_client: usize,
}

/// What a request's connection is.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The TLS version, e.g. `TLSv1_3`; empty on a plain connection.
    pub tls: &'static str,
    activity: Arc<Activity>,
    /// The other end is a proxy that did not say whom it connects for, so nothing on it tells of a client.
    pub is_anonymous: bool,
}

impl ConnInfo {
    /// A connection on which nothing has happened yet.
    pub fn new(peer: SocketAddr, local: SocketAddr, tls: &'static str) -> Self {
        Self { peer, local, tls, activity: Arc::new(Activity::new()), is_anonymous: false }
    }

    /// Sends interim responses before the final one of the request that is being handled; `None` where
    /// the client knows none (HTTP/1.0) or hyper can't send them (HTTP/2).
    pub fn interim(&self, version: Version) -> Option<Interim> {
        (version == Version::HTTP_11).then(|| Interim::new(self.activity.clone()))
    }

    /// Whether the connection is encrypted.
    #[inline]
    pub fn is_secure(&self) -> bool {
        !self.tls.is_empty()
    }
}

/// Answers requests. Cloned for each connection, so cloning is to be cheap.
pub trait Handler: Clone + Send + Sync + Unpin + 'static {
    /// The body of its answers.
    type Body: Outgoing;

    /// An answer on its way. It is moved about: what is large is better boxed.
    type Answer: Future<Output = Response<Self::Body>> + Send + Unpin + 'static;

    /// Answers one request. What can be done without waiting is best done here and not in the answer:
    /// a request that is dropped before the connection reads on gives its buffer back to it.
    ///
    /// `arrived` is when the connection turned to it.
    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Self::Answer;

    /// Answers what is no request: hyper could not parse its head and says `status` (400, 414 or 431).
    /// The whole body must be there at once; the connection closes after it. `None`: a bare status.
    fn malformed(&self, _status: StatusCode, _conn: &ConnInfo) -> Option<Response<Self::Body>> {
        None
    }
}

#[cfg(test)]
mod tests;
