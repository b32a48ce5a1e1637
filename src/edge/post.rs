//! The answer to a POST that may stand for a GET of the same URL (RFC 9110 §9.3.3).

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response};

use super::admit::Admitted;
use super::body::Body;
use super::collapse::Lead;
use super::fill::{Answer, Fill, Kind};
use super::{Edge, respond};
use crate::origin::OriginBody;
use crate::rules::cache_status::CacheStatus;
use crate::rules::time::Millis;

impl Edge {
    /// Streams the answer to a POST to its client and into the store, as a fill that nobody else follows.
    ///
    /// # Errors
    /// The answer as it is, when it is not to be stored: by the site, by the rules, or for want of room.
    pub(super) fn keep_post(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        response: Response<OriginBody>,
        (request_time, as_of): (Millis, u64),
        status: &CacheStatus<'_>,
    ) -> Result<Response<Body>, Box<Response<OriginBody>>> {
        let treatment = &admitted.treatment;
        if parts.method != Method::POST || !treatment.policy.cache_post || treatment.pass {
            return Err(Box::new(response));
        }
        let response_time = self.clock.now();
        let version = self.store.version();
        let key = admitted.key.clone();
        let answer = Answer { kind: Kind::Post, key, response, request_time, response_time, version };
        self.keep(admitted, parts, answer, as_of, status)
    }

    /// Streams an answer to its client and into the store, as a fill that nobody else follows.
    ///
    /// # Errors
    /// The answer as it is, when it is not to be stored.
    pub(super) fn keep(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        answer: Answer,
        as_of: u64,
        status: &CacheStatus<'_>,
    ) -> Result<Response<Body>, Box<Response<OriginBody>>> {
        let mut fill = Fill::new(self, admitted, &parts.headers, Lead::alone(as_of));
        let Ok((head, Some(deposit))) = fill.accept(&answer) else { return Err(Box::new(answer.response)) };
        let head = Arc::new(head);
        let status = CacheStatus { stored: true, ..*status };
        // It follows before the fill begins, which would find nobody to read for.
        let serving = self.serving(admitted, parts, status, true);
        let response = respond::from_flight(&serving, &head, &fill.lead.flight);
        tokio::spawn(fill.stream(answer.response.into_body(), head, Some(deposit)));
        Ok(response)
    }
}
