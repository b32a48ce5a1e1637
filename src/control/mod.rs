//! The control path: the admin API, who may use it, health and metrics.
//!
//! It runs on a thread of its own. It may call the data path; the data path never calls it.

mod audit;
mod auth;
mod body;
mod compaction;
mod explain;
mod handler;
mod health;
mod idempotency;
mod journal;
mod life;
mod metrics;
mod objects;
mod openapi;
mod page;
mod problem;
mod process;
mod purges;
mod saturation;
mod scans;
mod status;
mod warmups;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use prometheus_client::registry::Registry;

pub use auth::{SCOPES, TOKEN_FILE, TokenConfig, TokenFileError, new_token};
pub use handler::AdminHandler;
pub use life::{Fault, Order, Orders, Reloaded};
pub use metrics::WorkerMetrics;
pub use process::ProcessMetrics;
pub(crate) use purges::CLI_AGENT;
pub use saturation::Saturation;
pub use warmups::{WarmMetrics, Warmups};

use crate::edge::LiveEdge;
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
    pub edge: Arc<LiveEdge>,
    /// The store.
    pub store: Arc<Store>,
    /// The log of purges.
    pub purges: Arc<Purges>,
    /// Warm jobs.
    pub warmups: Arc<Warmups>,
    /// The connections of the data listeners.
    pub connections: Arc<Connections>,
    /// Node time.
    pub clock: Clock,
    /// Everything that is scraped.
    pub registry: Registry,
    /// Directory of the store, where a made token is kept.
    pub store_path: PathBuf,
    /// Whoever reloads and drains.
    pub orders: Orders,
}

/// The control path of a node.
#[derive(Debug)]
pub struct Control {
    parts: Parts,
    tokens: Arc<Tokens>,
    scans: scans::Scans,
    audit: audit::Audit,
    idempotency: idempotency::Idempotency,
    is_ready: AtomicBool,
}

impl Control {
    /// Composes it. Without configured tokens one is made, or read, in the store's directory.
    pub fn new(parts: Parts, tokens: &[TokenConfig]) -> Result<Arc<Self>, TokenFileError> {
        let tokens = Arc::new(Tokens::new(tokens, &parts.store_path)?);
        Ok(Arc::new(Self {
            audit: audit::Audit::open(&parts.store_path, parts.clock),
            idempotency: idempotency::Idempotency::open(&parts.store_path, parts.clock.now()),
            scans: scans::Scans::new(),
            is_ready: AtomicBool::new(false),
            parts,
            tokens,
        }))
    }

    /// What `readyz` says from now on.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Relaxed);
    }

    /// The warm jobs.
    pub fn warmups(&self) -> &Arc<Warmups> {
        &self.parts.warmups
    }

    /// All origins that are in use.
    pub(crate) fn origins(&self) -> Vec<Arc<Origin>> {
        self.parts.edge.current().config().origins.clone()
    }

    /// Reads or makes what these tokens need; the result has them replace those in use.
    pub fn prepare_tokens(&self, tokens: &[TokenConfig]) -> Result<impl FnOnce() + use<>, TokenFileError> {
        let known = Tokens::known(tokens, &self.parts.store_path)?;
        let tokens = self.tokens.clone();
        Ok(move || tokens.replace(known))
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
            .route("/v1/tags", get(objects::tags))
            .route("/v1/audit", get(audit::list))
            .route("/v1/explain", post(explain::explain))
            .route("/v1/purges", get(purges::list).post(purges::create))
            .route("/v1/purges/{id}", get(purges::show))
            .route("/v1/warmups", get(warmups::list).post(warmups::create))
            .route("/v1/warmups/{id}", get(warmups::show).delete(warmups::cancel))
            .route("/v1/warmups/{id}/urls", get(warmups::urls))
            .route("/openapi.json", get(openapi::openapi))
            .merge(purges::dialect::routes())
            .route("/v1/reload", post(life::reload))
            .route("/v1/drain", post(life::drain))
            .merge(open_routes());
        let api = api.fallback(problem::no_such_call).method_not_allowed_fallback(problem::no_such_method);
        // Outside first: what is only answered again is not recorded again.
        let api = api.layer(from_fn_with_state(self.clone(), audit::watch));
        let api = api.layer(from_fn_with_state(self.clone(), idempotency::layer));
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
