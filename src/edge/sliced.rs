//! What is there of a response that is kept in slices: for who asks about it, and for warming.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::Edge;
use super::admit::Admitted;
use super::explain::{Explanation, lifetime, names};
use super::inspect::{Variant, describe};
use super::slices::Sliced;
use crate::object::Object;
use crate::rules::freshness::State;
use crate::rules::key::CacheKey;
use crate::rules::time::Millis;
use crate::store::Wanted;

/// Slices of one response that are looked at, and that are wanted at once.
const MAX_LOOKED_AT: u64 = 10_000;
/// Between two moments at which other work of the thread goes on.
const YIELD_EVERY: u64 = 64;

/// How much of a response is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Slices {
    /// Slices that are stored, of the first ten thousand.
    pub stored: u64,
    /// Slices that it has.
    pub of: u64,
    /// Bytes of the whole.
    pub length: u64,
}

/// What was found of a response.
#[derive(Debug, Default)]
pub(super) struct InSlices {
    pub(super) slices: Slices,
    /// Of what is stored.
    pub(super) bytes: u64,
    /// Whether no slice is missing or stale, of those that were looked at.
    pub(super) is_whole: bool,
    /// The slice that is stale first.
    soonest: Option<Arc<Object>>,
    /// Whether any of them lies on disk, and in which segments.
    tier: &'static str,
    segments: Vec<u32>,
}

impl InSlices {
    /// The response that they make; `None`: none is stored.
    pub(super) fn described(&self, key: &CacheKey, now: Millis) -> Option<Variant> {
        let slice = describe(self.soonest.as_ref()?, now);
        Some(Variant {
            key: key.canonical().to_owned(),
            status: StatusCode::OK.as_u16(),
            tier: self.tier,
            segments: self.segments.clone(),
            size: self.bytes,
            slices: Some(self.slices),
            ..slice
        })
    }

    fn take(&mut self, object: &Arc<Object>, now: Millis) {
        let found = describe(object, now);
        self.slices.stored += 1;
        self.bytes += found.size;
        if self.soonest.is_none() || found.tier == "disk" {
            self.tier = found.tier;
        }
        self.segments.extend(found.segments);
        let ends = |object: &Object| object.freshness().fresh_until;
        if self.soonest.as_ref().is_none_or(|soonest| ends(object) < ends(soonest)) {
            self.soonest = Some(object.clone());
        }
    }
}

impl Edge {
    /// What is stored of a response in slices, for a request or for any.
    pub(super) async fn in_slices(
        &self,
        key: &CacheKey,
        sliced: &Sliced,
        request: Option<&HeaderMap>,
    ) -> InSlices {
        let of = sliced.length.div_ceil(sliced.size);
        let slices = Slices { stored: 0, of, length: sliced.length };
        let mut found = InSlices { slices, is_whole: true, ..InSlices::default() };
        for index in 0..of.min(MAX_LOOKED_AT) {
            let slice = self.slice_in_store(key, sliced, request, index).await;
            let now = self.clock.now();
            found.is_whole &= slice.as_ref().is_some_and(|slice| slice.state(now) == State::Fresh);
            if let Some(slice) = slice {
                found.take(&slice, now);
            }
            if index % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
        }
        found.segments.sort_unstable();
        found.segments.dedup();
        found
    }

    async fn slice_in_store(
        &self,
        key: &CacheKey,
        sliced: &Sliced,
        request: Option<&HeaderMap>,
        index: u64,
    ) -> Option<Arc<Object>> {
        let entry = self.store.load(&sliced.key(key, index)).await?;
        let object = match request {
            Some(request) => entry.select(request),
            None => entry.variants().first(),
        };
        let is_slice = |object: &&Arc<Object>| self.survives(object) && sliced.is_stored_as(index, object);
        object.filter(is_slice).cloned()
    }

    /// Has each slice enter the store whatever its admission, for a job that warms.
    pub(super) fn want_slices(&self, key: &CacheKey, job: u64) -> Vec<Wanted> {
        let Some(sliced) = self.collapse.sliced(key.hash()) else { return Vec::new() };
        let all = 0..sliced.length.div_ceil(sliced.size).min(MAX_LOOKED_AT);
        all.map(|index| self.store.want(&sliced.key(key, index), job)).collect()
    }

    /// What a request for a response in slices comes to; false: nothing is known of slices, or none is stored.
    pub(super) async fn explain_slices(
        &self,
        admitted: &Admitted,
        request: &HeaderMap,
        told: &mut Explanation,
    ) -> bool {
        let Some(sliced) = self.collapse.sliced(admitted.key.hash()) else { return false };
        let found = self.in_slices(&admitted.key, &sliced, Some(request)).await;
        let Some(object) = &found.soonest else { return false };
        let first = self.slice_in_store(&admitted.key, &sliced, Some(request), sliced.first(request)).await;
        let is_hit = first.is_some_and(|first| self.is_fresh(&first));
        let Slices { stored, of, .. } = found.slices;
        let how_much = format!("it is kept in slices, and {stored} of {of} are stored");
        (told.result, told.detail) = if is_hit {
            ("hit", format!("{how_much}; what else a request needs is fetched while it is answered"))
        } else {
            ("miss", format!("{how_much}, but not, or not fresh, the one that the answer begins with"))
        };
        let now = self.clock.now();
        told.vary = names(object);
        told.is_stored = Some(true);
        told.freshness = Some(lifetime(&object.freshness(), &object.head.headers, now));
        told.stored = found.described(&admitted.key, now);
        true
    }
}
