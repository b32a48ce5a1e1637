//! The data path: one request's way from its head to its answer.
//!
//! ```text
//! admit ── refused ────────────────────────────────▶ refusal
//!   │ method other than GET, HEAD; pass rule ──────▶ pass
//!   ▼
//! lookup ── fresh ─────────────────────────────────▶ respond          (all of a hit)
//!   │ ├──── stale, may be served ──────────────────▶ respond, revalidate in the background
//!   ▼ ▼
//! collapse ── leader ──▶ fill ──▶ followers, store
//!   │ follower ◀────────┘
//!   ▼
//! respond
//! ```
//!
//! The hit's way is synchronous and short, and its answer is ready at once; everything else is boxed, so
//! that neither a hit nor an idle connection carries its state.
//!
//! Not here: sockets (`net`), what HTTP caching permits (`rules`), where bytes are kept (`store`).

mod accept;
mod accepted;
mod addressed;
mod admit;
mod answer;
mod body;
mod change;
mod claims;
mod client;
mod coded;
mod collapse;
mod complete;
mod compress;
pub mod config;
mod debug;
mod delta;
mod encode;
mod explain;
mod fields;
mod fill;
mod fills;
mod flight;
mod forward;
mod framing;
mod gauges;
mod head;
mod holdings;
mod inspect;
mod interim;
mod live;
mod lookup;
mod malformed;
mod metrics;
mod miss;
mod misses;
#[cfg(test)]
mod model;
mod multipart;
mod names;
mod negotiate;
mod part;
mod pieces;
mod post;
mod purged;
mod record;
mod refusal;
mod respond;
mod resume;
mod route;
mod select;
mod sent;
mod serve;
mod settle;
mod signed;
mod sites;
mod sliced;
mod sliced_body;
mod slices;
mod stream;
mod trail;
mod via;
mod warm;
mod warmed;

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

pub use addressed::{Addressed, is_purge_location, is_purge_method};
pub use answer::Answer;
pub use body::{Body, BodyError};
pub use explain::{Explanation, Lifetime};
pub use gauges::EdgeGauges;
pub use holdings::{Count, Holding};
pub use inspect::{BadUrl, Located, Variant};
pub use live::LiveEdge;
pub use metrics::{EdgeMetrics, Outcome};
pub use sliced::Slices;
pub use warm::{Hold, NotHeld, Warming};
pub use warmed::{Warm, Warmed};

use crate::encode::Pool;
use crate::net::{ConnInfo, Handler, RequestBody};
use crate::object::Object;
use crate::purge::Purges;
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::invalidate;
use crate::rules::time::Millis;
use crate::store::Store;
use crate::telemetry::{AccessLog, Clock};
use admit::Admitted;
use collapse::Collapse;
use config::Config;
use lookup::Found;
use misses::Misses;
use names::{
    CACHE_STATUS, CDN_CACHE_CONTROL, CDN_LOOP, FORWARDED, LARDER_CDN_CACHE_CONTROL, LARDER_DEBUG,
    PROXY_STATUS, SURROGATE_CAPABILITY, SURROGATE_CONTROL, X_FORWARDED_FOR, X_FORWARDED_PROTO,
};
use record::{Asked, Record, asked_of};
use refusal::{Reason, Refusal};
use route::Routes;
use sites::Sites;
use via::Via;

/// The data path of a node; one for all workers.
#[derive(Debug)]
pub struct Edge {
    config: Config,
    sites: Sites,
    routes: Routes,
    via: Via,
    surrogate_capability: HeaderValue,
    store: Arc<Store>,
    purges: Arc<Purges>,
    collapse: Arc<Collapse>,
    misses: Arc<Misses>,
    encoder: Arc<Pool>,
    clock: Clock,
    metrics: EdgeMetrics,
    access_log: Arc<AccessLog>,
    debug_right: Arc<debug::DebugRight>,
    workers: usize,
    /// The number of its configuration.
    epoch: u64,
}

