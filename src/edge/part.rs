//! Stored parts: a 206 that an origin gave to a client's own Range, and what can be answered from it
//! (RFC 9111 §3.3, RFC 9110 §15.3.7).
//!
//! A part lies under a key of its own beside the whole's. The newest part replaces the one before it.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::admit::Admitted;
use super::body::Body;
use super::fill::{Answer, Kind};
use super::respond::{self, Serving};
use super::{Edge, Outcome, framing, interim};
use crate::object::Object;
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::conditional;
use crate::rules::key::CacheKey;
use crate::rules::partial::{self, Partial};

type Answered = (Outcome, Response<Body>);

fn key_of(whole: &CacheKey) -> CacheKey {
    whole.part("part")
}

impl Edge {
    /// The answer from a stored part, when all that is asked for is there.
    pub(super) async fn from_part(&self, admitted: &Admitted, parts: &Parts) -> Option<Answered> {
        let key = key_of(&admitted.key);
        let entry = self.store.load(&key).await?;
        let object = entry.select(&parts.headers).filter(|object| self.is_fresh(object))?;
        let now = self.clock.now();
        // What a condition comes to is better said by the origin.
        let evaluated = conditional::evaluate(&parts.method, &parts.headers, &object.head.validators(), now);
        if evaluated != conditional::Outcome::Proceed
            || !conditional::if_range_holds(&parts.headers, &object.head.validators(), now)
            || !object.body.is_readable().await
        {
            return None;
        }
        let promised = partial::of_headers(&object.head.headers)?;
        let there = partial::stored_range(&object.head.headers, object.body.len())?;
        let status = CacheStatus {
            hit: true,
            ttl: Some(object.head.freshness.ttl_secs(now)),
            detail: Some("part"),
            ..CacheStatus::default()
        };
        self.store.promote(key.hash());
        let serving = self.serving(admitted, parts, status, false);
        if let Some(wanted) = partial::subset(&there, &parts.headers) {
            return Some((Outcome::Hit, answer(&serving, object, &there, &wanted)));
        }
        // The origin sent less than it promised; who asks for the same gets the same.
        let is_the_same = partial::subset(&promised, &parts.headers) == Some(promised.range);
        is_the_same.then(|| (Outcome::Hit, respond::from_object(&serving, object)))
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
        let mut response = match interim::send(&admitted.treatment.origin, request, parts).await {
            Ok(response) => response,
            Err(error) => return self.unanswered(parts, &error, error.status(), &status),
        };
        if let Err(error) = framing::check(&mut response, admitted.treatment.reject_unknown_transfer_coding) {
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
        match self.keep(admitted, parts, answer, &kept) {
            Ok(response) => (Outcome::Miss, response),
            Err(response) => (Outcome::Miss, self.passed(admitted, *response, &status)),
        }
    }
}

fn answer(
    serving: &Serving<'_>,
    object: &Object,
    there: &Partial,
    wanted: &std::ops::Range<u64>,
) -> Response<Body> {
    let mut response = respond::from_object(serving, object);
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
