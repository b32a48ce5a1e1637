//! The control path: the admin API, who may use it, health and metrics.
//!
//! It runs on a thread of its own. It may call the data path; the data path never calls it.

mod auth;
mod handler;
mod health;
mod metrics;
mod objects;
mod problem;
mod process;
mod purges;
mod saturation;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;

pub use auth::{TOKEN_FILE, TokenConfig, TokenFileError};
pub use handler::AdminHandler;
pub use metrics::WorkerMetrics;
pub use process::ProcessMetrics;
pub(crate) use purges::CLI_AGENT;
pub use saturation::Saturation;

use crate::edge::Edge;
use crate::net::Connections;
use crate::origin::Origin;
use crate::purge::Purges;
use crate::store::Store;
use crate::telemetry::Clock;
use auth::Tokens;

/// What the control path works on.
#[derive(Debug)]
pub struct Parts {
    /// The node's public name.
    pub name: String,
    /// The data path.
    pub edge: Arc<Edge>,
    /// The store.
    pub store: Arc<Store>,
    /// The log of purges.
    pub purges: Arc<Purges>,
    /// All origins.
    pub origins: Vec<Arc<Origin>>,
    /// The connections of the data listeners.
    pub connections: Arc<Connections>,
    /// Node time.
    pub clock: Clock,
    /// Everything that is scraped.
    pub registry: Registry,
    /// Directory of the store, where a made token is kept.
    pub store_path: PathBuf,
}

/// The control path of a node.
#[derive(Debug)]
pub struct Control {
    parts: Parts,
    tokens: Arc<Tokens>,
    is_ready: AtomicBool,
}

impl Control {
    /// Composes it. Without configured tokens one is made, or read, in the store's directory.
    pub fn new(parts: Parts, tokens: &[TokenConfig]) -> Result<Arc<Self>, TokenFileError> {
        let tokens = Arc::new(Tokens::new(tokens, &parts.store_path)?);
        Ok(Arc::new(Self { parts, tokens, is_ready: AtomicBool::new(false) }))
    }

    /// What `readyz` says from now on.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Relaxed);
    }

    /// For the data path: whether a token may be told how a response of a site was found.
    pub fn debug_right(&self) -> impl Fn(&[u8], &str) -> bool + Send + Sync + 'static {
        let (tokens, clock) = (self.tokens.clone(), self.parts.clock);
        move |token, site| tokens.may_read(token, site, clock.now())
    }

    /// The handler of the admin listener.
    pub fn admin(self: &Arc<Self>) -> AdminHandler {
        let api = Router::new()
            .route("/v1/status", get(status::status))
            .route("/v1/origins", get(status::origins))
            .route("/v1/objects", get(objects::objects))
            .route("/v1/purges", get(purges::list).post(purges::create))
            .route("/v1/purges/{id}", get(purges::show))
            .merge(open_routes());
        let api = api.fallback(problem::no_such_call).method_not_allowed_fallback(problem::no_such_method);
        AdminHandler::new(api.with_state(self.clone()))
    }

    /// The handler of the scrapers' listener.
    pub fn scrapers(self: &Arc<Self>) -> AdminHandler {
        AdminHandler::new(open_routes().fallback(problem::no_such_call).with_state(self.clone()))
    }
}

/// What needs no token.
fn open_routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
}
