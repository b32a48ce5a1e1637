//! Answers without the whole: from slices, from a stored part, or from an origin that is asked for the range.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};

use super::admit::Admitted;
use super::body::Body;
use super::config::RangeMiss;
use super::refusal::{Reason, Refusal};
use super::{Edge, Outcome};
use crate::object::Object;
use crate::rules::cache_status::{CacheStatus, Fwd};

type Answered = (Outcome, Response<Body>);

impl Edge {
    /// What can be answered without the whole, of which `base` is stored and can't be used as it is; `None`: it is to be
    /// fetched.
    pub(super) async fn by_parts(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<&Arc<Object>>,
        fwd: Fwd,
    ) -> Option<Answered> {
        if let Some(answered) = self.from_pieces(admitted, parts, base).await {
            return Some(answered);
        }
        if forwards_range(admitted, parts) && base.is_none()
            || parts.headers.contains_key(header::RANGE)
                && self.collapse.is_too_large(admitted.key.hash(), self.clock.now())
        {
            return Some(match self.count_miss(admitted) {
                Ok(()) => self.forward_range(admitted, parts, fwd).await,
                Err(refusal) => self.refused(parts, &refusal, &CacheStatus::default()),
            });
        }
        None
    }

    /// The answer to a client that wants nothing but what is stored, when that is no usable whole.
    pub(super) async fn only_stored(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<&Arc<Object>>,
    ) -> Answered {
        if parts.method == Method::GET
            && let Some(answered) = self.from_pieces(admitted, parts, base).await
        {
            return answered;
        }
        let detail = "the request asks for a stored response and there is none to use";
        let refusal = Refusal::new(Reason::OnlyIfCached, StatusCode::GATEWAY_TIMEOUT, detail);
        self.refused(parts, &refusal, &CacheStatus::default())
    }

    /// From slices, or from a part that is newer than the whole.
    async fn from_pieces(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<&Arc<Object>>,
    ) -> Option<Answered> {
        if let Some(sliced) = self.collapse.sliced(admitted.key.hash())
            && base.is_none()
            && let Some(answered) = self.from_slices(admitted, parts, &sliced).await
        {
            return Some(answered);
        }
        if forwards_range(admitted, parts) { self.stored_part(admitted, parts, base).await } else { None }
    }
}

fn forwards_range(admitted: &Admitted, parts: &Parts) -> bool {
    parts.headers.contains_key(header::RANGE) && admitted.treatment.range_miss == RangeMiss::Forward
}
