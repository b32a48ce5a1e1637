//! Requests of the node's own, by which responses are stored before clients ask for them.
//!
//! They take a client's way from the look into the store on: collapse, fetch, freshness, storing. What is meant for
//! clients does not hold for them: access lists, signatures, the limit on misses. They wait as
//! long as live traffic needs the origin, and count neither as requests of a site nor in the access log.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body as _;
use tokio::time::{Instant, sleep};

use super::admit::{Admitted, https_location, served_over_https};
use super::body::{Body, BodyError};
use super::client::Client;
use super::inspect::{BadUrl, Found as FoundUrl};
use super::lookup::Found;
use super::route::Route;
use super::sliced::InSlices;
use super::warmed::{Before, Warm, Warmed, described};
use super::{Edge, Step};
use crate::net::RequestBody;
use crate::object::Object;
use crate::origin::Spare;
use crate::rules::cache_status::Fwd;
use crate::rules::key::{CacheKey, Scheme};
pub use crate::store::{Hold, NotHeld};

/// Between two looks whether live traffic leaves room.
const YIELD: Duration = Duration::from_millis(20);
/// How long live traffic is waited for.
const YIELD_TIMEOUT: Duration = Duration::from_secs(60);

/// A request that warms.
#[derive(Debug)]
pub struct Warming {
    admitted: Arc<Admitted>,
    parts: Parts,
}

impl Warming {
    /// Under which key it is stored.
    pub fn key(&self) -> &CacheKey {
        &self.admitted.key
    }
}

impl Edge {
    /// A request for a URL with these fields; Host is set.
    pub fn warming(&self, url: &str, mut headers: HeaderMap) -> Result<Warming, BadUrl> {
        let FoundUrl { site, scheme, host, path, query } = self.find_url(url)?;
        let malformed = |why: &str| BadUrl::Malformed(format!("{url}: {why}"));
        let authority = HeaderValue::try_from(&host).map_err(|_| malformed("its host can't be sent"))?;
        headers.insert(header::HOST, authority);
        let treatment = site.treatment(&Method::GET, &path).clone();
        let key = CacheKey::new(scheme, &host, &path, query.as_deref());
        let route = Route::new(site.clone(), treatment, key, scheme, &host);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let is_https = scheme == Scheme::Https;
        let client = Client { address: here, peer: here, is_https, is_behind_proxy: false };
        let admitted = Arc::new(Admitted::own(route, client, &headers));
        let mut request = Request::new(());
        *request.uri_mut() = admitted.target().parse().map_err(|_| malformed("it can't be sent"))?;
        *request.headers_mut() = headers;
        Ok(Warming { admitted, parts: request.into_parts().0 })
    }

    /// Has what is asked for stored, for a job; `refresh`: also asks the origin about what is fresh.
    pub async fn warm(self: &Arc<Self>, warming: &Warming, job: u64, refresh: bool) -> Warmed {
        let Warming { admitted, parts } = warming;
        if admitted.treatment.pass {
            let warmed = Warmed::failed("", None);
            return warmed.because(Warm::Uncacheable, "pass: the site's rule never stores it");
        }
        if admitted.site.redirect_to_https && !admitted.client.is_https {
            // Whatever was stored, no client would get it.
            let location = https_location(admitted.host(), admitted.target());
            return Warmed::failed(served_over_https(&location), None);
        }
        let as_of = self.purges.applied();
        // Whatever the store waits for, this is worth it; from here on, also for others' fetches.
        let _wanted = self.store.want(&admitted.key, job);
        let found = self.find_stored(warming).await;
        if let Found::Fresh(object) = &found
            && !refresh
        {
            self.store.write_out(&admitted.key).await;
            return Warmed::new(Warm::Fresh, object.head.status, &object.head.headers);
        }
        let in_slices = match found {
            Found::Fresh(_) | Found::Stale(_) | Found::Revalidate(_) => None,
            _ => self.warming_slices(warming).await,
        };
        if in_slices.as_ref().is_some_and(|found| found.is_whole) {
            return Warmed::new(Warm::Fresh, StatusCode::OK, &HeaderMap::new());
        }
        let in_slices = in_slices.map_or(0, |found| found.bytes);
        let _wanted_slices = self.want_slices(&admitted.key, job);
        let Some(_spare) = self.spare(admitted).await else {
            let reason = "live traffic left no room at the origin for a minute";
            return Warmed::failed(reason, Some(Duration::ZERO));
        };
        // A larger body is not begun while the disk is behind, which would mark it as not to be stored.
        self.store.ready_to_write().await;
        let (step, base) = step_for(found);
        let driven = self.drive(step, admitted.clone(), parts, RequestBody::empty());
        let (outcome, response) = Box::pin(driven).await;
        let before = Before { as_of, was_there: base.is_some(), in_slices };
        self.concluded(warming, outcome, response, before).await
    }

