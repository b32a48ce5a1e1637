//! Answers from what is stored.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::Edge;
use super::admit::Admitted;
use super::body::Body;
use super::respond::{self, Serving};
use super::trail;
use crate::object::Object;
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::time::Millis;

impl Edge {
    #[inline]
    pub(super) fn hit(
        self: &Arc<Self>,
        admitted: &Admitted,
        parts: &Parts,
        object: &Arc<Object>,
        now: Millis,
    ) -> Response<Body> {
        let settled = self.settled(&admitted.treatment, object);
        let object = settled.as_ref().unwrap_or(object);
        self.store.promote(object.head.key.hash());
        trail::found(parts, object);
        object.touch(now);
        self.encode(&admitted.treatment, object);
        self.encode_against(&admitted.treatment, object, &parts.headers);
        let status = CacheStatus {
            hit: true,
            ttl: Some(object.head.freshness.ttl_secs(now)),
            detail: Some(object.tier()),
            ..CacheStatus::default()
        };
        let (node, metrics) = (&*self.config.node, &self.metrics);
        let serving = Serving { node, admitted, request: parts, status, now, is_validated: false, metrics };
        respond::hit(&serving, object)
    }

    pub(super) fn stale(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        object: &Object,
        fwd: Option<(Fwd, Option<u16>)>,
        detail: &str,
    ) -> Response<Body> {
        trail::found(parts, object);
        let status = self.stale_status(object, fwd, detail);
        respond::from_object(&self.serving(admitted, parts, status, false), object)
    }

    /// What is said of a stale response that is served.
    pub(super) fn stale_status<'a>(
        &self,
        object: &Object,
        fwd: Option<(Fwd, Option<u16>)>,
        detail: &'a str,
    ) -> CacheStatus<'a> {
        CacheStatus {
            hit: fwd.is_none(),
            fwd: fwd.map(|(fwd, _)| fwd),
            fwd_status: fwd.and_then(|(_, status)| status),
            ttl: Some(object.freshness().ttl_secs(self.clock.now())),
            detail: Some(detail),
            ..CacheStatus::default()
        }
    }

    pub(super) fn serving<'a>(
        &'a self,
        admitted: &'a Admitted,
        request: &'a Parts,
        status: CacheStatus<'a>,
        is_validated: bool,
    ) -> Serving<'a> {
        let (node, metrics, now) = (&*self.config.node, &self.metrics, self.clock.now());
        Serving { node, admitted, request, status, now, is_validated, metrics }
    }
}
