//! The only wiring: builds every part from a configuration, runs them, drains them.
//!
//! # Threads
//!
//! N workers serve, each a current-thread runtime with sockets of its own. The thread that calls
//! [`Node::run`] is the control thread: admin API, scrapers, housekeeping, signals. The access log
//! has a writer of its own.

mod data;
mod handover;
mod life;
mod parts;
mod reload;
mod rotate;
mod run;
mod systemd;
mod upgrade;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::{AdminListener, Config};
use crate::control::{AdminHandler, Control, Order, Orders, Parts, Saturation, TokenFileError, Warmups};
use crate::edge::{Edge, LiveEdge};
use crate::net::inherited::Group;
use crate::net::{
    self, BindError, Bound, Certificates, Connections, Inherited, ListenConfig, NetMetrics, Server, TlsError,
};
use crate::origin::SetupError;
use crate::purge::{self, Purges};
use crate::store::{OpenError, Store};
use crate::telemetry::{AccessLog, Clock};
use data::Data;
use life::LifeMetrics;
use reload::Reloader;
pub use reload::Source;
pub use upgrade::Inheritance;
use upgrade::Successor;

/// Connections of the admin and scrapers' listeners.
const ADMIN_CONNECTIONS: usize = 512;
/// Orders that may wait.
const ORDERS: usize = 16;
/// What sockets are for, between two processes.
const DATA: &str = "data";
const ADMIN: &str = "admin";
const METRICS: &str = "metrics";

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
    edge: Arc<LiveEdge>,
    saturation: Arc<Saturation>,
    store: Arc<Store>,
    purges: Arc<Purges>,
    workers: usize,
    reloader: Arc<Reloader>,
    life: Arc<LifeMetrics>,
    /// Its listening sockets, for a process that takes over.
    sockets: Arc<Mutex<Vec<Group>>>,
    lock: Option<Arc<OwnedFd>>,
    successor: Option<Successor>,
    orders: Orders,
    received: mpsc::Receiver<Order>,
}

struct Listener {
    server: Arc<Server<AdminHandler>>,
    address: SocketAddr,
    tls: bool,
}

/// Tells a running node what to do. What does not fit into its queue is not done: enough was said already.
#[derive(Clone, Debug)]
pub struct Handle(Orders);

impl Handle {
    /// The first call drains, the second stops at once.
    pub fn stop(&self) {
        let _ = self.0.try_send(Order::Stop);
    }

    /// Takes the configuration as it is now.
    pub fn reload(&self) {
        let _ = self.0.try_send(Order::Reload(None));
    }

    /// Hands everything over to a new process.
    pub fn upgrade(&self) {
        let _ = self.0.try_send(Order::Upgrade);
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
    /// Builds every part and binds every port, or takes both over from another process. Nothing is accepted before
    /// [`Node::run`].
    pub fn build(config: Config, source: Source, inheritance: Inheritance) -> Result<Self, StartError> {
        raise_open_files_limit();
        let Inheritance { sockets: mut inherited, lock, successor } = inheritance;
        let clock = Clock::start();
        let made = fs::create_dir_all(&config.store_path).and_then(|()| parts::node_id(&config.store_path));
        let loop_id = made.map_err(|source| StartError::Store { path: config.store_path.clone(), source })?;
        let workers = config.workers;
        let edge_config = parts::edge_config(&config, &loop_id, None)?;
        let lock_of_unused = lock.as_ref().and_then(|lock| lock.try_clone().ok());
        let store = Store::open_with(&config.store, clock, lock)?;
        let access_log = AccessLog::start(&config.access_log)?;
        let purges = parts::open_purges(&config.store, clock)?;
        let edge = Edge::new(edge_config, (store.clone(), purges.clone()), clock, access_log, workers);
        let edge = LiveEdge::new(edge);
        let warmups = Warmups::open(edge.clone(), clock, config.store.disk.path.as_deref());
        let bound = net::bind_or_inherit(&config.listen, workers, DATA, &mut inherited)?;
        let addresses = bound.iter().map(|bound| (bound.address, bound.tls)).collect();
        let mut sockets = parts::shared(&bound, DATA, &config.listen)?;
        let (connections, saturation) = parts::connections(&config, &edge);
        let net_metrics = NetMetrics::new(workers, &bound);
        let certificates = parts::certificates(&config)?;
        let tls = parts::tls(&certificates.0, !config.certificates.is_empty(), None)?;
        let life = LifeMetrics::new();
        let (orders, received) = mpsc::channel(ORDERS);
        let of_store = (&store, &purges, &warmups);
        let registry = parts::registry(&edge, of_store, &net_metrics, &certificates, (&life, &saturation));
        let parts = Parts {
            registry,
            name: config.name.clone(),
            edge: edge.clone(),
            store: store.clone(),
            purges: purges.clone(),
            warmups: warmups.clone(),
            connections: connections.clone(),
            clock,
            store_path: config.store_path.clone(),
            orders: orders.clone(),
        };
        let control = Control::new(parts, &config.admin.tokens)?;
        edge.current().let_debug(control.debug_right());
        store.let_compare(parts::comparison(&edge));
        let (admin, scrapers) =
            control_listeners(&control, &config, &certificates.1, &mut inherited, &mut sockets)?;
        inherited.close_others();
        let handler = Data { edge: edge.clone(), control: control.clone() };
        let data =
            parts::data_server(handler, &config, (bound, tls), connections.clone(), net_metrics, &store);
        parts::forget_unused_store(&config, lock_of_unused);
        let of_reload = (edge.clone(), data.clone(), connections, control.clone());
        let reloader = Reloader::new((source, config, loop_id), of_reload, certificates, life.clone());
        Ok(Self {
            data,
            addresses,
            control,
            admin,
            scrapers,
            edge,
            saturation,
            lock: store.share_lock()?.map(Arc::new),
            store,
            purges,
            workers,
            reloader,
            life,
            sockets: Arc::new(Mutex::new(sockets)),
            successor,
            orders,
            received,
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
}

/// The admin API's listener, and that of scrapers.
fn control_listeners(
    control: &Arc<Control>,
    config: &Config,
    certificates: &Arc<Certificates>,
    inherited: &mut Inherited,
    sockets: &mut Vec<Group>,
) -> Result<(Listener, Option<Listener>), StartError> {
    let AdminListener { listen: of_admin, certificate, client_ca, .. } = &config.admin;
    let tls = parts::tls(certificates, certificate.is_some(), client_ca.as_deref())?;
    let mut listen = |handler: AdminHandler, role: &str, listen: &ListenConfig, tls| {
        let listens = std::slice::from_ref(listen);
        let bound = net::bind_or_inherit(listens, 1, role, inherited)?;
        sockets.extend(parts::shared(&bound, role, listens)?);
        Ok::<_, StartError>(listener(handler, config, listen, bound, tls))
    };
    let admin = listen(control.admin(), ADMIN, of_admin, tls)?;
    let scrapers = config.metrics.map(ListenConfig::plain);
    let scrapers = scrapers.map(|at| listen(control.scrapers(), METRICS, &at, None)).transpose()?;
    Ok((admin, scrapers))
}

fn listener(
    handler: AdminHandler,
    config: &Config,
    listen: &ListenConfig,
    bound: Vec<Bound>,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Listener {
    let address = bound.first().map_or(listen.address, |bound| bound.address);
    let connections = Connections::new(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS, Vec::new());
    let metrics = NetMetrics::new(0, &bound);
    let server = Server::new(handler, config.limits.clone(), bound, tls, connections, metrics, 1);
    Listener { server, address, tls: listen.tls }
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