    /// The whole of a response, by a client's way, stored or not; at most `limit` bytes. For what the node reads itself.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn read_whole(self: &Arc<Self>, warming: &Warming, limit: usize) -> Result<Bytes, String> {
        let Warming { admitted, parts } = warming;
        let step = match self.step(admitted, parts, self.clock.now()) {
            Step::Pass(fwd) => Step::Fetch(None, fwd),
            step => step,
        };
        let driven = self.drive(step, admitted.clone(), parts, RequestBody::empty());
        let (_, response) = Box::pin(driven).await;
        if response.status() != StatusCode::OK {
            return Err(format!("it is answered with {}", described(&response)));
        }
        let mut whole = BytesMut::new();
        let mut body = response.into_body();
        while let Some(chunk) = next_chunk(&mut body).await {
            let chunk = chunk.map_err(|error| format!("it broke off: {error}"))?;
            if whole.len() + chunk.len() > limit {
                return Err(format!("it is larger than {limit} bytes"));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Exempts what is, or will be, stored under a URL's key from eviction for a time; false: too many are.
    pub fn hold(&self, key: &CacheKey, hold: Hold) -> bool {
        self.store.hold(key, hold)
    }

    /// What a job holds goes to who holds it next, or is released by [`Edge::release_disowned`].
    pub fn disown(&self, job: u64) {
        self.store.disown(job);
    }

    /// Ends the holds that are nobody's any more.
    pub fn release_disowned(&self) {
        self.store.release_disowned();
    }

    /// The last purge that is applied.
    pub fn last_purge(&self) -> u64 {
        self.purges.applied()
    }

    /// Looks whether a stored entry is held, which charges the hold.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn look_at_hold(&self, key: &CacheKey) -> Result<(), NotHeld> {
        self.store.look_at_hold(key).await
    }

    /// What is there in slices of what is not stored as a whole; `None`: nothing is known of slices.
    pub(super) async fn warming_slices(&self, Warming { admitted, parts }: &Warming) -> Option<InSlices> {
        let sliced = self.collapse.sliced(admitted.key.hash())?;
        Some(self.in_slices(&admitted.key, &sliced, Some(&parts.headers)).await)
    }

    pub(super) async fn find_stored(&self, Warming { admitted, parts }: &Warming) -> Found {
        match self.lookup(admitted, &parts.headers, self.clock.now()) {
            Found::Cold => self.load(admitted, &parts.headers).await,
            found => found,
        }
    }

    /// Waits until live traffic leaves a place at the origin.
    async fn spare(&self, admitted: &Admitted) -> Option<Spare> {
        let deadline = Instant::now() + YIELD_TIMEOUT;
        let treatment = &admitted.treatment;
        loop {
            if self.config.fills.has_spare()
                && treatment.fills.has_spare()
                && let Some(spare) = treatment.origin.spare()
            {
                return Some(spare);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(YIELD).await;
        }
    }
}

/// What is stored is asked about at the origin, in whatever state it is.
fn step_for(found: Found) -> (Step, Option<Arc<Object>>) {
    match found {
        Found::Fresh(base) | Found::Stale(base) | Found::Revalidate(base) => {
            (Step::Fetch(Some(base.clone()), Fwd::Stale), Some(base))
        }
        Found::OtherVariant => (Step::Fetch(None, Fwd::VaryMiss), None),
        Found::Cold | Found::Absent | Found::OnlyIfCached(_) => (Step::Fetch(None, Fwd::UriMiss), None),
    }
}

pub(super) async fn next_chunk(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}
