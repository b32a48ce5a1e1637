//! Connections of a server: those in use, those that wait for their next request, and new ones.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, header};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect::connect;
use super::error::OriginError;
use super::pool::Server;
use super::sender::Sender;
use super::{Config, OutBody};
use crate::telemetry::worker_slot;

/// A pooled connection that has closed is noticed this soon when it is taken out.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// A connection that waits for a request; one of HTTP/2 may have others under way.
pub(super) struct Idle {
    pub(super) sender: Sender,
    sni: Option<Box<str>>,
    pub(super) since: Instant,
}

/// A connection in use and the right to use it.
pub(super) struct Lease {
    pub(super) sender: Sender,
    pub(super) sni: Option<Box<str>>,
    server: Arc<Server>,
    pub(super) is_reused: bool,
    pub(super) permit: OwnedSemaphorePermit,
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
    fn new(
        sender: Sender,
        sni: Option<Box<str>>,
        server: &Arc<Server>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { sender, sni, server: server.clone(), is_reused: false, permit }
    }

    /// Puts the connection back for the next request; a closed one is dropped, a shared one is there already.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() || self.sender.share().is_some() {
            return;
        }
        self.server.keep(self.sender, self.sni);
    }

    pub(super) fn count(&self, bytes: usize) {
        self.server.counters.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

fn slot(idle: &[Mutex<Vec<Idle>>]) -> usize {
    worker_slot().min(idle.len() - 1)
}

impl Server {
    /// The name for SNI and the certificate's check: the origin's `host`, else the request's.
    pub(super) fn sni(&self, config: &Config, request: &Request<OutBody>) -> Option<Box<str>> {
        if !self.config.tls {
            return None;
        }
        let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
        let authority = config.host.as_deref().or(host).unwrap_or(&self.config.host);
        let name =
            authority.parse::<http::uri::Authority>().map_or(authority.to_owned(), |a| a.host().to_owned());
        Some(name.trim_matches(['[', ']']).into())
    }

    /// A connection: one that waits, or a new one.
    pub(super) async fn lease(
        self: &Arc<Self>,
        config: &Config,
        tls: &TlsConnector,
        sni: Option<Box<str>>,
        permit: OwnedSemaphorePermit,
        may_reuse: bool,
    ) -> Result<Lease, OriginError> {
        while may_reuse && let Some(mut sender) = self.take_idle(sni.as_deref(), config.idle_timeout) {
            // Ready is what says that the last exchange ended cleanly and nothing came after it.
            if matches!(timeout(READY_TIMEOUT, sender.ready()).await, Ok(Ok(()))) {
                return Ok(Lease { is_reused: true, ..Lease::new(sender, sni, self, permit) });
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
        // Boxed: who finds a connection need not carry the room that making one takes.
        let connecting = connect(&self.config, tls, config.http2, config.connect_timeout, on_end);
        let sender = Box::pin(connecting).await;
        self.backoff.heard(begun, Instant::now(), sender.as_ref().err());
        let sender = sender?;
        if let Some(shared) = sender.share() {
            self.keep(shared, sni.clone());
        }
        Ok(Lease::new(sender, sni, self, permit))
    }

    fn keep(&self, sender: Sender, sni: Option<Box<str>>) {
        let idle = Idle { sender, sni, since: Instant::now() };
        self.idle[slot(&self.idle)].lock().push(idle);
    }

    fn take_idle(&self, sni: Option<&str>, idle_timeout: Duration) -> Option<Sender> {
        let own = slot(&self.idle);
        let now = Instant::now();
        let take = |list: &Mutex<Vec<Idle>>| {
            let mut list = list.lock();
            // The one used last is the likeliest to be open still; those that nobody takes are swept.
            while let Some(index) = list.iter().rposition(|idle| idle.sni.as_deref() == sni) {
                let idle = &mut list[index];
                let is_usable = !idle.sender.is_closed() && now.duration_since(idle.since) < idle_timeout;
                if is_usable && let Some(shared) = idle.sender.share() {
                    idle.since = now;
                    return Some(shared);
                }
                let idle = list.remove(index);
                if is_usable {
                    return Some(idle.sender);
                }
            }
            None
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
}
