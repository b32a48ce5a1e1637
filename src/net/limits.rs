//! How many connections may be open, in all and by client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Total,
    Client,
}

/// The open connections of a node's data listeners.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    max: AtomicUsize,
    max_per_client: AtomicUsize,
    exempt: RwLock<Vec<ipnet::IpNet>>,
    /// Taken once when a connection opens and once when it closes.
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one open connection; given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
}

impl Connections {
    /// `exempt` are networks whose connections stand for many clients: trusted proxies.
    pub fn new(max: usize, max_per_client: usize, exempt: Vec<ipnet::IpNet>) -> Arc<Self> {
        let (max, max_per_client) = (AtomicUsize::new(max), AtomicUsize::new(max_per_client));
        let (exempt, by_client) = (RwLock::new(exempt), Mutex::default());
        Arc::new(Self { open: AtomicUsize::new(0), max, max_per_client, exempt, by_client })
    }

    /// Other limits, from the next connection on.
    pub fn set(&self, max: usize, max_per_client: usize, exempt: Vec<ipnet::IpNet>) {
        self.max.store(max, Relaxed);
        self.max_per_client.store(max_per_client, Relaxed);
        *self.exempt.write() = exempt;
    }

    pub(super) fn acquire(self: &Arc<Self>, peer: IpAddr) -> Result<Permit, Refused> {
        if self.open.fetch_add(1, Relaxed) >= self.max() {
            self.open.fetch_sub(1, Relaxed);
            return Err(Refused::Total);
        }
        let mut permit = Permit { connections: self.clone(), client: None };
        permit.assign(peer)?;
        Ok(permit)
    }

    /// Whether connections of this peer stand for many clients.
    pub(super) fn is_exempt(&self, peer: IpAddr) -> bool {
        self.exempt.read().iter().any(|net| net.contains(&peer))
    }

    /// Open connections now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The limit on all.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }
}

impl Permit {
    /// Counts the connection for this client, if it is for none yet and the client is not exempt.
    pub(super) fn assign(&mut self, client: IpAddr) -> Result<(), Refused> {
        if self.client.is_some() || self.connections.is_exempt(client) {
            return Ok(());
        }
        let client = client_of(client);
        let mut by_client = self.connections.by_client.lock();
        let count = by_client.entry(client).or_insert(0);
        if *count >= self.connections.max_per_client.load(Relaxed) {
            return Err(Refused::Client);
        }
        *count += 1;
        drop(by_client);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Relaxed);
        let Some(client) = self.client else { return };
        let mut by_client = self.connections.by_client.lock();
        if let Some(count) = by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&client);
            }
        }
    }
}

/// What limits by client count: an IPv4 address or an IPv6 /64.
///
/// One IPv6 subscriber has a /64 at least; counting single addresses would count nothing.
pub fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let prefix = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(prefix.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_all_and_by_client_and_gives_back() {
        let connections = Connections::new(3, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let a = connections.acquire(ip("2001:db8::1")).unwrap();
        let _b = connections.acquire(ip("2001:db8::2")).unwrap();
        assert_eq!(connections.acquire(ip("2001:db8::3")).unwrap_err(), Refused::Client);
        let mut proxied = connections.acquire(ip("10.1.1.1")).unwrap();
        assert_eq!(connections.acquire(ip("192.0.2.1")).unwrap_err(), Refused::Total);
        proxied.assign(ip("2001:db8::4")).unwrap_err();
        proxied.assign(ip("192.0.2.1")).unwrap();
        drop(proxied);
        drop(a);
        assert_eq!(connections.open(), 1);
        assert!(connections.acquire(ip("2001:db8::9")).is_ok());
        assert_eq!(connections.by_client.lock().len(), 1);
    }
}
