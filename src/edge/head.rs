//! HEAD of what is not fresh.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::admit::Admitted;
use super::body::Body;
use super::miss::Fetched;
use super::{Edge, Outcome};
use crate::object::Object;
use crate::rules::cache_status::{CacheStatus, Fwd};

impl Edge {
    /// From a fetch of the whole that is under way; else forwarded as HEAD.
    pub(super) async fn head_of(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<Arc<Object>>,
    ) -> (Outcome, Response<Body>) {
        if let Some(flight) = self.collapse.flight(admitted.key.hash(), &parts.headers) {
            let fwd = if base.is_some() { Fwd::Stale } else { Fwd::UriMiss };
            let published = flight.join().published().await;
            let asked = Fetched { admitted, parts, fwd, is_leader: false };
            if let Some(answered) = self.land(&asked, &flight, published, None).await {
                return answered;
            }
        }
        match self.count_miss(admitted) {
            Ok(()) => self.head(admitted, parts, base).await,
            Err(refusal) => self.refused(parts, &refusal, &CacheStatus::default()),
        }
    }
}
