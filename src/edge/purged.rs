//! Was it purged? Objects, flights and answers on their way are compared with the purges that came after
//! they were asked for; nothing is looked for when a purge comes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;

use super::Edge;
use super::admit::Admitted;
use super::flight::Flight;
use crate::object::{Head, Object};
use crate::purge::{Probe, Purge, Request, Selector, Source, Subject, Verdict};
use crate::rules::key::CacheKey;
use crate::rules::tags;

impl Edge {
    /// Whether a stored response outlives all purges; a soft one makes it stale. One load, when there was no purge
    /// since it was looked at last.
    #[inline]
    pub(super) fn survives(&self, object: &Object) -> bool {
        let applied = self.purges.applied();
        object.checked() == applied || self.compare(object, applied)
    }

    #[cold]
    fn compare(&self, object: &Object, applied: u64) -> bool {
        match self.verdict(object.head.key.canonical(), &object.head.tags, object.checked()) {
            Verdict::Kept => object.set_checked(applied, None),
            Verdict::Soft { at } => object.set_checked(applied, Some(at)),
            Verdict::Hard => return false,
        }
        true
    }

    /// Whether what a flight brings was purged, or changed by an unsafe request, after its origin was asked: nobody who comes
    /// now may have it.
    pub(super) fn is_outdated(&self, key: &CacheKey, flight: &Flight) -> bool {
        if flight.is_outdated.load(Relaxed) {
            return true;
        }
        if flight.as_of() == self.purges.applied() {
            return false;
        }
        let head = flight.head();
        let tags = head.as_ref().map_or(&[][..], |head| &head.tags);
        self.verdict(key.canonical(), tags, flight.as_of()) != Verdict::Kept
    }

    /// Whether a response was purged for good after `as_of`.
    pub(super) fn is_gone(&self, head: &Head, as_of: u64) -> bool {
        as_of != self.purges.applied()
            && self.verdict(head.key.canonical(), &head.tags, as_of) == Verdict::Hard
    }

    /// The soft purge that made a stored response stale, as long as it is remembered: the first that came after its fetch.
    pub(super) fn soft_purge_of(&self, object: &Object) -> Option<Arc<Purge>> {
        let subject = self.subject(object.head.key.canonical(), &object.head.tags);
        let newer = self.purges.list(None, usize::MAX).into_iter().take_while(|p| p.seq > object.head.as_of);
        let hits = |purge: &Arc<Purge>| {
            let asked = &purge.request;
            asked.soft && Probe::new(&asked.selectors, asked.site.as_deref()).hits(&subject)
        };
        newer.filter(hits).last()
    }

    /// What newer purges say of what is stored under a canonical URL.
    pub(super) fn verdict(&self, key: &str, tags: &[Box<str>], as_of: u64) -> Verdict {
        self.purges.check(&self.subject(key, tags), as_of)
    }

    /// What is stored under a canonical URL, as purges see it.
    pub(super) fn subject<'a>(&'a self, key: &'a str, tags: &'a [Box<str>]) -> Subject<'a> {
        // Slices and parts have the URL of their whole.
        let url = key.split_once('#').map_or(key, |(url, _)| url);
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let site = self.sites.find(host).map_or("", |site| &site.name);
        Subject { site, host, path, query, tags }
    }

    /// RFC 9875 §3: the groups that the answer to an unsafe request invalidates.
    pub(super) async fn invalidate_groups(&self, admitted: &Admitted, response: &HeaderMap) {
        let groups = tags::invalidated_groups(response);
        let selectors: Vec<Selector> = groups.iter().filter_map(|group| Selector::tag(group).ok()).collect();
        if selectors.is_empty() {
            return;
        }
        let request = Request {
            site: Some((&*admitted.site.name).into()),
            selectors,
            soft: false,
            note: Some("Cache-Group-Invalidation".into()),
            who: "origin".into(),
            from: Some(admitted.client.address),
            source: Source::Origin,
        };
        if let Err(error) = self.purges.purge(request).await {
            tracing::warn!(%error, "groups could not be invalidated");
        }
    }
}

/// The tags of an answer, and its head without the fields that clients are not to see.
pub(super) fn take_tags(admitted: &Admitted, headers: &mut HeaderMap) -> Arc<[Box<str>]> {
    let rule = &admitted.site.purge.tags;
    let tags = rule.tags(headers).into();
    rule.strip(headers);
    tags
}
