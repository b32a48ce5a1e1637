//! What listeners and connections count.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Bound;
use super::activity::Expired;
use super::limits::Refused;
use crate::telemetry::{Cells, encode_cells, encode_gauge};

const ENDS: [&str; 10] = [
    "header_timeout",
    "idle_timeout",
    "write_stall",
    "linger",
    "protocol",
    "tls",
    "limit",
    "client_limit",
    "proxy_protocol",
    "fault",
];
const HANDSHAKES: [(&str, &str); 4] = [("1.2", "false"), ("1.2", "true"), ("1.3", "false"), ("1.3", "true")];
const ACCEPTED: usize = ENDS.len() + HANDSHAKES.len();

/// The counters of all data listeners.
#[derive(Debug)]
pub struct NetMetrics {
    cells: Cells,
    /// Open connections, by listener.
    open: Vec<(SocketAddr, AtomicUsize)>,
}

/// One open connection of a listener; taken off its count on drop.
#[derive(Debug)]
pub(super) struct OpenConnection {
    metrics: Arc<NetMetrics>,
    listener: usize,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some((_, open)) = self.metrics.open.get(self.listener) {
            open.fetch_sub(1, Relaxed);
        }
    }
}

/// Why a connection ended that did not end by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Expired(Expired),
    Refused(Refused),
    Protocol,
    Tls,
    /// No PROXY protocol header where there has to be one, or from somebody who is not trusted.
    Proxy,
    /// Bytes that it was sending are not there any more.
    Fault,
}

impl NetMetrics {
    /// All at zero.
    pub fn new(workers: usize, listeners: &[Bound]) -> Arc<Self> {
        let open = listeners.iter().map(|bound| (bound.address, AtomicUsize::new(0))).collect();
        Arc::new(Self { cells: Cells::new(workers, ACCEPTED + 1), open })
    }

    pub(super) fn accepted(&self) {
        self.cells.add(ACCEPTED, 1);
    }

    /// A connection is open from now on. `listener` counts from 0, in the order of the configuration.
    pub(super) fn opened(self: &Arc<Self>, listener: usize) -> OpenConnection {
        if let Some((_, open)) = self.open.get(listener) {
            open.fetch_add(1, Relaxed);
        }
        OpenConnection { metrics: self.clone(), listener }
    }

    pub(super) fn ended(&self, end: End) {
        let cell = match end {
            End::Expired(Expired::Header) => 0,
            End::Expired(Expired::Idle) => 1,
            End::Expired(Expired::WriteStall) => 2,
            End::Expired(Expired::Linger | Expired::Drained) => 3,
            End::Protocol => 4,
            End::Tls => 5,
            End::Refused(Refused::Total) => 6,
            End::Refused(Refused::Client) => 7,
            End::Proxy => 8,
            End::Fault => 9,
        };
        self.cells.add(cell, 1);
    }

    pub(super) fn handshake(&self, is_tls13: bool, is_resumed: bool) {
        let cell = usize::from(is_tls13) * 2 + usize::from(is_resumed);
        self.cells.add(ENDS.len() + cell, 1);
    }
}

impl Collector for NetMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "connections",
            "Open connections of the data listeners",
            None,
            MetricType::Gauge,
        )?;
        for (listener, open) in &self.open {
            // Port 0 is shown as what the kernel chose, so that no two listeners look the same.
            let labels = [("listener", &*listener.to_string()), ("state", "open")];
            encode_gauge(&mut family, &labels, open.load(Relaxed) as f64)?;
        }
        let mut family = encoder.encode_descriptor(
            "connections_accepted",
            "Connections accepted",
            None,
            MetricType::Counter,
        )?;
        encode_cells(&mut family, &[], self.cells.sum(ACCEPTED))?;
        let mut family = encoder.encode_descriptor(
            "connections_ended",
            "Connections that the node ended, by reason",
            None,
            MetricType::Counter,
        )?;
        for (cell, reason) in ENDS.iter().enumerate() {
            encode_cells(&mut family, &[("reason", reason)], self.cells.sum(cell))?;
        }
        let mut family = encoder.encode_descriptor(
            "tls_handshakes",
            "Completed TLS handshakes",
            None,
            MetricType::Counter,
        )?;
        for (i, (version, resumed)) in HANDSHAKES.iter().enumerate() {
            let labels = [("version", *version), ("resumed", *resumed)];
            encode_cells(&mut family, &labels, self.cells.sum(ENDS.len() + i))?;
        }
        Ok(())
    }
}
