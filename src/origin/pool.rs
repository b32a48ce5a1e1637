//! Keep-alive pools: idle connections by worker, in-flight requests bounded by server.
//!
//! A request first takes a permit of its server (bounded queue, bounded wait), then an idle
//! connection of its own worker, else opens one. Open connections, idle ones included, never exceed
//! `max_connections`: where all are open and one must be idle, it is taken from another worker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, Response, header};
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::backoff::Backoff;
use super::balance;
use super::body::OriginBody;
use super::connect::connect;
use super::error::OriginError;
use super::metrics::ServerCounters;
use super::repeat::{copy_head, may_repeat};
use super::tls::{OriginTlsError, connector};
use super::upload::Upload;
use super::{Config, OutBody, ServerConfig, ServerStatus};
use crate::telemetry::worker_slot;

/// A pooled connection that has closed is noticed this soon when it is taken out.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// The servers of an origin.
#[derive(Debug)]
pub(super) struct HttpOrigin {
    servers: Vec<Arc<Server>>,
    /// Server indexes, each as often as its weight says.
    schedule: Vec<usize>,
    next: AtomicUsize,
    tls: TlsConnector2,
}

/// A connector that can be shown.
struct TlsConnector2(TlsConnector);

impl fmt::Debug for TlsConnector2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

struct Idle {
    sender: SendRequest<OutBody>,
    sni: Option<Box<str>>,
    since: Instant,
}

pub(super) struct Server {
    pub(super) config: ServerConfig,
    permits: Arc<Semaphore>,
    max_connections: usize,
    waiting: AtomicUsize,
    open: Arc<AtomicUsize>,
    /// By worker slot; a lock is shared only when a connection changes workers.
    idle: Box<[Mutex<Vec<Idle>>]>,
    last_error: Mutex<Option<String>>,
    backoff: Backoff,
    pub(super) counters: ServerCounters,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A connection in use and the right to use it.
pub(super) struct Lease {
    sender: SendRequest<OutBody>,
    sni: Option<Box<str>>,
    server: Arc<Server>,
    is_reused: bool,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.server.config).finish_non_exhaustive()
    }
}

/// Takes a connection off the count of open ones when it is gone.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Lease {
    /// Puts the connection back for the next request; a closed one is dropped.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let idle = Idle { sender: self.sender, sni: self.sni, since: Instant::now() };
        self.server.idle[slot(&self.server.idle)].lock().push(idle);
    }

    pub(super) fn count(&self, bytes: usize) {
        self.server.counters.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

fn slot(idle: &[Mutex<Vec<Idle>>]) -> usize {
    worker_slot().min(idle.len() - 1)
}

impl HttpOrigin {
    pub(super) fn new(
        config: &Config,
        servers: &[ServerConfig],
        workers: usize,
    ) -> Result<Self, OriginTlsError> {
        let mut schedule = Vec::new();
        let heaviest = servers.iter().map(|s| s.weight).max().unwrap_or(1);
        // Interleaved, so that a heavy server does not get its requests in one burst.
        for round in 0..heaviest {
            schedule.extend((0..servers.len()).filter(|i| servers[*i].weight > round));
        }
        Ok(Self {
            servers: servers.iter().map(|s| Arc::new(Server::new(s, config, workers))).collect(),
            schedule,
            next: AtomicUsize::new(0),
            tls: TlsConnector2(connector(&config.tls)?),
        })
    }

    pub(super) async fn send(
        &self,
        config: &Config,
        request: Request<OutBody>,
    ) -> Result<Response<OriginBody>, OriginError> {
        let turn = self.next.fetch_add(1, Relaxed);
        let mut order = balance::order(config.balance, &self.servers, &self.schedule, turn, &request);
        if order.len() > 1 {
            let now = Instant::now();
            order.sort_by_key(|index| self.servers[*index].backoff.is_waiting(now));
        }
        let mut request = request;
        let mut attempt = 0;
        loop {
            let server = &self.servers[order[attempt as usize % order.len()]];
            let (error, unsent) = match server.send(config, &self.tls.0, request).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            // Only a request that no server has seen may go to another one.
            match unsent {
                Some(back) if attempt < config.retries && self.servers.len() > 1 => {
                    request = back;
                    attempt += 1;
                }
                _ => return Err(error),
            }
        }
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        for list in self.servers.iter().flat_map(|server| server.idle.iter()) {
            list.lock().retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < idle_timeout);
        }
    }

    pub(super) fn status(&self) -> Vec<ServerStatus> {
        self.servers.iter().map(|server| server.status()).collect()
    }

    pub(super) fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }
}

