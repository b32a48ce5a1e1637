//! Requests of the node's own, by which responses are stored before clients ask for them.
//!
//! They take a client's way from the look into the store on: collapse, fetch, freshness, storing. What is meant for
//! clients does not hold for them: access lists, signatures, redirects to https, the limit on misses. They wait as
//! long as live traffic needs the origin, and count neither as requests of a site nor in the access log.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tokio::time::{Instant, sleep};

use super::admit::Admitted;
use super::body::{Body, BodyError};
use super::client::Client;
use super::inspect::{BadUrl, Found as FoundUrl};
use super::lookup::Found;
use super::route::Route;
use super::{CACHE_STATUS, Edge, Outcome, Step};
use crate::net::RequestBody;
use crate::object::Object;
use crate::origin::Spare;
use crate::rules::cache_status::Fwd;
use crate::rules::key::{CacheKey, Scheme};
pub use crate::store::Hold;

/// Between two looks whether live traffic leaves room.
const YIELD: Duration = Duration::from_millis(20);
/// How long live traffic is waited for.
const YIELD_TIMEOUT: Duration = Duration::from_secs(60);
/// A `Retry-After` beyond this is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

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

/// What a request that warms came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// It was fetched, and the next client gets it from the store.
    Stored,
    /// It was there.
    Fresh,
    /// It can't be stored, or not be used without asking the origin.
    Uncacheable,
    /// The origin did not give it.
    Failed,
}

/// What came of one request.
#[derive(Debug)]
pub struct Warmed {
    /// See [`Warm`].
    pub outcome: Warm,
    /// The answer's status; 0: there was none.
    pub status: u16,
    /// The answer's content coding, as far as it is one that is known.
    pub coding: Option<&'static str>,
    /// Bytes of the body that came from the origin, or from another request's fetch.
    pub bytes: u64,
    /// Why, where it is neither stored nor fresh.
    pub reason: Option<Cow<'static, str>>,
    /// When another try may succeed; `None`: not.
    pub retry_after: Option<Duration>,
}

impl Warmed {
    fn new(outcome: Warm, status: StatusCode, headers: &HeaderMap) -> Self {
        let coding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let known = ["br", "gzip", "zstd"].into_iter();
        let coding =
            coding.and_then(|coding| known.clone().find(|c| coding.eq_ignore_ascii_case(c.as_bytes())));
        Self { outcome, status: status.as_u16(), coding, bytes: 0, reason: None, retry_after: None }
    }

    /// No answer of the origin's.
    pub fn failed(reason: impl Into<Cow<'static, str>>, retry_after: Option<Duration>) -> Self {
        let (outcome, reason) = (Warm::Failed, Some(reason.into()));
        Self { outcome, status: 0, coding: None, bytes: 0, reason, retry_after }
    }

