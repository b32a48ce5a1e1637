//! What came of a request that warms: its answer is taken to the end, and what the next client would get decides.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::lookup::Found;
use super::warm::{Warming, next_chunk};
use super::{CACHE_STATUS, Edge, Outcome};
use crate::object::Object;

/// A `Retry-After` beyond this is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

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
    pub(super) fn new(outcome: Warm, status: StatusCode, headers: &HeaderMap) -> Self {
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

    pub(super) fn because(self, outcome: Warm, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, reason: Some(reason.into()), ..self }
    }

    fn again(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }
}

/// How it was before the origin was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// The last purge that was applied.
    pub(super) as_of: u64,
    /// Whether something was stored, fresh or not.
    pub(super) was_there: bool,
    /// Bytes that were there in slices.
    pub(super) in_slices: u64,
}

impl Edge {
    /// Takes the answer to its end and looks what the next client would get.
    pub(super) async fn concluded(
        &self,
        warming: &Warming,
        outcome: Outcome,
        response: Response<Body>,
        before: Before,
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
        let is_confirmed = outcome == Outcome::Revalidated && before.was_there;
        let bytes = if is_confirmed { 0 } else { bytes.saturating_sub(before.in_slices) };
        let warmed = Warmed { bytes, ..warmed };
        if status.is_client_error() {
            return warmed.because(Warm::Failed, format!("the origin answers {status}"));
        }
        self.store.write_out(warming.key()).await;
        let found = self.find_stored(warming).await;
        if detail.is_none() && self.is_purged_since(before.as_of, &found) {
            let reason = "a purge came while it was fetched, and what was fetched before it is not used";
            return warmed.because(Warm::Failed, reason).again(Duration::ZERO);
        }
        match (found, detail) {
            (Found::Fresh(_) | Found::Stale(_), _) => warmed,
            (_, Some(detail)) => warmed.because(Warm::Uncacheable, explained(&detail)),
            (Found::Revalidate(object), None) => {
                let reason = format!("stored, and stale at once ({})", freshness_source(&object));
                warmed.because(Warm::Uncacheable, reason)
            }
            (_, None) => self.concluded_in_slices(warming, warmed).await,
        }
    }

    /// Whether what is missing or stale may be so by a purge since.
    fn is_purged_since(&self, as_of: u64, found: &Found) -> bool {
        self.purges.applied() != as_of
            && match found {
                Found::Fresh(_) => false,
                Found::Stale(object) | Found::Revalidate(object) => object.stale_since().is_some(),
                _ => true,
            }
    }

    /// Nothing is stored as a whole; what is kept in slices is put together from them.
    async fn concluded_in_slices(&self, warming: &Warming, warmed: Warmed) -> Warmed {
        let Some(found) = self.warming_slices(warming).await else {
            return warmed.because(Warm::Failed, "it was stored, and is gone: the store has no room for it");
        };
        if found.is_whole {
            return warmed;
        }
        let slices = found.slices;
        let reason = format!(
            "it is kept in slices, and {} of {} are there: the store has no room for the others",
            slices.stored, slices.of
        );
        warmed.because(Warm::Failed, reason)
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

pub(super) fn described(response: &Response<Body>) -> String {
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
    (!matches!(detail, "memory" | "disk" | "slices" | "")).then(|| detail.to_owned())
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