/// What the driver does next.
enum Step {
    /// Neither from nor to the cache.
    Pass(Fwd),
    /// HEAD of what is not fresh: forwarded as HEAD.
    Head(Option<Arc<Object>>),
    /// From the disk, perhaps.
    Load,
    /// From the store, as it is.
    Hit(Arc<Object>),
    /// From the store, stale, while one fetch revalidates.
    HitStale(Arc<Object>),
    /// From the origin; with a stored response to be revalidated, or not.
    Fetch(Option<Arc<Object>>, Fwd),
    /// From what is stored of it beside the whole, or not at all; with the whole that can't be used.
    OnlyStored(Option<Arc<Object>>),
}

impl Edge {
    /// Composes the data path. `workers` is for what is counted by worker.
    pub fn new(
        config: Config,
        (store, purges): (Arc<Store>, Arc<Purges>),
        clock: Clock,
        access_log: AccessLog,
        workers: usize,
    ) -> Arc<Self> {
        let names = config.sites.iter().map(|site| site.name.clone()).collect();
        let metrics = EdgeMetrics::new(workers, names);
        Arc::new(Self {
            store,
            purges,
            collapse: Collapse::new(),
            misses: Arc::default(),
            encoder: Pool::new(),
            clock,
            metrics,
            access_log: Arc::new(access_log),
            debug_right: Arc::default(),
            workers,
            epoch: settle::next_epoch(),
            sites: Sites::new(&config.sites),
            routes: Routes::new(workers),
            via: Via::new(&config.node),
            surrogate_capability: live::surrogate_capability(&config.node),
            config,
        })
    }

    /// What it counts.
    pub fn metrics(&self) -> &EdgeMetrics {
        &self.metrics
    }

    /// Where bodies are encoded.
    pub fn encoder(&self) -> &Arc<Pool> {
        &self.encoder
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn answer(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        conn: &Arc<ConnInfo>,
        started: Instant,
    ) -> Answer {
        let (mut parts, body) = request.into_parts();
        let admitted = match self.admit(&parts, &body, conn) {
            Ok(admitted) => admitted,
            Err(refused) => {
                let asked = Asked {
                    parts: &parts,
                    conn,
                    started,
                    client: refused.client,
                    is_https: refused.is_https,
                    site: refused.site.as_ref(),
                };
                let (outcome, response) = self.refused(&parts, &refused.refusal, &CacheStatus::default());
                return Answer::now(Record::open(self, &asked, outcome, response));
            }
        };
        admitted.strip(&mut parts.headers);
        trail::begin(&mut parts, &self.access_log);
        let now = self.clock.at(started);
        let step = self.step(&admitted, &parts, now);
        if let Step::Hit(object) = &step {
            let response = self.hit(&admitted, &parts, object, now);
            let response = self.explained(&admitted, &parts.headers, response);
            let asked = asked_of(&admitted, &parts, conn, started);
            return Answer::now(Record::open(self, &asked, Outcome::Hit, response));
        }
        trail::identify(&mut parts.headers);
        if let Some(interim) = conn.interim(parts.version) {
            parts.extensions.insert(interim);
        }
        let (edge, conn, admitted) = (self.clone(), conn.clone(), Arc::new(admitted));
        Answer::later(async move {
            let (outcome, response) = edge.drive(step, admitted.clone(), &parts, body).await;
            let response = edge.explained(&admitted, &parts.headers, response);
            let asked = asked_of(&admitted, &parts, &conn, started);
            Record::open(&edge, &asked, outcome, response)
        })
    }

    /// What to do with an admitted request.
    fn step(&self, admitted: &Admitted, parts: &Parts, now: Millis) -> Step {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Step::Pass(Fwd::Method);
        }
        if admitted.treatment.pass {
            return Step::Pass(Fwd::Bypass);
        }
        Self::step_for(self.lookup(admitted, &parts.headers, now), parts)
    }

    fn step_for(found: Found, parts: &Parts) -> Step {
        let is_head = parts.method == Method::HEAD;
        match found {
            Found::Cold => Step::Load,
            Found::Fresh(object) => Step::Hit(object),
            Found::Stale(object) => Step::HitStale(object),
            Found::OnlyIfCached(base) => Step::OnlyStored(base),
            Found::Revalidate(object) if is_head => Step::Head(Some(object)),
            Found::Revalidate(object) => Step::Fetch(Some(object), Fwd::Stale),
            Found::OtherVariant if !is_head => Step::Fetch(None, Fwd::VaryMiss),
            Found::Absent if !is_head => Step::Fetch(None, Fwd::UriMiss),
            Found::OtherVariant | Found::Absent => Step::Head(None),
        }
    }

