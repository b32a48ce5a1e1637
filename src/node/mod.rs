//! The only wiring: builds every part from a configuration, runs them, drains them.
//!
//! # Threads
//!
//! N workers serve, each a current-thread runtime with sockets of its own. The thread that calls
//! [`Node::run`] is the control thread: admin API, scrapers, housekeeping, signals. The access log
//! has a writer of its own.

mod data;
mod parts;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::control::{AdminHandler, Control, Parts, TokenFileError, Warmups};
use crate::edge::{self, Edge};
use crate::net::{self, BindError, Bound, Connections, ListenConfig, NetMetrics, Phase, Server, TlsError};
use crate::origin::{Origin, SetupError};
use crate::purge;
use crate::store::{OpenError, Store};
use crate::telemetry::{self, AccessLog, Clock};
use data::Data;

/// Between two looks for connections that were idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// What the store may take to write out what is queued.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a stopped worker may take to end.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Threads of a worker for name lookups and files of directory origins.
const BLOCKING_THREADS: usize = 8;
/// Connections of the admin and scrapers' listeners.
const ADMIN_CONNECTIONS: usize = 512;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An origin.
    #[error(transparent)]
    Origin(#[from] SetupError),
    /// The admin token.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log of purges.
    #[error(transparent)]
    Purges(#[from] purge::OpenError),
    /// The store's directory.
    #[error("the store's directory {path}: {source}; make it, or choose another store.path")]
    Store {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A file or a thread.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A node that listens and does not serve yet.
pub struct Node {
    data: Arc<Server<Data>>,
    addresses: Vec<(SocketAddr, bool)>,
    control: Arc<Control>,
    admin: Listener,
    scrapers: Option<Listener>,
    origins: Vec<Arc<Origin>>,
    store: Arc<Store>,
    workers: usize,
    drain_timeout: Duration,
    drain_delay: Duration,
}

struct Listener {
    server: Arc<Server<AdminHandler>>,
    address: SocketAddr,
    tls: bool,
}

/// Asks a running node to end.
#[derive(Clone, Debug)]
pub struct Stopper(mpsc::Sender<()>);

impl Stopper {
    /// The first call drains, the second stops at once.
    pub fn stop(&self) {
        // A full queue means that enough was said already.
        let _ = self.0.try_send(());
    }
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything begun was finished.
    Drained,
    /// The drain took too long, or a second signal came.
    Stopped,
    /// A worker died.
    Failed,
}

impl Node {
    /// Builds every part and binds every port. Nothing is accepted before [`Node::run`].
    pub fn build(config: Config) -> Result<Self, StartError> {
        raise_open_files_limit();
        let clock = Clock::start();
        let unusable = |source| StartError::Store { path: config.store_path.clone(), source };
        fs::create_dir_all(&config.store_path).map_err(unusable)?;
        let loop_id = parts::node_id(&config.store_path).map_err(unusable)?;
        let workers = config.workers;
        let origins = config
            .origins
            .iter()
            .map(|origin| Origin::new(origin.clone(), workers))
            .collect::<Result<Vec<_>, _>>()?;
        let store = Store::open(&config.store, clock)?;
        let access_log = AccessLog::start(&config.access_log)?;
        let edge_config = edge::config::Config {
            node: config.name.clone(),
            loop_id,
            trusted_proxies: config.trusted_proxies.clone(),
            uri_bytes: config.limits.uri_bytes,
            header_count: config.limits.header_count,
            fills: edge::config::Fills::new(config.fills),
            sites: parts::sites(&config.sites, &origins),
        };
        let purges = parts::open_purges(&config.store, clock)?;
        let edge = Edge::new(edge_config, (store.clone(), purges.clone()), clock, access_log, workers);
        let warmups = Warmups::open(edge.clone(), clock, config.store.disk.path.as_deref());
        let bound = net::bind(&config.listen, workers)?;
        let addresses = bound.iter().map(|bound| (bound.address, bound.tls)).collect();
        let connections = Connections::new(
            config.limits.connections,
            config.limits.connections_per_client,
            config.trusted_proxies.clone(),
        );
        let net_metrics = NetMetrics::new(workers, &bound);
        let tls = server_tls(&config.certificates)?;
        let control_parts = Parts {
            registry: parts::registry(&edge, &store, &purges, &warmups, &origins, &net_metrics),
            name: config.name.clone(),
            edge: edge.clone(),
            store: store.clone(),
            purges,
            warmups,
            origins: origins.clone(),
            connections: connections.clone(),
            clock,
            store_path: config.store_path.clone(),
        };
        let control = Control::new(control_parts, &config.admin.tokens)?;
        edge.let_debug(control.debug_right());
        store.let_compare(parts::comparison(&edge));
        let admin_tls = server_tls(config.admin.certificate.as_slice())?;
        let admin = listener(control.admin(), &config, &config.admin.listen, admin_tls)?;
        let scrapers = config
            .metrics
            .map(|address| listener(control.scrapers(), &config, &ListenConfig::plain(address), None));
        let handler = Data { edge, control: control.clone() };
        let data = Server::new(handler, config.limits.clone(), bound, tls, connections, net_metrics, workers);
        Ok(Self {
            data,
            addresses,
            control,
            admin,
            scrapers: scrapers.transpose()?,
            origins,
            store,
            workers,
            drain_timeout: config.drain_timeout,
            drain_delay: config.drain_delay,
        })
    }

    /// The data listeners' addresses, and whether TLS is spoken there.
    pub fn addresses(&self) -> &[(SocketAddr, bool)] {
        &self.addresses
    }

    /// The admin listener's URL.
    pub fn admin_url(&self) -> String {
        url(self.admin.address, self.admin.tls)
    }

    /// Serves until the node is told to end; `on_ready` is called once it accepts.
    pub fn run(self, on_ready: impl FnOnce(Stopper)) -> io::Result<Ended> {
        let (phase_sender, phase) = watch::channel(Phase::Run);
        let mut threads = Vec::new();
        let (died, deaths) = mpsc::channel(1);
        for worker in 0..self.workers {
            threads.push(spawn_worker(worker, self.data.clone(), phase.clone(), died.clone())?);
        }
        drop(died);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (stopper, stops) = mpsc::channel(2);
        let ended = runtime.block_on(async {
            // The admin listener outlives a drain, so that it can be watched.
            let (_until_the_end, always) = watch::channel(Phase::Run);
            for listener in std::iter::once(&self.admin).chain(&self.scrapers) {
                tokio::spawn(listener.server.clone().run(0, always.clone()));
            }
            tokio::spawn(sweep(self.origins.clone()));
            let warming = tokio::spawn(self.control.warm());
            tokio::spawn(self.control.clone().compact_purges());
            self.announce();
            self.control.set_ready(true);
            tracing::info!("ready");
            on_ready(Stopper(stopper));
            let ended = self.until_ended(&phase_sender, stops, deaths).await;
            // What it would store from here on is not kept; the next process goes on with it.
            warming.abort();
            if tokio::time::timeout(CLOSE_TIMEOUT, self.store.close()).await.is_err() {
                tracing::warn!("the store is not written out: its last segment is scanned at the next start");
            }
            ended
        });
        runtime.shutdown_timeout(STOP_GRACE);
        for thread in threads {
            let _ = thread.join();
        }
        Ok(ended)
    }

    fn announce(&self) {
        for (address, tls) in &self.addresses {
            tracing::info!("listening on {}", url(*address, *tls));
        }
        tracing::info!("admin on {}", self.admin_url());
        if let Some(scrapers) = &self.scrapers {
            tracing::info!("metrics on {}", url(scrapers.address, false));
        }
    }

    async fn until_ended(
        &self,
        phase: &watch::Sender<Phase>,
        mut stops: mpsc::Receiver<()>,
        mut deaths: mpsc::Receiver<usize>,
    ) -> Ended {
        tokio::select! {
            _ = stops.recv() => {}
            Some(worker) = deaths.recv() => {
                tracing::error!(worker, "a worker died; the node ends");
                phase.send_replace(Phase::Stop);
                return Ended::Failed;
            }
        }
        tracing::info!("draining: finishing what is begun, for {:?} at most", self.drain_timeout);
        self.control.set_ready(false);
        let drain = async {
            tokio::time::sleep(self.drain_delay).await;
            phase.send_replace(Phase::Drain);
            // Ends when every worker has dropped its sender.
            let drained = async { while deaths.recv().await.is_some() {} };
            tokio::time::timeout(self.drain_timeout, drained).await.is_ok()
        };
        let is_drained = tokio::select! {
            is_drained = drain => is_drained,
            _ = stops.recv() => false,
        };
        phase.send_replace(Phase::Stop);
        if is_drained {
            tracing::info!("drained");
            return Ended::Drained;
        }
        tracing::warn!("stopped before everything was finished");
        Ended::Stopped
    }
}

fn spawn_worker(
    worker: usize,
    server: Arc<Server<Data>>,
    phase: watch::Receiver<Phase>,
    died: mpsc::Sender<usize>,
) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(format!("larder-{worker}"));
    builder.spawn(move || {
        telemetry::enter_worker(worker);
        let is_running = {
            let phase = phase.clone();
            move || *phase.borrow() == Phase::Run
        };
        let served = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .and_then(|runtime| {
                let result = runtime.block_on(server.run(worker, phase));
                runtime.shutdown_timeout(STOP_GRACE);
                result
            });
        if let Err(error) = served {
            tracing::error!(worker, %error, "a worker failed");
        }
        if is_running() {
            let _ = died.try_send(worker);
        }
    })
}

fn listener(
    handler: AdminHandler,
    config: &Config,
    listen: &ListenConfig,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Result<Listener, StartError> {
    let bound: Vec<Bound> = net::bind(std::slice::from_ref(listen), 1)?;
    let address = bound.first().map_or(listen.address, |bound| bound.address);
    let connections = Connections::new(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS, Vec::new());
    let metrics = NetMetrics::new(0, &bound);
    let server = Server::new(handler, config.limits.clone(), bound, tls, connections, metrics, 1);
    Ok(Listener { server, address, tls: listen.tls })
}

fn server_tls(files: &[net::CertificateFiles]) -> Result<Option<Arc<rustls::ServerConfig>>, TlsError> {
    if files.is_empty() {
        return Ok(None);
    }
    net::server_config(&net::load_certificates(files)?).map(Some)
}

async fn sweep(origins: Vec<Arc<Origin>>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        for origin in &origins {
            origin.sweep();
        }
    }
}

/// Every connection is a descriptor; the soft limit is a default of long ago.
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        limit.current = limit.maximum.or(limit.current);
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

fn url(address: SocketAddr, tls: bool) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}
