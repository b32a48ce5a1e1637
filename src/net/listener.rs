//! Listening sockets and the workers' accept loops.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::copies::Plan;
use super::limits::Permit;
use super::metrics::{End, NetMetrics, OpenConnection};
use super::{Connections, Handler, Limits, Phase, Room, conn, copies};

const BACKLOG: i32 = 4096;
/// Accepted sockets that may wait for another worker.
const INBOX: usize = 1024;
/// A worker keeps what it accepts until it has this many more connections than the least loaded.
const IMBALANCE: usize = 16;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One `[[listen]]`.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Where; port 0 takes any free port.
    pub address: SocketAddr,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl ListenConfig {
    /// HTTP and nothing below it.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: false, proxy_protocol: false }
    }
}

/// What is spoken below HTTP.
#[derive(Clone, Copy, Debug, Default)]
struct Layers {
    tls: bool,
    proxy_protocol: bool,
}

/// A port that is listened on, by every worker with a socket of its own.
#[derive(Debug)]
pub struct Bound {
    /// The real address, the port chosen by the kernel included.
    pub address: SocketAddr,
    /// Whether TLS is spoken there.
    pub tls: bool,
    proxy_protocol: bool,
    pub(super) sockets: Vec<std::net::TcpListener>,
}

impl Bound {
    pub(super) fn new(
        config: &ListenConfig,
        address: SocketAddr,
        sockets: Vec<std::net::TcpListener>,
    ) -> Self {
        Self { address, tls: config.tls, proxy_protocol: config.proxy_protocol, sockets }
    }
}

/// A port that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}{}", hint(.source))]
pub struct BindError {
    pub(super) address: SocketAddr,
    pub(super) source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has it: stop that one or choose another port",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

/// Binds every address once for each worker.
pub fn bind(configs: &[ListenConfig], workers: usize) -> Result<Vec<Bound>, BindError> {
    super::bind_or_inherit(configs, workers, "", &mut super::Inherited::default())
}

pub(super) fn bind_one(config: &ListenConfig, workers: usize) -> io::Result<Bound> {
    // SO_REUSEPORT would let us share a port with another process of the same user, and half of
    // its clients would be ours. A bind without it finds out.
    if config.address.port() != 0 {
        drop(socket(config.address, false)?);
    }
    let first = socket(config.address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(address, true)?);
    }
    Ok(Bound::new(config, address, sockets))
}