type Failure = (OriginError, Option<Request<OutBody>>);

impl Server {
    fn new(config: &ServerConfig, origin: &Config, workers: usize) -> Self {
        Self {
            config: config.clone(),
            permits: Arc::new(Semaphore::new(origin.max_connections)),
            max_connections: origin.max_connections,
            waiting: AtomicUsize::new(0),
            open: Arc::default(),
            idle: (0..=workers).map(|_| Mutex::default()).collect(),
            last_error: Mutex::default(),
            backoff: Backoff::default(),
            counters: ServerCounters::default(),
        }
    }

    /// Sends to this server; a failure gives the request back where it was not sent.
    async fn send(
        self: &Arc<Self>,
        config: &Config,
        tls: &TlsConnector,
        request: Request<OutBody>,
    ) -> Result<Response<OriginBody>, Failure> {
        let started = Instant::now();
        let result = self.send_once_or_twice(config, tls, request).await;
        match &result {
            Ok(_) => *self.last_error.lock() = None,
            Err((error, _)) => {
                tracing::debug!(origin = config.name, %error, "no answer from the origin");
                *self.last_error.lock() = Some(error.to_string());
            }
        }
        let outcome = result.as_ref().map(Response::status).map_err(|(error, _)| error.outcome());
        self.counters.count(outcome, started.elapsed());
        result
    }

    async fn send_once_or_twice(
        self: &Arc<Self>,
        config: &Config,
        tls: &TlsConnector,
        request: Request<OutBody>,
    ) -> Result<Response<OriginBody>, Failure> {
        let permit = match self.admit(config).await {
            Ok(permit) => permit,
            Err(error) => return Err((error, Some(request))),
        };
        let sni = self.sni(config, &request);
        let mut lease = match self.lease(config, tls, sni, permit, true).await {
            Ok(lease) => lease,
            Err(error) => return Err((error, Some(request))),
        };
        // A pooled connection may have been closed at the very moment it is used. A request that
        // has no body and may be repeated is then sent once more, over a new connection.
        let again = may_repeat(&request).then(|| copy_head(&request));
        let is_reused = lease.is_reused;
        let (request, upload) = Upload::watch(request);
        let sending = lease.sender.try_send_request(request);
        let sent = upload.within(config.first_byte_timeout, sending).await;
        let mut failed = match sent {
            Ok(Ok(response)) => return Ok(wrap(response, lease, config)),
            Ok(Err(failed)) => failed,
            Err(()) => return Err((OriginError::FirstByteTimeout, None)),
        };
        let retry = failed.take_message().or(again).filter(|_| is_reused);
        let error = classify(failed.into_error());
        let Some(request) = retry.filter(|_| matches!(error, OriginError::Closed(_))) else {
            return Err((error, None));
        };
        let Lease { sni, _permit: permit, .. } = lease;
        let mut lease = match self.lease(config, tls, sni, permit, false).await {
            Ok(lease) => lease,
            Err(error) => return Err((error, Some(request))),
        };
        match timeout(config.first_byte_timeout, lease.sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(wrap(response, lease, config)),
            Ok(Err(error)) => Err((classify(error), None)),
            Err(_) => Err((OriginError::FirstByteTimeout, None)),
        }
    }