    fn because(self, outcome: Warm, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, reason: Some(reason.into()), ..self }
    }

    fn again(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
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

    /// Has what is asked for stored; `refresh`: also asks the origin about what is fresh.
    pub async fn warm(self: &Arc<Self>, warming: &Warming, refresh: bool) -> Warmed {
        let Warming { admitted, parts } = warming;
        if admitted.treatment.pass {
            let warmed = Warmed::failed("", None);
            return warmed.because(Warm::Uncacheable, "pass: the site's rule never stores it");
        }
        // Whatever the disk tier waits for, this is worth it; from here on, also for others' fetches.
        let _wanted = self.store.want(&admitted.key);
        let found = self.find_stored(admitted, parts).await;
        if let Found::Fresh(object) = &found
            && !refresh
        {
            self.store.write_out(&admitted.key).await;
            return Warmed::new(Warm::Fresh, object.head.status, &object.head.headers);
        }
        let Some(_spare) = self.spare(admitted).await else {
            let reason = "live traffic left no room at the origin for a minute";
            return Warmed::failed(reason, Some(Duration::ZERO));
        };
        // A larger body is not begun while the disk is behind, which would mark it as not to be stored.
        self.store.ready_to_write().await;
        let (step, base) = step_for(found);
        let driven = self.drive(step, admitted.clone(), parts, RequestBody::empty());
        let (outcome, response) = Box::pin(driven).await;
        self.concluded(warming, outcome, response, base.is_some()).await
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

    /// Whether a stored entry is held: it is not when half of its tier is held already.
    pub async fn is_held(&self, key: &CacheKey) -> bool {
        self.store.is_held(key).await
    }

    async fn find_stored(&self, admitted: &Admitted, parts: &Parts) -> Found {
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

    /// Takes the answer to its end and looks what the next client would get.
    async fn concluded(
        &self,
        Warming { admitted, parts }: &Warming,
        outcome: Outcome,
        response: Response<Body>,
        was_there: bool,
    ) -> Warmed {
        let (status, detail) = (response.status(), detail_of(response.headers()));
        let warmed = Warmed::new(Warm::Stored, status, response.headers());
        let retry_after = retry_after(response.headers()).unwrap_or_default();
        if matches!(outcome, Outcome::Error | Outcome::Refused) || is_transient(status) {
            let reason = format!("the answer is {}", described(&response));
            return warmed.because(Warm::Failed, reason).again(retry_after);
        }
        if outcome == Outcome::HitStale {
            let reason = "the origin fails; what is stored is stale and stands in for it";
            return warmed.because(Warm::Failed, reason).again(retry_after);
        }
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(chunk) = next_chunk(&mut body).await {
            match chunk {
                Ok(chunk) => bytes += chunk.len() as u64,
                Err(error) => {
                    let reason = format!("the answer broke off after {bytes} bytes: {error}");
                    return Warmed { bytes, ..warmed }.because(Warm::Failed, reason).again(Duration::ZERO);
                }
            }
        }
        // What a 304 confirmed did not come again.
        let bytes = if outcome == Outcome::Revalidated && was_there { 0 } else { bytes };
        let warmed = Warmed { bytes, ..warmed };
        if status.is_client_error() {
            return warmed.because(Warm::Failed, format!("the origin answers {status}"));
        }
        self.store.write_out(&admitted.key).await;
        match self.find_stored(admitted, parts).await {
            Found::Fresh(_) | Found::Stale(_) => warmed,
            Found::Revalidate(object) => {
                let reason = format!("stored, and stale at once ({})", freshness_source(&object));
                warmed.because(Warm::Uncacheable, reason)
            }
            // What is known to be stored in slices is put together from them.
            _ if detail.is_none() && self.collapse.sliced(admitted.key.hash()).is_some() => warmed,
            _ => match detail {
                Some(detail) => warmed.because(Warm::Uncacheable, explained(&detail)),
                None => {
                    warmed.because(Warm::Failed, "it was stored, and is gone: the store has no room for it")
                }
            },
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

async fn next_chunk(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Statuses of which another try may make another one.
fn is_transient(status: StatusCode) -> bool {
    let is_busy =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    is_busy || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// In seconds only (RFC 9110 §10.2.3 has dates too).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let secs: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(MAX_RETRY_AFTER))
}

fn described(response: &Response<Body>) -> String {
    match detail_of(response.headers()) {
        Some(detail) => format!("{} ({detail})", response.status()),
        None => response.status().to_string(),
    }
}

/// The node's own member of Cache-Status, which is the last one.
fn own_status(headers: &HeaderMap) -> Option<&str> {
    let line = headers.get_all(&CACHE_STATUS).iter().next_back()?.to_str().ok()?;
    line.rsplit(", ").next()
}

fn detail_of(headers: &HeaderMap) -> Option<String> {
    let (_, detail) = own_status(headers)?.split_once("; detail=")?;
    let detail = detail.split(';').next().unwrap_or_default().trim_matches('"');
    // Where it is from, and no reason.
    (!matches!(detail, "memory" | "disk" | "")).then(|| detail.to_owned())
}

fn freshness_source(object: &Object) -> &'static str {
    object.head.freshness.source
}

/// A word of Cache-Status as a sentence.
fn explained(detail: &str) -> String {
    let why = match detail {
        "no-store" | "private" => "the response's Cache-Control says so",
        "set-cookie" => "the response sets a cookie, and site.cache.set_cookie passes those on unstored",
        "vary" => "it varies on a field of site.cache.vary_pass",
        "vary-star" => "it varies on everything",
        "status" => "this status is not stored without explicit freshness",
        "no-freshness" => "it says nothing of freshness and has no validator",
        "no-cache" => "no-cache without a validator: it could never be used",
        "authorization" => "the request has credentials, and the response does not allow it",
        "too-large" => "it is larger than store.max_object, or there is no room",
        _ => "it is not to be stored",
    };
    format!("{detail}: {why}")
}
