//! What does the store have for this request, and may it be used?

use std::sync::Arc;
use std::task::Poll;

use http::{HeaderMap, header};

use super::Edge;
use super::admit::Admitted;
use super::negotiate;
use crate::object::Object;
use crate::rules::directives::Directives;
use crate::rules::freshness::State;
use crate::rules::key::CacheKey;
use crate::rules::time::Millis;
use crate::rules::{language, request};
use crate::store::Entry;

/// What was found.
pub(super) enum Found {
    /// Usable as it is.
    Fresh(Arc<Object>),
    /// Usable while it is revalidated (RFC 5861 §3).
    Stale(Arc<Object>),
    /// To be validated before use.
    Revalidate(Arc<Object>),
    /// The URL is stored, but not for requests like this one.
    OtherVariant,
    /// Perhaps on disk, where it has to be waited for.
    Cold,
    /// Nothing.
    Absent,
    /// No usable whole, and the client wants nothing that is not stored (RFC 9111 §5.2.1.7); with what is stored.
    OnlyIfCached(Option<Arc<Object>>),
}

impl Edge {
    #[inline]
    pub(super) fn lookup(&self, admitted: &Admitted, request: &HeaderMap, now: Millis) -> Found {
        let entry = match self.store.get(&admitted.key) {
            Some(entry) => Some(entry),
            // What is in the page cache is a hit like any other.
            None => match self.store.load_now(&admitted.key) {
                Poll::Ready(entry) => entry,
                Poll::Pending => return Found::Cold,
            },
        };
        let found = judge(self, entry.as_deref(), admitted, request, now);
        match &found {
            Found::Fresh(object) | Found::Stale(object) | Found::Revalidate(object)
                if object.is_mapped() && !negotiate::body_of(object, request, admitted).is_ready() =>
            {
                Found::Cold
            }
            _ => found,
        }
    }

    /// The same once what is on disk has been read: what can't be is not there. Before the head is sent, and before the
    /// origin is asked whether it is still right.
    pub(super) async fn load(&self, admitted: &Admitted, request: &HeaderMap) -> Found {
        let entry = self.store.load(&admitted.key).await;
        let found = judge(self, entry.as_deref(), admitted, request, self.clock.now());
        match found {
            Found::Fresh(object) | Found::Stale(object) | Found::Revalidate(object)
                if !negotiate::body_of(&object, request, admitted).is_readable().await =>
            {
                judge(self, None, admitted, request, self.clock.now())
            }
            found => found,
        }
    }

    /// A leader's second look: what has landed since its request looked, and the memory tier did not keep, is on
    /// disk or on its way there. Nothing that is no newer than `base`.
    pub(super) async fn landed(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        base: Option<&Arc<Object>>,
    ) -> Option<Arc<Object>> {
        if self.store.get(key).is_some() || !self.store.may_load(key) {
            return None;
        }
        let entry = self.store.load(key).await?;
        let object = entry.select(request)?;
        let is_newer = base.is_none_or(|base| object.head.version > base.head.version);
        (is_newer && self.is_fresh(object) && object.body.is_readable().await).then(|| object.clone())
    }

    /// Whether a stale response may be served because the origin fails.
    pub(super) fn may_stand_in(&self, object: &Object) -> bool {
        self.survives(object) && object.may_serve_on_error(self.clock.now())
    }

    /// Whether the origin failed a moment ago, and this stands in for it without another try.
    pub(super) fn stands_in(&self, object: &Object) -> bool {
        self.collapse.has_failed(object.head.key.hash(), self.clock.now()) && self.may_stand_in(object)
    }

    /// Whether a stored response may be used without asking anybody.
    pub(super) fn is_fresh(&self, object: &Object) -> bool {
        self.survives(object) && object.state(self.clock.now()) == State::Fresh
    }

    /// What may be done with a part or a slice for this request.
    pub(super) fn state_for(&self, admitted: &Admitted, request: &HeaderMap, object: &Object) -> State {
        let now = self.clock.now();
        if !self.survives(object) {
            State::MustRevalidate
        } else if admitted.treatment.policy.honor_request_cache_control && !object.is_invalidated() {
            request::state(&Directives::parse(request), &object.freshness(), now)
        } else {
            object.state(now)
        }
    }
}

/// Whether the client wants nothing that would have to be fetched.
pub(super) fn wants_only_stored(admitted: &Admitted, request: &HeaderMap) -> bool {
    admitted.treatment.policy.honor_request_cache_control && Directives::parse(request).only_if_cached
}

#[inline]
fn judge(edge: &Edge, entry: Option<&Entry>, admitted: &Admitted, request: &HeaderMap, now: Millis) -> Found {
    let found = find(edge, entry, admitted, request, now);
    if !admitted.treatment.policy.honor_request_cache_control {
        return found;
    }
    let directives = Directives::parse(request);
    let found = match found {
        Found::Fresh(object) | Found::Stale(object) | Found::Revalidate(object)
            if !object.is_invalidated() =>
        {
            match request::state(&directives, &object.freshness(), now) {
                State::Fresh => Found::Fresh(object),
                State::StaleWhileRevalidate => Found::Stale(object),
                State::MustRevalidate => Found::Revalidate(object),
            }
        }
        found => found,
    };
    match found {
        Found::Revalidate(object) if directives.only_if_cached => Found::OnlyIfCached(Some(object)),
        Found::OtherVariant | Found::Absent if directives.only_if_cached => Found::OnlyIfCached(None),
        found => found,
    }
}

#[inline]
fn find(edge: &Edge, entry: Option<&Entry>, admitted: &Admitted, request: &HeaderMap, now: Millis) -> Found {
    let Some(entry) = entry else { return Found::Absent };
    let Some(object) = entry.select(request) else {
        let chosen = by_language(edge, admitted, entry, request, now);
        return chosen.map_or(Found::OtherVariant, Found::Fresh);
    };
    if !edge.survives(object) {
        edge.store.end_hold_of_purged(entry);
        edge.store.remove(object);
        return Found::Absent;
    }
    match object.state(now) {
        State::Fresh => Found::Fresh(object.clone()),
        State::StaleWhileRevalidate => Found::Stale(object.clone()),
        State::MustRevalidate => Found::Revalidate(object.clone()),
    }
}

/// A fresh response that was stored for another Accept-Language and is this client's first choice all the same.
fn by_language(
    edge: &Edge,
    admitted: &Admitted,
    entry: &Entry,
    request: &HeaderMap,
    now: Millis,
) -> Option<Arc<Object>> {
    if !admitted.treatment.policy.accept_language_select {
        return None;
    }
    let is_chosen = |object: &&Arc<Object>| {
        let head = &object.head;
        edge.survives(object)
            && object.state(now) == State::Fresh
            && language::selects(request, &head.headers)
            && head.vary.matches_but_for(&header::ACCEPT_LANGUAGE, request, &head.variant)
    };
    entry.variants().iter().find(is_chosen).cloned()
}
