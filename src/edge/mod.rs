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
mod addressed;
mod admit;
mod answer;
mod body;
mod client;
mod collapse;
pub mod config;
mod debug;
mod explain;
mod fill;
mod fills;
mod flight;
mod forward;
mod framing;
mod head;
mod holdings;
mod inspect;
mod interim;
mod lookup;
mod malformed;
mod metrics;
mod miss;
mod misses;
#[cfg(test)]
mod model;
mod names;
mod part;
mod post;
mod purged;
mod record;
mod refusal;
mod respond;
mod resume;
mod route;
mod select;
mod signed;
mod sites;
mod slices;
mod warm;

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

pub use addressed::{Addressed, is_purge_location, is_purge_method};
pub use answer::Answer;
pub use body::{Body, BodyError};
pub use explain::{Explanation, Lifetime};
pub use holdings::{Count, Holding};
pub use inspect::{BadUrl, Located, Variant};
pub use metrics::{EdgeMetrics, Outcome};
pub use warm::{Hold, Warm, Warmed, Warming};

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
use respond::Serving;
use route::Routes;
use sites::Sites;

/// The data path of a node; one for all workers.
#[derive(Debug)]
pub struct Edge {
    config: Config,
    sites: Sites,
    routes: Routes,
    via: HeaderValue,
    surrogate_capability: HeaderValue,
    store: Arc<Store>,
    purges: Arc<Purges>,
    collapse: Arc<Collapse>,
    misses: Misses,
    clock: Clock,
    metrics: EdgeMetrics,
    access_log: AccessLog,
    debug_right: debug::DebugRight,
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
    /// What the request insists on can't be had (`only-if-cached`).
    Refuse(Refusal),
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
        let via = HeaderValue::try_from(format!("1.1 {}", config.node));
        let capability = HeaderValue::try_from(format!("{}=\"Surrogate/1.0\"", config.node));
        Arc::new(Self {
            sites: Sites::new(&config.sites),
            routes: Routes::new(workers),
            via: via.unwrap_or(HeaderValue::from_static("1.1 larder")),
            surrogate_capability: capability.unwrap_or(HeaderValue::from_static("larder=\"Surrogate/1.0\"")),
            store,
            purges,
            collapse: Collapse::new(),
            misses: Misses::default(),
            clock,
            metrics: EdgeMetrics::new(workers, names),
            access_log,
            debug_right: debug::DebugRight::default(),
            config,
        })
    }

    /// What it counts.
    pub fn metrics(&self) -> &EdgeMetrics {
        &self.metrics
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Fetches under way that others may follow.
    pub fn flights(&self) -> usize {
        self.collapse.in_flight()
    }

    /// Lines that the access log had to drop.
    pub fn access_log_dropped(&self) -> u64 {
        self.access_log.dropped()
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
        let now = self.clock.at(started);
        let step = self.step(&admitted, &parts, now);
        if let Step::Hit(object) = &step {
            let response = self.hit(&admitted, &parts, object, now);
            let response = self.explained(&admitted, &parts.headers, response);
            let asked = asked_of(&admitted, &parts, conn, started);
            return Answer::now(Record::open(self, &asked, Outcome::Hit, response));
        }
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
            Found::OnlyIfCached => {
                let detail = "the request asks for a stored response and there is none to use";
                Step::Refuse(Refusal::new(Reason::OnlyIfCached, StatusCode::GATEWAY_TIMEOUT, detail))
            }
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
            Step::Refuse(refusal) => self.refused(parts, &refusal, &CacheStatus::default()),
        }
    }

    #[inline]
    fn hit(&self, admitted: &Admitted, parts: &Parts, object: &Arc<Object>, now: Millis) -> Response<Body> {
        self.store.promote(object.head.key.hash());
        object.touch(now);
        let status = CacheStatus {
            hit: true,
            ttl: Some(object.head.freshness.ttl_secs(now)),
            detail: Some(object.tier()),
            ..CacheStatus::default()
        };
        let serving =
            Serving { node: &self.config.node, admitted, request: parts, status, now, is_validated: false };
        respond::hit(&serving, object)
    }

    fn stale(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        object: &Object,
        fwd: Option<(Fwd, Option<u16>)>,
        detail: &str,
    ) -> Response<Body> {
        let status = CacheStatus {
            hit: fwd.is_none(),
            fwd: fwd.map(|(fwd, _)| fwd),
            fwd_status: fwd.and_then(|(_, status)| status),
            ttl: Some(object.freshness().ttl_secs(self.clock.now())),
            detail: Some(detail),
            ..CacheStatus::default()
        };
        respond::from_object(&self.serving(admitted, parts, status, false), object)
    }

    fn serving<'a>(
        &'a self,
        admitted: &'a Admitted,
        request: &'a Parts,
        status: CacheStatus<'a>,
        is_validated: bool,
    ) -> Serving<'a> {
        Serving { node: &self.config.node, admitted, request, status, now: self.clock.now(), is_validated }
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
        let status = CacheStatus { fwd: Some(fwd), ..CacheStatus::default() };
        let (request_time, as_of) = (self.clock.now(), self.purges.applied());
        match self.pass(admitted, parts, body).await {
            Ok(mut response) => {
                let reject = admitted.treatment.reject_unknown_transfer_coding;
                if let Err(error) = framing::check(&mut response, reject) {
                    return self.unanswered(parts, &error, error.status(), &status);
                }
                if invalidate::invalidates(&parts.method, response.status()) {
                    self.invalidate(admitted, parts, response.headers());
                    self.invalidate_groups(admitted, response.headers()).await;
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
        self.store.invalidate(&admitted.key_of(target.path, parts.uri.query()));
        for other in invalidate::targets(&target, response) {
            self.store.invalidate(&admitted.key_of(&other.path, other.query.as_deref()));
        }
    }
}

impl Handler for Arc<Edge> {
    type Body = Body;
    type Answer = Answer;

    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        self.answer(request, conn, arrived)
    }

    fn malformed(&self, status: StatusCode, conn: &ConnInfo) -> Option<Response<Body>> {
        Some(Edge::malformed(self, status, conn))
    }
}