    async fn admit(self: &Arc<Self>, config: &Config) -> Result<OwnedSemaphorePermit, OriginError> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        if self.waiting.fetch_add(1, Relaxed) >= config.queue {
            self.waiting.fetch_sub(1, Relaxed);
            return Err(OriginError::QueueFull);
        }
        let _waiting = Waiting(&self.waiting);
        match timeout(config.queue_timeout, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(OriginError::QueueTimeout),
        }
    }

    /// The name for SNI and the certificate's check: the origin's `host`, else the request's.
    fn sni(&self, config: &Config, request: &Request<OutBody>) -> Option<Box<str>> {
        if !self.config.tls {
            return None;
        }
        let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
        let authority = config.host.as_deref().or(host).unwrap_or(&self.config.host);
        let name =
            authority.parse::<http::uri::Authority>().map_or(authority.to_owned(), |a| a.host().to_owned());
        Some(name.trim_matches(['[', ']']).into())
    }

    async fn lease(
        self: &Arc<Self>,
        config: &Config,
        tls: &TlsConnector,
        sni: Option<Box<str>>,
        permit: OwnedSemaphorePermit,
        may_reuse: bool,
    ) -> Result<Lease, OriginError> {
        while may_reuse && let Some(mut idle) = self.take_idle(sni.as_deref(), config.idle_timeout) {
            // Ready is what says that the last exchange ended cleanly and nothing came after it.
            if matches!(timeout(READY_TIMEOUT, idle.sender.ready()).await, Ok(Ok(()))) {
                let sender = idle.sender;
                return Ok(Lease { sender, sni, server: self.clone(), is_reused: true, _permit: permit });
            }
        }
        let begun = Instant::now();
        self.backoff.admit(begun)?;
        if self.open.load(Relaxed) >= self.max_connections {
            self.close_one_idle();
        }
        self.open.fetch_add(1, Relaxed);
        let on_end = Open(self.open.clone());
        let tls = sni.as_deref().map(|sni| (tls, sni));
        let sender = connect(&self.config, tls, config.connect_timeout, on_end).await;
        self.backoff.heard(begun, Instant::now(), sender.as_ref().err());
        Ok(Lease { sender: sender?, sni, server: self.clone(), is_reused: false, _permit: permit })
    }

    fn take_idle(&self, sni: Option<&str>, idle_timeout: Duration) -> Option<Idle> {
        let own = slot(&self.idle);
        let take = |list: &Mutex<Vec<Idle>>| {
            let mut list = list.lock();
            list.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < idle_timeout);
            // The one used last is the likeliest to be open still.
            let index = list.iter().rposition(|idle| idle.sni.as_deref() == sni)?;
            Some(list.remove(index))
        };
        take(&self.idle[own]).or_else(|| {
            let all_open = self.open.load(Relaxed) >= self.max_connections;
            self.idle.iter().filter(|_| all_open).find_map(take)
        })
    }

    fn close_one_idle(&self) {
        for list in &self.idle {
            let mut list = list.lock();
            if !list.is_empty() {
                list.remove(0);
                return;
            }
        }
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.config.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.config.authority())
    }

    fn status(&self) -> ServerStatus {
        let last_error = self.last_error.lock().clone();
        ServerStatus {
            server: self.url(),
            up: last_error.is_none(),
            in_flight: self.in_flight(),
            connections: self.open.load(Relaxed),
            waiting: self.waiting(),
            last_error,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.last_error.lock().is_none()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.max_connections.saturating_sub(self.permits.available_permits())
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn wrap(response: Response<hyper::body::Incoming>, lease: Lease, config: &Config) -> Response<OriginBody> {
    response.map(|body| OriginBody::http(body, lease, config.between_bytes_timeout))
}

fn classify(error: hyper::Error) -> OriginError {
    if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        return OriginError::Malformed(error.to_string());
    }
    if error.is_user() {
        return OriginError::RequestBody(error.to_string());
    }
    OriginError::Closed(error)
}

/// So that one atomic type is named in one place.
pub(super) type Count = AtomicU64;
