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
mod health;
mod interim;
mod lease;
mod metrics;
mod pool;
mod probe;
mod repeat;
mod retry;
mod sender;
mod spare;
mod standing;
mod tls;
mod upload;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
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

use crate::telemetry::Span;
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// `origin.health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What is asked.
    pub path: String,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Successes in a row until a server is in again.
    pub healthy: u32,
    /// Failures in a row until it is out.
    pub unhealthy: u32,
    /// Statuses that are a success.
    pub status: RangeInclusive<u16>,
}

impl HealthConfig {
    /// The defaults.
    pub fn for_path(path: &str) -> Self {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
        Self { path: path.to_owned(), interval, timeout, healthy: 2, unhealthy: 3, status: 200..=399 }
    }
}

/// `origin.eject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectConfig {
    /// Failures in a row until a server is out.
    pub consecutive_errors: u32,
    /// For how long at first; doubled each time.
    pub base: Duration,
    /// For how long at most.
    pub max: Duration,
    /// The share of a pool's servers that may be out at once for this reason.
    pub max_percent: u32,
}

impl Default for EjectConfig {
    fn default() -> Self {
        let (base, max) = (Duration::from_secs(10), Duration::from_secs(300));
        Self { consecutive_errors: 5, base, max, max_percent: 50 }
    }
}

/// `[[origin]]`.
#[derive(Clone, Debug, PartialEq)]
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
    /// How many retries a request earns, in millionths.
    pub retry_budget_millionths: u32,
    /// Whether HTTP/2 is spoken where the servers can.
    pub http2: bool,
    /// Active probes; `None`: none.
    pub health: Option<HealthConfig>,
    /// When a server is left out for its answers.
    pub eject: EjectConfig,
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
    is_probing: AtomicBool,
    /// Requests under way that could wait.
    spares: AtomicUsize,
    /// Of its TLS files.
    files: blake3::Hash,
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
        let (is_probing, spares, files) = (AtomicBool::new(false), AtomicUsize::new(0), config.tls.digest());
        Ok(Arc::new(Self { config, kind, fills, is_probing, spares, files }))
    }

    /// Whether this is what another would be that is set up now: it can go on, with its connections.
    pub fn is_as(&self, config: &Config) -> bool {
        self.config == *config && self.files == config.tls.digest()
    }

    /// Sends a request, whose URI is in origin form and whose `Host` is set, and gives the answer's
    /// head as soon as it is there. Redirects and errors of the origin are answers too.
    pub async fn send(&self, mut request: Request<OutBody>) -> Result<Response<OriginBody>, OriginError> {
        let mut span = Span::begin(&self.config.name, &mut request);
        let answer = match &self.kind {
            Kind::Http(origin) => origin.send(&self.config, request).await,
            Kind::Dir(origin) => Ok(origin.send(request, &self.config).await),
        };
        match &answer {
            Ok(response) => span.answered(response.status()),
            Err(error) => span.failed(error.outcome()),
        }
        answer.map(|response| response.map(|body| body.within(span)))
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

    /// To be called now and then on the control thread: closes connections that were idle for too long, and has probes
    /// begun by the first call.
    pub fn sweep(self: &Arc<Self>) {
        if !self.is_probing.swap(true, Relaxed) {
            self.begin_probes();
        }
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
                state: "up",
                why: None,
                ejected_for_seconds: None,
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
    /// Whether it is asked and, where nobody probes it, whether the last attempt reached it.
    pub up: bool,
    /// `up`; `failing`: the last attempt did not reach it; `down`: its probes fail; `ejected`: its answers failed. The
    /// last two are asked only when all are out.
    pub state: &'static str,
    /// Why it is not up.
    pub why: Option<String>,
    /// For how long it stays out, when it is ejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_for_seconds: Option<u64>,
    /// Requests being answered.
    pub in_flight: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Why the last attempt failed, when it did.
    pub last_error: Option<String>,
}
