//! The edge that answers now: a reload puts another in its place, whole.
//!
//! An edge never changes its configuration. What is under way keeps the edge that it began with; what comes
//! takes the new one, whose routes are not remembered yet. Everything that has to outlive a configuration
//! (the store, flights, counters) is shared by both.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use parking_lot::Mutex;

use super::Edge;
use super::config::Config;
use super::route::Routes;
use super::sites::Sites;
use super::via::Via;
use crate::telemetry::AccessLog;

/// Generations of all [`LiveEdge`]s of the process, so that none is ever another's.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// What this thread has seen last. It may keep an old edge alive until it serves again.
    static SEEN: RefCell<(u64, Option<Arc<Edge>>)> = const { RefCell::new((0, None)) };
}

/// See the module.
pub struct LiveEdge {
    generation: AtomicU64,
    edge: Mutex<Arc<Edge>>,
}

impl fmt::Debug for LiveEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveEdge").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl LiveEdge {
    /// Begins with this edge.
    pub fn new(edge: Arc<Edge>) -> Arc<Self> {
        let generation = AtomicU64::new(GENERATIONS.fetch_add(1, Ordering::Relaxed));
        Arc::new(Self { generation, edge: Mutex::new(edge) })
    }

    /// The edge that answers now.
    pub fn current(&self) -> Arc<Edge> {
        self.edge.lock().clone()
    }

    /// Has another edge answer from now on; gives the one before.
    pub fn replace(&self, edge: Arc<Edge>) -> Arc<Edge> {
        let mut current = self.edge.lock();
        let old = std::mem::replace(&mut *current, edge);
        self.generation.store(GENERATIONS.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        old
    }

    /// Works with the edge that answers now. For a thread that has seen it this costs one load.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&Arc<Edge>) -> R) -> R {
        SEEN.with(|seen| {
            // Taken already: a request that is handled within another's handling.
            let Ok(mut seen) = seen.try_borrow_mut() else { return work(&self.current()) };
            if seen.0 != self.generation.load(Ordering::Acquire) {
                *seen = self.look();
            }
            match &seen.1 {
                Some(edge) => work(edge),
                None => work(&self.current()),
            }
        })
    }

    #[cold]
    fn look(&self) -> (u64, Option<Arc<Edge>>) {
        let edge = self.edge.lock();
        (self.generation.load(Ordering::Acquire), Some(edge.clone()))
    }
}

impl Edge {
    /// The same data path under another configuration, and with another access log, if one is given.
    #[must_use]
    pub fn reconfigured(&self, config: Config, access_log: Option<AccessLog>) -> Arc<Self> {
        let names: Vec<_> = config.sites.iter().map(|site| site.name.clone()).collect();
        // Misses are counted by a site's place.
        let is_in_place = self.config.sites.iter().map(|site| &site.name).eq(&names);
        Arc::new(Self {
            store: self.store.clone(),
            purges: self.purges.clone(),
            collapse: self.collapse.clone(),
            misses: if is_in_place { self.misses.clone() } else { Arc::default() },
            encoder: self.encoder.clone(),
            clock: self.clock,
            metrics: self.metrics.renamed(self.workers, names),
            access_log: access_log.map_or_else(|| self.access_log.clone(), Arc::new),
            debug_right: self.debug_right.clone(),
            workers: self.workers,
            epoch: super::settle::next_epoch(),
            sites: Sites::new(&config.sites),
            routes: Routes::new(self.workers),
            via: Via::new(&config.node),
            surrogate_capability: surrogate_capability(&config.node),
            config,
        })
    }

    /// The log of what is answered.
    pub fn access_log(&self) -> &Arc<AccessLog> {
        &self.access_log
    }
}

pub(super) fn surrogate_capability(node: &str) -> HeaderValue {
    let value = HeaderValue::try_from(format!("{node}=\"Surrogate/1.0\""));
    value.unwrap_or(HeaderValue::from_static("larder=\"Surrogate/1.0\""))
}
