//! Stored parts: a 206 that an origin gave to a client's own Range, and what can be answered from it
//! (RFC 9111 §3.3, RFC 9110 §15.3.7).
//!
//! Parts lie under a key of their own beside the whole's, a variant for each range that was asked for.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;

use super::admit::Admitted;
use super::body::Body;
use super::fill::{Answer, Kind, is_failure};
use super::respond::{self, Serving};
use super::{Edge, Outcome, framing, interim};
use crate::object::Object;
use crate::origin::{OriginBody, OriginError};
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::conditional::{self, Outcome::Proceed};
use crate::rules::freshness::State;
use crate::rules::key::CacheKey;
use crate::rules::partial::{self, Partial};

type Answered = (Outcome, Response<Body>);

/// Under which key the parts of a whole lie.
pub(super) fn key_of(whole: &CacheKey) -> CacheKey {
    whole.part("part")
}

impl Edge {
    /// The answer from a stored part, when all that is asked for is there; `base` is what is stored of the whole: of
    /// what is stored the newest counts (RFC 9111 §4).
    pub(super) async fn stored_part(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        base: Option<&Arc<Object>>,
    ) -> Option<Answered> {
        let (object, reuse) = self
            .find_part(admitted, parts, |object| {
                base.is_none_or(|base| object.head.version > base.head.version)
                    && self.state_for(admitted, &parts.headers, object) == State::Fresh
            })
            .await?;
        let status = CacheStatus {
            hit: true,
            ttl: Some(object.head.freshness.ttl_secs(self.clock.now())),
            detail: Some("part"),
            ..CacheStatus::default()
        };
        self.store.promote(object.head.key.hash());
        let serving = self.serving(admitted, parts, status, false);
        Some((Outcome::Hit, answer(&serving, &object, reuse)))
    }

    /// A stale part, where the origin fails.
    async fn stale_part(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        fwd: Option<(Fwd, Option<u16>)>,
    ) -> Option<Answered> {
        let (object, reuse) = self.find_part(admitted, parts, |object| self.may_stand_in(object)).await?;
        let status = self.stale_status(&object, fwd, "stale-if-error");
        let serving = self.serving(admitted, parts, status, false);
        Some((Outcome::HitStale, answer(&serving, &object, reuse)))
    }

    /// The newest part that `may_be_used` and holds what is asked for.
    async fn find_part(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        may_be_used: impl Fn(&Object) -> bool,
    ) -> Option<(Arc<Object>, Reuse)> {
        let entry = self.store.load(&key_of(&admitted.key)).await?;
        let now = self.clock.now();
        let is_usable = |object: &&Arc<Object>| {
            let validators = object.head.validators();
            may_be_used(object)
                && object.head.vary.matches_but_for(&header::RANGE, &parts.headers, &object.head.variant)
                // What a condition comes to is better said by the origin.
                && conditional::evaluate(&parts.method, &parts.headers, &validators, now) == Proceed
                && conditional::if_range_holds(&parts.headers, &validators, now)
        };
        let (object, reuse) = entry.variants().iter().filter(is_usable).find_map(|object| {
            let reuse = reusable(object, &parts.headers)?;
            Some((object, reuse))
        })?;
        object.body.is_readable().await.then(|| (object.clone(), reuse))
    }

    /// A range of what is not there, asked of the origin as it is; a 206 is stored as a part.
    pub(super) async fn forward_range(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        fwd: Fwd,
    ) -> Answered {
        let key = key_of(&admitted.key);
        if self.collapse.has_failed(key.hash(), self.clock.now())
            && let Some(answered) = self.stale_part(admitted, parts, None).await
        {
            return answered;
        }
        let status = CacheStatus { fwd: Some(fwd), detail: Some("range"), ..CacheStatus::default() };
        let (request_time, version) = (self.clock.now(), self.store.version());
        let (as_of, begun) = (self.purges.applied(), Instant::now());
        let asked = self.ask_for_range(admitted, parts).await;
        let code = asked.as_ref().ok().map(Response::status);
        if code.is_none_or(is_failure)
            && let fwd = Some((Fwd::Stale, code.map(|code| code.as_u16())))
            && let Some(answered) = self.stale_part(admitted, parts, fwd).await
        {
            self.collapse.mark_failed(key.hash(), begun.elapsed(), self.clock.now());
            return answered;
        }
        let response = match asked {
            Ok(response) => response,
            Err(error) => return self.unanswered(parts, &error, error.status(), &status),
        };
        let status = CacheStatus { fwd_status: Some(response.status().as_u16()), ..status };
        if !is_part(&response) {
            return (Outcome::Miss, self.passed(admitted, response, &status));
        }
        let response_time = self.clock.now();
        let answer = Answer { kind: Kind::Part, key, response, request_time, response_time, version };
        let kept = CacheStatus { detail: None, ..status };
        match self.keep(admitted, parts, answer, as_of, &kept) {
            Ok(response) => (Outcome::Miss, response),
            Err(response) => (Outcome::Miss, self.passed(admitted, *response, &status)),
        }
    }

    async fn ask_for_range(
        &self,
        admitted: &Admitted,
        parts: &Parts,
    ) -> Result<Response<OriginBody>, OriginError> {
        let request = self.to_origin(admitted, &Method::GET, &parts.headers, super::forward::Purpose::Pass);
        let mut response = interim::send(&admitted.treatment.origin, request, parts).await?;
        framing::check(&mut response, admitted.treatment.reject_unknown_transfer_coding)?;
        response.body_mut().opened().await?;
        Ok(response)
    }
}

/// Whether an answer is a part that can be stored: no longer than it says.
fn is_part(response: &Response<OriginBody>) -> bool {
    let length = response.body().size_hint().exact();
    response.status() == StatusCode::PARTIAL_CONTENT
        && partial::of_headers(response.headers())
            .is_some_and(|promised| length.is_none_or(|length| length <= promised.length()))
}

/// What of a part is to be served.
enum Reuse {
    /// All of it, as it was.
    AsItWas,
    /// These positions of the whole.
    Positions(Partial, Range<u64>),
}

fn reusable(object: &Object, request: &HeaderMap) -> Option<Reuse> {
    let promised = partial::of_headers(&object.head.headers)?;
    let there = partial::stored_range(&object.head.headers, object.body.len())?;
    if object.body.len() > promised.length() {
        return None;
    }
    // Also when the origin sent less than it promised: who asks for the same gets the same.
    if object.head.vary.key(request) == object.head.variant {
        return Some(Reuse::AsItWas);
    }
    let wanted =
        partial::subset(&there, request).or_else(|| partial::open_end(&promised, &there, request))?;
    Some(Reuse::Positions(there, wanted))
}

fn answer(serving: &Serving<'_>, object: &Object, reuse: Reuse) -> Response<Body> {
    let mut response = respond::from_object(serving, object);
    let Reuse::Positions(there, wanted) = reuse else { return response };
    let complete = there.complete.map_or("*".to_owned(), |complete| complete.to_string());
    let content_range = format!("bytes {}-{}/{complete}", wanted.start, wanted.end - 1);
    if let Ok(value) = HeaderValue::try_from(content_range) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, (wanted.end - wanted.start).into());
    let range = wanted.start - there.range.start..wanted.end - there.range.start;
    *response.body_mut() = Body::stored(object.body.clone(), range);
    response
}