    async fn drive(
        self: &Arc<Self>,
        step: Step,
        admitted: Arc<Admitted>,
        parts: &Parts,
        body: RequestBody,
    ) -> (Outcome, Response<Body>) {
        let step = match step {
            Step::Load => Self::step_for(self.load(&admitted, &parts.headers).await, parts),
            step => step,
        };
        match step {
            Step::Fetch(Some(base), _) | Step::Head(Some(base)) if self.stands_in(&base) => {
                (Outcome::HitStale, self.stale(&admitted, parts, &base, None, "stale-if-error"))
            }
            Step::Load => self.fetch(&admitted, parts, None, Fwd::UriMiss).await,
            Step::Pass(fwd) => self.forward(&admitted, parts, body, fwd).await,
            Step::Head(base) => self.head_of(&admitted, parts, base).await,
            Step::Hit(object) => (Outcome::Hit, self.hit(&admitted, parts, &object, self.clock.now())),
            Step::HitStale(object) => {
                let detail = "stale-revalidating";
                let response = self.stale(&admitted, parts, &object, None, detail);
                self.revalidate(&admitted, parts, object);
                (Outcome::HitStale, response)
            }
            Step::Fetch(base, fwd) => self.fetch(&admitted, parts, base, fwd).await,
            Step::OnlyStored(base) => self.only_stored(&admitted, parts, base.as_ref()).await,
        }
    }

    fn refused(
        &self,
        parts: &Parts,
        refusal: &Refusal,
        status: &CacheStatus<'_>,
    ) -> (Outcome, Response<Body>) {
        self.metrics.refused(refusal.reason);
        let outcome = if refusal.reason == Reason::Origin { Outcome::Error } else { Outcome::Refused };
        let status = CacheStatus { detail: status.detail.or(Some(refusal.reason.as_str())), ..*status };
        let request = (&parts.method, parts.version, &parts.headers);
        (outcome, refusal.response(&self.config.node, &status, request))
    }

    /// A request of the client's own: streamed both ways; an unsafe one invalidates, and the answer to a POST may be
    /// kept.
    async fn forward(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        body: RequestBody,
        fwd: Fwd,
    ) -> (Outcome, Response<Body>) {
        if parts.uri.path() == "*" {
            return (Outcome::Pass, self.options_of_the_node());
        }
        if matches!(parts.method, Method::GET | Method::HEAD)
            && let Err(refusal) = self.count_miss(admitted)
        {
            return self.refused(parts, &refusal, &CacheStatus::default());
        }
        let status = CacheStatus { fwd: Some(fwd), ..CacheStatus::default() };
        let (request_time, as_of) = (self.clock.now(), self.purges.applied());
        match self.exchange(admitted, parts, body).await {
            Ok(mut response) => {
                if let Err(error) = response.body_mut().opened().await {
                    return self.unanswered(parts, &error, error.status(), &status);
                }
                let status = CacheStatus { fwd_status: Some(response.status().as_u16()), ..status };
                let response = match self.keep_post(admitted, parts, response, (request_time, as_of), &status)
                {
                    Ok(kept) => kept,
                    Err(response) => self.passed(admitted, *response, &status),
                };
                (Outcome::Pass, response)
            }
            Err((code, error)) => self.unanswered(parts, &error, code, &status),
        }
    }

    /// RFC 9111 §4.4: the target, and what Location and Content-Location name on the same origin.
    fn invalidate(&self, admitted: &Admitted, parts: &Parts, response: &http::HeaderMap) {
        let target = admitted.as_target();
        self.invalidate_key(&admitted.key_of(target.path, parts.uri.query()));
        for other in invalidate::targets(&target, response) {
            self.invalidate_key(&admitted.key_of(&other.path, other.query.as_deref()));
        }
    }
}

impl Handler for Arc<Edge> {
    type Body = Body;
    type Answer = Answer;

    #[inline]
    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        self.answer(request, conn, arrived)
    }

    fn malformed(&self, status: StatusCode, conn: &ConnInfo) -> Option<Response<Body>> {
        Some(Edge::malformed(self, status, conn))
    }
}
