//! Keep-alive pools: idle connections by worker, in-flight requests bounded by server.
//!
//! A request first takes a permit of its server (bounded queue, bounded wait), then an idle
//! connection of its own worker, else opens one. Open connections, idle ones included, never exceed
//! `max_connections`: where all are open and one must be idle, it is taken from another worker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::backoff::Backoff;
use super::balance;
use super::body::OriginBody;
use super::error::OriginError;
use super::health::{Health, failure_of, is_about_the_server};
use super::lease::{Idle, Lease};
use super::metrics::ServerCounters;
use super::repeat::{copy_head, may_repeat};
use super::retry::RetryBudget;
use super::tls::{OriginTlsError, connector};
use super::upload::Upload;
use super::{Config, OutBody, ServerConfig, ServerStatus};

/// The servers of an origin.
#[derive(Debug)]
pub(super) struct HttpOrigin {
    servers: Vec<Arc<Server>>,
    /// Server indexes, each as often as its weight says.
    schedule: Vec<usize>,
    next: AtomicUsize,
    retries: RetryBudget,
    pub(super) ejecting: Mutex<()>,
    tls: TlsConnector2,
}

/// A connector that can be shown.
struct TlsConnector2(TlsConnector);

impl fmt::Debug for TlsConnector2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

pub(super) struct Server {
    pub(super) config: ServerConfig,
    pub(super) permits: Arc<Semaphore>,
    pub(super) max_connections: usize,
    pub(super) waiting: AtomicUsize,
    pub(super) open: Arc<AtomicUsize>,
    /// By worker slot; a lock is shared only when a connection changes workers.
    pub(super) idle: Box<[Mutex<Vec<Idle>>]>,
    pub(super) last_error: Mutex<Option<String>>,
    pub(super) backoff: Backoff,
    pub(super) health: Health,
    pub(super) is_probed: bool,
    pub(super) counters: ServerCounters,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
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
            retries: RetryBudget::new(config.retry_budget_millionths),
            ejecting: Mutex::default(),
            tls: TlsConnector2(connector(&config.tls, config.http2)?),
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
        self.retries.earn();
        let mut request = request;
        let mut attempt = 0;
        loop {
            let server = &self.servers[order[attempt as usize % order.len()]];
            let result = server.send(config, &self.tls.0, request).await;
            let outcome = result.as_ref().map(Response::status).map_err(|(error, _)| error);
            self.judge(config, server, failure_of(outcome));
            let (error, unsent) = match result {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            // Only a request that no server has seen may go to another one.
            match unsent {
                Some(back) if attempt < config.retries && self.servers.len() > 1 && self.retries.spend() => {
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

    pub(super) fn connector(&self) -> &TlsConnector {
        &self.tls.0
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
            health: Health::default(),
            is_probed: origin.health.is_some(),
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
                if is_about_the_server(error) {
                    *self.last_error.lock() = Some(error.to_string());
                }
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
        let sending = lease.sender.send(request, &self.config);
        let sent = upload.within(config.first_byte_timeout, sending).await;
        let failed = match sent {
            Ok(Ok(response)) => return Ok(wrap(response, lease, config)),
            Ok(Err(failed)) => failed,
            Err(()) => return Err((OriginError::FirstByteTimeout, None)),
        };
        let retry = failed.unsent.or(again).filter(|_| is_reused);
        let error = classify(failed.error);
        let Some(request) = retry.filter(|_| matches!(error, OriginError::Closed(_))) else {
            return Err((error, None));
        };
        let Lease { sni, permit, .. } = lease;
        let mut lease = match self.lease(config, tls, sni, permit, false).await {
            Ok(lease) => lease,
            Err(error) => return Err((error, Some(request))),
        };
        match timeout(config.first_byte_timeout, lease.sender.send(request, &self.config)).await {
            Ok(Ok(response)) => Ok(wrap(response, lease, config)),
            Ok(Err(failed)) => Err((classify(failed.error), None)),
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
