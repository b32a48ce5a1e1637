//! Stored parts: a 206 that an origin gave to a client's own Range, and what can be answered from it
//! (RFC 9111 §3.3, RFC 9110 §15.3.7).
//!
//! Parts lie under a key of their own beside the whole's, a variant for each range that was asked for.

use std::ops::Range;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::admit::Admitted;
use super::body::Body;
use super::fill::{Answer, Kind};
use super::respond::{self, Serving};
use super::{Edge, Outcome, framing, interim};
use crate::object::Object;
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::conditional::{self, Outcome::Proceed};
use crate::rules::key::CacheKey;
use crate::rules::partial::{self, Partial};

type Answered = (Outcome, Response<Body>);

fn key_of(whole: &CacheKey) -> CacheKey {
    whole.part("part")
}

impl Edge {
    /// The answer from a stored part, when all that is asked for is there.
    pub(super) async fn stored_part(&self, admitted: &Admitted, parts: &Parts) -> Option<Answered> {
        let key = key_of(&admitted.key);
        let entry = self.store.load(&key).await?;
        let now = self.clock.now();
        let is_usable = |object: &&Arc<Object>| {
            let validators = object.head.validators();
            self.is_fresh(object)
                && object.head.vary.matches_but_for(&header::RANGE, &parts.headers, &object.head.variant)
                // What a condition comes to is better said by the origin.
                && conditional::evaluate(&parts.method, &parts.headers, &validators, now) == Proceed
                && conditional::if_range_holds(&parts.headers, &validators, now)
        };
        let (object, wanted) = entry.variants().iter().filter(is_usable).find_map(|object| {
            let wanted = reusable(object, &parts.headers)?;
            Some((object, wanted))
        })?;
        if !object.body.is_readable().await {
            return None;
        }
        let status = CacheStatus {
            hit: true,
            ttl: Some(object.head.freshness.ttl_secs(now)),
            detail: Some("part"),
            ..CacheStatus::default()
        };
        self.store.promote(key.hash());
        let serving = self.serving(admitted, parts, status, false);
        Some((Outcome::Hit, answer(&serving, object, wanted)))
    }

    /// A range of what is not there, asked of the origin as it is; a 206 is stored as a part.
    pub(super) async fn forward_range(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        fwd: Fwd,
    ) -> Answered {
        let status = CacheStatus { fwd: Some(fwd), detail: Some("range"), ..CacheStatus::default() };
        let request = self.to_origin(admitted, &Method::GET, &parts.headers, super::forward::Purpose::Pass);
        let (request_time, version) = (self.clock.now(), self.store.version());
        let as_of = self.purges.applied();
        let mut response = match interim::send(&admitted.treatment.origin, request, parts).await {
            Ok(response) => response,
            Err(error) => return self.unanswered(parts, &error, error.status(), &status),
        };
        if let Err(error) = framing::check(&mut response, admitted.treatment.reject_unknown_transfer_coding) {
            return self.unanswered(parts, &error, error.status(), &status);
        }
        if let Err(error) = response.body_mut().opened().await {
            return self.unanswered(parts, &error, error.status(), &status);
        }
        let status = CacheStatus { fwd_status: Some(response.status().as_u16()), ..status };
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT
            && partial::of_headers(response.headers()).is_some();
        if !is_part {
            return (Outcome::Miss, self.passed(admitted, response, &status));
        }
        let (key, response_time) = (key_of(&admitted.key), self.clock.now());
        let answer = Answer { kind: Kind::Part, key, response, request_time, response_time, version };
        let kept = CacheStatus { detail: None, ..status };
        match self.keep(admitted, parts, answer, as_of, &kept) {
            Ok(response) => (Outcome::Miss, response),
            Err(response) => (Outcome::Miss, self.passed(admitted, *response, &status)),
        }
    }
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