pub(super) fn socket(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if reuse_port {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// A socket on its way from the worker that accepted it to the one that serves it.
struct Accepted {
    stream: std::net::TcpStream,
    layers: Layers,
    counted: Counted,
}

/// What an open connection counts for.
type Counted = (Permit, OpenConnection);

/// What the workers see of each other.
struct WorkerPort {
    open: AtomicUsize,
    inbox: mpsc::Sender<Accepted>,
}

/// Everything the connections of a set of listeners share.
pub struct Server<H> {
    pub(super) handler: H,
    limits: RwLock<Arc<Limits>>,
    pub(super) metrics: Arc<NetMetrics>,
    connections: Arc<Connections>,
    tls: Option<TlsAcceptor>,
    workers: Vec<WorkerPort>,
    copies: OnceLock<Arc<Plan>>,
    inboxes: parking_lot::Mutex<Vec<Option<mpsc::Receiver<Accepted>>>>,
    /// By worker: each with the number of its listener.
    sockets: parking_lot::Mutex<Vec<Vec<(std::net::TcpListener, Layers, usize)>>>,
}

impl<H: Handler> Server<H> {
    /// A server for `bound` with one [`Server::run`] for each of `workers`.
    pub fn new(
        handler: H,
        limits: Limits,
        bound: Vec<Bound>,
        tls: Option<Arc<rustls::ServerConfig>>,
        connections: Arc<Connections>,
        metrics: Arc<NetMetrics>,
        workers: usize,
    ) -> Arc<Self> {
        let (ports, inboxes) = (0..workers)
            .map(|_| {
                let (inbox, receiver) = mpsc::channel(INBOX);
                (WorkerPort { open: AtomicUsize::new(0), inbox }, Some(receiver))
            })
            .unzip();
        let mut sockets: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, listener) in bound.into_iter().enumerate() {
            let layers = Layers { tls: listener.tls, proxy_protocol: listener.proxy_protocol };
            for (i, socket) in listener.sockets.into_iter().enumerate() {
                sockets[i % workers.max(1)].push((socket, layers, number));
            }
        }
        Arc::new(Self {
            handler,
            limits: RwLock::new(Arc::new(limits)),
            metrics,
            connections,
            tls: tls.map(TlsAcceptor::from),
            workers: ports,
            copies: OnceLock::new(),
            inboxes: parking_lot::Mutex::new(inboxes),
            sockets: parking_lot::Mutex::new(sockets),
        })
    }

    /// What a connection that opens now may take; it keeps that.
    pub(super) fn limits(&self) -> Arc<Limits> {
        self.limits.read().clone()
    }

    /// Has connections that open from now on take other limits.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write() = Arc::new(limits);
    }

    /// Lets the workers keep so many bytes of copies of what they send most; to be called before [`Server::run`].
    pub fn let_copy(&self, room: Room, bytes: u64) {
        if let Some(plan) = Plan::new(room, bytes, self.workers.len()) {
            let _ = self.copies.set(Arc::new(plan));
        }
    }

    /// Accepts and serves on this thread's runtime until a drain has ended, or the node stops.
    pub async fn run(self: Arc<Self>, worker: usize, phase: watch::Receiver<Phase>) -> io::Result<()> {
        let sockets = std::mem::take(&mut self.sockets.lock()[worker]);
        let Some(mut inbox) = self.inboxes.lock()[worker].take() else { return Ok(()) };
        if let Some(plan) = self.copies.get() {
            copies::keep(plan.clone());
        }
        // Phase changes reach connections through a channel of the worker's own, so that workers
        // share no lock for it.
        let (local_phase, local) = watch::channel(*phase.borrow());
        // Every connection holds a clone; when the last is gone, `drained` ends.
        let (alive, mut drained) = mpsc::channel::<()>(1);
        let mut loops = Vec::new();
        let accept = Accept {
            server: self.clone(),
            worker,
            listener: 0,
            layers: Layers::default(),
            alive,
            phase: local,
        };
        for (socket, layers, listener) in sockets {
            let accept = Accept { listener, layers, ..accept.clone() };
            loops.push(tokio::spawn(accept.run(TcpListener::from_std(socket)?)));
        }
        let mut phase = phase;
        loop {
            tokio::select! {
                Some(accepted) = inbox.recv() => {
                    if let Ok(stream) = TcpStream::from_std(accepted.stream) {
                        accept.serve(stream, accepted.layers, accepted.counted);
                    }
                }
                changed = phase.changed() => {
                    let now = if changed.is_err() { Phase::Stop } else { *phase.borrow() };
                    local_phase.send_replace(now);
                    if now != Phase::Run {
                        break;
                    }
                }
            }
        }
        for accept_loop in loops {
            let _ = accept_loop.await;
        }
        while let Ok(accepted) = inbox.try_recv() {
            if let Ok(stream) = TcpStream::from_std(accepted.stream) {
                accept.serve(stream, accepted.layers, accepted.counted);
            }
        }
        drop(accept);
        loop {
            let now = *phase.borrow_and_update();
            local_phase.send_replace(now);
            if now == Phase::Stop {
                return Ok(());
            }
            tokio::select! {
                _ = drained.recv() => return Ok(()),
                changed = phase.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }
}

/// One accept loop's share of the server.
#[derive(Clone)]
struct Accept<H> {
    server: Arc<Server<H>>,
    worker: usize,
    listener: usize,
    layers: Layers,
    alive: mpsc::Sender<()>,
    phase: watch::Receiver<Phase>,
}

impl<H: Handler> Accept<H> {
    async fn run(self, socket: TcpListener) {
        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer),
                    Err(error) if is_of_the_client(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "accept failed; raise the limit on open files if this goes on");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                changed = phase.changed() => {
                    if changed.is_err() || *phase.borrow() != Phase::Run {
                        break;
                    }
                }
            }
        }
        if *phase.borrow() == Phase::Leave {
            // Another process has the socket, and accepts what is queued.
            return;
        }
        // Closing a listener resets what is queued on it, and those clients did nothing wrong.
        let Ok(socket) = socket.into_std() else { return };
        while let Ok((stream, peer)) = socket.accept() {
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                self.take(stream, peer);
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        self.server.metrics.accepted();
        if self.layers.proxy_protocol && !self.server.connections.is_exempt(peer.ip()) {
            // Anybody could claim to be anybody.
            return self.server.metrics.ended(End::Proxy);
        }
        let counted = match self.server.connections.acquire(peer.ip()) {
            Ok(permit) => (permit, self.server.metrics.opened(self.listener)),
            Err(refused) => return self.server.metrics.ended(End::Refused(refused)),
        };
        let _ = stream.set_nodelay(true);
        match self.less_loaded() {
            Some(other) => {
                let Ok(stream) = stream.into_std() else { return };
                let accepted = Accepted { stream, layers: self.layers, counted };
                if let Err(refused) = self.server.workers[other].inbox.try_send(accepted) {
                    // Its inbox is full or its thread is gone: serve it here.
                    let accepted = refused.into_inner();
                    if let Ok(stream) = TcpStream::from_std(accepted.stream) {
                        self.serve(stream, accepted.layers, accepted.counted);
                    }
                }
            }
            None => self.serve(stream, self.layers, counted),
        }
    }

    /// A worker with clearly fewer connections, if this one has too many.
    fn less_loaded(&self) -> Option<usize> {
        let open = |i: usize| self.server.workers[i].open.load(Relaxed);
        let mine = open(self.worker);
        if mine < IMBALANCE {
            return None;
        }
        let least = (0..self.server.workers.len()).min_by_key(|i| open(*i))?;
        (open(least) + IMBALANCE + open(least) / 4 < mine).then_some(least)
    }

    fn serve(&self, stream: TcpStream, layers: Layers, counted: Counted) {
        let tls = if layers.tls { self.server.tls.clone() } else { None };
        let (server, phase) = (self.server.clone(), self.phase.clone());
        let (alive, worker) = (self.alive.clone(), self.worker);
        server.workers[worker].open.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            let leave = Leave { server: server.clone(), worker };
            let (mut permit, open) = counted;
            if layers.proxy_protocol {
                Box::pin(conn::serve_proxied(server, stream, &mut permit, tls, phase)).await;
            } else if let Some(info) = conn::ends_of(&stream) {
                conn::serve(server, stream, info, tls, phase).await;
            }
            drop((leave, permit, open, alive));
        });
    }
}

/// Takes a connection off its worker's count, also when its task panics.
struct Leave<H> {
    server: Arc<Server<H>>,
    worker: usize,
}

impl<H> Drop for Leave<H> {
    fn drop(&mut self) {
        self.server.workers[self.worker].open.fetch_sub(1, Relaxed);
    }
}

/// Errors of `accept` that concern the one connection only.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
