//! Whether clients choose the coding of something is decided when it is stored. Another configuration may decide
//! otherwise: that is looked at once, by the first hit under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::header;

use super::Edge;
use super::config::Treatment;
use crate::object::{Head, Object, Offer};
use crate::rules::encoding::Coding;
use crate::rules::vary::{self, Vary};

/// The number of a configuration; no two of the process have the same, and none has 0.
pub(super) fn next_epoch() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl Edge {
    /// What takes an object's place under this configuration, if anything does.
    #[inline]
    pub(super) fn settled(
        self: &Arc<Self>,
        treatment: &Arc<Treatment>,
        object: &Arc<Object>,
    ) -> Option<Arc<Object>> {
        if object.settled() == self.epoch { None } else { self.settle(treatment, object) }
    }

    #[cold]
    fn settle(self: &Arc<Self>, treatment: &Arc<Treatment>, object: &Arc<Object>) -> Option<Arc<Object>> {
        object.set_settled(self.epoch);
        let head = &object.head;
        let offer = treatment.compress.offer(head.status, &head.headers, Some(object.body.len()));
        let before = head.negotiated.map(|negotiated| negotiated.offer);
        let is_made = [offer, before].into_iter().flatten().any(|offer| offer.is_made);
        let settled = (offer != before && !(is_made && selects_by_coding(head)))
            .then(|| self.under(object, offer))
            .flatten();
        // It may not have been wanted as a dictionary before.
        self.keep_dictionary(treatment, settled.as_ref().unwrap_or(object));
        settled
    }

    /// The same body under a head that says so; `None`: it is not what is stored any more.
    fn under(&self, object: &Arc<Object>, offer: Option<Offer>) -> Option<Arc<Object>> {
        let old = &object.head;
        let selecting = (old.vary.clone(), old.variant.clone());
        let mut head = Head::new(old.key.clone(), old.status, old.fields(), selecting, old.freshness.clone());
        (head.version, head.generation, head.as_of) = (old.version, old.generation, old.as_of);
        head.tags = old.tags.clone();
        if let Some(offer) = offer {
            head.negotiate(offer);
        }
        let settled = Arc::new(object.renewed(Arc::new(head), self.store.gauge()));
        (self.store.replace(object, settled.clone()) && self.survives(&settled)).then_some(settled)
    }
}

/// Whether the origin has one for each coding, or one in a coding of its own: then it stays as it was stored until it is
/// fetched again, since other requests than before would select it.
fn selects_by_coding(head: &Head) -> bool {
    let is_encoded = head.negotiated.is_some_and(|negotiated| negotiated.offer.coding != Coding::Identity);
    let is_named = match vary::parse(&head.fields()) {
        Vary::Any => true,
        Vary::Fields(rule) => rule.names().contains(&header::ACCEPT_ENCODING),
    };
    is_encoded || is_named
}
