//! Origins: where responses come from.
//!
//! An [`Origin`] is a set of HTTP servers with keep-alive pools, or a directory. It takes a request
//! whose head is ready to send and gives a response whose body streams; every wait has a timeout
//! and every queue a limit.
//!
//! Not here: which fields a request to the origin carries, what is stored (`edge`, `rules`).

mod backoff;
mod balance;
mod body;
mod connect;
mod dir;
mod error;
mod interim;
mod metrics;
mod pool;
mod repeat;
mod spare;
mod tls;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use http_body_util::Empty;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::Semaphore;

pub use body::OriginBody;
pub use dir::DirError;
pub use error::OriginError;
pub use interim::{InterimHead, InterimReceiver, InterimSender, interim_channel, on_interim};
pub use metrics::OriginMetrics;
pub use spare::Spare;
pub use tls::{OriginTls, OriginTlsError};

use dir::DirOrigin;
use pool::HttpOrigin;

/// The body of a request to an origin.
pub type OutBody = Either<Empty<Bytes>, UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// A body of no bytes.
pub fn no_body() -> OutBody {
    Either::Left(Empty::new())
}

/// One server of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Whether TLS is spoken with it.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its share of requests.
    pub weight: u32,
}

impl ServerConfig {
    /// What `Host` says when it names this server.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default_port = if self.tls { 443 } else { 80 };
        if self.port == default_port { host } else { format!("{host}:{}", self.port) }
    }
}

/// Where an origin's responses come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// HTTP servers that answer alike.
    Servers(Vec<ServerConfig>),
    /// A directory of files.
    Dir(PathBuf),
}

/// Which server of several is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two drawn in turn (the power of two choices).
    LeastRequests,
    /// One after the other, by weight.
    RoundRobin,
    /// Always the same for a URL (rendezvous hashing).
    Hash,
}

/// `[[origin]]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The origin's name.
    pub name: String,
    /// Where responses come from.
    pub source: Source,
    /// Which server is asked.
    pub balance: Balance,
    /// Host (and SNI) to send; `None`: the client's.
    pub host: Option<String>,
    /// TLS towards the servers.
    pub tls: OriginTls,
    /// Name lookup, TCP and TLS handshake together.
    pub connect_timeout: Duration,
    /// From the request's end to the response's head.
    pub first_byte_timeout: Duration,
    /// Between two reads of the response's body.
    pub between_bytes_timeout: Duration,
    /// A whole fetch for the cache; enforced by who fetches.
    pub fill_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Further servers tried when one can't be reached.
    pub retries: u32,
    /// Connections to each server.
    pub max_connections: usize,
    /// Requests that may wait for a connection.
    pub queue: usize,
    /// How long they may wait.
    pub queue_timeout: Duration,
    /// Fetches for the cache under way; enforced by who fetches.
    pub fills: usize,
}

/// An origin, ready to be asked.
#[derive(Debug)]
pub struct Origin {
    config: Config,
    kind: Kind,
    fills: Arc<Semaphore>,
    /// Requests under way that could wait.
    spares: AtomicUsize,
}

#[derive(Debug)]
enum Kind {
    Http(HttpOrigin),
    Dir(DirOrigin),
}

/// What can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// See [`OriginTlsError`].
    #[error("origin {name}: {source}")]
    Tls {
        /// The origin's name.
        name: String,
        /// What is wrong.
        source: OriginTlsError,
    },
    /// See [`DirError`].
    #[error("origin {name}: {source}")]
    Dir {
        /// The origin's name.
        name: String,
        /// What is wrong.
        source: DirError,
    },
}

impl Origin {
    /// Sets an origin up; nothing is connected to yet.
    pub fn new(config: Config, workers: usize) -> Result<Arc<Self>, SetupError> {
        let name = config.name.clone();
        let kind = match &config.source {
            Source::Servers(servers) => Kind::Http(
                HttpOrigin::new(&config, servers, workers)
                    .map_err(|source| SetupError::Tls { name, source })?,
            ),
            Source::Dir(path) => {
                Kind::Dir(DirOrigin::open(path).map_err(|source| SetupError::Dir { name, source })?)
            }
        };
        let fills = Arc::new(Semaphore::new(config.fills));
        Ok(Arc::new(Self { config, kind, fills, spares: AtomicUsize::new(0) }))
    }

    /// Sends a request, whose URI is in origin form and whose `Host` is set, and gives the answer's
    /// head as soon as it is there. Redirects and errors of the origin are answers too.
    pub async fn send(&self, request: Request<OutBody>) -> Result<Response<OriginBody>, OriginError> {
        match &self.kind {
            Kind::Http(origin) => origin.send(&self.config, request).await,
            Kind::Dir(origin) => Ok(origin.send(request, &self.config).await),
        }
    }

    /// The origin's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Turns for fetches for the cache.
    pub fn fills(&self) -> &Arc<Semaphore> {
        &self.fills
    }

    /// How long a whole fetch for the cache may take.
    pub fn fill_timeout(&self) -> Duration {
        self.config.fill_timeout
    }

    /// The Host to send instead of the client's.
    pub fn host(&self) -> Option<&str> {
        self.config.host.as_deref()
    }

    /// Closes connections that were idle for too long.
    pub fn sweep(&self) {
        if let Kind::Http(origin) = &self.kind {
            origin.sweep(self.config.idle_timeout);
        }
    }

    /// Its servers and their state, for `status`.
    pub fn servers(&self) -> Vec<ServerStatus> {
        match &self.kind {
            Kind::Http(origin) => origin.status(),
            Kind::Dir(origin) => vec![ServerStatus {
                server: format!("dir:{}", origin.path().display()),
                up: true,
                in_flight: 0,
                connections: 0,
                waiting: 0,
                last_error: None,
            }],
        }
    }
}

/// One server, as `status` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ServerStatus {
    /// URL or directory.
    pub server: String,
    /// Whether the last attempt reached it.
    pub up: bool,
    /// Requests being answered.
    pub in_flight: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Why the last attempt failed, when it did.
    pub last_error: Option<String>,
}
